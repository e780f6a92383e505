//! What a row of probe results means: successes and failures in a row against their thresholds.

use super::Kind;
use k8s_openapi::api::core::v1::Probe;

/// The state of one probe.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    length: u32,
    verdict: Option<bool>,
}

impl Row {
    /// A probe that has no result yet. `verdict` is what holds until then: unready, alive, not started.
    pub(crate) fn new(kind: Kind, probe: &Probe, verdict: Option<bool>) -> Self {
        let threshold =
            |given: Option<i32>, default| given.and_then(|n| u32::try_from(n).ok()).unwrap_or(default).max(1);
        let initial = match kind {
            Kind::Startup => None,
            Kind::Liveness => Some(true),
            Kind::Readiness => Some(false),
        };
        Row {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            length: 0,
            verdict: verdict.or(initial),
        }
    }

    /// Takes a result; gives the verdict if it changed.
    pub(crate) fn note(&mut self, success: bool) -> Option<bool> {
        self.length = if self.last == Some(success) { self.length.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.length < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn row(kind: Kind, success: i32, failure: i32) -> Row {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Default::default()
        };
        Row::new(kind, &probe, None)
    }

    #[rstest]
    #[case::ready_at_the_first_success(Kind::Readiness, 1, 3, "+", "+")]
    #[case::ready_after_two(Kind::Readiness, 2, 3, "++", ".+")]
    #[case::a_failure_between_starts_anew(Kind::Readiness, 2, 3, "+-++", "...+")]
    #[case::never_ready_is_no_change(Kind::Readiness, 1, 3, "-----", ".....")]
    #[case::unready_after_three(Kind::Readiness, 1, 3, "+---+", "+..-+")]
    #[case::alive_is_no_change(Kind::Liveness, 1, 3, "+++", "...")]
    #[case::dead_after_three(Kind::Liveness, 1, 3, "+--+---", "......-")]
    #[case::dead_at_once(Kind::Liveness, 1, 1, "-", "-")]
    #[case::started(Kind::Startup, 1, 3, "--+", "..+")]
    #[case::never_started(Kind::Startup, 1, 3, "---", "..-")]
    fn verdicts_change_at_their_thresholds(
        #[case] kind: Kind,
        #[case] success: i32,
        #[case] failure: i32,
        #[case] results: &str,
        #[case] verdicts: &str,
    ) {
        let mut row = row(kind, success, failure);
        let seen: String = results
            .chars()
            .map(|result| match row.note(result == '+') {
                None => '.',
                Some(true) => '+',
                Some(false) => '-',
            })
            .collect();
        assert_eq!(seen, verdicts);
    }
}
