//! Which addresses and ports of a service the API server allocates, and what becomes of them in an update.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use std::collections::BTreeSet;

/// Whether the service has addresses in the cluster (`None` counts as one that was chosen).
pub(super) fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether the service needs a node port for the health check of an outside balancer.
pub(super) fn needs_health_check_port(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether the service has no address of its own (`clusterIP: None`).
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.as_ref().is_some_and(|addresses| addresses.iter().eq(["None"]))
}

/// Whether clients outside the cluster can reach it.
pub(super) fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match type_of(spec) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|addresses| !addresses.is_empty()),
        _ => false,
    }
}

fn type_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or_default()
}

/// Whether ports may have node ports at all.
fn may_have_node_ports(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "NodePort" | "LoadBalancer")
}

/// Copies what was allocated from the stored service where the client left it out, as `kubectl replace`
/// and `apply` do.
pub(super) fn keep_allocated(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (new.spec.as_mut(), old.spec.as_ref()) else { return };
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if new.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) && new.cluster_ip == old.cluster_ip {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        follow_cluster_ip(new, old);
        if new.ip_family_policy.is_none() && new.ip_families.as_ref().is_none_or(Vec::is_empty) {
            new.ip_family_policy.clone_from(&old.ip_family_policy);
            new.ip_families.clone_from(&old.ip_families);
        }
    }
    if may_have_node_ports(new) && may_have_node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_check_port(new)
        && needs_health_check_port(old)
        && new.health_check_node_port.unwrap_or(0) == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A client that knows only the older field `clusterIP` changes `clusterIPs` with it.
fn follow_cluster_ip(new: &mut ServiceSpec, old: &ServiceSpec) {
    if new.cluster_ip != old.cluster_ip && new.cluster_ips == old.cluster_ips {
        let given = new.cluster_ip.clone().filter(|address| !address.is_empty());
        new.cluster_ips = given.map(|address| vec![address]);
    }
}

fn keep_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let mut used: BTreeSet<i32> = new.ports.iter().flatten().filter_map(node_port).collect();
    for port in new.ports.iter_mut().flatten().filter(|port| node_port(port).is_none()) {
        let same = |other: &&ServicePort| other.port == port.port && other.protocol == port.protocol;
        let before = old.ports.iter().flatten().find(same).and_then(node_port);
        if let Some(kept) = before.filter(|kept| used.insert(*kept)) {
            port.node_port = Some(kept);
        }
    }
}

fn node_port(port: &ServicePort) -> Option<i32> {
    port.node_port.filter(|port| *port != 0)
}

/// Drops what the old type needed and the new one must not have, where the client just did not touch it.
pub(super) fn drop_unneeded(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (new.spec.as_mut(), old.spec.as_ref()) else { return };
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            (new.cluster_ip, new.cluster_ips) = (None, None);
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(new) && node_ports(new) == node_ports(old) {
        new.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
    }
    if needs_health_check_port(old)
        && !needs_health_check_port(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    if type_of(old) == "LoadBalancer" && type_of(new) != "LoadBalancer" {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if is_externally_accessible(old)
        && !is_externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    spec.ports.iter().flatten().filter_map(node_port).collect()
}
