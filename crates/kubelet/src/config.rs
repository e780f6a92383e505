//! What the kubelet is told at its start.

use std::net::IpAddr;
use std::path::PathBuf;

/// Most pods on a node unless it is told another number, as upstream has it.
pub const MOST_PODS: u32 = 110;

/// Settings of the kubelet. Fields that upstream has in `KubeletConfiguration` keep its meaning.
#[derive(Clone, Debug)]
pub struct Config {
    /// `metadata.name` of the Node, and `spec.nodeName` of the pods it runs.
    pub node_name: String,
    /// Names what is created on the host: six lowercase hexadecimal digits.
    pub instance: String,
    /// Directory for the kubelet's own files; made if missing. Pods' volumes and `/etc` files live below
    /// `pods/`, log files below `logs/`.
    pub data_dir: PathBuf,
    /// Addresses pods of this node get, as `spec.podCIDR` shows it.
    pub pod_cidr: Option<String>,
    /// `InternalIP` addresses of the node; the first is `status.hostIP` of its pods.
    pub node_addresses: Vec<IpAddr>,
    /// Most pods this node takes (`status.capacity.pods`).
    pub max_pods: u32,
    /// Name servers for pods with `dnsPolicy: ClusterFirst`; if empty they get the host's.
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster. Upstream: `cluster.local`.
    pub cluster_domain: String,
    /// Port on which something serves the kubelet's HTTP API, for `status.daemonEndpoints`; 0 for none.
    pub kubelet_port: i32,
    /// What containers cannot be kept from on this machine, each a sentence, told as events of the node.
    pub lacks: Vec<String>,
    /// Further labels of the Node.
    pub node_labels: std::collections::BTreeMap<String, String>,
}

impl Config {
    /// Settings with upstream's defaults where upstream has one.
    pub fn new(
        node_name: impl Into<String>,
        instance: impl Into<String>,
        data_dir: impl Into<PathBuf>,
    ) -> Self {
        Config {
            node_name: node_name.into(),
            instance: instance.into(),
            data_dir: data_dir.into(),
            pod_cidr: None,
            node_addresses: Vec::new(),
            max_pods: MOST_PODS,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            kubelet_port: 0,
            lacks: Vec::new(),
            node_labels: Default::default(),
        }
    }

    /// Directory of one pod's files.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// Directory of one pod's log files: `<namespace>_<name>_<uid>`, as upstream lays them out.
    pub(crate) fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }
}
