//! What others in this process may know of a pod: where the logs of its containers are.

use super::snapshot::PodSnapshot;
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
        for known in mains.chain(status.init_container_statuses.iter().flatten()) {
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
        }
    }
}
