//! `Endpoints` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

/// What is particular to `Endpoints`.
pub struct EndpointsKind;

impl Kind for EndpointsKind {
    type Object = Endpoints;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Endpoints",
            plural: "endpoints",
            singular: "endpoints",
            short_names: &["ep"],
            categories: &[],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Endpoints, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
