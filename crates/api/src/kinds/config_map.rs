//! `ConfigMap` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

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

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &ConfigMap, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
