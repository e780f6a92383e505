//! `Node` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

/// What is particular to `Node`.
pub struct NodeKind;

impl Kind for NodeKind {
    type Object = Node;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Node",
            plural: "nodes",
            singular: "node",
            short_names: &["no"],
            categories: &[],
            namespaced: false,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Node, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
