//! The taints that follow from a node's conditions and from cordoning it.

use super::{condition, taints};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Nothing new may be scheduled.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// What does not tolerate it must go.
pub const NO_EXECUTE: &str = "NoExecute";

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, status, and the taint that follows.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The taints the node should have: those of others as they are, ours as its conditions say. While no node of the
/// cluster is ready, nothing is driven away from any: it could go nowhere, and the fault is probably on our side.
pub fn wanted(node: &Node, any_ready: bool, now: Timestamp) -> Vec<Taint> {
    let follows = |key: &str, effect: &str| follows(node, any_ready, key, effect);
    let mut wanted: Vec<Taint> = taints(node).to_vec();
    wanted.retain(|taint| follows(&taint.key, &taint.effect) != Some(false));
    for effect in [NO_SCHEDULE, NO_EXECUTE] {
        for key in BY_CONDITION.iter().map(|(_, _, key)| *key).chain([UNSCHEDULABLE]) {
            let is_there = wanted.iter().any(|taint| taint.key == key && taint.effect == effect);
            if !is_there && follows(key, effect) == Some(true) {
                let (key, effect) = (key.to_owned(), effect.to_owned());
                wanted.push(Taint { key, effect, time_added: Some(Time(now)), value: None });
            }
        }
    }
    wanted
}

/// Whether this taint should be there; none if that is not ours to say.
fn follows(node: &Node, any_ready: bool, key: &str, effect: &str) -> Option<bool> {
    let is_drastic = match (key, effect) {
        (NOT_READY | UNREACHABLE, NO_EXECUTE) => true,
        (_, NO_SCHEDULE) => false,
        _ => return None,
    };
    if key == UNSCHEDULABLE {
        return Some(node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true));
    }
    let (type_, status, _) = BY_CONDITION.iter().find(|(_, _, taint)| *taint == key)?;
    // Of a node that has not reported yet nothing follows; it may have come with a taint of its own.
    let condition = condition(node, type_).or_else(|| condition(node, "Ready"))?;
    Some(condition.type_ == *type_ && condition.status == *status && (any_ready || !is_drastic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn node(conditions: &[(&str, &str)], cordoned: bool, taints: &[(&str, &str)]) -> Node {
        let conditions: Vec<_> =
            conditions.iter().map(|(type_, status)| json!({"type": type_, "status": status})).collect();
        let taints: Vec<_> =
            taints.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"unschedulable": cordoned, "taints": taints},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn shown(taints: &[Taint]) -> Vec<String> {
        taints
            .iter()
            .map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect))
            .collect()
    }

    #[rstest]
    #[case::ready(&[("Ready", "True")], false, true, &[])]
    #[case::not_ready(&[("Ready", "False")], false, true, &["not-ready:NoSchedule", "not-ready:NoExecute"])]
    #[case::unreachable(&[("Ready", "Unknown")], false, true, &["unreachable:NoSchedule", "unreachable:NoExecute"])]
    #[case::nobody_is_ready(&[("Ready", "Unknown")], false, false, &["unreachable:NoSchedule"])]
    #[case::cordoned(&[("Ready", "True")], true, true, &["unschedulable:NoSchedule"])]
    #[case::pressure(&[("Ready", "True"), ("MemoryPressure", "True"), ("DiskPressure", "False")], false, true,
        &["memory-pressure:NoSchedule"])]
    #[case::not_reported_yet(&[], false, true, &[])]
    fn taints_follow_from_conditions_and_cordoning(
        #[case] conditions: &[(&str, &str)],
        #[case] cordoned: bool,
        #[case] any_ready: bool,
        #[case] expected: &[&str],
    ) {
        assert_eq!(
            shown(&wanted(&node(conditions, cordoned, &[]), any_ready, Timestamp::UNIX_EPOCH)),
            expected
        );
    }

    #[rstest]
    #[case::of_others_stay(&[("Ready", "True")], &[("gpu", "NoExecute")], &["gpu:NoExecute"])]
    #[case::ours_go(&[("Ready", "True")],
        &[("node.kubernetes.io/not-ready", "NoSchedule"), ("node.kubernetes.io/unschedulable", "NoSchedule")], &[])]
    #[case::unreachable_turns_not_ready(&[("Ready", "False")], &[("node.kubernetes.io/unreachable", "NoExecute")],
        &["not-ready:NoSchedule", "not-ready:NoExecute"])]
    #[case::before_the_first_report(&[], &[("node.kubernetes.io/not-ready", "NoSchedule")], &["not-ready:NoSchedule"])]
    #[case::same_key_with_another_effect(&[("Ready", "True")],
        &[("node.kubernetes.io/disk-pressure", "PreferNoSchedule")], &["disk-pressure:PreferNoSchedule"])]
    fn taints_that_are_there_are_kept_or_removed(
        #[case] conditions: &[(&str, &str)],
        #[case] taints: &[(&str, &str)],
        #[case] expected: &[&str],
    ) {
        assert_eq!(shown(&wanted(&node(conditions, false, taints), true, Timestamp::UNIX_EPOCH)), expected);
    }

    proptest! {
        #[test]
        fn what_was_written_once_stays_as_it_is(
            ready in prop_oneof![Just("True"), Just("False"), Just("Unknown")],
            pressure in prop_oneof![Just("True"), Just("False"), Just("Unknown")],
            cordoned: bool,
            any_ready: bool,
        ) {
            let mut node = node(&[("Ready", ready), ("PIDPressure", pressure)], cordoned, &[("mine", "NoSchedule")]);
            let first = wanted(&node, any_ready, Timestamp::UNIX_EPOCH);
            node.spec.as_mut().unwrap().taints = Some(first.clone());
            let later = Timestamp::from_second(99).unwrap();
            prop_assert_eq!(wanted(&node, any_ready, later), first);
        }
    }
}
