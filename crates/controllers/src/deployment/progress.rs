//! Conditions: whether a Deployment is available, whether its rollout makes progress, and how long that may take.

use super::snapshot::{Roles, spec_of, wanted};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Type of the condition about the rollout.
pub const PROGRESSING: &str = "Progressing";
/// Type of the condition about availability.
pub const AVAILABLE: &str = "Available";
/// Type of the condition about pods that cannot be created or deleted.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// A ReplicaSet was created.
pub const CREATED: &str = "NewReplicaSetCreated";
/// A ReplicaSet with the template was there already.
pub const FOUND: &str = "FoundNewReplicaSet";
/// Pods came, went, became ready or available.
pub const UPDATED: &str = "ReplicaSetUpdated";
/// The rollout is complete.
pub const COMPLETE: &str = "NewReplicaSetAvailable";
/// Nothing happened for `progressDeadlineSeconds`.
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// The ReplicaSet could not be created.
pub const CREATE_FAILED: &str = "ReplicaSetCreateError";
/// `spec.paused` was set.
pub const PAUSED: &str = "DeploymentPaused";
/// `spec.paused` was unset.
pub const RESUMED: &str = "DeploymentResumed";

/// The condition of this type.
pub fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Sets a condition. If there is one with the same status and reason it stays as it is; if only the reason differs,
/// it keeps the time of its last transition.
pub fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(current) = condition(status, &new.type_)
        && current.status == new.status
    {
        if current.reason == new.reason {
            return;
        }
        new.last_transition_time.clone_from(&current.last_transition_time);
    }
    remove_condition(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

/// Removes the condition of this type.
pub fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// A condition that changed now.
pub fn new_condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// `progressDeadlineSeconds`, if progress is to be watched at all.
pub fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = spec_of(deployment).progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Notes that a rollout was paused or resumed, so that the time in between does not count as lack of progress. A
/// rollout that has run out of time already stays that way.
pub fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return;
    }
    let is_noted = reason == Some(PAUSED);
    let note = match (spec_of(deployment).paused == Some(true), is_noted) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => (RESUMED, "Deployment is resumed"),
        _ => return,
    };
    set_condition(status, new_condition(PROGRESSING, "Unknown", note.0, note.1.to_owned(), now));
}

/// Whether all pods are updated and available, and no old ones are left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
    is(status.updated_replicas)
        && is(status.replicas)
        && is(status.available_replicas)
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Whether there are more updated pods, fewer old ones, or more ready or available ones.
pub fn is_progress(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

/// When the rollout runs out of time, if it is under way and its time is limited.
pub fn times_out_at(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let progressing = condition(status, PROGRESSING)?;
    if matches!(progressing.reason.as_deref(), Some(COMPLETE | TIMED_OUT)) {
        return None;
    }
    progressing.last_update_time.as_ref()?.0.checked_add(deadline(deployment)?).ok()
}

/// Tells in `status` how the rollout goes, given the counts in it and those `before`. Returns when to look again
/// whether it has run out of time.
pub fn assess(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    roles: &Roles,
    now: Timestamp,
) -> Option<Timestamp> {
    if deadline(deployment).is_none() {
        remove_condition(status, PROGRESSING);
        return None;
    }
    let current = condition(status, PROGRESSING).cloned();
    let was_complete = status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0)
        && current.as_ref().is_some_and(|condition| condition.reason.as_deref() == Some(COMPLETE));
    if was_complete {
        return None;
    }
    let subject = match &roles.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let tell = |status, reason, verdict: &str| {
        new_condition(PROGRESSING, status, reason, format!("{subject} {verdict}"), now)
    };
    if is_complete(deployment, status) {
        set_condition(status, tell("True", COMPLETE, "has successfully progressed."));
        return None;
    }
    if is_progress(before, status) {
        let mut progress = tell("True", UPDATED, "is progressing.");
        if let Some(current) = current.filter(|current| current.status == "True") {
            progress.last_transition_time = current.last_transition_time;
        }
        // Replaced and not set, since every progress renews the deadline.
        remove_condition(status, PROGRESSING);
        set_condition(status, progress);
    } else if times_out_at(deployment, status).is_some_and(|when| when < now) {
        set_condition(status, tell("False", TIMED_OUT, "has timed out progressing."));
    }
    // Stored times have no fractions, so what began at 10:00:00.9 is only safe to judge a second later.
    times_out_at(deployment, status).and_then(|when| when.checked_add(SignedDuration::from_secs(1)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const NOW: &str = "2024-01-01T10:10:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn deployment(paused: bool, deadline: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "kubia", "generation": 2},
            "spec": {"replicas": 3, "paused": paused, "selector": {}, "template": {},
                "progressDeadlineSeconds": deadline},
        }))
        .unwrap()
    }

    /// Counts: replicas, updated, ready, available.
    fn status(counts: [i32; 4], progressing: Option<(&str, &str, &str)>) -> DeploymentStatus {
        let conditions = progressing.map(|(status, reason, updated)| {
            json!([{"type": PROGRESSING, "status": status, "reason": reason,
                "lastUpdateTime": updated, "lastTransitionTime": "2024-01-01T09:00:00Z"}])
        });
        serde_json::from_value(json!({
            "observedGeneration": 2, "conditions": conditions, "replicas": counts[0], "updatedReplicas": counts[1],
            "readyReplicas": counts[2], "availableReplicas": counts[3],
        }))
        .unwrap()
    }

    fn assessed(before: DeploymentStatus, counts: [i32; 4]) -> (String, Option<Timestamp>) {
        let mut after = status(counts, None);
        after.conditions.clone_from(&before.conditions);
        let roles = Roles { new: None, old: Vec::new() };
        let look_again = assess(&deployment(false, json!(600)), &before, &mut after, &roles, now());
        let reason = condition(&after, PROGRESSING).and_then(|condition| condition.reason.clone());
        (reason.unwrap_or_default(), look_again)
    }

    #[rstest]
    #[case::complete(("True", UPDATED, NOW), [3, 2, 3, 3], [3, 3, 3, 3], COMPLETE)]
    #[case::more_updated(("True", CREATED, NOW), [3, 0, 3, 3], [4, 1, 3, 3], UPDATED)]
    #[case::fewer_old(("True", CREATED, NOW), [4, 1, 4, 4], [3, 1, 3, 3], UPDATED)]
    #[case::more_ready(("True", CREATED, NOW), [4, 1, 3, 3], [4, 1, 4, 3], UPDATED)]
    #[case::none(("True", CREATED, NOW), [4, 1, 3, 3], [4, 1, 3, 3], CREATED)]
    #[case::out_of_time(("True", UPDATED, "2024-01-01T09:59:59Z"), [4, 1, 3, 3], [4, 1, 3, 3], TIMED_OUT)]
    #[case::exactly_at_the_deadline(("True", UPDATED, "2024-01-01T10:00:00Z"), [4, 1, 3, 3], [4, 1, 3, 3], UPDATED)]
    #[case::progress_after_the_deadline(("False", TIMED_OUT, "2024-01-01T09:00:00Z"), [4, 1, 3, 3], [4, 2, 3, 3], UPDATED)]
    #[case::complete_after_the_deadline(("False", TIMED_OUT, "2024-01-01T09:00:00Z"), [4, 2, 3, 3], [3, 3, 3, 3], COMPLETE)]
    #[case::complete_is_not_judged_again(("True", COMPLETE, "2024-01-01T01:00:00Z"), [3, 3, 3, 3], [3, 3, 1, 1], COMPLETE)]
    #[case::resumed_after_long(("Unknown", RESUMED, "2024-01-01T10:09:00Z"), [4, 1, 3, 3], [4, 1, 3, 3], RESUMED)]
    fn a_rollout_is_judged_by_its_counts_and_its_time(
        #[case] current: (&str, &str, &str),
        #[case] before: [i32; 4],
        #[case] after: [i32; 4],
        #[case] reason: &str,
    ) {
        assert_eq!(assessed(status(before, Some(current)), after).0, reason);
    }

    #[test]
    fn a_rollout_under_way_is_looked_at_when_its_time_is_over() {
        let current = ("True", UPDATED, "2024-01-01T10:08:00Z");
        let (_, look_again) = assessed(status([4, 1, 3, 3], Some(current)), [4, 1, 3, 3]);
        assert_eq!(look_again, Some("2024-01-01T10:18:01Z".parse().unwrap()));
        let (_, look_again) = assessed(status([4, 1, 3, 3], Some(current)), [3, 3, 3, 3]);
        assert_eq!(look_again, None, "complete");
    }

    #[test]
    fn progress_renews_the_deadline_but_not_the_transition() {
        let before = status([3, 0, 3, 3], Some(("True", UPDATED, "2024-01-01T10:00:00Z")));
        let mut after = status([4, 1, 3, 3], Some(("True", UPDATED, "2024-01-01T10:00:00Z")));
        let roles = Roles { new: None, old: Vec::new() };
        assess(&deployment(false, json!(600)), &before, &mut after, &roles, now());
        let condition = condition(&after, PROGRESSING).unwrap();
        assert_eq!(condition.last_update_time, Some(Time(now())));
        assert_eq!(condition.last_transition_time, Some(Time("2024-01-01T09:00:00Z".parse().unwrap())));
        assert_eq!(condition.message.as_deref(), Some("Deployment \"kubia\" is progressing."));
    }

    #[rstest]
    #[case::no_deadline(json!(null))]
    #[case::largest_means_none(json!(i32::MAX))]
    fn without_a_deadline_progress_is_not_told(#[case] deadline: Value) {
        let before = status([3, 0, 3, 3], Some(("True", UPDATED, NOW)));
        let mut after = before.clone();
        let roles = Roles { new: None, old: Vec::new() };
        assess(&deployment(false, deadline), &before, &mut after, &roles, now());
        assert_eq!(after.conditions, None);
    }

    #[rstest]
    #[case::pausing(true, ("True", UPDATED), PAUSED)]
    #[case::pausing_a_complete_one(true, ("True", COMPLETE), PAUSED)]
    #[case::paused_already(true, ("Unknown", PAUSED), PAUSED)]
    #[case::resuming(false, ("Unknown", PAUSED), RESUMED)]
    #[case::neither(false, ("True", UPDATED), UPDATED)]
    #[case::timed_out_stays(true, ("False", TIMED_OUT), TIMED_OUT)]
    fn a_pause_is_noted(#[case] paused: bool, #[case] current: (&str, &str), #[case] reason: &str) {
        let mut status = status([3, 3, 3, 3], Some((current.0, current.1, NOW)));
        note_pause(&deployment(paused, json!(600)), &mut status, now());
        assert_eq!(condition(&status, PROGRESSING).unwrap().reason.as_deref(), Some(reason));
    }
}
