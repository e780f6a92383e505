//! What is in volumes whose files come from objects: `configMap`, `secret`, `downwardAPI`, `projected`. Pure; what
//! they refer to is fetched before.

use super::payload::{Entry, Payload};
use crate::pod::environment::{Sources, field_value, resource_value};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    ServiceAccountTokenProjection, Volume,
};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Mode of files that name none.
const DEFAULT_MODE: i32 = 0o644;
/// Mode of tokens when it is known whose they are.
const PRIVATE: u32 = 0o600;
/// How long a token lives that names no time, in seconds, as the API's default has it.
const TOKEN_SECONDS: i64 = 3600;

/// What the files are made from.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Config maps and secrets by name, and the node's amounts.
    pub(super) sources: Sources,
    /// Tokens by what was asked for.
    pub(super) tokens: BTreeMap<TokenWish, String>,
}

/// A token that a volume shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenWish {
    /// Whom it is for; empty: the API server.
    pub(crate) audience: String,
    /// How long it lives, in seconds.
    pub(crate) seconds: i64,
}

impl TokenWish {
    /// What a projection asks for.
    pub(super) fn of(source: &ServiceAccountTokenProjection) -> Self {
        TokenWish {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(TOKEN_SECONDS),
        }
    }
}

/// Whose the files of a pod's volumes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// The user all containers run as, if the pod says so and they agree.
    pub(super) user: Option<u32>,
    /// `fsGroup`.
    pub(super) group: Option<u32>,
}

impl Owner {
    /// From the security contexts of a pod and its containers.
    pub(super) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Owner::default() };
        let of_pod = spec.security_context.as_ref();
        let user = |container: &Container| {
            let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
            own.or(of_pod.and_then(|context| context.run_as_user))
        };
        let mut users = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(user);
        let first = users.next().flatten();
        let agreed = first.filter(|first| users.all(|other| other == Some(*first)));
        Owner {
            user: agreed.and_then(|user| u32::try_from(user).ok()),
            group: of_pod.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok()),
        }
    }
}

/// Whether the files of a volume come from objects.
pub(super) fn is_written(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The files of a volume for which [`is_written`] holds.
///
/// # Errors
/// What is missing, as the `FailedMount` event tells it.
pub(super) fn of(volume: &Volume, pod: &Pod, objects: &Objects, owner: Owner) -> Result<Payload, String> {
    if let Some(source) = &volume.config_map {
        let choice = Choice::new(&source.items, source.default_mode, source.optional);
        config_map(&source.name, &choice, objects)
    } else if let Some(source) = &volume.secret {
        let choice = Choice::new(&source.items, source.default_mode, source.optional);
        secret(source.secret_name.as_deref().unwrap_or_default(), &choice, objects)
    } else if let Some(source) = &volume.downward_api {
        downward(source.items.as_deref().unwrap_or_default(), source.default_mode, pod, objects)
    } else if let Some(source) = &volume.projected {
        projected(source, pod, objects, owner)
    } else {
        Ok(Payload::new())
    }
}

fn projected(
    source: &ProjectedVolumeSource,
    pod: &Pod,
    objects: &Objects,
    owner: Owner,
) -> Result<Payload, String> {
    let mode = source.default_mode;
    let mut all = Payload::new();
    for part in source.sources.iter().flatten() {
        if let Some(source) = &part.config_map {
            all.extend(config_map(
                &source.name,
                &Choice::new(&source.items, mode, source.optional),
                objects,
            )?);
        }
        if let Some(source) = &part.secret {
            all.extend(secret(&source.name, &Choice::new(&source.items, mode, source.optional), objects)?);
        }
        if let Some(source) = &part.downward_api {
            all.extend(downward(source.items.as_deref().unwrap_or_default(), mode, pod, objects)?);
        }
        if let Some(source) = &part.service_account_token {
            let token = objects.tokens.get(&TokenWish::of(source)).ok_or("no token was issued")?;
            let is_private = owner != Owner::default();
            let entry = Entry {
                bytes: token.clone().into_bytes(),
                mode: if is_private { PRIVATE } else { permissions(None, mode) },
                user: owner.user,
            };
            all.insert(inside(&source.path)?, entry);
        }
        if part.cluster_trust_bundle.is_some() {
            return Err("clusterTrustBundle is not supported yet".into());
        }
    }
    Ok(all)
}

/// Which keys become files, and with what permissions.
struct Choice<'a> {
    items: &'a [KeyToPath],
    mode: Option<i32>,
    optional: bool,
}

impl<'a> Choice<'a> {
    fn new(items: &'a Option<Vec<KeyToPath>>, mode: Option<i32>, optional: Option<bool>) -> Self {
        Choice { items: items.as_deref().unwrap_or_default(), mode, optional: optional == Some(true) }
    }

    /// The files of `items`, or all.
    fn choose(&self, data: BTreeMap<String, Vec<u8>>, missing: &str) -> Result<Payload, String> {
        let entry = |bytes, mode| Entry { bytes, mode: permissions(mode, self.mode), user: None };
        if self.items.is_empty() {
            return Ok(data.into_iter().map(|(key, value)| (key, entry(value, None))).collect());
        }
        let mut payload = Payload::new();
        for item in self.items {
            match data.get(&item.key) {
                Some(value) => {
                    payload.insert(inside(&item.path)?, entry(value.clone(), item.mode));
                }
                None if self.optional => {}
                None => return Err(format!("{missing}: {}", item.key)),
            }
        }
        Ok(payload)
    }
}

fn config_map(name: &str, choice: &Choice<'_>, objects: &Objects) -> Result<Payload, String> {
    let found = objects.sources.config_maps.get(name).cloned().flatten();
    if found.is_none() && !choice.optional {
        return Err(format!("configmap \"{name}\" not found"));
    }
    let ConfigMap { data, binary_data, .. } = found.unwrap_or_default();
    let texts = data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let bytes = binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    choice.choose(texts.chain(bytes).collect(), "configmap references non-existent config key")
}

fn secret(name: &str, choice: &Choice<'_>, objects: &Objects) -> Result<Payload, String> {
    let found = objects.sources.secrets.get(name).cloned().flatten();
    if found.is_none() && !choice.optional {
        return Err(format!("secret \"{name}\" not found"));
    }
    let Secret { data, .. } = found.unwrap_or_default();
    let data = data.into_iter().flatten().map(|(key, value)| (key, value.0));
    choice.choose(data.collect(), "references non-existent secret key")
}

fn downward(
    files: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
    pod: &Pod,
    objects: &Objects,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for file in files {
        let text = if let Some(field) = &file.field_ref {
            match field.field_path.as_str() {
                "metadata.labels" => lines(pod.metadata.labels.as_ref()),
                "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
                _ => field_value(pod, field, &objects.sources)?,
            }
        } else if let Some(field) = &file.resource_field_ref {
            resource_value(pod, &Container::default(), field, &objects.sources)?
        } else {
            continue;
        };
        let entry = Entry { bytes: text.into_bytes(), mode: permissions(file.mode, mode), user: None };
        payload.insert(inside(&file.path)?, entry);
    }
    Ok(payload)
}

/// `name="value"`, a line each, as upstream writes labels and annotations.
fn lines(values: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        values.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// A text as Go's `%q` prints it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn permissions(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777
}

/// A path that stays in the volume and is none of the volume's own names.
fn inside(path: &str) -> Result<String, String> {
    let is_plain = |part| matches!(part, Component::Normal(_));
    if path.is_empty() || !Path::new(path).components().all(is_plain) || path.starts_with("..") {
        return Err(format!("invalid path {path:?}"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn objects() -> Objects {
        let map =
            json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "Aw=="}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"k": "dg=="}});
        let sources = Sources {
            config_maps: [("cm".to_owned(), Some(serde_json::from_value(map).unwrap())), ("no".into(), None)]
                .into(),
            secrets: [("s".to_owned(), Some(serde_json::from_value(secret).unwrap())), ("no".into(), None)]
                .into(),
            ..Default::default()
        };
        let wish = TokenWish { audience: "vault".into(), seconds: 600 };
        Objects { sources, tokens: [(wish, "t0ken".to_owned())].into() }
    }

    fn pod(security: serde_json::Value) -> Pod {
        let labels = json!({"app": "kubia", "text": "a \"b\"\nc"});
        let metadata = json!({"name": "p", "namespace": "ns", "labels": labels});
        let containers = json!([{"name": "c", "resources": {"limits": {"memory": "64Mi"}}}]);
        let spec = json!({"securityContext": security, "containers": containers});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn files(volume: serde_json::Value) -> Result<Vec<String>, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).unwrap();
        assert!(is_written(&volume));
        let payload = of(&volume, &pod(json!({})), &objects(), Owner::default())?;
        let show = |(name, entry): (String, Entry)| {
            format!("{name} {:o} {}", entry.mode, String::from_utf8_lossy(&entry.bytes).escape_default())
        };
        Ok(payload.into_iter().map(show).collect())
    }

    #[rstest]
    #[case::all_keys(json!({"configMap": {"name": "cm"}}), &["a 644 1", "b 644 2", "c 644 \\u{3}"])]
    #[case::items(
        json!({"configMap": {"name": "cm", "defaultMode": 256, "items": [{"key": "a", "path": "x/y"}]}}), &["x/y 400 1"])]
    #[case::a_mode_of_its_own(
        json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "k", "mode": 288}]}}), &["k 440 v"])]
    #[case::optional_and_missing(json!({"configMap": {"name": "no", "optional": true}}), &[])]
    #[case::optional_key(
        json!({"secret": {"secretName": "s", "optional": true, "items": [{"key": "z", "path": "z"}]}}), &[])]
    #[case::labels(
        json!({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
        &[r#"l 644 app=\"kubia\"\ntext=\"a \\\"b\\\"\\nc\""#])]
    #[case::one_label(
        json!({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}}),
        &["l 644 kubia"])]
    #[case::a_limit(
        json!({"downwardAPI": {"items": [
            {"path": "m", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}}),
        &["m 644 64"])]
    #[case::several_sources(
        json!({"projected": {"defaultMode": 288, "sources": [
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "cm/a"}]}}, {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}]}}),
        &["cm/a 440 1", "k 440 v", "n 440 ns", "token 440 t0ken"])]
    fn files_are_made_from_objects(#[case] volume: serde_json::Value, #[case] expected: &[&str]) {
        assert_eq!(files(volume).unwrap(), expected);
    }

    #[rstest]
    #[case(json!({"configMap": {"name": "no"}}), "configmap \"no\" not found")]
    #[case(json!({"secret": {"secretName": "no"}}), "secret \"no\" not found")]
    #[case(json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
        "configmap references non-existent config key: z")]
    #[case(json!({"secret": {"secretName": "s", "items": [{"key": "z", "path": "z"}]}}),
        "references non-existent secret key: z")]
    #[case(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../x"}]}}), "invalid path \"../x\"")]
    #[case(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "/x"}]}}), "invalid path \"/x\"")]
    #[case(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "..data"}]}}), "invalid path \"..data\"")]
    fn what_is_missing_or_leads_outside_is_named(#[case] volume: serde_json::Value, #[case] message: &str) {
        assert_eq!(files(volume).unwrap_err(), message);
    }

    #[rstest]
    #[case(json!({}), 0o644, None)]
    #[case(json!({"fsGroup": 7}), 0o600, None)]
    #[case(json!({"runAsUser": 9}), 0o600, Some(9))]
    fn a_token_is_its_users_own(
        #[case] security: serde_json::Value,
        #[case] mode: u32,
        #[case] user: Option<u32>,
    ) {
        let source =
            json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}});
        let volume = json!({"name": "v", "projected": {"sources": [source]}});
        let pod = pod(security);
        let volume = serde_json::from_value(volume).unwrap();
        let payload = of(&volume, &pod, &objects(), Owner::of(&pod)).unwrap();
        assert_eq!((payload["token"].mode, payload["token"].user), (mode, user));
    }
}
