//! Which pod has to go when the node is short, and when. Pure.

use crate::clock::between;
use jiff::Timestamp;
use std::time::Duration;

/// How long a pod that was evicted may take to be gone before another one goes, as upstream has it.
const GONE: Duration = Duration::from_secs(30);

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
}

/// A pod that might have to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) uid: String,
    /// `spec.priority`.
    pub(super) priority: i32,
    /// Never evicted: the cluster itself needs it.
    pub(super) is_critical: bool,
    /// Bytes it uses of what is short.
    pub(super) used: u64,
    /// Bytes it asked for.
    pub(super) requested: u64,
}

/// The pod to go first, by upstream's order: who uses more than was requested before who does not, lower priority before
/// higher, then whoever uses the most beyond the request. None if nobody may go, or nobody uses anything.
pub(super) fn next(candidates: Vec<Candidate>) -> Option<String> {
    let rank = |pod: &Candidate| {
        let beyond = i128::from(pod.used) - i128::from(pod.requested);
        (beyond > 0, std::cmp::Reverse(pod.priority), beyond, pod.uid.clone())
    };
    let evictable = candidates.into_iter().filter(|pod| !pod.is_critical && pod.used > 0);
    evictable.max_by_key(rank).map(|pod| pod.uid)
}

/// Whether another pod may be chosen: what the `last` one gives back may be enough, and while one `is_leaving` it has not
/// given all of it back yet.
pub(super) fn is_time(last: Option<Timestamp>, is_leaving: bool, now: Timestamp) -> bool {
    !is_leaving || last.is_none_or(|last| between(last, now) >= GONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{later, test_epoch};
    use rstest::rstest;

    fn pod(uid: &str, priority: i32, used: u64, requested: u64) -> Candidate {
        Candidate { uid: uid.into(), priority, is_critical: false, used, requested }
    }

    #[rstest]
    #[case::beyond_its_request(vec![pod("a", 0, 90, 100), pod("b", 9, 20, 10)], Some("b"))]
    #[case::lower_priority(vec![pod("a", 5, 90, 10), pod("b", 0, 20, 10)], Some("b"))]
    #[case::uses_most(vec![pod("a", 0, 90, 10), pod("b", 0, 20, 10)], Some("a"))]
    #[case::frees_nothing(vec![pod("a", 0, 0, 0)], None)]
    #[case::nobody(vec![], None)]
    fn the_greediest_of_the_least_important_goes(#[case] pods: Vec<Candidate>, #[case] chosen: Option<&str>) {
        assert_eq!(next(pods).as_deref(), chosen);
    }

    #[rstest]
    #[case::first(None, false, true)]
    #[case::gone(Some(10), false, true)]
    #[case::still_there(Some(10), true, false)]
    #[case::takes_too_long(Some(30), true, true)]
    fn nobody_goes_while_another_one_is_leaving(
        #[case] before: Option<u64>,
        #[case] is_leaving: bool,
        #[case] expected: bool,
    ) {
        let now = later(test_epoch(), Duration::from_secs(100));
        let last = before.map(|seconds| later(test_epoch(), Duration::from_secs(100 - seconds)));
        assert_eq!(is_time(last, is_leaving, now), expected);
    }

    #[test]
    fn what_the_cluster_needs_stays() {
        let critical = Candidate { is_critical: true, ..pod("a", 2_000_001_000, 90, 0) };
        assert_eq!(next(vec![critical.clone()]), None);
        assert_eq!(next(vec![critical, pod("b", 0, 1, 5)]).as_deref(), Some("b"));
    }
}
