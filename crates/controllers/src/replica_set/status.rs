//! The status ReplicaSets and ReplicationControllers share, and how pods are counted.

use crate::pod::{self, Sketch};
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

/// The condition that says that pods could not be created or deleted.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// `status` of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// `replicas`: pods that exist and are not finished.
    pub replicas: i32,
    /// `fullyLabeledReplicas`: those that have all labels of the template.
    pub fully_labeled: i32,
    /// `readyReplicas`.
    pub ready: i32,
    /// `availableReplicas`: those that have been ready for `minReadySeconds`.
    pub available: i32,
    /// `observedGeneration`.
    pub observed_generation: Option<i64>,
    /// The `ReplicaFailure` condition, if it is true.
    pub failure: Option<FailureCondition>,
}

/// A `ReplicaFailure` condition whose status is true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailureCondition {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: String,
    /// What the API server said.
    pub message: String,
    /// Since when.
    pub since: Option<Time>,
}

/// The counts in a status, and when the next pod becomes available without any change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All pods counted.
    pub replicas: i32,
    /// With all labels of the template.
    pub fully_labeled: i32,
    /// Ready.
    pub ready: i32,
    /// Ready for long enough.
    pub available: i32,
    /// When the next ready pod will have been ready for long enough.
    pub next_available: Option<Timestamp>,
}

/// Counts pods. Three pods, all ready, one of them for 4 seconds only, `min_ready_seconds` 10: 3 ready,
/// 2 available, the next in 6 seconds.
pub fn count(
    pods: &[Arc<Sketch>],
    template: Option<&PodTemplateSpec>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Counts {
    let labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let matcher = labels.map(Matcher::of_map).filter(|matcher| !matcher.is_nothing());
    let mut counts = Counts { replicas: to_count(pods.len()), ..Counts::default() };
    for pod in pods {
        if matcher.as_ref().is_none_or(|matcher| matcher.matches(&pod.metadata)) {
            counts.fully_labeled += 1;
        }
        if !pod::is_ready(pod) {
            continue;
        }
        counts.ready += 1;
        match pod::available_at(pod, min_ready_seconds) {
            Some(when) if when <= now => counts.available += 1,
            Some(when) => counts.next_available = Some(counts.next_available.map_or(when, |t| t.min(when))),
            None => {}
        }
    }
    counts
}

/// A length as the API counts.
pub fn to_count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Counts that are zero are left out of the JSON.
pub fn unless_zero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(labels: serde_json::Value, ready_since: Option<&str>) -> Arc<Sketch> {
        let status = if ready_since.is_some() { "True" } else { "False" };
        let value = json!({"metadata": {"labels": labels}, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": ready_since}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn pods_are_counted_by_label_readiness_and_time() {
        let template = serde_json::from_value(json!({"metadata": {"labels": {"app": "kubia"}}})).unwrap();
        let pods = [
            pod(json!({"app": "kubia", "extra": "label"}), Some("2024-01-01T10:00:00Z")),
            pod(json!({"app": "kubia"}), Some("2024-01-01T10:00:56Z")),
            pod(json!({"app": "kubia"}), None),
            pod(json!({"other": "labels"}), Some("2024-01-01T09:00:00Z")),
        ];
        let now: Timestamp = "2024-01-01T10:01:00Z".parse().unwrap();
        let expected = Counts {
            replicas: 4,
            fully_labeled: 3,
            ready: 3,
            available: 2,
            next_available: Some("2024-01-01T10:01:06Z".parse().unwrap()),
        };
        assert_eq!(count(&pods, Some(&template), 10, now), expected);
        let at_once = count(&pods, Some(&template), 0, now);
        assert_eq!((at_once.available, at_once.next_available), (3, None));
    }

    #[test]
    fn a_pod_becomes_available_exactly_when_its_seconds_are_over() {
        let pods = [pod(json!({}), Some("2024-01-01T10:00:00Z"))];
        let at = |time: &str| count(&pods, None, 10, time.parse().unwrap()).available;
        assert_eq!(at("2024-01-01T10:00:09.999Z"), 0);
        assert_eq!(at("2024-01-01T10:00:10Z"), 1);
    }
}
