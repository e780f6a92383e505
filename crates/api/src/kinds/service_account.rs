//! `ServiceAccount` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

/// What is particular to `ServiceAccount`.
pub struct ServiceAccountKind;

impl Kind for ServiceAccountKind {
    type Object = ServiceAccount;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "ServiceAccount",
            plural: "serviceaccounts",
            singular: "serviceaccount",
            short_names: &["sa"],
            categories: &[],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &ServiceAccount, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
