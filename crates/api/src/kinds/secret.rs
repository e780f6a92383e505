//! `Secret` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

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

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Secret, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
