//! Endpoints: the pods behind a Service in one object, as clients older than EndpointSlices read them.

use crate::cache::Key;
use crate::caches::Caches;
use crate::plan::{Plan, Write};
use crate::pod::{self, Sketch};
use crate::runner::{self, Watch};
use crate::service;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// On Endpoints: who keeps them.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] for those kept here.
pub const MANAGER: &str = "endpoint-controller";
/// On Endpoints that had too many addresses to list them all.
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Addresses listed at most.
const CAPACITY: usize = 1000;

/// The Endpoints controller.
pub struct Controller;

/// What a plan depends on.
pub struct Snapshot {
    /// The service, if it exists.
    pub service: Option<Arc<Service>>,
    /// The pods it selects.
    pub pods: Vec<Arc<Sketch>>,
    /// The Endpoints of that name.
    pub current: Option<Arc<Endpoints>>,
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on_own(&caches.services);
        watch.on_own(&caches.endpoints);
        let all = watch.caches();
        watch.on(&caches.pods, move |change, wake| service::wake_services(&all, change, wake));
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let service = caches.services.get(key);
        let pods = service.as_ref().map(|service| service::pods_of(caches, service)).unwrap_or_default();
        Some(Snapshot { service, pods, current: caches.endpoints.get(key) })
    }

    fn plan(&self, snapshot: &Snapshot, _now: Timestamp) -> Plan {
        plan(snapshot)
    }
}

/// Brings the Endpoints of a service up to date.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let current = snapshot.current.as_deref();
    let Some(service) = &snapshot.service else {
        // Endpoints without a service may be a user's own.
        let is_ours = |endpoints: &&Endpoints| label(endpoints, MANAGED_BY) == Some(MANAGER);
        plan.then_all(current.filter(is_ours).map(Write::delete).into_iter().collect());
        return plan;
    };
    if service::selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (subsets, is_truncated) = truncate(subsets(service, &snapshot.pods));
    let mut wanted = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.metadata.labels = Some(labels(service));
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    if is_truncated {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut wanted.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    match current {
        None => plan.then(Write::create(wanted)),
        Some(current) if is_same(current, &wanted) => {}
        Some(_) => plan.then(Write::update(wanted)),
    }
    plan
}

fn label<'a>(endpoints: &'a Endpoints, name: &str) -> Option<&'a str> {
    endpoints.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn is_same(a: &Endpoints, b: &Endpoints) -> bool {
    a.metadata.labels == b.metadata.labels
        && a.metadata.annotations.iter().flatten().eq(b.metadata.annotations.iter().flatten())
        && a.subsets.iter().flatten().eq(b.subsets.iter().flatten())
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(service::HEADLESS_LABEL);
    if service::is_headless(service) {
        labels.insert(service::HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// A port that can be sorted: name, number, protocol.
type Port = (Option<String>, i32, String, Option<String>);

/// Ready and not ready addresses that have the same ports are one subset.
fn subsets(service: &Service, pods: &[Arc<Sketch>]) -> Vec<EndpointSubset> {
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let publish_all = service::publishes_not_ready(service);
    for pod in pods {
        let is_listed = !pod::is_finished(pod) && (publish_all || !pod::is_terminating(pod));
        let Some(ip) = pod.address.filter(|_| is_listed) else { continue };
        let mut ports: Vec<Port> =
            service::ports(service).iter().filter_map(|port| resolve(port, pod)).collect();
        ports.sort();
        // A headless service may have no ports at all; otherwise an address without ports reaches nothing.
        if ports.is_empty() && !(service::is_headless(service) && service::ports(service).is_empty()) {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: service::hostname(service, pod),
            node_name: Some(pod::node_name(pod).to_owned()).filter(|node| !node.is_empty()),
            target_ref: Some(service::target_reference(pod)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if publish_all || pod::is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    groups.into_iter().map(|(ports, (ready, not_ready))| subset(ports, ready, not_ready)).collect()
}

fn resolve(port: &ServicePort, pod: &Sketch) -> Option<Port> {
    let number = service::target_port(port, pod)?;
    let name = port.name.clone().filter(|name| !name.is_empty());
    Some((name, number, service::protocol(port).to_owned(), port.app_protocol.clone()))
}

fn subset(ports: Vec<Port>, ready: Vec<EndpointAddress>, not_ready: Vec<EndpointAddress>) -> EndpointSubset {
    let sorted = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(addresses).filter(|addresses| !addresses.is_empty())
    };
    let port = |(name, port, protocol, app_protocol): Port| EndpointPort {
        name,
        port,
        protocol: Some(protocol),
        app_protocol,
    };
    let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
    EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    }
}

/// Keeps the first addresses, ready ones before others, and tells whether any were dropped.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let not_ready: usize = subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum();
    if ready + not_ready <= CAPACITY {
        return (subsets, false);
    }
    let keep = |addresses: &mut Option<Vec<EndpointAddress>>, room: &mut usize| {
        if let Some(list) = addresses {
            list.truncate(*room);
            *room -= list.len();
            if list.is_empty() {
                *addresses = None;
            }
        }
    };
    let mut room = CAPACITY;
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses, &mut room));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses, &mut room));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Arc<Service> {
        let mut all = json!({"clusterIP": "10.96.0.9", "selector": {"app": "kubia"},
            "ports": [{"port": 80, "targetPort": 8080}]});
        for (name, value) in spec.as_object().unwrap() {
            all[name] = value.clone();
        }
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "kubia", "namespace": "d"}, "spec": all}))
                .unwrap(),
        )
    }

    fn pod(ip: &str, ready: bool, terminating: bool) -> Arc<Sketch> {
        let deletion = terminating.then_some("2024-01-01T00:00:00Z");
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": ip, "namespace": "d", "uid": ip, "deletionTimestamp": deletion},
                "spec": {"nodeName": "node", "containers": []},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap(),
        )
    }

    fn endpoints(plan: &Plan) -> Endpoints {
        plan.writes().find_map(|write| write.object::<Endpoints>()).unwrap().clone()
    }

    fn ips(addresses: &Option<Vec<EndpointAddress>>) -> Vec<String> {
        addresses.iter().flatten().map(|address| address.ip.clone()).collect()
    }

    #[test]
    fn endpoints_list_ready_and_not_ready_pods_but_not_those_that_are_going() {
        let pods = vec![
            pod("10.0.0.3", true, false),
            pod("10.0.0.2", true, false),
            pod("10.0.0.4", false, false),
            pod("10.0.0.5", true, true),
        ];
        let plan = plan(&Snapshot { service: Some(service(json!({}))), pods, current: None });
        let address = |ip: &str| {
            json!({"ip": ip, "nodeName": "node",
                "targetRef": {"kind": "Pod", "namespace": "d", "name": ip, "uid": ip}})
        };
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "kubia", "namespace": "d", "labels": {MANAGED_BY: MANAGER}},
            "subsets": [{
                "addresses": [address("10.0.0.2"), address("10.0.0.3")],
                "notReadyAddresses": [address("10.0.0.4")],
                "ports": [{"port": 8080, "protocol": "TCP"}],
            }],
        });
        assert_eq!(serde_json::to_value(endpoints(&plan)).unwrap(), expected);
    }

    #[test]
    fn with_publish_not_ready_addresses_all_count_as_ready_even_those_that_are_going() {
        let service = service(json!({"publishNotReadyAddresses": true}));
        let pods = vec![pod("10.0.0.2", false, false), pod("10.0.0.3", true, true)];
        let endpoints = endpoints(&plan(&Snapshot { service: Some(service), pods, current: None }));
        assert_eq!(ips(&endpoints.subsets.unwrap()[0].addresses), ["10.0.0.2", "10.0.0.3"]);
    }

    #[rstest]
    #[case::headless_without_ports(json!({"clusterIP": "None", "ports": null}), 1)]
    #[case::unknown_named_port(json!({"ports": [{"port": 80, "targetPort": "nowhere"}]}), 0)]
    #[case::two_ports_one_subset(json!({"ports": [{"name": "b", "port": 81}, {"name": "a", "port": 80}]}), 1)]
    fn addresses_are_packed_by_their_ports(#[case] spec: Value, #[case] count: usize) {
        let pods = vec![pod("10.0.0.2", true, false), pod("10.0.0.3", true, false)];
        let endpoints = endpoints(&plan(&Snapshot { service: Some(service(spec)), pods, current: None }));
        assert_eq!(endpoints.subsets.unwrap_or_default().len(), count);
    }

    #[test]
    fn what_is_right_is_not_written_again() {
        let pods = vec![pod("10.0.0.2", true, false)];
        let mut snapshot = Snapshot { service: Some(service(json!({}))), pods, current: None };
        snapshot.current = Some(Arc::new(endpoints(&plan(&snapshot))));
        assert!(plan(&snapshot).is_idle());
        snapshot.pods.clear();
        assert_eq!(endpoints(&plan(&snapshot)).subsets, None);
    }

    #[test]
    fn too_many_addresses_are_truncated_and_marked() {
        let pods =
            (0..1100).map(|i| pod(&format!("10.0.{}.{}", i / 200, i % 200 + 1), i % 2 == 0, false)).collect();
        let endpoints =
            endpoints(&plan(&Snapshot { service: Some(service(json!({}))), pods, current: None }));
        assert_eq!(endpoints.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
        let subset = &endpoints.subsets.unwrap()[0];
        assert_eq!((ips(&subset.addresses).len(), ips(&subset.not_ready_addresses).len()), (550, 450));
    }

    #[rstest]
    #[case::ours(json!({MANAGED_BY: MANAGER}), &["delete"])]
    #[case::a_users_own(json!({}), &[])]
    fn endpoints_go_with_their_service_if_they_are_ours(#[case] labels: Value, #[case] expected: &[&str]) {
        let current = json!({"metadata": {"name": "kubia", "namespace": "d", "labels": labels}});
        let current = Some(Arc::new(serde_json::from_value(current).unwrap()));
        let plan = plan(&Snapshot { service: None, pods: Vec::new(), current });
        assert_eq!(plan.writes().map(|write| write.verb.name()).collect::<Vec<_>>(), expected);
    }
}
