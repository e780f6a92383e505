//! `Deployment` of apps::v1.

use crate::kind::{Column, Identity, Kind};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

/// What is particular to `Deployment`.
pub struct DeploymentKind;

impl Kind for DeploymentKind {
    type Object = Deployment;

    fn identity(&self) -> Identity {
        Identity {
            group: "apps",
            version: "v1",
            kind: "Deployment",
            plural: "deployments",
            singular: "deployment",
            short_names: &["deploy"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn cells(&self, _object: &Deployment, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}
