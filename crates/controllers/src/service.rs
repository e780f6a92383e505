//! What the endpoint controllers ask about a Service and the pods behind it.

use crate::cache::{Change, Key};
use crate::caches::Caches;
use crate::pod::{self, NamedPort, Sketch};
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Marks the endpoints of a headless service, which proxies leave alone.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The selector, if the service has one and its endpoints are ours to keep. Without one they are the user's.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && !is_external)
}

/// Whether every label of the selector is there. An empty selector selects nothing.
pub fn selects(selector: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(labels) = labels else { return false };
    !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// The pods the service selects, in order of name.
pub fn pods_of(caches: &Caches, service: &Service) -> Vec<Arc<Sketch>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let mut pods = caches.pods.in_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    pods.retain(|pod| selects(selector, pod.metadata.labels.as_ref()));
    pods
}

/// Wakes the services that select the pod before or after a change that can show in endpoints.
pub fn wake_services(caches: &Caches, change: &Change<Sketch>, wake: &mut dyn FnMut(Key)) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !shows_in_endpoints(old, new)
    {
        return;
    }
    let Some(latest) = change.latest() else { return };
    for service in caches.services.in_namespace(latest.metadata.namespace.as_deref().unwrap_or_default()) {
        let Some(selector) = selector(&service) else { continue };
        if change.versions().any(|pod| selects(selector, pod.metadata.labels.as_ref())) {
            wake(Key::of(&service.metadata));
        }
    }
}

fn shows_in_endpoints(old: &Sketch, new: &Sketch) -> bool {
    pod::is_ready(old) != pod::is_ready(new)
        || pod::is_terminating(old) != pod::is_terminating(new)
        || pod::is_finished(old) != pod::is_finished(new)
        || old.address != new.address
        || old.node != new.node
        || old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
        || old.template != new.template
}

/// Whether the service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(address, None | Some("" | "None"))
}

/// Whether pods count as ready from the start and to the end.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The ports of the service.
pub fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// `TCP` if unset.
pub fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The number the service's port has in this pod: a named target port is looked up among the container ports of
/// that protocol. None if the pod has no such port.
pub fn target_port(port: &ServicePort, pod: &Sketch) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let is_it = |candidate: &&NamedPort| candidate.name == *name && candidate.protocol == protocol(port);
    pod.template.ports.iter().find(is_it).map(|found| found.number)
}

/// The host name under which the service's DNS knows the pod.
pub fn hostname(service: &Service, pod: &Sketch) -> Option<String> {
    let template = &pod.template;
    let is_governed = template.subdomain.is_some() && template.subdomain == service.metadata.name;
    template.hostname.clone().filter(|hostname| is_governed && !hostname.is_empty())
}

/// The reference from an endpoint to its pod.
pub fn target_reference(pod: &Sketch) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::number(json!(8080), Some(8080))]
    #[case::unset_is_the_port(json!(null), Some(80))]
    #[case::name(json!("http"), Some(8081))]
    #[case::name_of_a_sidecar(json!("metrics"), Some(9090))]
    #[case::name_of_another_protocol(json!("dns"), None)]
    #[case::unknown_name(json!("nowhere"), None)]
    fn a_target_port_is_found_in_the_pod(#[case] target: Value, #[case] expected: Option<i32>) {
        let port = serde_json::from_value(json!({"port": 80, "targetPort": target})).unwrap();
        let pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "ports": [
                {"name": "http", "containerPort": 8081},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
            "initContainers": [
                {"name": "init", "ports": [{"name": "metrics", "containerPort": 1}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]}],
        }}))
        .unwrap();
        assert_eq!(target_port(&port, &pod), expected);
    }

    #[rstest]
    #[case::selected(json!({"app": "kubia"}), json!({"app": "kubia", "x": "y"}), true)]
    #[case::other(json!({"app": "kubia"}), json!({"app": "other"}), false)]
    #[case::empty_selects_nothing(json!({}), json!({"app": "other"}), false)]
    fn a_selector_selects_by_all_its_labels(
        #[case] selector: Value,
        #[case] labels: Value,
        #[case] expected: bool,
    ) {
        let selector: BTreeMap<String, String> = serde_json::from_value(selector).unwrap();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        assert_eq!(selects(&selector, Some(&labels)), expected);
    }

    #[rstest]
    #[case::without_selector(json!({"type": "ClusterIP"}), false)]
    #[case::external_name(json!({"type": "ExternalName", "selector": {"a": "b"}}), false)]
    #[case::with_selector(json!({"type": "ClusterIP", "selector": {"a": "b"}}), true)]
    fn only_services_with_a_selector_are_ours(#[case] spec: Value, #[case] expected: bool) {
        let service: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert_eq!(selector(&service).is_some(), expected);
    }
}
