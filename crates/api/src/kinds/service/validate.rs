//! Everything that can be wrong with a service.

use super::allocation::{self, is_externally_accessible, is_headless};
use super::{cluster_ips, ports};
use crate::address::{validate_endpoint_ip, validate_ip, validate_port};
use crate::field::{self, Errors, FieldError, Path};
use crate::meta::{IMMUTABLE, validate_labels};
use crate::name;
use crate::pod::validate::{all_invalid, list, one_of, one_of_if_given, text};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde_json::Value;
use std::net::IpAddr;

/// Seconds in a day: the longest a client keeps its pod.
const AFFINITY_MAX: i32 = 86_400;
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

/// Everything wrong with a service beyond its metadata.
pub(super) fn validate_service(service: &Service) -> Errors {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let type_ = text(&spec.type_);
    let mut errors = Errors::new();
    if list(&spec.ports).is_empty() && !is_headless(spec) && type_ != "ExternalName" {
        errors.push(field::required(&path.child("ports"), ""));
    }
    errors.extend(validate_for_type(spec, &path));
    errors.extend(ports::validate(spec, &path.child("ports")));
    errors.extend(validate_labels(spec.selector.as_ref(), &path.child("selector")));
    errors.extend(validate_affinity(spec, &path));
    errors.extend(cluster_ips::validate(spec, &path));
    for (index, address) in list(&spec.external_ips).iter().enumerate() {
        errors.extend(validate_endpoint_ip(address, &path.child("externalIPs").index(index)));
    }
    errors.extend(one_of(&spec.type_, TYPES, &path.child("type")));
    errors.extend(validate_balancer(spec, &path));
    errors.extend(validate_traffic(spec, &path));
    errors
}

fn validate_for_type(spec: &ServiceSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    match text(&spec.type_) {
        type_ @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {type_} services");
            errors.push(field::invalid(&path.child("clusterIPs").index(0), "None", &detail));
        }
        "ExternalName" => {
            let given = [
                (!list(&spec.cluster_ips).is_empty() || !text(&spec.cluster_ip).is_empty(), "clusterIPs"),
                (!list(&spec.ip_families).is_empty(), "ipFamilies"),
                (spec.ip_family_policy.is_some(), "ipFamilyPolicy"),
            ];
            let detail = "may not be set for ExternalName services";
            let given = given.into_iter().filter(|(is_given, _)| *is_given);
            errors.extend(given.map(|(_, field)| field::forbidden(&path.child(field), detail)));
            let at = path.child("externalName");
            let name = text(&spec.external_name);
            // A final dot says that the name is complete.
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.push(field::required(&at, "")),
                name => errors.extend(all_invalid(&at, name, &name::dns1123_subdomain(name))),
            }
        }
        _ => {}
    }
    errors
}

fn validate_affinity(spec: &ServiceSpec, path: &Path) -> Errors {
    let mut errors: Errors =
        one_of(&spec.session_affinity, &["ClientIP", "None"], &path.child("sessionAffinity"))
            .into_iter()
            .collect();
    let at = path.child("sessionAffinityConfig");
    match text(&spec.session_affinity) {
        "ClientIP" => errors.extend(validate_client_ip(spec, &at)),
        "None" if spec.session_affinity_config.is_some() => {
            errors.push(field::forbidden(&at, "must not be set when session affinity is None"));
        }
        _ => {}
    }
    errors
}

fn validate_client_ip(spec: &ServiceSpec, path: &Path) -> Option<FieldError> {
    let detail = "when session affinity type is ClientIP";
    let Some(config) = &spec.session_affinity_config else { return Some(field::required(path, detail)) };
    let path = path.child("clientIP");
    let Some(client) = &config.client_ip else { return Some(field::required(&path, detail)) };
    let path = path.child("timeoutSeconds");
    let Some(seconds) = client.timeout_seconds else { return Some(field::required(&path, detail)) };
    let detail = format!("must be greater than 0 and less than {AFFINITY_MAX}");
    (!(1..=AFFINITY_MAX).contains(&seconds)).then(|| field::invalid(&path, seconds, &detail))
}

fn validate_balancer(spec: &ServiceSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let is_balancer = text(&spec.type_) == "LoadBalancer";
    let ranges = list(&spec.load_balancer_source_ranges);
    // Upstream writes this field with a capital letter.
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        errors.push(field::forbidden(&at, BALANCERS_ONLY));
    }
    let networks = ranges.iter().enumerate();
    errors.extend(networks.flat_map(|(index, range)| validate_cidr(range.trim(), &at.index(index))));
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balancer {
        errors.push(field::forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCERS_ONLY));
    }
    let at = path.child("loadBalancerClass");
    match &spec.load_balancer_class {
        Some(class) if is_balancer => errors.extend(all_invalid(&at, class, &name::qualified_name(class))),
        Some(_) => errors.push(field::forbidden(&at, BALANCERS_ONLY)),
        None => {}
    }
    errors
}

/// Complains unless it is an address with a prefix length.
fn validate_cidr(network: &str, path: &Path) -> Option<FieldError> {
    let is_network = network.split_once('/').is_some_and(|(address, length)| {
        let bits = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        is_number && length.parse::<u8>().is_ok_and(|length| length <= bits)
    });
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    (!is_network).then(|| field::invalid(path, network, detail))
}

fn validate_traffic(spec: &ServiceSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("externalTrafficPolicy");
    let policy = text(&spec.external_traffic_policy);
    if is_externally_accessible(spec) {
        errors.extend(one_of(&spec.external_traffic_policy, POLICIES, &at));
    } else if !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(field::invalid(&at, policy, detail));
    }
    let at = path.child("healthCheckNodePort");
    // Zero becomes a number when the API server allocates one.
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        if allocation::needs_health_check_port(spec) {
            errors.extend(validate_port(port, &at));
        } else {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(field::invalid(&at, port, detail));
        }
    }
    let at = path.child("internalTrafficPolicy");
    if matches!(text(&spec.type_), "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.extend(one_of(&spec.internal_traffic_policy, POLICIES, &at));
    } else {
        errors.extend(one_of_if_given(&spec.internal_traffic_policy, POLICIES, &at));
    }
    let at = path.child("trafficDistribution");
    errors.extend(one_of_if_given(&spec.traffic_distribution, &["PreferClose"], &at));
    errors
}

/// Everything wrong with a change of a service.
pub(super) fn validate_update(new: &Service, old: &Service) -> Errors {
    let empty = ServiceSpec::default();
    let path = Path::new("spec");
    let (before, after) = (old.spec.as_ref().unwrap_or(&empty), new.spec.as_ref().unwrap_or(&empty));
    let mut errors = cluster_ips::validate_change(after, before, &path);
    let is_balancer = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if is_balancer(after) && is_balancer(before) && after.load_balancer_class != before.load_balancer_class {
        let class = after.load_balancer_class.as_deref().map_or(Value::Null, Value::from);
        let at = path.child("loadBalancerClass");
        errors.push(field::invalid(&at, class, "may not change once set"));
    }
    if allocation::needs_health_check_port(after)
        && allocation::needs_health_check_port(before)
        && after.health_check_node_port != before.health_check_node_port
    {
        errors.push(field::forbidden(&path.child("healthCheckNodePort"), IMMUTABLE));
    }
    errors.extend(validate_service(new));
    errors
}

/// Everything wrong with the status of a service.
pub(super) fn validate_status(service: &Service) -> Errors {
    let mut errors = Errors::new();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let is_balancer = service.spec.as_ref().is_some_and(|spec| text(&spec.type_) == "LoadBalancer");
    let path = Path::new("status").child("loadBalancer").child("ingress");
    if !ingress.is_empty() && !is_balancer {
        let detail = "may only be used when `spec.type` is LoadBalancer";
        errors.push(field::forbidden(&path, detail));
    }
    for (index, entry) in ingress.iter().enumerate() {
        let at = path.index(index);
        let (address, host) = (text(&entry.ip), text(&entry.hostname));
        if !address.is_empty() {
            errors.extend(validate_ip(address, &at.child("ip")));
            errors.extend(one_of(&entry.ip_mode, &["Proxy", "VIP"], &at.child("ipMode")));
        }
        if !host.is_empty() {
            errors.extend(all_invalid(&at.child("hostname"), host, &name::dns1123_subdomain(host)));
        }
    }
    errors
}

/// What is valid yet does not do what it says.
pub(super) fn warnings(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let is_external = text(&spec.type_) == "ExternalName";
    let is_headless = is_headless(spec);
    let has_external_ips = !list(&spec.external_ips).is_empty();
    let ignored = [
        (
            is_headless && !text(&spec.load_balancer_ip).is_empty(),
            "spec.loadBalancerIP is ignored for headless services",
        ),
        (is_headless && has_external_ips, "spec.externalIPs is ignored for headless services"),
        (
            is_headless && text(&spec.session_affinity) != "None",
            "spec.SessionAffinity is ignored for headless services",
        ),
        (is_external && has_external_ips, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            !is_external && !text(&spec.external_name).is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
    ];
    ignored.into_iter().filter(|(is_so, _)| *is_so).map(|(_, warning)| warning.to_owned()).collect()
}
