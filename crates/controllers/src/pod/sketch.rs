//! A pod as the caches keep it: what controllers plan with, and no more. A whole pod takes several kilobytes, and there
//! are thousands of them; a sketch takes one, and what the pods of one template have in common is kept once.

use super::{Ready, View};
use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerStatus, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock, Weak};

/// The annotation with which users say what deleting a pod costs; the only one that is kept.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// Without managed fields, and without annotations but [`DELETION_COST`].
    pub metadata: ObjectMeta,
    /// What it has from its template.
    pub template: Arc<Template>,
    /// `spec.nodeName`; empty if none.
    pub node: Arc<str>,
    /// `status.phase`; empty if not set yet.
    pub phase: &'static str,
    /// The `Ready` condition, if there is one.
    pub ready: Option<Ready>,
    /// The first IPv4 address among `status.podIPs` and `status.podIP`.
    pub address: Option<Ipv4Addr>,
    /// How often the most often restarted of its containers was restarted.
    pub restarts: i32,
}

/// The part of a pod's spec that is kept. Pods with equal parts share one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// `spec.hostname`.
    pub hostname: Option<String>,
    /// `spec.subdomain`.
    pub subdomain: Option<String>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// Ports that can be found by name, of containers and then of sidecars.
    pub ports: Vec<NamedPort>,
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// `name`.
    pub name: String,
    /// `protocol`; `TCP` if unset.
    pub protocol: String,
    /// `containerPort`.
    pub number: i32,
}

impl View for Sketch {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn phase(&self) -> &str {
        self.phase
    }

    fn ready(&self) -> Option<Ready> {
        self.ready
    }

    fn node_name(&self) -> &str {
        &self.node
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self::from(Wire::default())
    }
}

impl k8s_openapi::Resource for Sketch {
    const API_VERSION: &'static str = Pod::API_VERSION;
    const GROUP: &'static str = Pod::GROUP;
    const KIND: &'static str = Pod::KIND;
    const VERSION: &'static str = Pod::VERSION;
    const URL_PATH_SEGMENT: &'static str = Pod::URL_PATH_SEGMENT;
    type Scope = <Pod as k8s_openapi::Resource>::Scope;
}

impl k8s_openapi::Metadata for Sketch {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What of a pod's JSON is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    hostname: Option<String>,
    subdomain: Option<String>,
    tolerations: Option<Vec<Toleration>>,
    containers: Option<Vec<Ports>>,
    init_containers: Option<Vec<Ports>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ports {
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    conditions: Option<Vec<Condition>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Address>>,
    container_statuses: Option<Vec<Restarts>>,
    init_container_statuses: Option<Vec<Restarts>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    last_transition_time: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Restarts {
    restart_count: i32,
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer).map(Self::from)
    }
}

impl From<Wire> for Sketch {
    fn from(Wire { mut metadata, spec, status }: Wire) -> Self {
        metadata.managed_fields = None;
        metadata.generate_name = None;
        metadata.annotations = metadata.annotations.take().and_then(|mut all| {
            let cost = all.remove(DELETION_COST)?;
            Some([(DELETION_COST.to_owned(), cost)].into())
        });
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let addresses = status.pod_ips.iter().flatten().map(|address| &address.ip).chain(&status.pod_ip);
        let restarts = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        Self {
            metadata,
            node: shared_name(spec.node_name.as_deref().unwrap_or_default()),
            phase: phase(status.phase.as_deref().unwrap_or_default()),
            ready: status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").map(ready),
            address: addresses.filter_map(|address| address.parse().ok()).next(),
            restarts: restarts.map(|container| container.restart_count).max().unwrap_or(0),
            template: shared_template(template(spec)),
        }
    }
}

/// For those who have the whole object at hand: tests and simulations.
impl From<&Pod> for Sketch {
    fn from(pod: &Pod) -> Self {
        let ports = |container: &Container| Ports {
            restart_policy: container.restart_policy.clone(),
            ports: container.ports.clone(),
        };
        let restarts = |statuses: &Vec<ContainerStatus>| {
            statuses.iter().map(|status| Restarts { restart_count: status.restart_count }).collect()
        };
        let spec = pod.spec.as_ref().map(|spec| Spec {
            node_name: spec.node_name.clone(),
            hostname: spec.hostname.clone(),
            subdomain: spec.subdomain.clone(),
            tolerations: spec.tolerations.clone(),
            containers: Some(spec.containers.iter().map(ports).collect()),
            init_containers: spec.init_containers.as_ref().map(|all| all.iter().map(ports).collect()),
        });
        let condition = |condition: &k8s_openapi::api::core::v1::PodCondition| Condition {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            last_transition_time: condition.last_transition_time.clone(),
        };
        let status = pod.status.as_ref().map(|status| Status {
            phase: status.phase.clone(),
            conditions: status.conditions.as_ref().map(|all| all.iter().map(condition).collect()),
            pod_ip: status.pod_ip.clone(),
            pod_ips: status
                .pod_ips
                .as_ref()
                .map(|all| all.iter().map(|address| Address { ip: address.ip.clone() }).collect()),
            container_statuses: status.container_statuses.as_ref().map(restarts),
            init_container_statuses: status.init_container_statuses.as_ref().map(restarts),
        });
        Self::from(Wire { metadata: pod.metadata.clone(), spec, status })
    }
}

fn ready(condition: &Condition) -> Ready {
    Ready {
        is_true: condition.status == "True",
        since: condition.last_transition_time.as_ref().map(|time| time.0),
    }
}

/// Phases that do not exist count as none.
fn phase(phase: &str) -> &'static str {
    ["Pending", "Running", "Succeeded", "Failed", "Unknown"]
        .into_iter()
        .find(|known| *known == phase)
        .unwrap_or_default()
}

fn template(spec: Spec) -> Template {
    let sidecars = spec.init_containers.into_iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.into_iter().flatten().chain(sidecars);
    let named = |port: ContainerPort| {
        Some(NamedPort {
            name: port.name.filter(|name| !name.is_empty())?,
            protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
            number: port.container_port,
        })
    };
    Template {
        hostname: spec.hostname,
        subdomain: spec.subdomain,
        tolerations: spec.tolerations.unwrap_or_default(),
        ports: containers
            .flat_map(|container| container.ports.into_iter().flatten())
            .filter_map(named)
            .collect(),
    }
}

/// Templates that were seen last; more are not compared with.
const RECENT: usize = 32;
/// Names of nodes that are kept once.
const NODES: usize = 4096;

/// The same template as another pod has, or this one.
fn shared_template(template: Template) -> Arc<Template> {
    static RECENTLY: LazyLock<Mutex<Vec<Weak<Template>>>> = LazyLock::new(Mutex::default);
    let mut recently = RECENTLY.lock();
    let found = recently.iter().enumerate().find_map(|(index, known)| {
        known.upgrade().filter(|known| **known == template).map(|known| (index, known))
    });
    let (index, template) = match found {
        Some(found) => found,
        None => {
            let template = Arc::new(template);
            recently.retain(|known| known.strong_count() > 0);
            recently.truncate(RECENT - 1);
            recently.push(Arc::downgrade(&template));
            (recently.len() - 1, template)
        }
    };
    // What was asked for last is asked for next.
    recently[..=index].rotate_right(1);
    template
}

fn shared_name(name: &str) -> Arc<str> {
    static NAMES: LazyLock<Mutex<HashSet<Arc<str>>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock();
    if let Some(known) = names.get(name) {
        return known.clone();
    }
    if names.len() >= NODES {
        names.clear();
    }
    let name: Arc<str> = name.into();
    names.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn whole() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "7", "generateName": "x-",
                "labels": {"app": "kubia"}, "annotations": {DELETION_COST: "-5", "long": "text"},
                "finalizers": ["f"], "deletionTimestamp": "2024-01-01T10:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs",
                    "controller": true, "blockOwnerDeletion": true}],
                "managedFields": [{"manager": "kubectl"}]},
            "spec": {"nodeName": "node", "hostname": "h", "subdomain": "s",
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "i", "ports": [
                    {"name": "http", "containerPort": 8080}, {"containerPort": 9090}]}],
                "initContainers": [
                    {"name": "once", "ports": [{"name": "once", "containerPort": 1}]},
                    {"name": "side", "restartPolicy": "Always",
                        "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.2"}],
                "conditions": [{"type": "Initialized", "status": "False"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T09:00:00Z"}],
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 2}],
                "initContainerStatuses": [{"name": "side", "image": "i", "imageID": "", "ready": true,
                    "restartCount": 3}]},
        })
    }

    #[test]
    fn a_sketch_has_what_controllers_ask_for() {
        let sketch: Sketch = serde_json::from_value(whole()).unwrap();
        let meta = serde_json::to_value(&sketch.metadata).unwrap();
        let mut expected = whole()["metadata"].clone();
        expected["annotations"] = json!({DELETION_COST: "-5"});
        for dropped in ["managedFields", "generateName"] {
            expected.as_object_mut().unwrap().remove(dropped);
        }
        assert_eq!(meta, expected);
        assert_eq!((&*sketch.node, sketch.phase, sketch.restarts), ("node", "Running", 3));
        assert_eq!(sketch.address, Some(Ipv4Addr::new(10, 0, 0, 2)));
        let since = Some("2024-01-01T09:00:00Z".parse().unwrap());
        assert_eq!(sketch.ready, Some(Ready { is_true: true, since }));
        let Template { hostname, subdomain, tolerations, ports } = &*sketch.template;
        assert_eq!((hostname.as_deref(), subdomain.as_deref(), tolerations.len()), (Some("h"), Some("s"), 1));
        let port = |name: &str, protocol: &str, number| NamedPort {
            name: name.into(),
            protocol: protocol.into(),
            number,
        };
        assert_eq!(*ports, [port("http", "TCP", 8080), port("dns", "UDP", 53)]);
    }

    #[test]
    fn a_sketch_of_an_object_is_that_of_its_json() {
        let pod: Pod = serde_json::from_value(whole()).unwrap();
        let (a, b): (Sketch, Sketch) = (Sketch::from(&pod), serde_json::from_value(whole()).unwrap());
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn pods_of_one_template_share_what_they_have_from_it() {
        let sketch = || serde_json::from_value::<Sketch>(whole()).unwrap();
        let mut other = whole();
        other["spec"]["hostname"] = json!("other");
        let other: Sketch = serde_json::from_value(other).unwrap();
        let (a, b) = (sketch(), sketch());
        assert!(Arc::ptr_eq(&a.template, &b.template) && Arc::ptr_eq(&a.node, &b.node));
        assert!(!Arc::ptr_eq(&a.template, &other.template));
    }

    #[test]
    fn nothing_is_required() {
        let null = json!({"metadata": {}, "spec": {"nodeName": null, "containers": []},
            "status": {"conditions": null, "podIPs": null, "phase": "Strange"}});
        for value in [json!({}), null] {
            let sketch: Sketch = serde_json::from_value(value).unwrap();
            assert_eq!((&*sketch.node, sketch.phase, sketch.ready, sketch.address), ("", "", None, None));
        }
    }
}
