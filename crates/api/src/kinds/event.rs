//! `Event` of core::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

/// What is particular to `Event`.
pub struct EventKind;

impl Kind for EventKind {
    type Object = Event;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Event",
            plural: "events",
            singular: "event",
            short_names: &["ev"],
            categories: &[],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Event, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
