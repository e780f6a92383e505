//! Revisions: how ReplicaSets are numbered and annotated, and which are kept for a rollback.
//!
//! Rolling back is rolling out an old template: its ReplicaSet is found by that template, becomes the new one and
//! gets the next number; the numbers it had before are kept in its history.

use super::snapshot::{Roles, Set, spec_of};
use super::{rollback, scale};
use crate::plan::Write;
use k8s_openapi::api::apps::v1::Deployment;

/// The number of a rollout, on the Deployment and its ReplicaSets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The earlier numbers of a ReplicaSet that was rolled back to, separated by commas.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// The longest history; the oldest numbers are dropped.
const LONGEST_HISTORY: usize = 2000;

/// Annotations that Deployments and their ReplicaSets do not take over from each other.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    scale::DESIRED,
    scale::MAX,
    rollback::ROLLBACK_TO,
];

/// The revision of a ReplicaSet; 0 if it has none or it is malformed.
pub fn of(set: &Set) -> i64 {
    set.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Annotates the new ReplicaSet: the Deployment's own annotations (`change-cause` among them), and a revision above
/// all old ones. Changes nothing that is right already.
pub fn annotate(deployment: &Deployment, set: &mut Set, greatest_old: i64) {
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !stays_with_its_object(name) && set.annotation(name) != Some(value) {
            insert(set, name, value.clone());
        }
    }
    let next = greatest_old.saturating_add(1);
    let current = of(set);
    if current >= next {
        return;
    }
    if let Some(old) = set.annotation(REVISION).map(str::to_owned) {
        let history = history_with(set.annotation(HISTORY).unwrap_or_default(), &old);
        insert(set, HISTORY, history);
    }
    insert(set, REVISION, next.to_string());
}

/// Whether an annotation is the object's own, and not one that describes a revision.
pub fn stays_with_its_object(name: &str) -> bool {
    NOT_COPIED.contains(&name)
}

fn insert(set: &mut Set, name: &str, value: String) {
    set.object_mut().metadata.annotations.get_or_insert_default().insert(name.to_owned(), value);
}

/// `1,3` with 5: `1,3,5`.
fn history_with(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(revision);
    let mut length = revisions.iter().map(|revision| revision.len() + 1).sum::<usize>() - 1;
    let mut oldest = 0;
    while length > LONGEST_HISTORY && oldest + 1 < revisions.len() {
        length -= revisions[oldest].len() + 1;
        oldest += 1;
    }
    revisions[oldest..].join(",")
}

/// The deletions that keep no more than `revisionHistoryLimit` old ReplicaSets, the lowest revisions first. One that
/// has pods, is being deleted, or whose last change its controller has not seen yet, stays.
pub fn clean_up(deployment: &Deployment, roles: &Roles) -> Vec<Write> {
    let Some(limit) = spec_of(deployment).revision_history_limit.filter(|limit| *limit != i32::MAX) else {
        return Vec::new();
    };
    let is_alive = |set: &&Set| set.object().metadata.deletion_timestamp.is_none();
    let mut old: Vec<&Set> = roles.old.iter().filter(is_alive).collect();
    let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by(|a, b| of(a).cmp(&of(b)).then(a.age().cmp(&b.age())));
    let deletable = old.into_iter().take(excess).filter(|set| is_unused(set));
    deletable.map(|set| Write::delete_unchanged(set.object())).collect()
}

fn is_unused(set: &Set) -> bool {
    let observed = set.status().and_then(|status| status.observed_generation).unwrap_or(0);
    let is_observed = set.object().metadata.generation.unwrap_or(0) <= observed;
    set.size() == 0 && set.size_before() == 0 && set.existing_pods() == 0 && is_observed
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn set(name: &str, annotations: Value, replicas: i32, pods: i32, generation: i64) -> Set {
        let value = json!({
            "metadata": {"name": name, "uid": name, "generation": generation, "annotations": annotations},
            "spec": {"replicas": replicas, "selector": {}},
            "status": {"replicas": pods, "observedGeneration": 1},
        });
        Set::existing(Arc::new(serde_json::from_value(value).unwrap()))
    }

    fn deployment(annotations: Value, limit: Value) -> Deployment {
        let spec = json!({"selector": {}, "template": {}, "revisionHistoryLimit": limit});
        serde_json::from_value(
            json!({"metadata": {"name": "kubia", "annotations": annotations}, "spec": spec}),
        )
        .unwrap()
    }

    fn annotations(set: &Set) -> Value {
        json!(set.object().metadata.annotations)
    }

    #[rstest]
    #[case::first(json!({}), 0, json!({REVISION: "1"}))]
    #[case::next(json!({}), 4, json!({REVISION: "5"}))]
    #[case::right_already(json!({REVISION: "5"}), 4, json!({REVISION: "5"}))]
    #[case::greater_stays_when_others_were_deleted(json!({REVISION: "7"}), 4, json!({REVISION: "7"}))]
    #[case::compared_as_numbers(json!({REVISION: "9"}), 9, json!({REVISION: "10", HISTORY: "9"}))]
    #[case::rolled_back_to(json!({REVISION: "1"}), 3, json!({REVISION: "4", HISTORY: "1"}))]
    #[case::rolled_back_to_again(json!({REVISION: "4", HISTORY: "1"}), 5, json!({REVISION: "6", HISTORY: "1,4"}))]
    fn the_new_set_gets_a_revision_above_all_old_ones(
        #[case] before: Value,
        #[case] greatest_old: i64,
        #[case] after: Value,
    ) {
        let mut set = set("a", before, 0, 0, 1);
        annotate(&deployment(json!({}), json!(10)), &mut set, greatest_old);
        assert_eq!(annotations(&set), after);
    }

    #[test]
    fn annotations_are_copied_but_for_those_that_speak_of_the_deployment_only() {
        let own = json!({
            "kubernetes.io/change-cause": "kubectl create --record",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            REVISION: "8",
            HISTORY: "1,2",
            scale::DESIRED: "8",
            scale::MAX: "10",
            rollback::ROLLBACK_TO: "3",
        });
        let mut set = set("a", json!({REVISION: "1"}), 0, 0, 1);
        annotate(&deployment(own, json!(10)), &mut set, 0);
        let expected = json!({REVISION: "1", "kubernetes.io/change-cause": "kubectl create --record"});
        assert_eq!(annotations(&set), expected);
    }

    #[test]
    fn a_history_that_grows_too_long_loses_its_oldest_numbers() {
        let long = (1000..1400).map(|revision: i32| revision.to_string()).collect::<Vec<_>>().join(",");
        let history = history_with(&long, "1400");
        assert!(history.len() <= LONGEST_HISTORY && history.ends_with(",1399,1400"), "{}", history.len());
        assert!(history.starts_with("1001,"));
    }

    #[rstest]
    #[case::within_the_limit(json!(3), &[])]
    #[case::one_too_many(json!(2), &["a"])]
    #[case::none_kept(json!(0), &["a", "c"])]
    #[case::unlimited(json!(i32::MAX), &[])]
    #[case::unset(json!(null), &[])]
    fn only_unused_sets_beyond_the_limit_are_deleted(#[case] limit: Value, #[case] expected: &[&str]) {
        let revision = |number: i32| json!({REVISION: number.to_string()});
        let old = vec![
            set("c", revision(10), 0, 0, 1),
            set("a", revision(2), 0, 0, 1),
            set("b", revision(3), 0, 1, 1),
        ];
        let roles = Roles { new: Some(set("d", revision(11), 3, 3, 1)), old };
        let deletes = clean_up(&deployment(json!({}), limit), &roles);
        let names: Vec<&str> = deletes.iter().map(|write| write.key.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_set_whose_last_change_is_not_observed_yet_is_kept() {
        let roles = Roles { new: None, old: vec![set("a", json!({}), 0, 0, 2)] };
        assert!(clean_up(&deployment(json!({}), json!(0)), &roles).is_empty());
    }
}
