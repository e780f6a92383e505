//! Pods as they are watched: only what nodes are picked by is read and kept. A whole one takes four times as long to
//! read, and thousands may wait.

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, Pod, PodSchedulingGate, PodSpec, PodStatus, ResourceRequirements,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{NamespaceResourceScope, Resource};
use kube::runtime::watcher::Event;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A Pod of which the rest is empty.
#[derive(Clone, Debug)]
pub(crate) struct Watched(Pod);

/// The same event about the Pod.
pub(crate) fn event(event: Event<Watched>) -> Event<Pod> {
    match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(Watched(pod)) => Event::InitApply(pod),
        Event::Apply(Watched(pod)) => Event::Apply(pod),
        Event::Delete(Watched(pod)) => Event::Delete(pod),
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<PodSchedulingGate>>,
    containers: Vec<Wants>,
    init_containers: Option<Vec<Wants>>,
    overhead: Option<BTreeMap<String, Quantity>>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
    tolerations: Option<Vec<Toleration>>,
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wants {
    name: String,
    resources: Option<ResourceRequirements>,
    ports: Option<Vec<ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { mut metadata, spec, status } = Wire::deserialize(deserializer)?;
        metadata.managed_fields = None;
        metadata.annotations = None;
        metadata.labels = None;
        Ok(Self(Pod {
            metadata,
            spec: Some(spec.into()),
            status: Some(PodStatus { phase: status.phase, ..PodStatus::default() }),
        }))
    }
}

impl From<Spec> for PodSpec {
    fn from(spec: Spec) -> Self {
        let containers = |all: Vec<Wants>| all.into_iter().map(Container::from).collect();
        Self {
            node_name: spec.node_name,
            scheduler_name: spec.scheduler_name,
            scheduling_gates: spec.scheduling_gates,
            containers: containers(spec.containers),
            init_containers: spec.init_containers.map(containers),
            overhead: spec.overhead,
            node_selector: spec.node_selector,
            affinity: spec.affinity,
            tolerations: spec.tolerations,
            host_network: spec.host_network,
            ..Self::default()
        }
    }
}

impl From<Wants> for Container {
    fn from(wants: Wants) -> Self {
        Self {
            name: wants.name,
            resources: wants.resources,
            ports: wants.ports,
            restart_policy: wants.restart_policy,
            ..Self::default()
        }
    }
}

impl Resource for Watched {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        Pod::kind(dt)
    }
    fn group(dt: &()) -> Cow<'_, str> {
        Pod::group(dt)
    }
    fn version(dt: &()) -> Cow<'_, str> {
        Pod::version(dt)
    }
    fn plural(dt: &()) -> Cow<'_, str> {
        Pod::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails

    use super::*;
    use crate::cluster::{Cluster, Wanted};
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};

    fn whole() -> Value {
        json!({
            "metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "a"}, "annotations": {"long": "text"}, "deletionTimestamp": "2024-01-01T10:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs",
                    "controller": true}]},
            "spec": {"nodeName": "node", "schedulerName": "mine", "schedulingGates": [{"name": "gate"}],
                "hostNetwork": true, "nodeSelector": {"disk": "ssd"}, "overhead": {"cpu": "1"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                    "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}]}],
                "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always",
                    "resources": {"requests": {"cpu": "2"}}}]},
            "status": {"phase": "Pending", "podIP": "10.0.0.9"},
        })
    }

    /// What picking a node and everything around it looks at.
    #[test]
    fn a_watched_pod_wants_what_the_whole_one_wants() {
        let pod: Pod = serde_json::from_value(whole()).unwrap();
        let Watched(watched) = serde_json::from_value(whole()).unwrap();
        assert_eq!(format!("{:?}", Wanted::of(&watched)), format!("{:?}", Wanted::of(&pod)));
        let (read, spec) = (watched.spec.as_ref().unwrap(), pod.spec.as_ref().unwrap());
        assert_eq!((&read.node_name, &read.scheduler_name), (&spec.node_name, &spec.scheduler_name));
        assert_eq!((&read.scheduling_gates, &read.affinity), (&spec.scheduling_gates, &spec.affinity));
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd", "zone": "b"}},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "9"}},
        }))
        .unwrap();
        for zone in ["a", "b"] {
            let mut cluster = Cluster::default();
            let mut node = node.clone();
            node.metadata.labels.as_mut().unwrap().insert("zone".into(), zone.into());
            cluster.set_node(node);
            let picked = crate::schedule(&watched, &cluster);
            assert_eq!(picked, crate::schedule(&pod, &cluster));
            assert_eq!(picked.is_ok(), zone == "a");
        }
        assert_eq!(crate::events::reference_to(&watched), crate::events::reference_to(&pod));
        assert_eq!(watched.metadata.deletion_timestamp, pod.metadata.deletion_timestamp);
        assert_eq!(watched.status.unwrap().phase.as_deref(), Some("Pending"));
    }

    #[test]
    fn nothing_but_metadata_is_required() {
        let Watched(pod) =
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": []}})).unwrap();
        assert_eq!(pod.metadata, ObjectMeta::default());
    }
}
