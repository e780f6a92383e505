//! Node objects of simulated nodes, and their leases, all of them in one loop.

use super::SimulatedNodes;
use crate::clock::{Clock, api_time};
use crate::node::facts::architecture;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Namespace of all node leases.
const LEASES: &str = "kube-node-lease";
/// Value of the label `type` of all simulated nodes.
const TYPE: &str = "simulated";
/// Every how many renewals the nodes' objects are looked at.
const LOOK: u32 = 6;
/// A quarter of the lease's duration, as upstream has it.
const RENEW: Duration = Duration::from_secs(10);
/// How soon registering is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Requests under way at once.
const IN_FLIGHT: usize = 16;
/// What a simulated node offers, in `status.capacity`.
const CAPACITY: [(&str, &str); 4] =
    [("cpu", "32"), ("memory", "256Gi"), ("pods", "2000"), ("ephemeral-storage", "1Ti")];

impl SimulatedNodes {
    /// `InternalIP` of the node with this number: the first addresses of the range.
    pub(super) fn node_address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.addresses.network()).saturating_add(1).saturating_add(number))
    }
}

/// Registers the nodes and renews their leases for ever. A node that was deleted, or that others gave up as lost
/// while nobody renewed, is registered again.
pub(super) async fn run(options: &SimulatedNodes, client: Client, clock: &Clock) {
    let nodes =
        Nodes { options, nodes: Api::all(client.clone()), leases: Api::namespaced(client, LEASES), clock };
    let mut round = 0_u32;
    loop {
        let pause = match nodes.tend(round.is_multiple_of(LOOK)).await {
            Ok(()) => {
                round = round.wrapping_add(1);
                RENEW
            }
            Err(error) => {
                tracing::warn!(%error, "simulated nodes: registering or renewing a lease");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Nodes<'a> {
    options: &'a SimulatedNodes,
    nodes: Api<Node>,
    leases: Api<Lease>,
    clock: &'a Clock,
}

impl Nodes<'_> {
    async fn tend(&self, look: bool) -> Result<(), kube::Error> {
        let mut uids: HashMap<String, Option<String>> = HashMap::new();
        if look {
            let list = self.nodes.list(&ListParams::default().labels(&format!("type={TYPE}"))).await?;
            uids = list
                .into_iter()
                .filter(is_ready)
                .filter_map(|node| Some((node.metadata.name?, node.metadata.uid)))
                .collect();
        }
        let work = stream::iter(0..self.options.count).map(|number| {
            let name = SimulatedNodes::node_name(number);
            let register = look && !uids.contains_key(&name);
            async move {
                if register {
                    self.register(&name, number).await?;
                }
                self.renew(&name, number).await
            }
        });
        let results: Vec<_> = work.buffer_unordered(IN_FLIGHT).collect().await;
        results.into_iter().collect()
    }

    /// Renews a node's lease. It goes with the node, so if there is none the node is made, too.
    async fn renew(&self, name: &str, number: u32) -> Result<(), kube::Error> {
        let spec = self.lease_spec(name);
        let patch = Patch::Merge(json!({ "spec": spec }));
        match self.leases.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            other => return other.map(drop),
        }
        let node = self.register(name, number).await?;
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.to_owned(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..Default::default()
        };
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        };
        self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
    }

    fn lease_spec(&self, name: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(self.clock.now())),
            ..Default::default()
        }
    }

    async fn register(&self, name: &str, number: u32) -> Result<Node, kube::Error> {
        let node = node(name, self.options.node_address(number), self.clock.now());
        let object: Node = serde_json::from_value(node.clone()).map_err(kube::Error::SerdeError)?;
        match self.nodes.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.code == 409 => {}
            Err(error) => return Err(error),
        }
        let status = Patch::Merge(json!({ "status": node["status"] }));
        self.nodes.patch_status(name, &PatchParams::default(), &status).await
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The Node object.
fn node(name: &str, address: Ipv4Addr, now: Timestamp) -> Value {
    let capacity: Value =
        CAPACITY.into_iter().map(|(name, amount)| (name.to_owned(), json!(amount))).collect();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": api_time(now), "lastTransitionTime": api_time(now),
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "type": TYPE,
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": architecture(),
        } },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": address },
                { "type": "Hostname", "address": name },
            ],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "nodeInfo": {
                "machineID": name, "systemUUID": name, "bootID": name,
                "kernelVersion": "simulated", "osImage": "simulated", "operatingSystem": "linux",
                "architecture": architecture(),
                "containerRuntimeVersion": concat!("simulated://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": crate::node::status::VERSION, "kubeProxyVersion": "",
            },
        },
    })
}
