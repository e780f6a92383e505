//! The kinds, one file each.

pub mod config_map;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod replica_set;
pub mod replication_controller;
pub mod secret;
pub mod service;
pub mod service_account;

use crate::erased::serve;
use crate::kind::ServedKind;

/// Every kind that is served. Adding a kind is one file and one line here.
pub fn registry() -> Vec<Box<dyn ServedKind>> {
    vec![
        serve(namespace::NamespaceKind),
        serve(node::NodeKind),
        serve(pod::PodKind),
        serve(replication_controller::ReplicationControllerKind),
        serve(service::ServiceKind),
        serve(endpoints::EndpointsKind),
        serve(config_map::ConfigMapKind),
        serve(secret::SecretKind),
        serve(service_account::ServiceAccountKind),
        serve(event::EventKind),
        serve(deployment::DeploymentKind),
        serve(replica_set::ReplicaSetKind),
        serve(endpoint_slice::EndpointSliceKind),
        serve(lease::LeaseKind),
    ]
}
