//! The scheduler: its real state and decisions, on a watch that may be late, with bindings that may fail.

use crate::feed::Cursor;
use crate::ground::Ground;
use crate::mutant::Mutant;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::Event;
use sagong_controllers::cache::Key;
use sagong_scheduler::{Decision, State};
use serde_json::json;
use std::sync::Arc;

/// As in the scheduler: how long a pod waits after its binding failed.
const RETRY_MILLIS: usize = 1000;

/// The scheduler of the cluster.
pub(crate) struct Scheduler {
    mutant: Option<Mutant>,
    state: State,
    nodes: Cursor,
    pods: Cursor,
    bindings: Vec<(Arc<Pod>, String)>,
    failed: Vec<(Timestamp, String)>,
}

impl Scheduler {
    pub(crate) fn start(mutant: Option<Mutant>) -> Self {
        let mut state = State::default();
        state.node_changed(Event::Init);
        state.node_changed(Event::InitDone);
        state.pod_changed(Event::Init);
        state.pod_changed(Event::InitDone);
        Self {
            mutant,
            state,
            nodes: Cursor::new("nodes"),
            pods: Cursor::new("pods"),
            bindings: Vec::new(),
            failed: Vec::new(),
        }
    }

    pub(crate) fn release(&mut self) {
        self.nodes.release();
        self.pods.release();
    }

    pub(crate) fn lags(&self, ground: &Ground) -> bool {
        self.nodes.lags(&ground.api) || self.pods.lags(&ground.api)
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.failed.iter().map(|(when, _)| *when).min()
    }

    pub(crate) fn feed(&mut self, ground: &mut Ground) -> bool {
        if self.nodes.is_open(ground) {
            let range = self.nodes.events(ground);
            for event in &ground.api.table("nodes").log[range] {
                if let Some(node) = event.object.as_any().downcast_ref::<Node>() {
                    let node = node.clone();
                    self.state.node_changed(if event.deleted {
                        Event::Delete(node)
                    } else {
                        Event::Apply(node)
                    });
                }
            }
            return true;
        }
        if !self.pods.is_open(ground) {
            return false;
        }
        let range = self.pods.events(ground);
        for event in &ground.api.table("pods").log[range] {
            if let Some(pod) = event.object.as_any().downcast_ref::<Pod>() {
                let pod = pod.clone();
                self.state.pod_changed(if event.deleted { Event::Delete(pod) } else { Event::Apply(pod) });
            }
        }
        true
    }

    /// Decides, or carries out what was decided.
    pub(crate) fn act(&mut self, ground: &mut Ground) -> bool {
        let now = ground.now();
        if let Some(index) = self.failed.iter().position(|(when, _)| *when <= now) {
            let (_, uid) = self.failed.swap_remove(index);
            self.state.bound(&uid, false);
            return true;
        }
        match self.state.next() {
            Some(Decision::Bind(pod, node)) => {
                if self.mutant == Some(Mutant::ForgetsAssumedPods) {
                    // What it does to the count of the node is undone at once.
                    let mut gone = (*pod).clone();
                    gone.metadata.deletion_timestamp = gone.metadata.creation_timestamp.clone();
                    self.state.pod_changed(Event::Apply(gone));
                }
                self.bindings.push((pod, node));
                return true;
            }
            Some(Decision::Refuse(pod, why)) => {
                self.refuse(&pod, &why, ground);
                return true;
            }
            None => {}
        }
        if self.bindings.is_empty() {
            return false;
        }
        let (pod, node) = self.bindings.remove(ground.choices.below(self.bindings.len()));
        let (key, uid) = (Key::of(&pod.metadata), pod.metadata.uid.clone().unwrap_or_default());
        let result = ground.request("bind", "pods", |api| api.bind(&key, &uid, &node));
        ground.say(|| match &result {
            Ok(_) => format!("scheduler: {} to {node}", key.name),
            Err(refusal) => format!("scheduler: {} to {node}: {}", key.name, refusal.message),
        });
        match result {
            Ok(_) => self.state.bound(&uid, true),
            Err(_) => self.failed.push((ground.later(RETRY_MILLIS), uid)),
        }
        true
    }

    fn refuse(&mut self, pod: &Pod, why: &str, ground: &mut Ground) {
        let key = Key::of(&pod.metadata);
        let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}]}});
        let how = sagong_controllers::plan::PatchKind::Strategic;
        let part = sagong_api::kind::Part::Status;
        // Nobody waits for it to be told.
        let _ = ground.request("patch status", "pods", |api| api.patch("pods", &key, how, &body, part));
        ground.say(|| format!("scheduler: {}: {why}", key.name));
    }
}
