//! Which pods are deleted first when there are too many.
//!
//! The least useful: not assigned to a node, then pending, then not ready, then not ready for `minReadySeconds` yet,
//! then those with a lower `controller.kubernetes.io/pod-deletion-cost`, then those on the most crowded nodes, then the
//! most recently ready, the most restarted and the youngest. Ages are compared by their binary logarithm (KEP-2185), so
//! that among pods of about the same age the choice is as good as random and not always the newest node's.
//!
//! Upstream does not look at `minReadySeconds` here, and so may delete an available pod where the Deployment counted
//! on an unavailable one going. That breaks maxUnavailable; hence the difference (docs/adr/0008-available-pods-go-last.md).

use crate::pod::{self, DELETION_COST, Sketch};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// Ordered by what goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    is_assigned: bool,
    phase: u8,
    is_ready: bool,
    is_available: bool,
    cost: i32,
    crowd: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<i32>,
    created: Age,
    uid: &'a str,
}

/// The binary logarithm of an age in nanoseconds.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Unknown,
    Future,
    Log2(u32),
}

impl Age {
    /// 1 s and 1.05 s give the same; 1 s and 3 s do not.
    fn of(since: Option<Timestamp>, now: Timestamp) -> Self {
        let Some(since) = since else { return Self::Unknown };
        let nanoseconds = now.as_nanosecond() - since.as_nanosecond();
        u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).map_or(Self::Future, Self::Log2)
    }
}

/// The `count` pods that go first. `related` are the pods that count as a crowd on a node; a pod is available once it
/// has been ready for `min_ready_seconds`.
pub fn first_to_go(
    pods: &[Arc<Sketch>],
    related: &[Arc<Sketch>],
    count: usize,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Vec<Arc<Sketch>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut crowds: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(pod::is_active) {
        *crowds.entry(pod::node_name(pod)).or_default() += 1;
    }
    let mut ranked: Vec<_> =
        pods.iter().map(|pod| (rank(pod, &crowds, min_ready_seconds, now), pod)).collect();
    ranked.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().take(count).map(|(_, pod)| pod.clone()).collect()
}

fn rank<'a>(
    pod: &'a Sketch,
    crowds: &HashMap<&str, usize>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Rank<'a> {
    let node = pod::node_name(pod);
    let is_ready = pod::is_ready(pod);
    let annotations = pod.metadata.annotations.as_ref();
    Rank {
        is_assigned: !node.is_empty(),
        phase: match pod::phase(pod) {
            "" | "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        },
        is_ready,
        is_available: pod::available_at(pod, min_ready_seconds).is_some_and(|when| when <= now),
        cost: annotations
            .and_then(|all| all.get(DELETION_COST))
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0),
        crowd: Reverse(crowds.get(node).copied().unwrap_or(0)),
        ready_for: if is_ready { Age::of(pod::ready_since(pod), now) } else { Age::Unknown },
        restarts: Reverse(pod.restarts),
        created: Age::of(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
        uid: pod.metadata.uid.as_deref().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> String {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap().to_string()
    }

    fn now() -> Timestamp {
        at(1000).parse().unwrap()
    }

    fn pod(value: Value) -> Arc<Sketch> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn running(name: &str, node: &str, ready_at: i64, restarts: i32, created: i64) -> Value {
        json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at(created)},
            "spec": {"nodeName": node, "containers": []},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(ready_at)}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts}],
            },
        })
    }

    fn with(mut value: Value, path: &str, new: Value) -> Value {
        *value.pointer_mut(path).unwrap() = new;
        value
    }

    #[rstest]
    #[case::unassigned(with(running("x", "n", 0, 0, 0), "/spec/nodeName", json!(null)))]
    #[case::pending(with(running("x", "n", 0, 0, 0), "/status/phase", json!("Pending")))]
    #[case::unknown(with(running("x", "n", 0, 0, 0), "/status/phase", json!("Unknown")))]
    #[case::not_ready(with(running("x", "n", 0, 0, 0), "/status/conditions/0/status", json!("False")))]
    #[case::cheaper(with(running("x", "n", 0, 0, 0), "/metadata", json!({"name": "x", "uid": "x", "annotations": {DELETION_COST: "-5"}})))]
    #[case::ready_since_far_less(running("x", "n", 990, 0, 0))]
    #[case::restarted_more(running("x", "n", 0, 3, 0))]
    #[case::created_far_later(running("x", "n", 0, 0, 995))]
    #[case::ready_since_unknown(with(running("x", "n", 0, 0, 0), "/status/conditions/0/lastTransitionTime", json!(null)))]
    fn the_less_useful_pod_goes_first(#[case] less_useful: Value) {
        let pods = [pod(running("a", "n", 0, 0, 0)), pod(less_useful)];
        assert_eq!(first_to_go(&pods, &pods, 1, 0, now())[0].metadata.name.as_deref(), Some("x"));
    }

    #[test]
    fn each_criterion_outweighs_all_after_it() {
        let order = [
            with(running("1", "n", 0, 0, 0), "/spec/nodeName", json!(null)),
            with(running("2", "n", 0, 0, 0), "/status/phase", json!("Pending")),
            with(running("3", "n", 999, 9, 999), "/status/conditions/0/status", json!("False")),
            running("4", "n", 995, 0, 0),
            with(
                running("5", "n", 0, 0, 0),
                "/metadata",
                json!({"uid": "5", "annotations": {DELETION_COST: "-1"}}),
            ),
            running("6", "crowded", 0, 0, 0),
            running("7", "n", 950, 0, 0),
            running("8", "n", 0, 9, 0),
            running("9", "n", 0, 0, 999),
            running("last", "n", 0, 0, 0),
        ];
        let mut pods: Vec<Arc<Sketch>> = order.into_iter().map(pod).collect();
        let mut related = pods.clone();
        related.extend((0..9).map(|_| pod(running("other", "crowded", 0, 0, 0))));
        pods.reverse();
        let gone = first_to_go(&pods, &related, 9, 10, now());
        let uids: Vec<_> = gone.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        assert_eq!(uids, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }

    #[test]
    fn of_pods_of_about_the_same_age_one_not_available_yet_goes_first() {
        // 11 and 9 s are both from 2^33 to 2^34 ns: its uid would save it otherwise.
        let pods = [pod(running("a", "n", 989, 0, 0)), pod(running("b", "n", 991, 0, 0))];
        let first = |seconds| first_to_go(&pods, &pods, 1, seconds, now())[0].metadata.uid.clone();
        assert_eq!(first(0).as_deref(), Some("a"));
        assert_eq!(first(10).as_deref(), Some("b"));
    }

    #[test]
    fn pods_of_about_the_same_age_are_chosen_by_uid() {
        let pods = [pod(running("b", "n", 10, 0, 0)), pod(running("a", "n", 12, 0, 0))];
        assert_eq!(first_to_go(&pods, &pods, 1, 0, now())[0].metadata.uid.as_deref(), Some("a"));
    }
}
