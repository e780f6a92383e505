//! `Lease` of coordination::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

/// What is particular to `Lease`.
pub struct LeaseKind;

impl Kind for LeaseKind {
    type Object = Lease;

    fn identity(&self) -> Identity {
        Identity {
            group: "coordination.k8s.io",
            version: "v1",
            kind: "Lease",
            plural: "leases",
            singular: "lease",
            short_names: &[],
            categories: &[],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Lease, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
