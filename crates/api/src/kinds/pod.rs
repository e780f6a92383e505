//! `Pod` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// What is particular to `Pod`.
pub struct PodKind;

impl Kind for PodKind {
    type Object = Pod;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Pod",
            plural: "pods",
            singular: "pod",
            short_names: &["po"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Pod, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
