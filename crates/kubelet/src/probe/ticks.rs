//! When a probe is due.
//!
//! Regular attempts are made `initialDelaySeconds` after the start of the container and then every
//! `periodSeconds`. If there is no initial delay, the attempt at the start (when hardly any program listens
//! yet) becomes a few quick tries within the first second. A try that succeeds counts; one that fails does
//! not, and is not told, so that a fast program is Ready at once and a slow one loses nothing.

use super::Kind;
use crate::clock::{between, later};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use std::time::Duration;

/// Offsets of the quick tries from the start of the container, in milliseconds: each wait is about a third
/// of the time passed, so that Ready comes at most a third later than the program answers.
const EARLY: [u64; 17] = [0, 5, 10, 20, 30, 45, 60, 80, 105, 135, 175, 225, 290, 375, 485, 625, 800];

/// The attempts of one probe.
#[derive(Clone, Debug)]
pub(crate) struct Ticks {
    first: Timestamp,
    period: Duration,
    early: &'static [u64],
}

/// An attempt to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// When.
    pub(crate) at: Timestamp,
    /// Whether a failure counts.
    pub(crate) counts: bool,
}

impl Ticks {
    /// Attempts for a container that started at `started`, of which `now` may be long after.
    pub(crate) fn new(kind: Kind, probe: &Probe, started: Timestamp, now: Timestamp) -> Self {
        let seconds =
            |given: Option<i32>, default: u64| given.map_or(default, |n| n.max(0).unsigned_abs().into());
        let delay = Duration::from_secs(seconds(probe.initial_delay_seconds, 0));
        let period = Duration::from_secs(seconds(probe.period_seconds, 10).max(1));
        let is_new = between(started, now) < Duration::from_secs(1);
        let early = kind != Kind::Liveness && delay.is_zero() && is_new;
        // A probe that begins late (adopted, or after the startup probe) begins at once.
        let first = if is_new { later(started, delay) } else { later(started, delay).max(now) };
        Ticks { first, period, early: if early { &EARLY } else { &[] } }
    }

    /// The first attempt after the one planned for `last`, at or after `now`; attempts that were missed are
    /// not made up for.
    pub(crate) fn next(&mut self, last: Option<Timestamp>, now: Timestamp) -> Tick {
        while let Some((offset, rest)) = self.early.split_first() {
            self.early = rest;
            let at = later(self.first, Duration::from_millis(*offset));
            if at >= now || rest.is_empty() || last.is_none() {
                return Tick { at, counts: false };
            }
        }
        let Some(last) = last else { return Tick { at: self.first, counts: true } };
        let passed = between(self.first, last.max(now)).as_nanos() / self.period.as_nanos();
        let periods = u32::try_from(passed).unwrap_or(u32::MAX - 1);
        let on_time = later(self.first, self.period.saturating_mul(periods));
        let at = if on_time > last && on_time >= now { on_time } else { later(on_time, self.period) };
        Tick { at, counts: true }
    }

    /// No more quick tries: one succeeded.
    pub(crate) fn settle(&mut self) {
        self.early = &[];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::test_epoch;
    use rstest::rstest;

    fn ticks(kind: Kind, delay: i32, period: i32, age: u64, count: usize) -> Vec<(u128, bool)> {
        let probe =
            Probe { initial_delay_seconds: Some(delay), period_seconds: Some(period), ..Default::default() };
        let started = test_epoch();
        let mut now = later(started, Duration::from_secs(age));
        let mut ticks = Ticks::new(kind, &probe, started, now);
        let mut last = None;
        let mut seen = vec![];
        for _ in 0..count {
            let tick = ticks.next(last, now);
            seen.push((between(started, tick.at).as_millis(), tick.counts));
            now = now.max(tick.at);
            last = Some(tick.at);
        }
        seen
    }

    #[test]
    fn a_readiness_probe_without_delay_tries_quickly_and_then_every_period() {
        let seen = ticks(Kind::Readiness, 0, 10, 0, EARLY.len() + 2);
        let early: Vec<_> = EARLY.iter().map(|ms| (u128::from(*ms), false)).collect();
        assert_eq!(seen[..EARLY.len()], early);
        assert_eq!(seen[EARLY.len()..], [(10_000, true), (20_000, true)]);
    }

    #[rstest]
    #[case::liveness_has_no_quick_tries(Kind::Liveness, 0, 10, 0, &[0, 10_000, 20_000])]
    #[case::nor_has_a_delayed_probe(Kind::Readiness, 5, 10, 0, &[5_000, 15_000, 25_000])]
    #[case::an_adopted_container_is_probed_at_once(Kind::Readiness, 5, 10, 33, &[33_000, 43_000, 53_000])]
    fn regular_ticks(
        #[case] kind: Kind,
        #[case] delay: i32,
        #[case] period: i32,
        #[case] age: u64,
        #[case] expected: &[u128],
    ) {
        let seen = ticks(kind, delay, period, age, expected.len());
        assert_eq!(seen, expected.iter().map(|at| (*at, true)).collect::<Vec<_>>());
    }

    #[test]
    fn missed_ticks_are_not_made_up_for() {
        let probe = Probe { period_seconds: Some(1), ..Default::default() };
        let mut ticks = Ticks::new(Kind::Liveness, &probe, test_epoch(), test_epoch());
        let first = ticks.next(None, test_epoch());
        let late = later(test_epoch(), Duration::from_millis(3_500));
        assert_eq!(ticks.next(Some(first.at), late).at, later(test_epoch(), Duration::from_secs(4)));
    }
}
