//! `Secret` of core/v1.

use super::config_map::{DATA_MAX, IMMUTABLE, validate_immutable, validate_key};
use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part};
use crate::{meta, table};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

/// The annotation that names the service account of a token.
pub const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

const OPAQUE: &str = "Opaque";
/// What an error shows instead of a value.
const REDACTED: &str = "<secret contents redacted>";

/// What is particular to `Secret`.
pub struct SecretKind;

impl Kind for SecretKind {
    type Object = Secret;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Secret",
            plural: "secrets",
            singular: "secret",
            short_names: &[],
            categories: &[],
            namespaced: true,
        }
    }

    fn default(&self, secret: &mut Secret) {
        if type_of(secret).is_empty() {
            secret.type_ = Some(OPAQUE.to_owned());
        }
        // Write-only: it is merged into the data and never stored.
        for (key, value) in secret.string_data.take().into_iter().flatten() {
            secret.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
        }
    }

    fn validate_create(&self, secret: &Secret) -> Errors {
        let path = Path::new("data");
        let data = secret.data.iter().flatten();
        let mut errors: Errors = data.clone().flat_map(|(key, _)| validate_key(key, &path)).collect();
        if data.map(|(_, value)| value.0.len()).sum::<usize>() > DATA_MAX {
            errors.push(field::too_long(&path, DATA_MAX));
        }
        errors.extend(validate_type(secret, &path));
        errors
    }

    fn validate_update(&self, new: &Secret, old: &Secret, _part: Part) -> Errors {
        let mut errors = Errors::new();
        errors.extend(meta::immutable(&new.type_, &old.type_, &Path::new("type")));
        errors.extend(validate_immutable(new.immutable, old.immutable));
        if old.immutable == Some(true) && new.data != old.data {
            errors.push(field::forbidden(&Path::new("data"), IMMUTABLE));
        }
        errors.extend(self.validate_create(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 4] = [
            table::NAME,
            table::string("Type", "What the secret is for, which says which entries it must have."),
            table::integer("Data", "How many entries it has."),
            table::AGE,
        ];
        &COLUMNS
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        let count = secret.data.as_ref().map_or(0, |data| data.len());
        let meta = &secret.metadata;
        vec![table::name(meta), type_of(secret).into(), count.into(), table::age(meta, now)]
    }

    fn selectable_fields(&self, secret: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", type_of(secret).to_owned())]
    }
}

fn type_of(secret: &Secret) -> &str {
    secret.type_.as_deref().unwrap_or_default()
}

/// The entries each type must have.
fn validate_type(secret: &Secret, path: &Path) -> Errors {
    let value =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let missing = |key: &str| (value(key).is_none()).then(|| field::required(&path.key(key), ""));
    match type_of(secret) {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            let named =
                annotations.and_then(|all| all.get(SERVICE_ACCOUNT_NAME)).is_some_and(|n| !n.is_empty());
            let at = Path::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
            if named { Errors::new() } else { vec![field::required(&at, "")] }
        }
        "kubernetes.io/dockercfg" => validate_json(value(".dockercfg"), &path.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => {
            validate_json(value(".dockerconfigjson"), &path.key(".dockerconfigjson"))
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            missing("username").into_iter().chain(missing("password")).collect()
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            vec![field::required(&path.key("ssh-privatekey"), "")]
        }
        "kubernetes.io/tls" => missing("tls.crt").into_iter().chain(missing("tls.key")).collect(),
        _ => Errors::new(),
    }
}

fn validate_json(value: Option<&[u8]>, path: &Path) -> Errors {
    let Some(value) = value else { return vec![field::required(path, "")] };
    match serde_json::from_slice::<serde::de::IgnoredAny>(value) {
        Ok(_) => Errors::new(),
        Err(error) => vec![field::invalid(path, REDACTED, &error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::collections::BTreeMap;

    fn secret(type_: &str, entries: &[(&str, &str)]) -> Secret {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut secret = Secret {
            type_: Some(type_.to_owned()),
            string_data: Some(entries.collect()),
            ..Secret::default()
        };
        SecretKind.default(&mut secret);
        secret
    }

    #[test]
    fn string_data_is_merged_into_the_data_and_wins() {
        let mut secret = secret("", &[("a", "new")]);
        assert_eq!(secret.type_.as_deref(), Some("Opaque"));
        assert_eq!(secret.data.as_ref().unwrap()["a"].0, b"new");
        assert_eq!(secret.string_data, None);
        let once = secret.clone();
        SecretKind.default(&mut secret);
        assert_eq!(secret, once);
    }

    #[rstest]
    #[case("Opaque", &[], &[])]
    #[case("kubernetes.io/tls", &[("tls.crt", "x")], &["data[tls.key]"])]
    #[case("kubernetes.io/basic-auth", &[], &["data[username]", "data[password]"])]
    #[case("kubernetes.io/basic-auth", &[("username", "x")], &[])]
    #[case("kubernetes.io/ssh-auth", &[("ssh-privatekey", "")], &["data[ssh-privatekey]"])]
    #[case("kubernetes.io/dockerconfigjson", &[(".dockerconfigjson", "{")], &["data[.dockerconfigjson]"])]
    #[case("kubernetes.io/dockerconfigjson", &[(".dockerconfigjson", "{}")], &[])]
    #[case(
        "kubernetes.io/service-account-token",
        &[],
        &["metadata.annotations[kubernetes.io/service-account.name]"]
    )]
    fn each_type_has_entries_it_must_have(
        #[case] type_: &str,
        #[case] entries: &[(&str, &str)],
        #[case] wrong: &[&str],
    ) {
        let errors = SecretKind.validate_create(&secret(type_, entries));
        let paths: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
        assert_eq!(paths, wrong);
    }

    #[test]
    fn no_error_shows_a_value() {
        let errors =
            SecretKind.validate_create(&secret("kubernetes.io/dockercfg", &[(".dockercfg", "hunter2")]));
        assert!(!errors[0].message.contains("hunter2"));
    }

    #[test]
    fn the_type_does_not_change() {
        let errors = SecretKind.validate_update(&secret("a", &[]), &secret("b", &[]), Part::Main);
        assert_eq!(errors[0].to_string(), "type: Invalid value: \"a\": field is immutable");
    }

    #[test]
    fn an_entry_count_is_shown() {
        let mut secret = secret("Opaque", &[("a", "1"), ("b", "2")]);
        secret.metadata.name = Some("s".into());
        secret.data.get_or_insert_with(BTreeMap::new);
        let cells = SecretKind.cells(&secret, Timestamp::UNIX_EPOCH);
        assert_eq!(cells, [Value::from("s"), "Opaque".into(), 2.into(), "<unknown>".into()]);
    }
}
