//! Cells of the services table.

use crate::pod::print::NONE;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use std::collections::BTreeSet;

/// The first address in the cluster, `None` for a headless service, `<none>` without one.
pub(super) fn cluster_ip(spec: &ServiceSpec) -> &str {
    let first = spec.cluster_ips.iter().flatten().next().or(spec.cluster_ip.as_ref());
    first.map(String::as_str).filter(|address| !address.is_empty()).unwrap_or(NONE)
}

/// What the EXTERNAL-IP cell shows for each type.
pub(super) fn external_ip(service: &Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let external = spec.external_ips.unwrap_or_default();
    match spec.type_.as_deref().unwrap_or_default() {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let mut addresses: Vec<String> = balancer_addresses(service).into_iter().collect();
            addresses.extend(external);
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => spec.external_name.unwrap_or_default(),
        _ => "<unknown>".to_owned(),
    }
}

fn balancer_addresses(service: &Service) -> BTreeSet<String> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|entry| given(&entry.ip).or_else(|| given(&entry.hostname))).collect()
}

/// `80/TCP,8080:31112/TCP`.
pub(super) fn ports(spec: &ServiceSpec) -> String {
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        return NONE.to_owned();
    }
    ports.iter().map(port).collect::<Vec<_>>().join(",")
}

fn port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or_default();
    match port.node_port.unwrap_or(0) {
        0 => format!("{}/{protocol}", port.port),
        node_port => format!("{}:{node_port}/{protocol}", port.port),
    }
}
