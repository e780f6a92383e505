//! Pods nobody will ever look after again: those of nodes that are gone, those deleted before they had a node, and
//! finished ones beyond a number.

use super::disruption;
use crate::cache::Key;
use crate::caches::Caches;
use crate::plan::{Deletion, KindRef, PatchKind, Plan, Step, Verb, Write};
use crate::pod::{self, Sketch};
use crate::runner::{self, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Finished pods kept (`--terminated-pod-gc-threshold`).
const FINISHED_KEPT: usize = 12_500;
/// How long a node must have been missing: it may be made anew.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// How often it is swept at most.
const PAUSE: Duration = Duration::from_secs(20);

/// The pod garbage collector. It has one key, for everything.
pub struct Controller {
    missing: Mutex<HashMap<String, Timestamp>>,
    clock: fn() -> Timestamp,
}

/// What a plan depends on.
#[derive(Default)]
pub struct Snapshot {
    /// The finished pods.
    pub finished: Vec<Arc<Sketch>>,
    /// Pods on nodes that do not exist, and since when each node is missing.
    pub orphaned: Vec<(Arc<Sketch>, Timestamp)>,
    /// Pods being deleted that were never bound to a node.
    pub unbound: Vec<Arc<Sketch>>,
}

impl Controller {
    /// A controller that notes by this clock when it misses nodes.
    pub fn new(clock: fn() -> Timestamp) -> Self {
        Self { missing: Mutex::default(), clock }
    }

    /// Since when each of these nodes is missing, and forgets all others.
    fn missing_since(&self, nodes: BTreeSet<&str>) -> HashMap<String, Timestamp> {
        let now = (self.clock)();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| nodes.contains(node.as_str()));
        for node in nodes {
            missing.entry(node.to_owned()).or_insert(now);
        }
        missing.clone()
    }
}

fn everything() -> Key {
    Key::new("", "")
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        let all = watch.caches();
        watch.on_later(&caches.pods, PAUSE, move |change, wake| {
            let is_candidate = |pod: &Sketch| match pod::node_name(pod) {
                "" => pod::is_terminating(pod) || pod::is_finished(pod),
                node => pod::is_finished(pod) || all.nodes.get(&Key::new("", node)).is_none(),
            };
            if change.new.as_deref().is_some_and(is_candidate) {
                wake(everything());
            }
        });
        watch.on(&caches.nodes, |change, wake| {
            if change.new.is_none() {
                wake(everything());
            }
        });
    }

    fn observe(&self, caches: &Caches, _: &Key) -> Option<Snapshot> {
        let pods = caches.pods.list();
        let nodes = caches.nodes.list();
        let exists =
            |name: &str| nodes.iter().any(|node: &Arc<Node>| node.metadata.name.as_deref() == Some(name));
        let named: BTreeSet<&str> = pods.iter().map(pod::node_name).collect();
        let absent = named.into_iter().filter(|node| !node.is_empty() && !exists(node)).collect();
        let missing = self.missing_since(absent);
        let mut snapshot = Snapshot::default();
        for pod in &pods {
            let node = pod::node_name(pod);
            if let Some(since) = missing.get(node) {
                snapshot.orphaned.push((pod.clone(), *since));
            } else if node.is_empty() && pod::is_terminating(pod) {
                snapshot.unbound.push(pod.clone());
            } else if pod::is_finished(pod) && !pod::is_terminating(pod) {
                snapshot.finished.push(pod.clone());
            }
        }
        Some(snapshot)
    }

    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        plan(snapshot, FINISHED_KEPT, now)
    }
}

/// Deletes what nobody will: without grace, as nobody is there to end it gracefully.
pub fn plan(snapshot: &Snapshot, kept: usize, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut finished: Vec<&Arc<Sketch>> = snapshot.finished.iter().collect();
    finished.sort_by_key(|pod| {
        (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), Key::of(&pod.metadata))
    });
    let too_many = finished.len().saturating_sub(kept);
    let mut deletes: Vec<Write> = finished.iter().take(too_many).map(|pod| delete(pod)).collect();
    deletes.extend(snapshot.unbound.iter().map(|pod| delete(pod)));
    let mut fails = Vec::new();
    for (pod, since) in &snapshot.orphaned {
        let due = *since + QUARANTINE;
        if now < due {
            plan.look_again_at(due);
            continue;
        }
        if !pod::is_finished(pod) {
            fails.push(fail(pod, now));
        }
        deletes.push(delete(pod));
    }
    plan.then_all(fails);
    if !deletes.is_empty() {
        plan.steps.push(Step::together(deletes));
    }
    plan
}

fn delete(pod: &Sketch) -> Write {
    let deletion = Deletion { uid: pod.metadata.uid.clone(), grace_period: Some(0), ..Deletion::default() };
    let verb = Verb::Delete(deletion);
    Write::at(KindRef::of::<Pod>(), Key::of(&pod.metadata), verb).tolerating(&[404, 409])
}

/// Says why it ends, for whoever counts failed pods.
fn fail(pod: &Sketch, now: Timestamp) -> Write {
    let condition = disruption("DeletionByPodGC", "PodGC: node no longer exists", now);
    let body = json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"phase": "Failed", "conditions": [condition]},
    });
    Write::patch_status(pod, PatchKind::Strategic, body).tolerating(&[404, 409])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, created: i64, phase: &str) -> Arc<Sketch> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "default", "uid": name,
                    "creationTimestamp": at(created).to_string()},
                "spec": {"containers": []}, "status": {"phase": phase},
            }))
            .unwrap(),
        )
    }

    fn planned(snapshot: Snapshot, now: i64) -> (Vec<String>, Option<i64>) {
        let plan = plan(&snapshot, 2, at(now));
        let writes = plan.writes().map(|write| format!("{} {}", write.verb.name(), write.key.name)).collect();
        (writes, plan.look_again.map(|when| when.as_second()))
    }

    #[rstest]
    #[case::few(&[3, 1], &[])]
    #[case::too_many(&[3, 1, 2, 4], &["delete p1", "delete p2"])]
    fn the_oldest_finished_pods_beyond_the_threshold_go(#[case] created: &[i64], #[case] expected: &[&str]) {
        let finished = created.iter().map(|at| pod(&format!("p{at}"), *at, "Succeeded")).collect();
        assert_eq!(planned(Snapshot { finished, ..Snapshot::default() }, 0).0, expected);
    }

    #[rstest]
    #[case::the_node_may_come_back("Running", 139, &[], Some(140))]
    #[case::it_did_not("Running", 140, &["patch status a", "delete a"], None)]
    #[case::finished_before("Failed", 140, &["delete a"], None)]
    fn pods_of_a_missing_node_go_after_a_while(
        #[case] phase: &str,
        #[case] now: i64,
        #[case] expected: &[&str],
        #[case] look_again: Option<i64>,
    ) {
        let orphaned = vec![(pod("a", 0, phase), at(100))];
        let (writes, again) = planned(Snapshot { orphaned, ..Snapshot::default() }, now);
        assert_eq!(
            (writes.iter().map(String::as_str).collect::<Vec<_>>(), again),
            (expected.to_vec(), look_again)
        );
    }

    #[test]
    fn a_pod_deleted_before_it_had_a_node_goes() {
        let unbound = vec![pod("a", 0, "Pending")];
        assert_eq!(planned(Snapshot { unbound, ..Snapshot::default() }, 0).0, ["delete a"]);
    }

    #[test]
    fn a_node_that_came_back_is_missing_anew_when_it_goes_again() {
        fn noon() -> Timestamp {
            Timestamp::from_second(43_200).unwrap()
        }
        let controller = Controller::new(noon);
        controller.missing.lock().insert("old".into(), at(1));
        assert_eq!(controller.missing_since(["old"].into())["old"], at(1));
        assert!(controller.missing_since(BTreeSet::new()).is_empty());
        assert_eq!(controller.missing_since(["old"].into())["old"], noon());
    }
}
