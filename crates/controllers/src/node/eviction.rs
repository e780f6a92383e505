//! Taint-based eviction: pods leave a node whose `NoExecute` taints they do not tolerate, at once or when their
//! `tolerationSeconds` are over.

use super::taints::NO_EXECUTE;
use super::{disruption, full_name, taints};
use crate::cache::{Change, Key};
use crate::caches::Caches;
use crate::plan::{Note, PatchKind, Plan, Write, reference_to};
use crate::pod::{self, Sketch};
use crate::runner::{self, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// The taint eviction controller.
pub struct Controller {
    seen: Arc<Seen>,
    clock: fn() -> Timestamp,
}

/// When taints that do not tell their own time were first seen, by node.
type Seen = Mutex<HashMap<String, Vec<(Taint, Timestamp)>>>;

/// What a plan depends on.
pub struct Snapshot {
    /// The pod.
    pub pod: Arc<Sketch>,
    /// The `NoExecute` taints of its node, and since when they are there.
    pub taints: Vec<(Taint, Timestamp)>,
}

impl Controller {
    /// A controller that notes by this clock when it sees taints.
    pub fn new(clock: fn() -> Timestamp) -> Self {
        Self { seen: Arc::default(), clock }
    }
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        let (seen, clock, all) = (self.seen.clone(), self.clock, watch.caches());
        watch.on(&caches.nodes, move |change, wake| {
            if note_taints(&seen, change, clock()) {
                wake_pods(change, &all, wake);
            }
        });
        let all = watch.caches();
        watch.on(&caches.pods, move |change, wake| {
            let Some(new) = &change.new else { return };
            if change.old.as_deref().is_some_and(|old| tolerated(old) == tolerated(new)) {
                return;
            }
            let node = all.nodes.get(&Key::new("", pod::node_name(new)));
            if node.is_some_and(|node| drastic(&node).next().is_some()) {
                wake(Key::of(&new.metadata));
            }
        });
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let pod = caches.pods.get(key).filter(|pod| !pod::is_terminating(pod))?;
        let taints = self.seen.lock().get(pod::node_name(&pod)).cloned().unwrap_or_default();
        Some(Snapshot { pod, taints })
    }

    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        plan(snapshot, now)
    }
}

fn drastic(node: &Node) -> impl Iterator<Item = &Taint> {
    taints(node).iter().filter(|taint| taint.effect == NO_EXECUTE)
}

fn tolerated(pod: &Sketch) -> (&str, &[Toleration]) {
    (pod::node_name(pod), &pod.template.tolerations)
}

/// Remembers the `NoExecute` taints of a node. Whether they have changed.
fn note_taints(seen: &Seen, change: &Change<Node>, now: Timestamp) -> bool {
    let Some(name) = change.latest().and_then(|node| node.metadata.name.as_deref()) else { return false };
    let mut seen = seen.lock();
    let before = seen.remove(name).unwrap_or_default();
    let since = |taint: &Taint| {
        let known = before.iter().find(|(known, _)| known == taint).map(|(_, since)| *since);
        taint.time_added.as_ref().map(|time| time.0).or(known).unwrap_or(now)
    };
    let current = change.new.iter().flat_map(|node| drastic(node));
    let current: Vec<_> = current.map(|taint| (taint.clone(), since(taint))).collect();
    let changed = current != before;
    if !current.is_empty() {
        seen.insert(name.to_owned(), current);
    }
    changed
}

fn wake_pods(change: &Change<Node>, caches: &Caches, wake: &mut dyn FnMut(Key)) {
    let name = change.latest().and_then(|node| node.metadata.name.as_deref()).unwrap_or_default();
    let pods = caches.pods.list();
    pods.iter().filter(|pod| pod::node_name(pod) == name).for_each(|pod| wake(Key::of(&pod.metadata)));
}

/// Deletes the pod if its time on the node is over.
pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let pod = &*snapshot.pod;
    let mut plan = Plan::default();
    match deadline(pod, &snapshot.taints) {
        None => {}
        Some(deadline) if deadline > now => plan.look_again_at(deadline),
        Some(_) => {
            let condition =
                disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now);
            let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            plan.then(Write::patch_status(pod, PatchKind::Strategic, body).tolerating(&[404, 409]));
            let message = format!("Marking for deletion Pod {}", full_name(pod));
            plan.notes.push(Note::normal(&reference_to(pod), "TaintManagerEviction", message));
            plan.then(Write::delete(pod));
        }
    }
    plan
}

/// When the pod must go; none if it may stay. Of the tolerations of a taint the shortest counts, and of the taints
/// the one whose time is over first. A taint at 10:00 tolerated for 300 and for 60 s: at 10:01.
fn deadline(pod: &Sketch, taints: &[(Taint, Timestamp)]) -> Option<Timestamp> {
    let tolerations = &pod.template.tolerations;
    let deadline = |(taint, since): &(Taint, Timestamp)| {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Some(*since);
        }
        let seconds = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min()?;
        Some(since.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX))
    };
    taints.iter().filter_map(deadline).min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_or_any = |wanted: &Option<String>, actual: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == actual)
    };
    if !is_or_any(&toleration.effect, &taint.effect) || !is_or_any(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::Value;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn taint(key: &str) -> Taint {
        Taint { key: key.into(), value: Some("v".into()), effect: NO_EXECUTE.into(), time_added: None }
    }

    fn pod(tolerations: Value) -> Arc<Sketch> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "default", "uid": "u"},
                "spec": {"nodeName": "n", "containers": [], "tolerations": tolerations},
            }))
            .unwrap(),
        )
    }

    #[rstest]
    #[case::none(json!([]), Some(100))]
    #[case::for_ever(json!([{"key": "k", "operator": "Exists"}]), None)]
    #[case::everything(json!([{"operator": "Exists"}]), None)]
    #[case::for_a_while(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]), Some(400))]
    #[case::the_shortest_counts(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300},
        {"operator": "Exists", "tolerationSeconds": 60}]), Some(160))]
    #[case::negative_is_at_once(json!([{"operator": "Exists", "tolerationSeconds": -5}]), Some(100))]
    #[case::equal(json!([{"key": "k", "value": "v", "effect": "NoExecute"}]), None)]
    #[case::another_value(json!([{"key": "k", "value": "w"}]), Some(100))]
    #[case::another_effect(json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]), Some(100))]
    #[case::another_key(json!([{"key": "l", "operator": "Exists"}]), Some(100))]
    fn a_pod_stays_as_long_as_it_tolerates_the_taint(
        #[case] tolerations: Value,
        #[case] expected: Option<i64>,
    ) {
        let deadline = deadline(&pod(tolerations), &[(taint("k"), at(100))]);
        assert_eq!(deadline.map(|when| when.as_second()), expected);
    }

    #[test]
    fn of_several_taints_the_first_to_end_counts_and_without_taints_the_pod_stays() {
        let pod = pod(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300},
            {"key": "l", "operator": "Exists", "tolerationSeconds": 10}]));
        assert_eq!(deadline(&pod, &[(taint("k"), at(0)), (taint("l"), at(200))]), Some(at(210)));
        assert_eq!(deadline(&pod, &[]), None);
    }

    #[rstest]
    #[case::before(399, &[], Some(400))]
    #[case::then(400, &["patch status pods default/a", "delete pods default/a"], None)]
    fn a_pod_is_deleted_when_its_time_is_over(
        #[case] now: i64,
        #[case] expected: &[&str],
        #[case] look_again: Option<i64>,
    ) {
        let pod = pod(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]));
        let plan = plan(&Snapshot { pod, taints: vec![(taint("k"), at(100))] }, at(now));
        assert_eq!(plan.writes().map(|write| format!("{write:?}")).collect::<Vec<_>>(), expected);
        assert_eq!(plan.look_again.map(|when| when.as_second()), look_again);
    }

    #[test]
    fn a_taint_counts_from_its_own_time_or_from_when_it_was_first_seen() {
        let seen = Seen::default();
        let node = |taints: Vec<Taint>| {
            let mut node = Node::default();
            node.metadata.name = Some("n".into());
            node.spec.get_or_insert_default().taints = Some(taints);
            Some(Arc::new(node))
        };
        let dated = Taint {
            time_added: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(7))),
            ..taint("dated")
        };
        let first = node(vec![taint("k"), dated.clone()]);
        assert!(note_taints(&seen, &Change { old: None, new: first.clone() }, at(10)));
        assert!(!note_taints(&seen, &Change { old: first.clone(), new: first.clone() }, at(20)));
        assert_eq!(seen.lock()["n"], [(taint("k"), at(10)), (dated, at(7))]);
        assert!(note_taints(&seen, &Change { old: first, new: node(vec![]) }, at(30)));
        assert!(seen.lock().is_empty());
    }
}
