//! What time it is: the wall clock, or in tests a clock that follows tokio's (pausable) one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// Gives the current time to the edge of the crate; the planning functions get it as an argument.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The wall clock.
    System,
    /// A start time plus what tokio's clock has advanced since; stands still while that is paused.
    #[cfg(test)]
    Virtual {
        /// The time at `start`.
        base: Timestamp,
        /// Where tokio's clock was.
        start: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock for tests: 2025-01-01 at the time of the call.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Clock::Virtual { base: test_epoch(), start: tokio::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Clock::System => Timestamp::now(),
            #[cfg(test)]
            Clock::Virtual { base, start } => later(*base, start.elapsed()),
        }
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
