//! `ReplicaSet` of apps::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;

/// What is particular to `ReplicaSet`.
pub struct ReplicaSetKind;

impl Kind for ReplicaSetKind {
    type Object = ReplicaSet;

    fn identity(&self) -> Identity {
        Identity {
            group: "apps",
            version: "v1",
            kind: "ReplicaSet",
            plural: "replicasets",
            singular: "replicaset",
            short_names: &["rs"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &ReplicaSet, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
