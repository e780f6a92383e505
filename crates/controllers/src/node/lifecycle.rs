//! The life of a node: silent nodes become `Unknown`, their pods not ready, and conditions become taints.

use super::heartbeat::Heartbeats;
use super::{condition, full_name, is_ready, taints};
use crate::cache::{Change, Key};
use crate::caches::Caches;
use crate::plan::{Note, PatchKind, Plan, Write, reference_to};
use crate::pod::{self, Sketch};
use crate::runner::{self, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::sync::Arc;

/// How long a node may be silent (`--node-monitor-grace-period`), and how long a new one may take to report at all
/// (`--node-startup-grace-period`).
const GRACE: SignedDuration = SignedDuration::from_secs(50);
const STARTUP_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What a kubelet reports.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The node lifecycle controller.
pub struct Controller {
    heartbeats: Arc<Heartbeats>,
    clock: fn() -> Timestamp,
}

/// What a plan depends on.
pub struct Snapshot {
    /// The node.
    pub node: Arc<Node>,
    /// When it was last heard of.
    pub heard: Timestamp,
    /// Whether any node of the cluster is ready.
    pub any_ready: bool,
    /// If it is not ready: the pods on it that count as ready.
    pub ready_pods: Vec<Arc<Sketch>>,
}

impl Controller {
    /// A controller that notes by this clock when it hears of nodes.
    pub fn new(clock: fn() -> Timestamp) -> Self {
        Self { heartbeats: Arc::default(), clock }
    }
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        let (heartbeats, clock, all) = (self.heartbeats.clone(), self.clock, watch.caches());
        watch.on(&caches.nodes, move |change, wake| {
            heartbeats.see_node(change, clock());
            wake_nodes(change, &all, wake);
        });
        let (heartbeats, clock) = (self.heartbeats.clone(), self.clock);
        // A lease in time changes nothing: the look at the end of the grace period finds it renewed.
        watch.on(&caches.leases, move |change, _| heartbeats.see_lease(change, clock()));
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let node = caches.nodes.get(key)?;
        let heard = self.heartbeats.last(&key.name, grace(&node), (self.clock)());
        let ready_pods = if is_ready(&node) { Vec::new() } else { ready_pods(caches, &key.name) };
        let any_ready = caches.nodes.list().iter().any(|node| is_ready(node));
        Some(Snapshot { node, heard, any_ready, ready_pods })
    }

    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        plan(snapshot, now)
    }
}

/// Wakes the node that changed, and the others too if it turned ready or not, as whether any node is ready matters to
/// all of them.
fn wake_nodes(change: &Change<Node>, caches: &Caches, wake: &mut dyn FnMut(Key)) {
    let was_ready = change.old.as_deref().is_some_and(is_ready);
    let is_ready = change.new.as_deref().is_some_and(is_ready);
    if was_ready != is_ready {
        caches.nodes.list().iter().for_each(|node| wake(Key::of(&node.metadata)));
    } else if let Some(node) = &change.new {
        wake(Key::of(&node.metadata));
    }
}

fn ready_pods(caches: &Caches, node: &str) -> Vec<Arc<Sketch>> {
    let mut pods = caches.pods.list();
    pods.retain(|pod| pod::node_name(pod) == node && pod::is_ready(pod));
    pods
}

fn grace(node: &Node) -> SignedDuration {
    if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE }
}

/// Judges the node, or, if that is as it should be, its taints and pods.
pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let node = &*snapshot.node;
    let mut plan = Plan::default();
    let deadline = snapshot.heard + grace(node);
    if now < deadline {
        plan.look_again_at(deadline);
    } else if let Some(write) = give_up(node, now) {
        // The change wakes the node again; taints follow from conditions that are written.
        plan.then(write);
        return plan;
    }
    let wanted = super::taints::wanted(node, snapshot.any_ready, now);
    if wanted != taints(node) {
        let body = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version, "uid": node.metadata.uid},
            "spec": {"taints": wanted},
        });
        plan.then(Write::patch(node, PatchKind::Merge, body).tolerating(&[404]));
    }
    plan.then_all(take_out(node, &snapshot.ready_pods, now));
    plan
}

/// Says in the conditions that nothing is known of the node; none if they say so already.
fn give_up(node: &Node, now: Timestamp) -> Option<Write> {
    let unknown = |type_: &&str| {
        let before = condition(node, type_);
        let (reason, message) = match before {
            Some(condition) if condition.status == "Unknown" => return None,
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = match before {
            Some(condition) => condition.last_heartbeat_time.clone(),
            None => node.metadata.creation_timestamp.clone(),
        };
        Some(NodeCondition {
            type_: type_.to_string(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(Time(now)),
        })
    };
    let conditions: Vec<NodeCondition> = REPORTED.iter().filter_map(unknown).collect();
    if conditions.is_empty() {
        return None;
    }
    // Only if nothing was heard meanwhile.
    let body = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let write = Write::patch_status(node, PatchKind::Strategic, body).tolerating(&[404]);
    if condition(node, "Ready").is_some_and(|ready| ready.status == "Unknown") {
        return Some(write);
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Node {name} status is now: NodeNotReady");
    Some(write.reporting(Note::normal(&reference_to(node), "NodeNotReady", message)))
}

/// Takes the pods of a node that is not ready out of service. Pods that became ready later are left alone: their
/// kubelet must be alive after all.
fn take_out(node: &Node, pods: &[Arc<Sketch>], now: Timestamp) -> Vec<Write> {
    let Some(ready) = condition(node, "Ready").filter(|ready| ready.status != "True") else {
        return Vec::new();
    };
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let was_before = |pod: &&Arc<Sketch>| pod::ready_since(pod).is_none_or(|ready| ready <= since);
    let write = |pod: &Arc<Sketch>| {
        tracing::debug!(pod = full_name(pod), "not ready, as its node is not");
        let not_ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(now)});
        let body = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [not_ready]},
        });
        Write::patch_status(&**pod, PatchKind::Strategic, body)
            .tolerating(&[404, 409])
            .reporting(Note::warning(&reference_to(&**pod), "NodeNotReady", "Node is not ready"))
    };
    pods.iter().filter(was_before).map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verb;
    use rstest::rstest;
    use serde_json::Value;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(ready: Option<&str>) -> Arc<Node> {
        let condition = |type_: &str, status: &str| {
            json!({"type": type_, "status": status, "lastHeartbeatTime": at(90).to_string(),
                "lastTransitionTime": at(50).to_string()})
        };
        let others = if ready == Some("Unknown") { "Unknown" } else { "False" };
        let conditions: Vec<Value> = ready
            .map(|ready| {
                let others = REPORTED[1..].iter().map(|type_| condition(type_, others));
                std::iter::once(condition("Ready", ready)).chain(others).collect()
            })
            .unwrap_or_default();
        let metadata =
            json!({"name": "n", "uid": "n", "creationTimestamp": at(0).to_string(), "resourceVersion": "5"});
        Arc::new(
            serde_json::from_value(json!({"metadata": metadata, "status": {"conditions": conditions}}))
                .unwrap(),
        )
    }

    fn pod(name: &str, ready_since: i64) -> Arc<Sketch> {
        let ready =
            json!({"type": "Ready", "status": "True", "lastTransitionTime": at(ready_since).to_string()});
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "default", "uid": name},
                "spec": {"nodeName": "n", "containers": []}, "status": {"conditions": [ready]},
            }))
            .unwrap(),
        )
    }

    fn planned(ready: Option<&str>, heard: i64, now: i64) -> Plan {
        let node = node(ready);
        let any_ready = is_ready(&node);
        plan(&Snapshot { node, heard: at(heard), any_ready, ready_pods: Vec::new() }, at(now))
    }

    fn statuses(plan: &Plan) -> Vec<String> {
        let body = plan.writes().find_map(|write| match &write.verb {
            Verb::PatchStatus(_, body) => Some(body.clone()),
            _ => None,
        });
        let conditions = body.map(|body| body["status"]["conditions"].clone()).unwrap_or_default();
        let told = |c: &Value| format!("{} {} {}", c["type"], c["status"], c["reason"]).replace('"', "");
        conditions.as_array().into_iter().flatten().map(told).collect()
    }

    #[rstest]
    #[case::heard_just_now(Some("True"), 100, 100, Some(150))]
    #[case::last_moment_of_grace(Some("True"), 100, 149, Some(150))]
    #[case::new_and_silent(None, 100, 159, Some(160))]
    fn a_node_has_a_grace_period_and_is_looked_at_when_it_ends(
        #[case] ready: Option<&str>,
        #[case] heard: i64,
        #[case] now: i64,
        #[case] look_again: Option<i64>,
    ) {
        let plan = planned(ready, heard, now);
        assert!(plan.is_idle());
        assert_eq!(plan.look_again.map(|when| when.as_second()), look_again);
    }

    #[test]
    fn a_silent_node_becomes_unknown_with_everything_it_reported() {
        let plan = planned(Some("True"), 100, 150);
        assert_eq!(statuses(&plan), REPORTED.map(|type_| format!("{type_} Unknown NodeStatusUnknown")));
        let note = plan.writes().next().unwrap().on_success.clone().unwrap();
        assert_eq!(
            (note.reason, note.message.as_str()),
            ("NodeNotReady", "Node n status is now: NodeNotReady")
        );
    }

    #[test]
    fn a_node_that_never_reported_becomes_unknown_too() {
        let plan = planned(None, 100, 160);
        assert_eq!(statuses(&plan)[0], "Ready Unknown NodeStatusNeverUpdated");
    }

    #[test]
    fn a_node_known_to_be_silent_is_written_only_for_its_taints() {
        let plan = planned(Some("Unknown"), 100, 500);
        let writes: Vec<String> = plan.writes().map(|write| format!("{write:?}")).collect();
        assert_eq!(writes, ["patch nodes n"]);
        assert_eq!(plan.look_again, None);
    }

    #[test]
    fn pods_ready_before_their_node_ceased_to_be_are_taken_out_of_service() {
        let ready_pods = vec![pod("before", 40), pod("after", 60)];
        let snapshot = Snapshot { node: node(Some("Unknown")), heard: at(0), any_ready: true, ready_pods };
        let plan = plan(&snapshot, at(500));
        let pods: Vec<&str> =
            plan.writes().filter(|w| w.kind.plural == "pods").map(|w| w.key.name.as_str()).collect();
        assert_eq!(pods, ["before"]);
    }
}
