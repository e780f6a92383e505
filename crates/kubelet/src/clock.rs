//! What time it is: the wall clock, or in tests a clock that follows tokio's (pausable) one.
//!
//! Somebody may set the wall clock at any time, by years on a machine that boots without one of its own. What is waited
//! for must not come sooner or later by that: see [`Steps`] and [`Clock::steady`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use tokio::time::Instant;

/// Gives the current time to the edge of the crate; the planning functions get it as an argument.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The wall clock.
    System,
    /// A start time plus what tokio's clock has advanced since; stands still while that is paused.
    Steady {
        /// The time at `start`.
        base: Timestamp,
        /// Where tokio's clock was.
        start: Instant,
    },
    /// The same, and tests set it.
    #[cfg(test)]
    Virtual {
        /// The time at `start`, if it was never set.
        base: Timestamp,
        /// Where tokio's clock was.
        start: Instant,
        /// How far it was set.
        set: std::sync::Arc<parking_lot::Mutex<SignedDuration>>,
    },
}

impl Clock {
    /// A clock for tests: 2025-01-01 at the time of the call.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Clock::Virtual { base: test_epoch(), start: Instant::now(), set: Default::default() }
    }

    /// Sets a clock for tests forwards or backwards.
    #[cfg(test)]
    pub(crate) fn set(&self, by: SignedDuration) {
        let Clock::Virtual { set, .. } = self else { panic!("only clocks for tests can be set") };
        *set.lock() += by;
    }

    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Clock::System => Timestamp::now(),
            Clock::Steady { base, start } => later(*base, start.elapsed()),
            #[cfg(test)]
            Clock::Virtual { base, start, set } => later(*base, start.elapsed()) + *set.lock(),
        }
    }

    /// A clock that shows the same now and that nobody sets.
    pub(crate) fn steady(&self) -> Self {
        Clock::Steady { base: self.now(), start: Instant::now() }
    }
}

/// Notices when the wall clock is set.
#[derive(Debug)]
pub(crate) struct Steps {
    expected: Clock,
}

/// Less is how clocks differ anyway.
const LEAST_STEP: SignedDuration = SignedDuration::from_secs(1);

impl Steps {
    /// Begins to look.
    pub(crate) fn new(clock: &Clock) -> Self {
        Steps { expected: clock.steady() }
    }

    /// How far the clock was set since the last call, or since the beginning. None if it was not.
    pub(crate) fn since_last(&mut self, clock: &Clock) -> Option<SignedDuration> {
        let step = clock.now().duration_since(self.expected.now());
        self.expected = clock.steady();
        (step.abs() >= LEAST_STEP).then_some(step)
    }
}

/// Where tests' time begins.
#[cfg(test)]
pub(crate) fn test_epoch() -> Timestamp {
    Timestamp::from_second(1_735_689_600).unwrap()
}

/// `at` plus `by`; the end of time if that is beyond it.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// How long after `from` `to` is; zero if it is before.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A time as the API has it: whole seconds. What is compared with the API's answer must be cut like it.
pub(crate) fn api_time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
