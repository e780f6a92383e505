//! The RollingUpdate strategy: new pods come and old ones go, never more than `replicas + maxSurge` in all and never
//! fewer than `replicas - maxUnavailable` available.

use super::snapshot::{Roles, Set, spec_of, total_size, wanted};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How far a rollout may stray from the number of pods wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods wanted.
    pub wanted: i32,
    /// Pods in excess at most.
    pub max_surge: i32,
    /// Pods missing at most.
    pub max_unavailable: i32,
}

impl Limits {
    /// Those of a Deployment. Both are 0 without RollingUpdate, as nothing of a rollout may then overlap.
    pub fn of(deployment: &Deployment) -> Self {
        let wanted = wanted(deployment);
        if !is_strategy_of(deployment) {
            return Self { wanted, max_surge: 0, max_unavailable: 0 };
        }
        let strategy = spec_of(deployment).strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default();
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling.max_surge.unwrap_or_else(|| quarter.clone());
        let unavailable = rolling.max_unavailable.unwrap_or(quarter);
        Self::resolve(wanted, &surge, &unavailable)
    }

    /// Percentages are of `wanted`; surge is rounded up, unavailability down: 25 % of 3 are 1 and 0. If both are 0
    /// nothing could ever move, so one pod may be missing.
    pub fn resolve(wanted: i32, max_surge: &IntOrString, max_unavailable: &IntOrString) -> Self {
        let max_surge = scaled(max_surge, wanted, true);
        let mut max_unavailable = scaled(max_unavailable, wanted, false);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { wanted, max_surge, max_unavailable: max_unavailable.min(wanted) }
    }

    /// Pods there may be in all.
    pub fn most(&self) -> i32 {
        self.wanted.saturating_add(self.max_surge)
    }

    /// Pods that must be available.
    pub fn fewest(&self) -> i32 {
        self.wanted - self.max_unavailable
    }
}

/// Whether this is the Deployment's strategy. It is the default.
pub fn is_strategy_of(deployment: &Deployment) -> bool {
    let strategy = spec_of(deployment).strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).is_none_or(|type_| type_ == "RollingUpdate")
}

/// A number, or a percentage of `total`; what is neither counts as 0.
fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(number) => return (*number).max(0),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()),
    };
    let hundredths = percent.unwrap_or(0).max(0).saturating_mul(total.into());
    let rounded = if round_up { hundredths.saturating_add(99) / 100 } else { hundredths / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// The size the new ReplicaSet gets when `new` is its size and `all` that of all ReplicaSets, `new` included.
///
/// Ten wanted, surge 2, old 10, new 0: it gets 2. Old 8, new 2: 4. More than wanted: down to what is wanted.
pub fn new_size(limits: &Limits, all: i32, new: i32) -> i32 {
    if new >= limits.wanted {
        return limits.wanted;
    }
    let room = (limits.most() - all).max(0);
    new + room.min(limits.wanted - new)
}

/// Scales the new ReplicaSet up as far as the surge allows, or down to what is wanted. Pods that an old one was told to
/// delete and has not deleted yet still take room (upstream goes by sizes alone, and may exceed the surge for a moment);
/// where it is not known how many there are, nothing grows.
pub fn new_size_in(limits: &Limits, roles: &Roles) -> i32 {
    let new = roles.new.as_ref().map_or(0, Set::size);
    let pods: Option<i32> =
        roles.all().map(Set::pods_at_most).try_fold(0, |sum: i32, pods| Some(sum.saturating_add(pods?)));
    match pods {
        Some(pods) => new_size(limits, pods.max(total_size(roles.all())), new),
        None => new.min(limits.wanted),
    }
}

/// One old ReplicaSet in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// `spec.replicas`.
    pub size: i32,
    /// Available pods, never more than `size`; none if that is not known for sure.
    pub available: Option<i32>,
}

/// The sizes old ReplicaSets, oldest first, get, given the new one's size and available pods.
///
/// Three rules. Where it is not known how many pods are available, none counts as available and none as broken. Pods that are not available go first and without regard to what is available, since they contribute
/// nothing; then available pods go, as long as enough remain. No rule counts on new pods that are not available:
///
/// Ten wanted, at most 2 missing and 3 in excess; old 8 and new 5, of which none is available: 13 pods - 8 needed - 5
/// not yet available = 0, nothing goes. When the new 5 are available 5 old ones may go. If instead they never become
/// available and the user rolls back, what was old is new: of 13 pods 5 may go, and they are the broken ones.
pub fn old_sizes(limits: &Limits, new_size: i32, new_available: i32, old: &[Old]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| set.size).collect();
    let all = new_size + sizes.iter().sum::<i32>();
    let not_yet_available = (new_size - new_available).max(0);
    let may_go = all - limits.fewest() - not_yet_available;
    if may_go <= 0 {
        return sizes;
    }
    let mut unhealthy_may_go = may_go;
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = set.size - set.available.unwrap_or(set.size);
        let goes = unhealthy.clamp(0, unhealthy_may_go);
        *size -= goes;
        unhealthy_may_go -= goes;
    }
    let remaining = sizes.iter().zip(old).map(|(size, set)| set.available.unwrap_or(0).min(*size));
    let available = new_available + remaining.sum::<i32>();
    let mut healthy_may_go = (available - limits.fewest()).max(0);
    for size in &mut sizes {
        let goes = (*size).clamp(0, healthy_may_go);
        *size -= goes;
        healthy_may_go -= goes;
    }
    sizes
}

/// The sizes of the old ReplicaSets in these roles, in their order.
pub fn old_sizes_in(limits: &Limits, roles: &Roles) -> Vec<i32> {
    let new = roles.new.as_ref();
    let available = new.and_then(Set::surely_available).unwrap_or(0);
    let old = |set: &Set| Old { size: set.size(), available: set.surely_available() };
    let old: Vec<Old> = roles.old.iter().map(old).collect();
    old_sizes(limits, new.map_or(0, Set::size), available, &old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn int_or_percent(text: &str) -> IntOrString {
        text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int)
    }

    fn limits(wanted: i32, max_surge: i32, max_unavailable: i32) -> Limits {
        Limits { wanted, max_surge, max_unavailable }
    }

    #[rstest]
    #[case::numbers(10, "1", "2", 1, 2)]
    #[case::surge_rounds_up_unavailable_down(3, "25%", "25%", 1, 0)]
    #[case::both_zero_percent(10, "0%", "0%", 0, 1)]
    #[case::both_zero(10, "0", "0", 0, 1)]
    #[case::both_round_to_something(10, "25%", "25%", 3, 2)]
    #[case::more_than_all(3, "200%", "200%", 6, 3)]
    #[case::none_wanted(0, "25%", "25%", 0, 0)]
    #[case::nonsense_counts_as_zero(5, "lots", "1", 0, 1)]
    fn fenceposts_are_resolved(
        #[case] wanted: i32,
        #[case] surge: &str,
        #[case] unavailable: &str,
        #[case] max_surge: i32,
        #[case] max_unavailable: i32,
    ) {
        let resolved = Limits::resolve(wanted, &int_or_percent(surge), &int_or_percent(unavailable));
        assert_eq!(resolved, limits(wanted, max_surge, max_unavailable));
    }

    #[rstest]
    #[case::first_step_by_the_surge(10, 2, 10, 0, 2)]
    #[case::next_step_as_old_ones_go(10, 2, 10, 2, 4)]
    #[case::no_room(10, 2, 12, 4, 4)]
    #[case::no_more_than_wanted(10, 5, 12, 9, 10)]
    #[case::down_when_larger_than_wanted(5, 2, 8, 8, 5)]
    #[case::no_surge(3, 0, 2, 0, 1)]
    #[case::alone(3, 1, 0, 0, 3)]
    #[case::already_there(3, 1, 3, 3, 3)]
    fn the_new_set_grows_into_the_room_there_is(
        #[case] wanted: i32,
        #[case] surge: i32,
        #[case] all: i32,
        #[case] new: i32,
        #[case] expected: i32,
    ) {
        assert_eq!(new_size(&limits(wanted, surge, 0), all, new), expected);
    }

    #[rstest]
    #[case::down_by_unavailable(limits(10, 0, 2), (0, 0), &[(10, 10)], &[8])]
    #[case::waits_for_new_pods(limits(10, 3, 2), (5, 0), &[(8, 8)], &[8])]
    #[case::goes_on_when_new_ones_are_available(limits(10, 3, 2), (5, 5), &[(8, 8)], &[3])]
    #[case::unhealthy_go_first(limits(10, 2, 0), (2, 2), &[(5, 5), (5, 3)], &[5, 3])]
    #[case::unhealthy_then_healthy(limits(10, 2, 2), (2, 2), &[(5, 5), (5, 3)], &[3, 3])]
    #[case::oldest_go_first(limits(4, 2, 0), (2, 2), &[(2, 2), (2, 2)], &[0, 2])]
    #[case::none_may_go(limits(3, 1, 0), (1, 0), &[(3, 3)], &[3])]
    #[case::one_for_one(limits(3, 1, 0), (1, 1), &[(3, 3)], &[2])]
    #[case::rollback_sheds_the_broken(limits(10, 3, 2), (8, 7), &[(5, 0)], &[1])]
    #[case::rollover_to_a_third(limits(10, 3, 2), (0, 0), &[(8, 8), (5, 0)], &[8, 0])]
    #[case::all_go_at_the_end(limits(3, 1, 0), (3, 3), &[(1, 1)], &[0])]
    #[case::nothing_old(limits(3, 1, 0), (3, 3), &[(0, 0)], &[0])]
    fn old_sets_shrink_as_far_as_they_may(
        #[case] limits: Limits,
        #[case] new: (i32, i32),
        #[case] old: &[(i32, i32)],
        #[case] expected: &[i32],
    ) {
        let old: Vec<Old> = old.iter().map(|&(size, up)| Old { size, available: Some(up) }).collect();
        assert_eq!(old_sizes(&limits, new.0, new.1, &old), expected);
    }

    #[test]
    fn a_set_not_known_for_sure_is_neither_counted_on_nor_cleaned_up() {
        let unknown = Old { size: 3, available: None };
        let known = Old { size: 3, available: Some(3) };
        assert_eq!(old_sizes(&limits(6, 2, 2), 2, 2, &[unknown, known]), [2, 3]);
        assert_eq!(old_sizes(&limits(6, 2, 2), 2, 0, &[unknown, known]), [3, 3]);
    }

    proptest! {
        #[test]
        fn scaling_down_never_takes_available_pods_that_are_needed(
            wanted in 0..40, surge in 0..10, unavailable in 0..10,
            new in (0..40i32, 0..40i32), old in proptest::collection::vec((0..20i32, 0..20i32), 0..4),
        ) {
            let unavailable: i32 = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
            let limits = limits(wanted, surge, unavailable.min(wanted));
            let new = (new.0, new.1.min(new.0));
            let old: Vec<Old> =
                old.into_iter().map(|(size, up): (i32, i32)| Old { size, available: Some(up.min(size)) }).collect();
            let sizes = old_sizes(&limits, new.0, new.1, &old);
            let before = new.1 + old.iter().filter_map(|set| set.available).sum::<i32>();
            let after = new.1 + sizes.iter().zip(&old).filter_map(|(size, set)| Some(set.available?.min(*size))).sum::<i32>();
            prop_assert!(after >= before.min(limits.fewest()));
            for (size, set) in sizes.iter().zip(&old) {
                prop_assert!((0..=set.size).contains(size));
            }
        }

        #[test]
        fn scaling_up_never_exceeds_the_surge(wanted in 0..40, surge in 0..10, old in 0..60, new in 0..60) {
            let limits = limits(wanted, surge, 0);
            let size = new_size(&limits, old + new, new);
            prop_assert!(size <= new || old + size <= limits.most());
            prop_assert!(size <= wanted);
        }
    }
}
