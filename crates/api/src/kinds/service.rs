//! `Service` of core::v1.
//!
//! Choosing addresses and ports is the API server's work, after validation: `spec.clusterIP` with
//! `spec.clusterIPs` (all types but ExternalName, unless it is `None`), `spec.ports[].nodePort` (NodePort, and
//! LoadBalancer with `allocateLoadBalancerNodePorts`) and `spec.healthCheckNodePort` (LoadBalancer with
//! `externalTrafficPolicy: Local`). So are the ranges they come from.

mod allocation;
mod cluster_ips;
mod defaults;
mod ports;
mod print;
mod validate;

use crate::field::Errors;
use crate::kind::{Column, Identity, Kind, Part, Subresources};
use crate::name::NameRule;
use crate::pod::print::labels;
use crate::table::{self, AGE, NAME, string, wide};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServiceStatus};
use serde_json::{Value, json};

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

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: false }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Dns1035Label
    }

    fn default(&self, service: &mut Service) {
        defaults::default_service(service);
    }

    fn prepare_create(&self, service: &mut Service) {
        // The balancer's part is always there upstream: clients read its `ingress` without asking.
        let load_balancer = Some(LoadBalancerStatus::default());
        service.status = Some(ServiceStatus { load_balancer, ..ServiceStatus::default() });
        defaults::default_families(service);
    }

    fn prepare_update(&self, new: &mut Service, old: &Service, part: Part) {
        match part {
            Part::Main => {
                new.status.clone_from(&old.status);
                allocation::keep_allocated(new, old);
                allocation::drop_unneeded(new, old);
                defaults::default_families(new);
            }
            Part::Status => new.spec.clone_from(&old.spec),
        }
    }

    fn spec_changed(&self, new: &Service, old: &Service) -> bool {
        new.spec != old.spec
    }

    fn validate_create(&self, service: &Service) -> Errors {
        validate::validate_service(service)
    }

    fn validate_update(&self, new: &Service, old: &Service, part: Part) -> Errors {
        match part {
            Part::Main => validate::validate_update(new, old),
            Part::Status => validate::validate_status(new),
        }
    }

    fn warnings(&self, service: &Service) -> Vec<String> {
        validate::warnings(service)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, service: &Service, now: Timestamp) -> Vec<Value> {
        let spec = service.spec.clone().unwrap_or_default();
        vec![
            table::name(&service.metadata),
            json!(spec.type_.as_deref().unwrap_or_default()),
            json!(print::cluster_ip(&spec)),
            json!(print::external_ip(service)),
            json!(print::ports(&spec)),
            table::age(&service.metadata, now),
            json!(labels(spec.selector.as_ref())),
        ]
    }

    fn selectable_fields(&self, service: &Service) -> Vec<(&'static str, String)> {
        let spec = service.spec.as_ref();
        vec![
            ("spec.clusterIP", spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default()),
            ("spec.type", spec.and_then(|spec| spec.type_.clone()).unwrap_or_default()),
        ]
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    string("Type", "How the service is reached (spec.type)."),
    string("Cluster-IP", "The address inside the cluster (spec.clusterIPs)."),
    string("External-IP", "The addresses outside the cluster: of the load balancer and spec.externalIPs."),
    string("Port(s)", "The ports, with their node ports and protocols (spec.ports)."),
    AGE,
    wide(string("Selector", "The labels of the pods behind the service (spec.selector).")),
];

#[cfg(test)]
mod tests;
