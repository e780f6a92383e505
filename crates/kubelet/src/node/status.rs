//! `status` of the Node. Pure.

use super::facts::{Facts, architecture};
use crate::clock::api_time;
use crate::config::Config;
use crate::eviction::pressure::Pressures;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// `status.nodeInfo.kubeletVersion`.
pub(crate) const VERSION: &str = "v1.33.0+sagong";

/// A condition: type, status, reason, message.
type Told = (&'static str, &'static str, &'static str, &'static str);

/// The Node's conditions.
fn told(pressures: &Pressures) -> [Told; 4] {
    let memory = match pressures.memory {
        None => ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        Some(_) => ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    };
    let disk = match pressures.disk {
        None => ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        Some(_) => ("True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
    };
    [
        ("MemoryPressure", memory.0, memory.1, memory.2),
        ("DiskPressure", disk.0, disk.1, disk.2),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
}

/// The Node as it is created.
pub(crate) fn node(config: &Config, facts: &Facts, runtime_version: &str, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: config.pod_cidr.clone(),
            pod_cidrs: config.pod_cidr.clone().map(|cidr| vec![cidr]),
            ..Default::default()
        }),
        status: Some(status(config, facts, runtime_version, Observed::default(), None, now)),
    }
}

/// Labels every node has, and those of the settings.
pub(crate) fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.node_labels.clone();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), "linux".into());
        labels.insert(format!("{prefix}/arch"), architecture().into());
    }
    labels.insert("kubernetes.io/hostname".into(), config.node_name.clone());
    labels
}

/// What changes on a node while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Images that are there.
    pub(crate) images: Vec<ContainerImage>,
    /// What is short.
    pub(crate) pressures: Pressures,
}

/// `status` at `now`; times of transition are kept from `known`.
pub(crate) fn status(
    config: &Config,
    facts: &Facts,
    runtime_version: &str,
    observed: Observed,
    known: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let Observed { images, pressures } = observed;
    let mut addresses: Vec<NodeAddress> = config
        .node_addresses
        .iter()
        .map(|address| NodeAddress { type_: "InternalIP".into(), address: address.to_string() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() });
    let amounts = |storage: String| -> BTreeMap<String, Quantity> {
        [
            ("cpu", facts.cpus.to_string()),
            ("memory", format!("{}Ki", facts.memory / 1024)),
            ("pods", config.max_pods.to_string()),
            ("ephemeral-storage", storage),
        ]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
        .into()
    };
    let endpoint = (config.kubelet_port > 0).then_some(DaemonEndpoint { port: config.kubelet_port });
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(amounts(format!("{}Ki", facts.storage / 1024))),
        allocatable: Some(amounts(facts.storage.to_string())),
        conditions: Some(conditions(&pressures, known, now)),
        daemon_endpoints: endpoint.map(|endpoint| NodeDaemonEndpoints { kubelet_endpoint: Some(endpoint) }),
        node_info: Some(info(facts, runtime_version)),
        images: Some(images).filter(|images| !images.is_empty()),
        ..Default::default()
    }
}

fn conditions(pressures: &Pressures, known: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let known = known.and_then(|known| known.conditions.as_deref()).unwrap_or_default();
    let condition = |(kind, status, reason, message): (&str, &str, &str, &str)| {
        let before = known.iter().find(|other| other.type_ == kind && other.status == status);
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(api_time(now)),
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or_else(|| Some(api_time(now))),
        }
    };
    told(pressures).into_iter().map(condition).collect()
}

fn info(facts: &Facts, runtime_version: &str) -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: facts.boot_id.clone(),
        container_runtime_version: runtime_version.into(),
        kernel_version: facts.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.into(),
        machine_id: facts.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: facts.os_image.clone(),
        system_uuid: facts.system_uuid.clone(),
        swap: None,
    }
}

/// Whether two statuses differ in more than the time of the heartbeat.
pub(crate) fn differs(before: &NodeStatus, after: &NodeStatus) -> bool {
    let without_heartbeat = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    without_heartbeat(before) != without_heartbeat(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{later, test_epoch};
    use std::time::Duration;

    #[test]
    fn a_heartbeat_alone_is_no_change() {
        let config = Config::new("n", "abcdef", "/nowhere");
        let facts = Facts { cpus: 2, memory: 1 << 30, ..Default::default() };
        let first = status(&config, &facts, "sagong://0", Observed::default(), None, test_epoch());
        let next_time = later(test_epoch(), Duration::from_secs(10));
        let second = status(&config, &facts, "sagong://0", Observed::default(), Some(&first), next_time);
        assert!(!differs(&first, &second));
        assert_ne!(first, second);
        let facts = Facts { cpus: 3, ..facts };
        assert!(differs(
            &first,
            &status(&config, &facts, "sagong://0", Observed::default(), Some(&first), next_time)
        ));
    }

    #[test]
    fn what_is_short_is_a_condition() {
        let config = Config::new("n", "abcdef", "/nowhere");
        let pressures = Pressures { disk: Some(test_epoch()), memory: None };
        let observed = Observed { pressures, ..Default::default() };
        let status = status(&config, &Facts::default(), "sagong://0", observed, None, test_epoch());
        let short: Vec<String> = { status.conditions.unwrap() }
            .into_iter()
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.type_)
            .collect();
        assert_eq!(short, ["DiskPressure", "Ready"]);
    }

    #[test]
    fn the_node_is_ready_from_its_first_status_on() {
        let config = Config::new("n", "abcdef", "/nowhere");
        let node = node(&config, &Facts::default(), "sagong://0", test_epoch());
        let conditions = node.status.unwrap().conditions.unwrap();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));
    }
}
