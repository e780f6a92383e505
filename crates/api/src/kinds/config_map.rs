//! `ConfigMap` of core/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part};
use crate::{name, table};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

/// Bytes that the values of a ConfigMap or Secret may have in total.
pub(super) const DATA_MAX: usize = 1024 * 1024;
/// Why a change to an immutable ConfigMap or Secret is refused.
pub(super) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// What is particular to `ConfigMap`.
pub struct ConfigMapKind;

impl Kind for ConfigMapKind {
    type Object = ConfigMap;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            plural: "configmaps",
            singular: "configmap",
            short_names: &["cm"],
            categories: &[],
            namespaced: true,
        }
    }

    fn validate_create(&self, map: &ConfigMap) -> Errors {
        let mut errors = Errors::new();
        let binary = map.binary_data.as_ref();
        let path = Path::new("data");
        for key in map.data.iter().flat_map(|data| data.keys()) {
            errors.extend(validate_key(key, &path));
            if binary.is_some_and(|binary| binary.contains_key(key)) {
                errors.push(field::invalid(&path.key(key), key, "duplicate of key present in binaryData"));
            }
        }
        let path = Path::new("binaryData");
        errors.extend(binary.iter().flat_map(|data| data.keys()).flat_map(|key| validate_key(key, &path)));
        let text: usize = map.data.iter().flat_map(|data| data.values()).map(String::len).sum();
        let bytes: usize = binary.iter().flat_map(|data| data.values()).map(|value| value.0.len()).sum();
        if text + bytes > DATA_MAX {
            errors.push(field::too_long(&Path::default(), DATA_MAX));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap, _part: Part) -> Errors {
        let mut errors = validate_immutable(new.immutable, old.immutable);
        if old.immutable == Some(true) {
            if new.data != old.data {
                errors.push(field::forbidden(&Path::new("data"), IMMUTABLE));
            }
            if new.binary_data != old.binary_data {
                errors.push(field::forbidden(&Path::new("binaryData"), IMMUTABLE));
            }
        }
        errors.extend(self.validate_create(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 3] =
            [table::NAME, table::integer("Data", "How many entries it has."), table::AGE];
        &COLUMNS
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let count = map.data.as_ref().map_or(0, |data| data.len())
            + map.binary_data.as_ref().map_or(0, |data| data.len());
        vec![table::name(&map.metadata), count.into(), table::age(&map.metadata, now)]
    }
}

/// Everything wrong with a key of the data at `path`.
pub(super) fn validate_key(key: &str, path: &Path) -> Errors {
    name::config_map_key(key).iter().map(|wrong| field::invalid(&path.key(key), key, wrong)).collect()
}

/// `immutable` cannot be taken back.
pub(super) fn validate_immutable(new: Option<bool>, old: Option<bool>) -> Errors {
    if old == Some(true) && new != Some(true) {
        return vec![field::forbidden(&Path::new("immutable"), IMMUTABLE)];
    }
    Errors::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use rstest::rstest;
    use std::collections::BTreeMap;

    fn with(key: &str, value: &str) -> ConfigMap {
        ConfigMap { data: Some(BTreeMap::from([(key.into(), value.into())])), ..ConfigMap::default() }
    }

    #[rstest]
    #[case("key.name", true)]
    #[case(".profile", true)]
    #[case("..data", false)]
    #[case("a/b", false)]
    #[case("", false)]
    fn a_key_must_be_a_file_name(#[case] key: &str, #[case] valid: bool) {
        assert_eq!(ConfigMapKind.validate_create(&with(key, "")).is_empty(), valid);
    }

    #[test]
    fn more_than_a_mebibyte_is_too_long() {
        let errors = ConfigMapKind.validate_create(&with("a", &"x".repeat(DATA_MAX + 1)));
        assert_eq!(errors[0].to_string(), "[]: Too long: may not be more than 1048576 bytes");
    }

    #[test]
    fn a_key_may_not_be_both_text_and_binary() {
        let mut map = with("a", "x");
        map.binary_data = Some(BTreeMap::from([("a".to_owned(), ByteString(vec![1]))]));
        let errors = ConfigMapKind.validate_create(&map);
        assert_eq!(
            errors[0].to_string(),
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData"
        );
    }

    #[test]
    fn an_immutable_one_does_not_change_and_stays_immutable() {
        let mut old = with("a", "1");
        old.immutable = Some(true);
        let errors = ConfigMapKind.validate_update(&with("a", "2"), &old, Part::Main);
        let paths: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
        assert_eq!(paths, ["immutable", "data"]);
    }
}
