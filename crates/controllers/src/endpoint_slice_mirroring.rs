//! EndpointSlices of Endpoints that users write for a Service without a selector: proxies and the name server read
//! slices only.

use crate::cache::Key;
use crate::caches::Caches;
use crate::claim::controller_reference;
use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME};
use crate::plan::{Plan, Write};
use crate::runner::{self, Watch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The value of [`MANAGED_BY`] for slices kept here.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";

/// On Endpoints: leave them alone.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On Endpoints: they are a lock of leader election, not addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations of Endpoints that say nothing of a slice.
const OWN: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Endpoints in a slice at most, as the API server allows.
const CAPACITY: usize = 1000;

/// The EndpointSlice mirroring controller.
pub struct Controller;

/// What a plan depends on.
pub struct Snapshot {
    /// The Endpoints, if they exist.
    pub endpoints: Option<Arc<Endpoints>>,
    /// The service of their name, if it exists.
    pub service: Option<Arc<Service>>,
    /// The slices kept here for a service of that name.
    pub slices: Vec<Arc<EndpointSlice>>,
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on_own(&caches.services);
        watch.on_own(&caches.endpoints);
        watch.on(&caches.endpoint_slices, |change, wake| {
            change.versions().filter_map(|slice| mirrored(slice)).for_each(wake);
        });
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let (endpoints, service) = (caches.endpoints.get(key), caches.services.get(key));
        let mut slices = caches.endpoint_slices.in_namespace(&key.namespace);
        slices.retain(|slice| mirrored(slice).as_ref() == Some(key));
        Some(Snapshot { endpoints, service, slices })
    }

    fn plan(&self, snapshot: &Snapshot, _now: Timestamp) -> Plan {
        plan(snapshot)
    }
}

/// The Endpoints a slice that is kept here shows.
fn mirrored(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|manager| *manager == MANAGER)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), labels.get(SERVICE_NAME)?))
}

/// Brings the slices of Endpoints up to date.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let mut left = snapshot.slices.clone();
    let mut writes = Vec::new();
    for wanted in desired(snapshot) {
        let same = |slice: &Arc<EndpointSlice>| {
            slice.address_type == wanted.address_type && slice.ports == wanted.ports
        };
        let Some(at) = left.iter().position(same) else {
            writes.push(Write::create(wanted));
            continue;
        };
        let slice = left.remove(at);
        let meta = &slice.metadata;
        let told = (&meta.labels, &meta.annotations, &meta.owner_references, &slice.endpoints);
        let new = &wanted.metadata;
        if told != (&new.labels, &new.annotations, &new.owner_references, &wanted.endpoints) {
            let mut slice = EndpointSlice::clone(&slice);
            slice.metadata.labels = wanted.metadata.labels;
            slice.metadata.annotations = wanted.metadata.annotations;
            slice.metadata.owner_references = wanted.metadata.owner_references;
            slice.endpoints = wanted.endpoints;
            writes.push(Write::update(slice));
        }
    }
    writes.extend(left.iter().map(|slice| Write::delete(&**slice)));
    plan.then_all(writes);
    plan
}

/// The slices there should be: for each subset one a family of addresses, or more where one is not enough.
fn desired(snapshot: &Snapshot) -> Vec<EndpointSlice> {
    let (Some(endpoints), Some(service)) = (&snapshot.endpoints, &snapshot.service) else {
        return Vec::new();
    };
    if !is_mirrored(endpoints, service) {
        return Vec::new();
    }
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (address_type, is_of) in
            [("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("IPv6", IpAddr::is_ipv6)]
        {
            let all: Vec<Endpoint> = addresses(subset, is_of);
            slices.extend(all.chunks(CAPACITY).map(|some| EndpointSlice {
                address_type: address_type.to_owned(),
                endpoints: some.to_vec(),
                metadata: metadata(endpoints),
                ports: ports(subset),
            }));
        }
    }
    slices
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let meta = &endpoints.metadata;
    let skipped =
        meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|value| value == "true");
    let leads = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    let selects =
        service.spec.as_ref().is_some_and(|spec| spec.selector.as_ref().is_some_and(|s| !s.is_empty()));
    !skipped
        && !leads
        && !selects
        && meta.deletion_timestamp.is_none()
        && service.metadata.deletion_timestamp.is_none()
}

fn addresses(subset: &EndpointSubset, is_of: fn(&IpAddr) -> bool) -> Vec<Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let of_family = |address: &EndpointAddress| address.ip.parse().is_ok_and(|ip| is_of(&ip));
    ready
        .chain(not_ready)
        .filter(|(address, _)| of_family(address))
        .map(|(address, ready)| Endpoint {
            addresses: vec![address.ip.clone()],
            conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
            hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        })
        .collect()
}

fn ports(subset: &EndpointSubset) -> Option<Vec<EndpointPort>> {
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    };
    let ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
    (!ports.is_empty()).then_some(ports)
}

/// Labels and annotations of the Endpoints, and whose the slice is.
fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let annotations: BTreeMap<String, String> = meta
        .annotations
        .iter()
        .flatten()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: meta.namespace.clone(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    /// Endpoints with this in place of what they have at the pointer.
    fn endpoints_with(pointer: &str, given: Value) -> Arc<Endpoints> {
        let mut value = json!({
            "metadata": {"namespace": "default", "name": "db", "uid": "e1", "labels": {"l": "m"},
                "annotations": {"a": "b", "endpoints.kubernetes.io/last-change-trigger-time": "now"}},
            "subsets": [{
                "addresses": [{"ip": "192.0.2.1", "hostname": "one"}, {"ip": "2001:db8::1"}],
                "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"port": 5432}],
            }],
        });
        *value.pointer_mut(pointer).unwrap() = given;
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn endpoints() -> Arc<Endpoints> {
        endpoints_with("/metadata/uid", json!("e1"))
    }

    fn service(spec: Value) -> Arc<Service> {
        let value = json!({"metadata": {"namespace": "default", "name": "db", "uid": "s1"}, "spec": spec});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn snapshot(endpoints: Arc<Endpoints>, slices: Vec<Arc<EndpointSlice>>) -> Snapshot {
        Snapshot { endpoints: Some(endpoints), service: Some(service(json!({}))), slices }
    }

    /// The slices after a plan.
    fn made(plan: &Plan) -> Vec<Arc<EndpointSlice>> {
        plan.writes()
            .filter_map(|write| write.object::<EndpointSlice>())
            .map(|slice| Arc::new(slice.clone()))
            .collect()
    }

    fn verbs(plan: &Plan) -> Vec<&'static str> {
        plan.writes().map(|write| write.verb.name()).collect()
    }

    #[test]
    fn a_slice_of_each_family_shows_what_the_endpoints_show() {
        let slices = made(&plan(&snapshot(endpoints(), Vec::new())));
        let expected = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": "db-", "namespace": "default",
                "labels": {"l": "m", SERVICE_NAME: "db", MANAGED_BY: MANAGER},
                "annotations": {"a": "b"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Endpoints", "name": "db", "uid": "e1",
                    "controller": true, "blockOwnerDeletion": true}],
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "hostname": "one"},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
            ],
            "ports": [{"name": "", "port": 5432, "protocol": "TCP"}],
        });
        assert_eq!(serde_json::to_value(&*slices[0]).unwrap(), expected);
        assert_eq!((slices.len(), slices[1].address_type.as_str()), (2, "IPv6"));
    }

    #[test]
    fn what_is_right_is_not_written_again_and_what_changed_is_updated() {
        let slices = made(&plan(&snapshot(endpoints(), Vec::new())));
        assert!(plan(&snapshot(endpoints(), slices.clone())).is_idle());
        let moved = json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5432}]}]);
        assert_eq!(verbs(&plan(&snapshot(endpoints_with("/subsets", moved), slices))), ["update", "delete"]);
    }

    #[rstest]
    #[case::plain(endpoints(), json!({}), true)]
    #[case::asked_not_to(endpoints_with("/metadata/labels", json!({SKIP: "true"})), json!({}), false)]
    #[case::a_lock(endpoints_with("/metadata/annotations", json!({LEADER: "{}"})), json!({}), false)]
    #[case::of_a_service_that_selects(endpoints(), json!({"selector": {"a": "b"}}), false)]
    fn only_endpoints_of_users_are_shown(
        #[case] given: Arc<Endpoints>,
        #[case] spec: Value,
        #[case] shown: bool,
    ) {
        let slices = made(&plan(&snapshot(endpoints(), Vec::new())));
        let snapshot = Snapshot { endpoints: Some(given), service: Some(service(spec)), slices };
        let expected: &[&str] = if shown { &[] } else { &["delete", "delete"] };
        assert_eq!(verbs(&plan(&snapshot)), expected);
    }

    #[test]
    fn without_endpoints_or_service_there_are_no_slices() {
        let slices = made(&plan(&snapshot(endpoints(), Vec::new())));
        let no_endpoints =
            Snapshot { endpoints: None, service: Some(service(json!({}))), slices: slices.clone() };
        let no_service = Snapshot { endpoints: Some(endpoints()), service: None, slices };
        for snapshot in [no_endpoints, no_service] {
            assert_eq!(verbs(&plan(&snapshot)), ["delete", "delete"]);
        }
    }
}
