//! `Namespace` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

/// What is particular to `Namespace`.
pub struct NamespaceKind;

impl Kind for NamespaceKind {
    type Object = Namespace;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Namespace",
            plural: "namespaces",
            singular: "namespace",
            short_names: &["ns"],
            categories: &[],
            namespaced: false,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Namespace, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
