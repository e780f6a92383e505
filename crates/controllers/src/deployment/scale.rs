//! Scaling a Deployment, also in the middle of a rollout or while it is paused: every ReplicaSet keeps its share.

use super::rolling_update::{self, Limits};
use super::snapshot::{Roles, Set, wanted};
use crate::cache::controller_of;
use crate::pod::{self, Sketch};
use k8s_openapi::api::apps::v1::Deployment;
use std::cmp::Reverse;
use std::sync::Arc;

/// On ReplicaSets: the Deployment's `spec.replicas` when they were last scaled. Where it differs the Deployment was
/// scaled since.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// On ReplicaSets: `spec.replicas` plus the surge at that time, the base of their share.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Whether `spec.replicas` changed since a ReplicaSet that has pods was last scaled. Then no rollout step is taken.
pub fn is_needed(deployment: &Deployment, roles: &Roles) -> bool {
    let wanted = wanted(deployment);
    active(roles.all()).any(|set| desired(set).is_some_and(|desired| desired != wanted))
}

/// Sets the size, and with it the annotations that record for which Deployment size that was. Changes nothing that
/// is right already.
pub fn set_size(set: &mut Set, size: i32, limits: &Limits) {
    if set.size() != size {
        let spec = set.object_mut().spec.get_or_insert_default();
        spec.replicas = Some(size);
    }
    annotate(set, limits);
}

/// Records for which Deployment size the ReplicaSet has its size.
pub fn annotate(set: &mut Set, limits: &Limits) {
    for (name, value) in [(DESIRED, limits.wanted), (MAX, limits.most())] {
        let value = value.to_string();
        if set.annotation(name) != Some(&value) {
            let annotations = set.object_mut().metadata.annotations.get_or_insert_default();
            annotations.insert(name.to_owned(), value);
        }
    }
}

/// Brings the ReplicaSets to the Deployment's size.
///
/// With one ReplicaSet (or none with pods, then the newest) that one takes it all. If the new one is complete, the
/// old ones go. In the middle of a rolling update the difference is shared out in proportion.
pub fn scale(deployment: &Deployment, roles: &mut Roles) {
    let limits = Limits::of(deployment);
    if let Some(only) = active_or_latest(roles) {
        set_size(only, limits.wanted, &limits);
    } else if roles.new.as_ref().is_some_and(|new| is_saturated(new, &limits)) {
        roles.old.iter_mut().filter(|set| set.size() > 0).for_each(|set| set_size(set, 0, &limits));
    } else if rolling_update::is_strategy_of(deployment) {
        let status = deployment.status.as_ref();
        let base = status.and_then(|status| status.replicas).unwrap_or(0);
        share_out(&limits, base, roles);
    }
}

/// The same, as far as there is room: pods that were told to go away still take some until they are gone. What would
/// grow too early stays as it is for now; `pods` are those that a growing set must not overlap, with Recreate all.
/// Whether nothing had to wait. (Upstream goes by sizes alone.)
pub fn scale_into_room(deployment: &Deployment, roles: &mut Roles, pods: &[Arc<Sketch>]) -> bool {
    let before = roles.clone();
    scale(deployment, roles);
    let most = |roles: &Roles| {
        roles.all().map(Set::pods_at_most).try_fold(0, |sum: i32, pods| Some(sum.saturating_add(pods?)))
    };
    let is_room = match (most(&before), most(roles)) {
        (Some(before), Some(after)) => after <= before.max(Limits::of(deployment).most()),
        _ => false,
    };
    let is_alone = |set: &Set| {
        let is_own = |pod: &Sketch| controller_of(&pod.metadata).is_some_and(|owner| owner.uid == set.uid());
        pods.iter().all(|pod| pod::is_finished(pod) || is_own(pod))
    };
    let mut waits = false;
    let sets = roles.old.iter_mut().chain(&mut roles.new);
    for (set, before) in sets.zip(before.old.into_iter().chain(before.new)) {
        if set.size() > before.size() && !(is_room && is_alone(set)) {
            *set = before;
            waits = true;
        }
    }
    !waits
}

fn active<'a>(sets: impl Iterator<Item = &'a Set>) -> impl Iterator<Item = &'a Set> {
    sets.filter(|set| set.size() > 0)
}

fn desired(set: &Set) -> Option<i32> {
    set.annotation(DESIRED)?.parse().ok()
}

/// The only ReplicaSet that has pods; if none has, the new one, else the latest old one. None if several have.
fn active_or_latest(roles: &mut Roles) -> Option<&mut Set> {
    match active(roles.all()).count() {
        0 => roles.new.as_mut().or(roles.old.last_mut()),
        1 => roles.old.iter_mut().chain(&mut roles.new).find(|set| set.size() > 0),
        _ => None,
    }
}

fn is_saturated(new: &Set, limits: &Limits) -> bool {
    let wanted = limits.wanted;
    new.size() == wanted && desired(new) == Some(wanted) && new.available() == wanted
}

fn share_out(limits: &Limits, base: i32, roles: &mut Roles) {
    let mut sets: Vec<&mut Set> =
        roles.old.iter_mut().chain(&mut roles.new).filter(|set| set.size() > 0).collect();
    let allowed = if limits.wanted > 0 { limits.most() } else { 0 };
    let add = allowed - sets.iter().map(|set| set.size()).sum::<i32>();
    // The largest first, as it takes what rounding leaves over. Of equals the younger gains, the older loses.
    sets.sort_by(|a, b| {
        let by_age = if add > 0 { b.age().cmp(&a.age()) } else { a.age().cmp(&b.age()) };
        Reverse(a.size()).cmp(&Reverse(b.size())).then(by_age)
    });
    let shares: Vec<Share> = sets
        .iter()
        .map(|set| Share {
            size: set.size(),
            max_before: set
                .annotation(MAX)
                .and_then(|max| max.parse().ok())
                .filter(|max| *max != 0)
                .unwrap_or(base),
        })
        .collect();
    for (set, size) in sets.into_iter().zip(proportional_sizes(limits, add, &shares)) {
        set_size(set, size, limits);
    }
}

/// A ReplicaSet's share in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// `spec.replicas`.
    pub size: i32,
    /// The pods there could be in all when it got that size; 0 if unknown.
    pub max_before: i32,
}

/// The sizes of ReplicaSets, largest first, when `add` pods are shared out among them (negative: taken away). The
/// largest takes what rounding leaves over.
///
/// From 10 to 15 wanted without surge, sizes 6 and 4: 5 to add; 6 × 15 / 10 = 9, 4 × 15 / 10 = 6.
pub fn proportional_sizes(limits: &Limits, add: i32, shares: &[Share]) -> Vec<i32> {
    let mut added = 0;
    let mut sizes = Vec::with_capacity(shares.len());
    for share in shares {
        let left = add - added;
        let part = if left == 0 { 0 } else { fraction(limits, share) };
        let part = if add > 0 { part.min(left) } else { part.max(left) };
        added += part;
        sizes.push(share.size + part);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + add - added).max(0);
    }
    sizes
}

/// By how much a ReplicaSet grows to keep its proportion, rounded to the nearest.
fn fraction(limits: &Limits, share: &Share) -> i32 {
    if limits.wanted == 0 {
        return -share.size;
    }
    if share.max_before == 0 {
        return 0;
    }
    let size = f64::from(share.size) * f64::from(limits.most()) / f64::from(share.max_before);
    // Saturates; sizes are far below that.
    size.round() as i32 - share.size
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn deployment(replicas: i32, surge: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "kubia"},
            "spec": {"replicas": replicas, "selector": {}, "template": {}, "strategy":
                {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1}}},
        }))
        .unwrap()
    }

    /// Named `a`, `b`, … from the oldest to the newest; the newest is the new one if `has_new`.
    fn roles(sizes: &[i32], has_new: bool, desired: i32, max: i32, available: i32) -> Roles {
        let mut sets: Vec<Set> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| {
                let name = ["a", "b", "c", "d"][index];
                let value = json!({
                    "metadata": {"name": name, "creationTimestamp": format!("2024-01-0{}T00:00:00Z", index + 1),
                        "annotations": {DESIRED: desired.to_string(), MAX: max.to_string()}},
                    "spec": {"replicas": size, "selector": {}},
                    "status": {"replicas": size, "availableReplicas": available},
                });
                Set::existing(Arc::new(serde_json::from_value(value).unwrap()))
            })
            .collect();
        let new = if has_new { sets.pop() } else { None };
        Roles { new, old: sets }
    }

    fn scaled(replicas: i32, surge: i32, mut roles: Roles) -> Vec<i32> {
        scale(&deployment(replicas, surge), &mut roles);
        let mut sizes: Vec<(&str, i32)> = roles.all().map(|set| (set.name(), set.size())).collect();
        sizes.sort_unstable();
        sizes.into_iter().map(|(_, size)| size).collect()
    }

    #[rstest]
    #[case::up_alone(12, 0, roles(&[10], true, 10, 10, 10), &[12])]
    #[case::down_alone(5, 0, roles(&[10], true, 10, 10, 10), &[5])]
    #[case::to_zero(0, 2, roles(&[10], true, 10, 12, 10), &[0])]
    #[case::from_zero(6, 2, roles(&[0], true, 0, 0, 0), &[6])]
    #[case::only_an_old_one_is_active(20, 0, roles(&[10, 0], true, 10, 10, 0), &[20, 0])]
    #[case::none_active_takes_the_latest_old(5, 0, roles(&[0, 0], false, 0, 0, 0), &[0, 5])]
    #[case::in_proportion(15, 0, roles(&[5, 5], true, 10, 10, 0), &[7, 8])]
    #[case::in_proportion_down(6, 0, roles(&[5, 5], true, 10, 10, 0), &[3, 3])]
    #[case::unequal(20, 0, roles(&[2, 8], true, 10, 10, 0), &[4, 16])]
    #[case::three_sets(50, 0, roles(&[5, 3, 2], true, 10, 10, 0), &[25, 15, 10])]
    #[case::three_equals(6, 0, roles(&[5, 5, 5], true, 15, 15, 0), &[2, 2, 2])]
    #[case::a_half_is_rounded_up_for_the_younger(11, 0, roles(&[5, 5], true, 10, 10, 0), &[5, 6])]
    #[case::what_rounding_leaves_goes_to_the_younger_of_equals(4, 0, roles(&[1, 1, 1], true, 3, 3, 0), &[1, 1, 2])]
    #[case::what_rounding_leaves_is_taken_from_the_older_of_equals(11, 0, roles(&[4, 4, 4], true, 12, 12, 0), &[3, 4, 4])]
    #[case::what_rounding_leaves_goes_to_the_largest_of_all(11, 0, roles(&[4, 2, 2, 1], true, 9, 9, 0), &[6, 2, 2, 1])]
    #[case::no_more_is_given_than_there_is(8, 0, roles(&[1, 1, 1], true, 3, 3, 0), &[2, 3, 3])]
    #[case::without_the_record_of_the_size_the_largest_takes_it_all(15, 0, roles(&[6, 4], true, 10, 0, 0), &[11, 4])]
    #[case::all_to_zero(0, 0, roles(&[3, 3], true, 6, 6, 0), &[0, 0])]
    #[case::with_surge(20, 2, roles(&[6, 5], true, 10, 11, 0), &[12, 10])]
    #[case::saturated_new_lets_the_old_go(4, 0, roles(&[1, 4], true, 4, 4, 4), &[0, 4])]
    fn every_set_keeps_its_share(
        #[case] replicas: i32,
        #[case] surge: i32,
        #[case] before: Roles,
        #[case] expected: &[i32],
    ) {
        assert_eq!(scaled(replicas, surge, before), expected);
    }

    #[test]
    fn without_the_record_of_the_size_the_pods_that_exist_are_the_base() {
        let mut deployment = deployment(15, 0);
        deployment.status.get_or_insert_default().replicas = Some(10);
        let mut roles = roles(&[6, 4], true, 10, 0, 0);
        scale(&deployment, &mut roles);
        assert_eq!((roles.old[0].size(), roles.new.unwrap().size()), (9, 6));
    }

    #[rstest]
    #[case::scaled_up(12, true)]
    #[case::same(10, false)]
    fn a_deployment_was_scaled_when_an_active_set_records_another_size(
        #[case] replicas: i32,
        #[case] expected: bool,
    ) {
        assert_eq!(is_needed(&deployment(replicas, 0), &roles(&[0, 10], true, 10, 10, 10)), expected);
    }

    #[test]
    fn an_inactive_set_with_another_size_means_nothing() {
        let mut roles = roles(&[0, 10], true, 10, 10, 10);
        roles.old = self::roles(&[0], false, 4, 4, 0).old;
        assert!(!is_needed(&deployment(10, 0), &roles));
    }

    #[rstest]
    #[case::all_is_settled(15, json!({"replicas": 5, "observedGeneration": 2}), 15)]
    #[case::some_are_still_to_go(15, json!({"replicas": 7, "observedGeneration": 2}), 15)]
    #[case::nothing_is_known(15, json!({"replicas": 5, "observedGeneration": 1}), 5)]
    #[case::fewer(3, json!({"replicas": 7, "observedGeneration": 2}), 3)]
    fn a_set_grows_when_it_is_known_how_many_pods_there_are(
        #[case] replicas: i32,
        #[case] status: serde_json::Value,
        #[case] expected: i32,
    ) {
        let value = json!({"metadata": {"name": "a", "generation": 2}, "spec": {"replicas": 5, "selector": {}},
            "status": status});
        let old = Set::existing(Arc::new(serde_json::from_value(value).unwrap()));
        let mut roles = Roles { new: None, old: vec![old] };
        assert_eq!(scale_into_room(&deployment(replicas, 0), &mut roles, &[]), expected == replicas);
        assert_eq!(roles.old[0].size(), expected);
    }

    #[rstest]
    #[case::its_own("new", "Running", 5)]
    #[case::of_another_that_ends("old", "Running", 0)]
    #[case::of_another_that_has_ended("old", "Failed", 5)]
    fn a_set_does_not_grow_beside_pods_it_must_not_overlap(
        #[case] owner: &str,
        #[case] phase: &str,
        #[case] expected: i32,
    ) {
        let value = json!({"metadata": {"name": "new", "uid": "new"}, "spec": {"replicas": 0, "selector": {}},
            "status": {"replicas": 0}});
        let new = Set::existing(Arc::new(serde_json::from_value(value).unwrap()));
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner,
            "controller": true});
        let pod = json!({"metadata": {"ownerReferences": [owner]}, "status": {"phase": phase}});
        let mut roles = Roles { new: Some(new), old: Vec::new() };
        scale_into_room(&deployment(5, 0), &mut roles, &[Arc::new(serde_json::from_value(pod).unwrap())]);
        assert_eq!(roles.new.unwrap().size(), expected);
    }

    #[test]
    fn what_another_set_still_has_to_delete_takes_room() {
        let set = |name: &str, size: i32, pods: i32| {
            let value = json!({"metadata": {"name": name}, "spec": {"replicas": size, "selector": {}},
                "status": {"replicas": pods}});
            Set::existing(Arc::new(serde_json::from_value(value).unwrap()))
        };
        let roles = |pods| Roles { new: Some(set("new", 3, 3)), old: vec![set("old", 0, pods)] };
        let scaled = |mut roles: Roles| {
            let is_done = scale_into_room(&deployment(5, 0), &mut roles, &[]);
            (is_done, roles.new.unwrap().size())
        };
        assert_eq!(scaled(roles(2)), (false, 3));
        assert_eq!(scaled(roles(0)), (true, 5));
    }

    #[test]
    fn what_is_right_is_not_changed() {
        let mut roles = roles(&[3], true, 3, 4, 3);
        scale(&deployment(3, 1), &mut roles);
        assert!(!roles.new.unwrap().is_changed());
    }

    proptest! {
        #[test]
        fn shares_add_up_and_never_go_negative(
            wanted in 0..60, surge in 0..10, before in 1..60,
            mut sizes in proptest::collection::vec(1..30, 1..5),
        ) {
            sizes.sort_unstable_by_key(|size| Reverse(*size));
            let limits = Limits { wanted, max_surge: surge, max_unavailable: 1 };
            let allowed = if wanted > 0 { limits.most() } else { 0 };
            let all: i32 = sizes.iter().sum();
            let shares: Vec<Share> = sizes.iter().map(|&size| Share { size, max_before: before }).collect();
            let after = proportional_sizes(&limits, allowed - all, &shares);
            prop_assert!(after.iter().all(|size| *size >= 0));
            prop_assert!(after.iter().sum::<i32>() >= allowed.min(all));
            if allowed >= all {
                prop_assert_eq!(after.iter().sum::<i32>(), allowed);
            }
        }
    }
}
