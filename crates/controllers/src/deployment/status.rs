//! The status of a Deployment: sums over its ReplicaSets, and conditions.

use super::progress::{self, AVAILABLE, REPLICA_FAILURE, new_condition, set_condition};
use super::rolling_update::Limits;
use super::snapshot::{Roles, Set, total_size};
use crate::replica_set::status::unless_zero;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};

/// The status as the ReplicaSets tell it. Conditions are those of `current`, with availability brought up to date.
/// `terminatingReplicas` is left alone: in v1.33 a gate that is off by default (KEP-3973) keeps it out of every status.
pub fn of(
    deployment: &Deployment,
    current: &DeploymentStatus,
    roles: &Roles,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |count: fn(&Set) -> i32| roles.all().map(count).fold(0, i32::saturating_add);
    let available = sum(Set::available);
    let unavailable = (total_size(roles.all()) - available).max(0);
    let updated = roles.new.as_ref().map_or(0, Set::existing_pods);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: unless_zero(sum(Set::existing_pods)),
        updated_replicas: unless_zero(updated),
        ready_replicas: unless_zero(sum(Set::ready)),
        available_replicas: unless_zero(available),
        unavailable_replicas: unless_zero(unavailable),
        collision_count: current.collision_count,
        conditions: current.conditions.clone(),
        terminating_replicas: current.terminating_replicas,
    };
    let (verdict, reason, message) = if available >= Limits::of(deployment).fewest() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, new_condition(AVAILABLE, verdict, reason, message.to_owned(), now));
    status
}

/// Tells of pods that cannot be created or deleted, as one of the ReplicaSets does, the new one first.
pub fn tell_failures(status: &mut DeploymentStatus, roles: &Roles) {
    let sets = roles.new.iter().chain(&roles.old).filter_map(Set::status);
    let mut conditions = sets.flat_map(|status| status.conditions.iter().flatten());
    match conditions.find(|condition| condition.type_ == REPLICA_FAILURE) {
        Some(failure) => set_condition(
            status,
            DeploymentCondition {
                type_: failure.type_.clone(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            },
        ),
        None => progress::remove_condition(status, REPLICA_FAILURE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;
    use std::sync::Arc;

    /// Size, pods, ready, available.
    fn set(name: &str, counts: [i32; 4], failure: Option<&str>) -> Set {
        let conditions =
            failure.map(|message| json!([{"type": "ReplicaFailure", "status": "True", "message": message}]));
        let value = json!({
            "metadata": {"name": name},
            "spec": {"replicas": counts[0], "selector": {}},
            "status": {"replicas": counts[1], "readyReplicas": counts[2], "availableReplicas": counts[3],
                "conditions": conditions},
        });
        Set::existing(Arc::new(serde_json::from_value(value).unwrap()))
    }

    fn deployment() -> Deployment {
        let rolling = json!({"maxSurge": 1, "maxUnavailable": 1});
        serde_json::from_value(json!({
            "metadata": {"name": "kubia", "generation": 7},
            "spec": {"replicas": 3, "selector": {}, "template": {},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}},
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2024-01-01T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_status_sums_up_all_sets() {
        let roles = Roles {
            new: Some(set("new", [2, 2, 1, 0], None)),
            old: vec![set("a", [0, 1, 1, 1], None), set("b", [2, 2, 2, 2], None)],
        };
        let status = of(&deployment(), &DeploymentStatus::default(), &roles, now());
        let counts = serde_json::to_value(DeploymentStatus { conditions: None, ..status }).unwrap();
        let expected = json!({"observedGeneration": 7, "replicas": 5, "updatedReplicas": 2, "readyReplicas": 4,
            "availableReplicas": 3, "unavailableReplicas": 1});
        assert_eq!(counts, expected);
    }

    #[rstest]
    #[case::enough(2, "True", "MinimumReplicasAvailable")]
    #[case::too_few(1, "False", "MinimumReplicasUnavailable")]
    fn it_is_available_with_all_but_max_unavailable(
        #[case] up: i32,
        #[case] verdict: &str,
        #[case] reason: &str,
    ) {
        let roles = Roles { new: Some(set("new", [3, 3, up, up], None)), old: Vec::new() };
        let status = of(&deployment(), &DeploymentStatus::default(), &roles, now());
        let condition = progress::condition(&status, AVAILABLE).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_deref()), (verdict, Some(reason)));
    }

    #[test]
    fn the_failure_of_the_new_set_is_told_before_that_of_an_old_one_and_forgotten_when_over() {
        let mut roles = Roles {
            new: Some(set("new", [1, 0, 0, 0], Some("quota"))),
            old: vec![set("a", [1, 0, 0, 0], Some("other"))],
        };
        let mut status = DeploymentStatus::default();
        tell_failures(&mut status, &roles);
        assert_eq!(progress::condition(&status, REPLICA_FAILURE).unwrap().message.as_deref(), Some("quota"));
        roles = Roles { new: Some(set("new", [1, 1, 1, 1], None)), old: Vec::new() };
        tell_failures(&mut status, &roles);
        assert_eq!(status.conditions, None);
    }
}
