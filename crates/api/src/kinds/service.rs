//! `Service` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

/// What is particular to `Service`.
pub struct ServiceKind;

impl Kind for ServiceKind {
    type Object = Service;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Service",
            plural: "services",
            singular: "service",
            short_names: &["svc"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Service, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
