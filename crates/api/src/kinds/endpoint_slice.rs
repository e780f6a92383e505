//! `EndpointSlice` of discovery::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

/// What is particular to `EndpointSlice`.
pub struct EndpointSliceKind;

impl Kind for EndpointSliceKind {
    type Object = EndpointSlice;

    fn identity(&self) -> Identity {
        Identity {
            group: "discovery.k8s.io",
            version: "v1",
            kind: "EndpointSlice",
            plural: "endpointslices",
            singular: "endpointslice",
            short_names: &[],
            categories: &[],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &EndpointSlice, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
