//! `ReplicationController` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

/// What is particular to `ReplicationController`.
pub struct ReplicationControllerKind;

impl Kind for ReplicationControllerKind {
    type Object = ReplicationController;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "ReplicationController",
            plural: "replicationcontrollers",
            singular: "replicationcontroller",
            short_names: &["rc"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &ReplicationController, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
