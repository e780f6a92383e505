//! EndpointSlices: the pods behind a Service, in portions of at most 100, terminating pods included.
//!
//! Changes are minimal: an endpoint stays in the slice it is in, only slices that change are written, and new
//! endpoints go where they cause the fewest writes.

use crate::cache::Key;
use crate::caches::Caches;
use crate::claim::controller_reference;
use crate::plan::{Plan, Write};
use crate::pod::{self, Sketch};
use crate::runner::{self, Watch};
use crate::service;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// On a slice: the name of its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// On a slice: who keeps it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] for slices kept here.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// Endpoints in a slice at most.
const CAPACITY: usize = 100;
const ZONE: &str = "topology.kubernetes.io/zone";

/// The EndpointSlice controller.
pub struct Controller;

/// What a plan depends on.
pub struct Snapshot {
    /// Namespace and name of the service.
    pub key: Key,
    /// The service, if it exists.
    pub service: Option<Arc<Service>>,
    /// The pods it selects.
    pub pods: Vec<Arc<Sketch>>,
    /// The slices kept here for a service of that name.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The zone of each node that has one.
    pub zones: HashMap<String, String>,
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on_own(&caches.services);
        watch.on(&caches.endpoint_slices, |change, wake| {
            change.versions().filter_map(|slice| service_of(slice)).for_each(wake);
        });
        let all = watch.caches();
        watch.on(&caches.pods, move |change, wake| service::wake_services(&all, change, wake));
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let service = caches.services.get(key);
        let mut slices = caches.endpoint_slices.in_namespace(&key.namespace);
        slices.retain(|slice| service_of(slice).as_ref() == Some(key));
        let pods = service.as_ref().map(|service| service::pods_of(caches, service)).unwrap_or_default();
        let nodes = caches.nodes.list();
        let zone = |meta: &ObjectMeta| Some((meta.name.clone()?, meta.labels.as_ref()?.get(ZONE)?.clone()));
        let zones = nodes.iter().filter_map(|node| zone(&node.metadata)).collect();
        Some(Snapshot { key: key.clone(), service, pods, slices, zones })
    }

    fn plan(&self, snapshot: &Snapshot, _now: Timestamp) -> Plan {
        plan(snapshot)
    }
}

/// The service a slice that is kept here belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(MANAGED_BY).filter(|manager| *manager == MANAGER)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), labels.get(SERVICE_NAME)?))
}

/// Brings the slices of a service up to date.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = &snapshot.service else {
        plan.then_all(snapshot.slices.iter().map(|slice| Write::delete(&**slice)).collect());
        return plan;
    };
    if service::selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    plan.then_all(reconcile(service, snapshot));
    plan
}

fn reconcile(service: &Service, snapshot: &Snapshot) -> Vec<Write> {
    let mut desired = desired(service, snapshot);
    if desired.is_empty() {
        // A slice without endpoints tells that the service has none, as opposed to not being looked at yet.
        desired.push((Vec::new(), Vec::new()));
    }
    let mut outcome = Outcome::default();
    // A service made again under its name must not take over slices the garbage collector is about to delete.
    let (mut slices, of_another): (Vec<_>, Vec<_>) =
        snapshot.slices.iter().partition(|slice| belongs_to(slice, service));
    for (ports, endpoints) in desired {
        let (of_these_ports, others): (Vec<_>, Vec<_>) =
            slices.into_iter().partition(|slice| slice.ports.as_deref().unwrap_or_default() == ports);
        slices = others;
        distribute(ports, endpoints, of_these_ports, &mut outcome);
    }
    outcome.unused.extend(slices.into_iter().cloned());
    let mut writes = outcome.writes(service);
    writes.extend(of_another.into_iter().map(|slice| Write::delete(&**slice)));
    writes
}

/// Whether a slice is owned by this very service, not by one that had its name before.
fn belongs_to(slice: &EndpointSlice, service: &Service) -> bool {
    let mut owners = slice.metadata.owner_references.iter().flatten();
    owners.any(|owner| Some(&owner.uid) == service.metadata.uid.as_ref())
}

/// The endpoints there should be, by their ports: named ports may have other numbers in other pods.
fn desired(service: &Service, snapshot: &Snapshot) -> Vec<(Vec<EndpointPort>, Vec<Endpoint>)> {
    let mut groups: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    for pod in &snapshot.pods {
        let Some(address) = pod.address.filter(|_| !pod::is_finished(pod)) else { continue };
        let ports = ports(service, pod);
        let endpoint = endpoint(service, pod, address, &snapshot.zones);
        match groups.iter_mut().find(|(of_group, _)| *of_group == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn ports(service: &Service, pod: &Sketch) -> Vec<EndpointPort> {
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(service::target_port(port, pod)?),
            protocol: Some(service::protocol(port).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service::ports(service).iter().filter_map(port).collect()
}

/// A terminating pod is never ready, so that no new connection goes there, but says whether it still serves.
fn endpoint(service: &Service, pod: &Sketch, address: Ipv4Addr, zones: &HashMap<String, String>) -> Endpoint {
    let serving = pod::is_ready(pod);
    let terminating = pod::is_terminating(pod);
    let ready = service::publishes_not_ready(service) || (serving && !terminating);
    let node = Some(pod::node_name(pod)).filter(|node| !node.is_empty());
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: service::hostname(service, pod),
        node_name: node.map(str::to_owned),
        target_ref: Some(service::target_reference(pod)),
        zone: node.and_then(|node| zones.get(node)).cloned(),
        ..Endpoint::default()
    }
}

/// What makes two versions of an endpoint the same.
type Identity = (String, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let address = endpoint.addresses.first().cloned().unwrap_or_default();
    (address, endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

/// A slice being planned.
struct Draft {
    slice: Option<Arc<EndpointSlice>>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

impl Draft {
    fn is_changed(&self) -> bool {
        self.slice.as_ref().is_none_or(|slice| {
            slice.endpoints != self.endpoints || slice.ports.as_deref().unwrap_or_default() != self.ports
        })
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.endpoints.len())
    }
}

#[derive(Default)]
struct Outcome {
    drafts: Vec<Draft>,
    unused: Vec<Arc<EndpointSlice>>,
}

/// Puts the endpoints of one set of ports into slices: first where they are, then into slices that change anyway,
/// then into the fullest slice that takes all the rest, then into new ones.
fn distribute(
    ports: Vec<EndpointPort>,
    desired: Vec<Endpoint>,
    slices: Vec<&Arc<EndpointSlice>>,
    outcome: &mut Outcome,
) {
    let is_placeholder = desired.is_empty();
    let mut order = Vec::with_capacity(desired.len());
    let mut missing: HashMap<Identity, Endpoint> = HashMap::with_capacity(desired.len());
    for endpoint in desired {
        let identity = identity(&endpoint);
        if missing.insert(identity.clone(), endpoint).is_none() {
            order.push(identity);
        }
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for slice in slices {
        let endpoints: Vec<Endpoint> =
            slice.endpoints.iter().filter_map(|endpoint| missing.remove(&identity(endpoint))).collect();
        if endpoints.is_empty() && !(is_placeholder && drafts.is_empty()) {
            outcome.unused.push(slice.clone());
        } else {
            drafts.push(Draft { slice: Some(slice.clone()), ports: ports.clone(), endpoints });
        }
    }
    let mut rest: Vec<Endpoint> = order.iter().filter_map(|identity| missing.remove(identity)).collect();
    for draft in drafts.iter_mut().filter(|draft| draft.is_changed()) {
        let fits = rest.len().min(draft.room());
        draft.endpoints.extend(rest.drain(..fits));
    }
    while !rest.is_empty() {
        let fitting = drafts.iter_mut().filter(|draft| draft.room() >= rest.len());
        match fitting.min_by_key(|draft| draft.room()) {
            Some(draft) => draft.endpoints.append(&mut rest),
            None => {
                let fits = rest.len().min(CAPACITY);
                let endpoints = rest.drain(..fits).collect();
                drafts.push(Draft { slice: None, ports: ports.clone(), endpoints });
            }
        }
    }
    if is_placeholder && drafts.is_empty() {
        drafts.push(Draft { slice: None, ports, endpoints: Vec::new() });
    }
    outcome.drafts.append(&mut drafts);
}

impl Outcome {
    /// A slice that would be deleted is used for one that would be created.
    fn writes(mut self, service: &Service) -> Vec<Write> {
        let labels = labels(service);
        let mut writes = Vec::new();
        for mut draft in self.drafts {
            if draft.slice.is_none() {
                draft.slice = self.unused.pop();
            }
            let Some(slice) = &draft.slice else {
                writes.push(Write::create(new_slice(service, labels.clone(), draft)));
                continue;
            };
            if !draft.is_changed() && slice.metadata.labels.as_ref() == Some(&labels) {
                continue;
            }
            let mut slice = EndpointSlice::clone(slice);
            slice.metadata.labels = Some(labels.clone());
            slice.endpoints = draft.endpoints;
            slice.ports = Some(draft.ports).filter(|ports| !ports.is_empty());
            writes.push(Write::update(slice));
        }
        writes.extend(self.unused.iter().map(|slice| Write::delete(&**slice)));
        writes
    }
}

/// The labels of the service and those that say whose the slice is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(service::HEADLESS_LABEL);
    if service::is_headless(service) {
        labels.insert(service::HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_slice(service: &Service, labels: BTreeMap<String, String>, draft: Draft) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: draft.endpoints,
        ports: Some(draft.ports).filter(|ports| !ports.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{NamedPort, Template};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn service(spec: Value) -> Arc<Service> {
        let mut all = json!({"clusterIP": "10.96.0.9", "selector": {"app": "kubia"},
            "ports": [{"port": 80, "targetPort": 8080}]});
        for (name, value) in spec.as_object().unwrap() {
            all[name] = value.clone();
        }
        let metadata = json!({"name": "kubia", "namespace": "default", "uid": "svc", "labels": {"l": "m"}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": all})).unwrap())
    }

    fn pod(index: usize, ready: bool, terminating: bool) -> Arc<Sketch> {
        let deletion = terminating.then_some("2024-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("kubia-{index:04}"), "namespace": "default", "uid": format!("u{index}"),
                    "labels": {"app": "kubia"}, "deletionTimestamp": deletion},
                "spec": {"nodeName": "node", "containers": []},
                "status": {"phase": "Running", "podIP": format!("10.244.{}.{}", index / 250, index % 250 + 1),
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    fn pods(range: std::ops::Range<usize>) -> Vec<Arc<Sketch>> {
        range.map(|index| pod(index, true, false)).collect()
    }

    fn snapshot(service: Arc<Service>, pods: Vec<Arc<Sketch>>, slices: Vec<Arc<EndpointSlice>>) -> Snapshot {
        let zones = HashMap::from([("node".to_owned(), "here".to_owned())]);
        Snapshot { key: Key::new("default", "kubia"), service: Some(service), pods, slices, zones }
    }

    /// Carries out a plan on slices: what is left, and how many creates, updates and deletes it took.
    fn apply(plan: &Plan, mut slices: Vec<Arc<EndpointSlice>>) -> (Vec<Arc<EndpointSlice>>, [usize; 3]) {
        let mut counts = [0; 3];
        for write in plan.writes() {
            match write.verb.name() {
                "create" => {
                    let mut slice = write.object::<EndpointSlice>().unwrap().clone();
                    slice.metadata.name = Some(format!("kubia-{}", slices.len()));
                    slices.push(Arc::new(slice));
                    counts[0] += 1;
                }
                "update" => {
                    let position =
                        slices.iter().position(|slice| slice.metadata.name == Some(write.key.name.clone()));
                    slices[position.unwrap()] = Arc::new(write.object::<EndpointSlice>().unwrap().clone());
                    counts[1] += 1;
                }
                _ => {
                    slices.retain(|slice| slice.metadata.name != Some(write.key.name.clone()));
                    counts[2] += 1;
                }
            }
        }
        (slices, counts)
    }

    fn converged(pods: Vec<Arc<Sketch>>) -> Vec<Arc<EndpointSlice>> {
        apply(&plan(&snapshot(service(json!({})), pods, Vec::new())), Vec::new()).0
    }

    #[test]
    fn a_slice_names_its_service_and_its_pods() {
        let slices = converged(vec![pod(0, true, false)]);
        let expected = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubia-0", "generateName": "kubia-", "namespace": "default",
                "labels": {"l": "m", SERVICE_NAME: "kubia", MANAGED_BY: MANAGER},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "kubia", "uid": "svc",
                    "controller": true, "blockOwnerDeletion": true}],
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.244.0.1"],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "node",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "kubia-0000", "uid": "u0"},
                "zone": "here",
            }],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        });
        assert_eq!(serde_json::to_value(&*slices[0]).unwrap(), expected);
    }

    #[rstest]
    #[case::ready(true, false, json!({}), (true, true, false))]
    #[case::not_ready(false, false, json!({}), (false, false, false))]
    #[case::terminating_still_serves(true, true, json!({}), (false, true, true))]
    #[case::terminating_no_longer_serves(false, true, json!({}), (false, false, true))]
    #[case::published_anyway(false, false, json!({"publishNotReadyAddresses": true}), (true, false, false))]
    fn conditions_tell_ready_serving_and_terminating(
        #[case] ready: bool,
        #[case] terminating: bool,
        #[case] spec: Value,
        #[case] expected: (bool, bool, bool),
    ) {
        let plan = plan(&snapshot(service(spec), vec![pod(0, ready, terminating)], Vec::new()));
        let slice = plan.writes().find_map(|write| write.object::<EndpointSlice>()).unwrap();
        let conditions = slice.endpoints[0].conditions.clone().unwrap();
        let told = (conditions.ready, conditions.serving, conditions.terminating);
        assert_eq!(told, (Some(expected.0), Some(expected.1), Some(expected.2)));
    }

    #[rstest]
    #[case::nothing_yet(0..0, 0..0, [0, 0, 0])]
    #[case::first_pod_fills_the_placeholder(0..0, 0..1, [0, 1, 0])]
    #[case::last_pod_leaves_a_placeholder(0..1, 0..0, [0, 1, 0])]
    #[case::one_more(0..10, 0..11, [0, 1, 0])]
    #[case::one_more_than_fits(0..100, 0..101, [1, 0, 0])]
    #[case::many(0..0, 0..250, [2, 1, 0])]
    #[case::one_goes_of_many(0..250, 1..250, [0, 1, 0])]
    #[case::one_for_one_touches_one_slice(0..250, 1..251, [0, 1, 0])]
    #[case::a_whole_slice_goes(0..250, 100..250, [0, 0, 1])]
    fn changes_touch_as_few_slices_as_possible(
        #[case] before: std::ops::Range<usize>,
        #[case] after: std::ops::Range<usize>,
        #[case] expected: [usize; 3],
    ) {
        let slices = converged(pods(before));
        let plan = plan(&snapshot(service(json!({})), pods(after.clone()), slices.clone()));
        let (slices, counts) = apply(&plan, slices);
        assert_eq!(counts, expected);
        assert_eq!(slices.iter().map(|slice| slice.endpoints.len()).sum::<usize>(), after.len());
        assert!(slices.iter().all(|slice| slice.endpoints.len() <= CAPACITY));
    }

    #[test]
    fn what_is_right_is_not_written_again() {
        let slices = converged(pods(0..150));
        assert!(plan(&snapshot(service(json!({})), pods(0..150), slices)).is_idle());
    }

    #[test]
    fn pods_without_address_or_that_have_ended_are_left_out() {
        let mut starting = Sketch::clone(&pod(1, false, false));
        starting.address = None;
        let mut ended = Sketch::clone(&pod(2, false, false));
        ended.phase = "Failed";
        let slices = converged(vec![pod(0, true, false), Arc::new(starting), Arc::new(ended)]);
        assert_eq!(slices[0].endpoints.len(), 1);
    }

    #[test]
    fn pods_whose_named_port_differs_are_in_different_slices() {
        let with_port = |index: usize, port: i32| {
            let mut pod = Sketch::clone(&pod(index, true, false));
            let port = NamedPort { name: "http".into(), protocol: "TCP".into(), number: port };
            pod.template = Arc::new(Template { ports: vec![port], ..Template::default() });
            Arc::new(pod)
        };
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let pods = vec![with_port(0, 8080), with_port(1, 9090), with_port(2, 8080)];
        let (slices, _) = apply(&plan(&snapshot(service, pods, Vec::new())), Vec::new());
        let sizes: Vec<(Option<i32>, usize)> = slices
            .iter()
            .map(|slice| (slice.ports.as_ref().unwrap()[0].port, slice.endpoints.len()))
            .collect();
        assert_eq!(sizes, [(Some(8080), 2), (Some(9090), 1)]);
    }

    proptest! {
        #[test]
        fn any_change_leaves_every_pod_in_exactly_one_slice(
            before in proptest::collection::btree_set(0..400usize, 0..300),
            after in proptest::collection::btree_set(0..400usize, 0..300),
        ) {
            let pods = |indexes: &BTreeSet<usize>| indexes.iter().map(|index| pod(*index, true, false)).collect();
            let slices = converged(pods(&before));
            let planned = plan(&snapshot(service(json!({})), pods(&after), slices.clone()));
            let (slices, [creates, updates, deletes]) = apply(&planned, slices);
            prop_assert!(creates == 0 || deletes == 0, "a slice is used again rather than replaced");
            prop_assert!(creates + updates + deletes <= 4);
            let uid = |endpoint: &Endpoint| endpoint.target_ref.as_ref().unwrap().uid.clone().unwrap();
            let mut found: Vec<String> = slices.iter().flat_map(|slice| slice.endpoints.iter().map(uid)).collect();
            let mut expected: Vec<String> = after.iter().map(|index| format!("u{index}")).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
            prop_assert!(slices.iter().all(|slice| slice.endpoints.len() <= CAPACITY));
            let again = plan(&snapshot(service(json!({})), pods(&after), slices));
            prop_assert!(again.is_idle());
        }
    }

    #[test]
    fn slices_go_with_their_service_and_a_service_without_selector_is_left_alone() {
        let slices = converged(pods(0..1));
        let mut snapshot = snapshot(service(json!({"selector": null})), Vec::new(), slices);
        assert!(plan(&snapshot).is_idle());
        snapshot.service = None;
        let verbs: Vec<_> = plan(&snapshot).writes().map(|write| write.verb.name()).collect();
        assert_eq!(verbs, ["delete"]);
    }

    #[test]
    fn a_service_made_again_gets_slices_of_its_own() {
        let mut again = (*service(json!({}))).clone();
        again.metadata.uid = Some("another".into());
        let plan = plan(&snapshot(Arc::new(again), pods(0..1), converged(pods(0..1))));
        let verbs: Vec<_> = plan.writes().map(|write| write.verb.name()).collect();
        assert_eq!(verbs, ["create", "delete"]);
    }

    #[rstest]
    #[case::none(json!({"clusterIP": "None"}), true)]
    #[case::own_address(json!({}), false)]
    fn slices_of_a_headless_service_say_so(#[case] spec: Value, #[case] expected: bool) {
        let plan = plan(&snapshot(service(spec), pods(0..1), Vec::new()));
        let slice = plan.writes().find_map(|write| write.object::<EndpointSlice>()).unwrap();
        assert_eq!(slice.metadata.labels.as_ref().unwrap().contains_key(service::HEADLESS_LABEL), expected);
    }
}
