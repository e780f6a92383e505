//! What others in this process may know of a pod: where the logs of its containers are, what it may use.

use super::qos;
use super::snapshot::PodSnapshot;
use crate::eviction::limits::{self, StorageLimit};
use crate::quantity;
use k8s_openapi::api::core::v1::PodStatus;
use std::collections::BTreeMap;

/// The pod's containers as those who read logs need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodView {
    /// `metadata.namespace`.
    pub(crate) namespace: String,
    /// `metadata.name`.
    pub(crate) name: String,
    /// `metadata.uid`.
    pub(crate) uid: String,
    /// By container name.
    pub(crate) containers: BTreeMap<String, ContainerView>,
    /// What it may use, and what it asked for.
    pub(crate) budget: Budget,
}

/// What a pod asked for and may use, for when the node runs short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// It has ended, or is about to.
    pub(crate) is_over: bool,
    /// It was evicted, and holds something still: processes, or volumes.
    pub(crate) is_leaving: bool,
    /// `spec.priority`.
    pub(crate) priority: i32,
    /// The cluster itself needs it.
    pub(crate) is_critical: bool,
    /// Bytes of memory all containers request.
    pub(crate) memory_request: u64,
    /// Its cgroup, below Sagong's own.
    pub(crate) cgroup: String,
    /// What it may write to the node's disk.
    pub(crate) storage_limits: Vec<StorageLimit>,
}

/// The least priority of what the cluster itself needs (`system-cluster-critical`).
const CRITICAL: i32 = 2_000_000_000;

impl Budget {
    fn of(snapshot: &PodSnapshot, status: &PodStatus) -> Self {
        let spec = snapshot.spec();
        let priority = spec.and_then(|spec| spec.priority).unwrap_or_default();
        let requests = snapshot.main_containers().iter().filter_map(|spec| {
            let requests = spec.resources.as_ref()?.requests.as_ref()?;
            u64::try_from(quantity::milli(&requests.get("memory")?.0)? / 1000).ok()
        });
        Budget {
            is_over: snapshot.termination.is_some() || super::status::is_over(status),
            is_leaving: snapshot.is_evicted() && (snapshot.is_anything_alive() || snapshot.holds_volumes()),
            priority,
            is_critical: priority >= CRITICAL,
            memory_request: requests.sum(),
            cgroup: qos::cgroup_parent(&snapshot.pod),
            storage_limits: spec.map(limits::of).unwrap_or_default(),
        }
    }
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerView {
    /// Restart count and runtime id of the newest instance.
    pub(crate) current: Option<(u32, String)>,
    /// Restart count of the finished one before it, whose log is still there.
    pub(crate) previous: Option<u32>,
    /// Whether the newest instance runs.
    pub(crate) running: bool,
    /// Why none runs.
    pub(crate) waiting: Option<String>,
}

impl PodView {
    /// The view of a snapshot and the status that goes with it.
    pub(crate) fn of(snapshot: &PodSnapshot, status: &PodStatus) -> Self {
        let meta = &snapshot.pod.metadata;
        let mut containers: BTreeMap<String, ContainerView> =
            snapshot.all_containers().map(|spec| (spec.name.clone(), ContainerView::default())).collect();
        for (name, facts) in &snapshot.containers {
            let view = containers.entry(name.clone()).or_default();
            view.current = facts.current.as_ref().map(|instance| (instance.attempt, instance.id.clone()));
            view.previous = facts.previous.as_ref().map(|instance| instance.attempt);
            view.running = facts.is_alive();
        }
        let mains = status.container_statuses.iter().flatten();
        let others = status.init_container_statuses.iter().flatten();
        for known in mains.chain(others).chain(status.ephemeral_container_statuses.iter().flatten()) {
            if let Some(view) = containers.get_mut(&known.name) {
                let waiting = known.state.as_ref().and_then(|state| state.waiting.as_ref());
                view.waiting = waiting.and_then(|waiting| waiting.reason.clone());
            }
        }
        PodView {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            containers,
            budget: Budget::of(snapshot, status),
        }
    }
}
