//! The loop: observes nodes and pods, picks, binds.

use crate::cluster::{Cluster, Wanted};
use crate::events::{Recorder, Report, reference_to};
use crate::watched::{self, Watched};
use crate::{NAME, schedule};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as Change, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bindings under way at once.
const PARALLEL: usize = 64;
/// How long a pod waits after its binding failed.
const RETRY: Duration = Duration::from_secs(1);

/// Where the scheduler can fail. It retries all by itself; these end up in the log.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// A request failed.
    #[error("{step} {object}: {source}")]
    Request {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// What a binding came to.
struct Bound {
    uid: String,
    result: Result<(), SchedulerError>,
}

/// Schedules until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let config = watcher::Config::default;
    let nodes = watcher(Api::<Node>::all(client.clone()), config()).default_backoff();
    let pods = watcher(Api::<Watched>::all(client.clone()), config()).default_backoff();
    let (mut nodes, mut pods) = (pin!(nodes), pin!(pods));
    let mut state = State::default();
    let mut bindings = FuturesUnordered::new();
    let recorder = Recorder::start(client.clone());
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(Bound { uid, result }) = bindings.next(), if !bindings.is_empty() => {
                state.bound(&uid, result.is_ok());
            }
            change = nodes.try_next() => match change {
                Ok(Some(change)) => state.node_changed(change),
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "watching nodes"),
            },
            change = pods.try_next() => match change {
                Ok(Some(change)) => state.pod_changed(watched::event(change)),
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "watching pods"),
            },
        }
        while bindings.len() < PARALLEL {
            match state.next() {
                Some(Decision::Bind(pod, node)) => {
                    bindings.push(bind(client.clone(), recorder.clone(), pod, node));
                }
                Some(Decision::Refuse(pod, why)) => {
                    let (client, recorder) = (client.clone(), recorder.clone());
                    tokio::spawn(async move {
                        if let Err(error) = refuse(&client, &recorder, &pod, &why).await {
                            tracing::debug!(%error, "telling why a pod is not scheduled");
                        }
                    });
                }
                None => break,
            }
        }
    }
}

/// What to do about a pod.
#[derive(Debug)]
pub enum Decision {
    /// Bind it to this node.
    Bind(Arc<Pod>, String),
    /// Tell why no node can take it.
    Refuse(Arc<Pod>, String),
}

/// What is known, and which pods wait. Makes decisions; carries out none.
#[derive(Default)]
pub struct State {
    cluster: Cluster,
    /// Pods without a node, by uid, still to be looked at.
    waiting: BTreeMap<String, Arc<Pod>>,
    /// Pods no node could take, with the reason told; looked at again when something changes.
    refused: BTreeMap<String, (Arc<Pod>, String)>,
    /// Pods being bound, and not known to be on a node or gone.
    binding: BTreeMap<String, Arc<Pod>>,
    /// Whether both lists have come in whole: before, nodes would seem emptier than they are.
    synced: (bool, bool),
    /// Uids seen in the list that is coming in.
    listed: HashSet<String>,
}

impl State {
    /// Takes over what a watch of all nodes tells.
    pub fn node_changed(&mut self, change: Change<Node>) {
        match change {
            Change::Apply(node) | Change::InitApply(node) => self.cluster.set_node(node),
            Change::Delete(node) => self.cluster.remove_node(&node.name_any()),
            Change::Init => self.cluster.clear_nodes(),
            Change::InitDone => self.synced.0 = true,
        }
        self.try_again();
    }

    /// Takes over what a watch of all pods tells.
    pub fn pod_changed(&mut self, change: Change<Pod>) {
        match change {
            Change::Init => self.listed.clear(),
            Change::InitApply(pod) => {
                self.listed.extend(pod.uid());
                self.observe(pod);
            }
            Change::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                for uid in self.known().into_iter().filter(|uid| !listed.contains(uid)) {
                    self.forget(&uid);
                }
                self.synced.1 = true;
            }
            Change::Apply(pod) => self.observe(pod),
            Change::Delete(pod) => {
                if let Some(uid) = pod.uid() {
                    self.forget(&uid);
                    self.try_again();
                }
            }
        }
    }

    /// The uids of all pods that something is noted of.
    fn known(&self) -> Vec<String> {
        let assigned = self.cluster.assigned();
        let pending = self.waiting.keys().chain(self.refused.keys()).chain(self.binding.keys());
        assigned.chain(pending.map(String::as_str)).map(str::to_owned).collect()
    }

    fn observe(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        if matches!(phase, Some("Succeeded" | "Failed")) {
            self.forget(&uid);
            return self.try_again();
        }
        if let Some(node) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
            self.waiting.remove(&uid);
            self.refused.remove(&uid);
            self.binding.remove(&uid);
            return self.cluster.assign(&uid, node, Wanted::of(&pod));
        }
        let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == NAME);
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if !ours || gated || pod.metadata.deletion_timestamp.is_some() {
            self.waiting.remove(&uid);
            self.refused.remove(&uid);
            if self.binding.remove(&uid).is_some() {
                self.cluster.release(&uid);
            }
        } else if let Some((refused, _)) = self.refused.get_mut(&uid) {
            let changed = refused.spec != pod.spec;
            *refused = Arc::new(pod);
            if changed {
                self.try_again();
            }
        } else if !self.binding.contains_key(&uid) {
            self.waiting.insert(uid, Arc::new(pod));
        }
    }

    fn forget(&mut self, uid: &str) {
        self.binding.remove(uid);
        self.waiting.remove(uid);
        self.refused.remove(uid);
        self.cluster.release(uid);
    }

    /// Something changed: what no node could take may fit now.
    fn try_again(&mut self) {
        for (uid, (pod, _)) in &self.refused {
            self.waiting.insert(uid.clone(), pod.clone());
        }
    }

    /// Takes over what became of a binding. One that failed is tried again, unless the watch has told meanwhile that
    /// the pod is on a node (the answer was lost, not the binding) or gone.
    pub fn bound(&mut self, uid: &str, is_done: bool) {
        // What is done stays noted until the watch shows it, so that an event from before is not taken for news.
        if !is_done && let Some(pod) = self.binding.remove(uid) {
            self.cluster.release(uid);
            self.waiting.insert(uid.to_owned(), pod);
        }
    }

    /// The next decision, if there is one to make. A pod that is to be bound counts as on its node from now on.
    #[allow(clippy::should_implement_trait, reason = "what is next changes with what is observed")]
    pub fn next(&mut self) -> Option<Decision> {
        if self.synced != (true, true) {
            return None;
        }
        while let Some((uid, pod)) = self.waiting.pop_first() {
            match schedule(&pod, &self.cluster) {
                Ok(node) => {
                    self.refused.remove(&uid);
                    // Assumed there from now on, so that the next pod sees the node as it will be.
                    self.cluster.assign(&uid, &node, Wanted::of(&pod));
                    self.binding.insert(uid, pod.clone());
                    return Some(Decision::Bind(pod, node));
                }
                Err(why) => {
                    let known = self.refused.insert(uid, (pod.clone(), why.clone()));
                    if known.is_none_or(|(_, before)| before != why) {
                        return Some(Decision::Refuse(pod, why));
                    }
                }
            }
        }
        None
    }
}

async fn bind(client: Client, recorder: Recorder, pod: Arc<Pod>, node: String) -> Bound {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let binding = Binding {
        metadata: ObjectMeta { name: Some(name.clone()), uid: pod.uid(), ..ObjectMeta::default() },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.clone()),
            ..ObjectReference::default()
        },
    };
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let result = pods
        .create_subresource::<Binding, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
        .await
        .map(drop)
        .map_err(|source| SchedulerError::Request {
            step: "binding pod",
            object: format!("{namespace}/{name}"),
            source: Box::new(source),
        });
    if let Err(error) = &result {
        tracing::debug!(%error, "binding");
        tokio::time::sleep(RETRY).await;
    } else {
        recorder.record(Report {
            regarding: reference_to(&pod),
            warning: false,
            reason: "Scheduled",
            action: "Binding",
            message: format!("Successfully assigned {namespace}/{name} to {node}"),
        });
    }
    Bound { uid: pod_uid(&binding), result }
}

fn pod_uid(binding: &Binding) -> String {
    binding.metadata.uid.clone().unwrap_or_default()
}

/// Upstream tells it twice: as the condition `PodScheduled`, and as an event.
async fn refuse(client: &Client, recorder: &Recorder, pod: &Pod, why: &str) -> Result<(), SchedulerError> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let now = Time(Timestamp::now());
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastTransitionTime": now,
    });
    let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await.map_err(|source| {
        SchedulerError::Request {
            step: "updating status of pod",
            object: format!("{namespace}/{name}"),
            source: Box::new(source),
        }
    })?;
    recorder.record(Report {
        regarding: reference_to(pod),
        warning: true,
        reason: "FailedScheduling",
        action: "Scheduling",
        message: why.to_owned(),
    });
    Ok(())
}
