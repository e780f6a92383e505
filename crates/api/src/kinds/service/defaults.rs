//! Defaults of services.

use super::allocation::is_externally_accessible;
use crate::pod::defaults::fill;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Seconds for which a client keeps its pod under `sessionAffinity: ClientIP` when nothing is said.
const AFFINITY_SECONDS: i32 = 10_800;

/// Fills in upstream's defaults. Those that depend on the stored object come later ([`default_families`]).
pub(super) fn default_service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    default_affinity(spec);
    fill(&mut spec.type_, "ClusterIP");
    spec.ports.iter_mut().flatten().for_each(default_port);
    if is_externally_accessible(spec) {
        fill(&mut spec.external_traffic_policy, "Cluster");
    }
    let type_ = spec.type_.as_deref().unwrap_or_default();
    if matches!(type_, "ClusterIP" | "NodePort" | "LoadBalancer") {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    default_ip_mode(service);
}

fn default_affinity(spec: &mut ServiceSpec) {
    fill(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.get_or_insert_default();
            config.client_ip.get_or_insert_default().timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
}

fn default_port(port: &mut ServicePort) {
    fill(&mut port.protocol, "TCP");
    let is_given = match &port.target_port {
        None | Some(IntOrString::Int(0)) => false,
        Some(IntOrString::String(name)) => !name.is_empty(),
        Some(IntOrString::Int(_)) => true,
    };
    if !is_given {
        port.target_port = Some(IntOrString::Int(port.port));
    }
    if port.node_port == Some(0) {
        port.node_port = None;
    }
}

fn default_ip_mode(service: &mut Service) {
    let balancer = service.status.as_mut().and_then(|status| status.load_balancer.as_mut());
    for entry in balancer.and_then(|balancer| balancer.ingress.as_mut()).into_iter().flatten() {
        if entry.ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
            entry.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }
}

/// One IPv4 address per service; a headless service without selector says it could have both families, as
/// its endpoints are somebody else's.
pub(super) fn default_families(service: &mut Service) {
    let Some(spec) = service.spec.as_mut() else { return };
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    if let Some(address) = spec.cluster_ip.clone().filter(|address| !address.is_empty())
        && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)
    {
        spec.cluster_ips = Some(vec![address]);
    }
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let has_selector = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    let families: &[&str] = if is_headless && !has_selector && spec.ip_family_policy.is_none() {
        fill(&mut spec.ip_family_policy, "RequireDualStack");
        &["IPv4", "IPv6"]
    } else {
        fill(&mut spec.ip_family_policy, "SingleStack");
        &["IPv4"]
    };
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        spec.ip_families = Some(families.iter().map(|family| (*family).to_owned()).collect());
    }
}
