//! What upstream's ServiceAccount admission does to new pods: a service account, its pull secrets, and a volume with
//! a token, the cluster's CA and the namespace at the place where clients look for them.

use crate::failure::Outcome;
use crate::resources::Resource;
use crate::state::Core;
use crate::wire::Stored;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ServiceAccount, Volume, VolumeMount};
use rand::Rng;
use sagong_api::meta;
use serde_json::json;
use std::time::Duration;

/// The account of pods that name none; each namespace has one, a moment after it was made.
const DEFAULT: &str = "default";
/// How often a default account that is not there yet is looked for, and from attempt to attempt: a second in all, as
/// upstream waits at least.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// Where clients in pods look.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How the name of the volume begins.
const VOLUME: &str = "kube-api-access-";
/// How long the token lives, in seconds: an hour, and 7 s by which upstream knows these tokens from others.
const TOKEN_SECONDS: i64 = 3607;
/// The annotation of pods that show what runs on a node without the API; they get no token.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Completes a new pod.
///
/// # Errors
/// Forbidden if the account does not exist.
pub(crate) async fn admit(core: &Core, resource: &Resource, pod: &mut Pod) -> Outcome<()> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    if pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
        return Ok(());
    }
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    if spec.service_account_name.as_deref().unwrap_or_default().is_empty() {
        spec.service_account_name = Some(DEFAULT.into());
        spec.service_account = Some(DEFAULT.into());
    }
    let account = spec.service_account_name.clone().unwrap_or_default();
    let Some(found) = await_account(core, &namespace, &account).await? else {
        let detail = format!(
            "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
        );
        return Err(resource.forbidden(&name, detail).into());
    };
    let suffix = || meta::generate_name(VOLUME, |below| rand::rng().random_range(0..below));
    complete(spec, &found, suffix);
    Ok(())
}

/// The account. The default one of a new namespace is waited for: its controller makes it in a moment.
async fn await_account(core: &Core, namespace: &str, name: &str) -> Outcome<Option<ServiceAccount>> {
    let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(found) = find(core, namespace, name).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn find(core: &Core, namespace: &str, name: &str) -> Outcome<Option<ServiceAccount>> {
    let accounts = core.resources.core("serviceaccounts")?;
    let Some(entry) = core.store.get(&accounts.key(Some(namespace), name)).await? else { return Ok(None) };
    let object = accounts.decode_stored(&Stored::from(&entry))?;
    Ok(object.as_any().downcast_ref::<ServiceAccount>().cloned())
}

/// What the account gives the pod. Pure.
fn complete(spec: &mut PodSpec, account: &ServiceAccount, name: impl FnOnce() -> String) {
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
    }
    let automatic = spec.automount_service_account_token.or(account.automount_service_account_token);
    if automatic != Some(false) {
        mount_token(spec, name);
    }
}

fn mount_token(spec: &mut PodSpec, name: impl FnOnce() -> String) {
    let existing = spec.volumes.iter().flatten().find(|volume| volume.name.starts_with(VOLUME));
    let is_new = existing.is_none();
    let name = existing.map(|volume| volume.name.clone()).unwrap_or_else(name);
    let has_own = |container: &Container| {
        container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == MOUNT_PATH)
    };
    let mut needed = false;
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for container in containers.filter(|container| !has_own(container)) {
        needed = true;
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT_PATH.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    if needed && is_new {
        spec.volumes.get_or_insert_default().extend(volume(&name));
    }
}

/// The volume; it always can be read, being written here.
fn volume(name: &str) -> Option<Volume> {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    let certificates = json!({"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]});
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": certificates},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]);
    serde_json::from_value(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": sources}}))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn completed(spec: Value, account: Value) -> Value {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        complete(&mut spec, &serde_json::from_value(account).unwrap(), || format!("{VOLUME}abcde"));
        serde_json::to_value(spec).unwrap()
    }

    fn bare() -> Value {
        json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]})
    }

    #[test]
    fn every_container_finds_a_token_where_clients_look() {
        let spec = completed(bare(), json!({}));
        let sources = &spec["volumes"][0]["projected"]["sources"];
        assert_eq!(sources[0]["serviceAccountToken"], json!({"path": "token", "expirationSeconds": 3607}));
        assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
        assert_eq!(spec["volumes"][0]["projected"]["defaultMode"], 420);
        for container in [&spec["containers"][0], &spec["initContainers"][0]] {
            let mount = json!({"name": "kube-api-access-abcde", "mountPath": MOUNT_PATH, "readOnly": true});
            assert_eq!(container["volumeMounts"], json!([mount]));
        }
    }

    #[rstest::rstest]
    #[case::the_account_does_not_want_it(None, Some(false), false)]
    #[case::the_pod_wants_it_all_the_same(Some(true), Some(false), true)]
    #[case::the_pod_does_not_want_it(Some(false), Some(true), false)]
    #[case::nobody_says_anything(None, None, true)]
    fn the_pod_decides_before_its_account(
        #[case] pod: Option<bool>,
        #[case] account: Option<bool>,
        #[case] mounted: bool,
    ) {
        let mut spec = bare();
        spec["automountServiceAccountToken"] = json!(pod);
        let spec = completed(spec, json!({"automountServiceAccountToken": account}));
        assert_eq!(spec.get("volumes").is_some(), mounted);
    }

    #[test]
    fn what_is_mounted_there_already_stays() {
        let mounts = json!([{"name": "own", "mountPath": MOUNT_PATH}]);
        let spec = completed(json!({"containers": [{"name": "c", "volumeMounts": mounts}]}), json!({}));
        assert_eq!(spec["containers"][0]["volumeMounts"], mounts);
        assert!(spec.get("volumes").is_none());
    }

    #[test]
    fn pull_secrets_of_the_account_are_for_pods_without_their_own() {
        let account = json!({"imagePullSecrets": [{"name": "registry"}]});
        assert_eq!(completed(bare(), account.clone())["imagePullSecrets"], json!([{"name": "registry"}]));
        let mut spec = bare();
        spec["imagePullSecrets"] = json!([{"name": "own"}]);
        assert_eq!(completed(spec, account)["imagePullSecrets"], json!([{"name": "own"}]));
    }
}
