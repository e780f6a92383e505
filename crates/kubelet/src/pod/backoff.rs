//! Back-off of restarts and pulls: 10 s, doubling to 300 s, forgotten after twice that.

use crate::clock::{between, later};
use jiff::Timestamp;
use std::time::Duration;

/// First wait.
pub(crate) const INITIAL: Duration = Duration::from_secs(10);
/// Longest wait.
pub(crate) const MAXIMUM: Duration = Duration::from_secs(300);

/// How often something failed lately, as a wait.
///
/// Upstream's rule (`client-go/util/flowcontrol`): an attempt is free unless there was another one; each
/// attempt doubles the wait; after twice the longest wait without an attempt it starts anew. Example with
/// exits at once after each start: attempts at 0, 0, 10, 30, 70, 150, 310, 610, 910 s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    entry: Option<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    wait: Duration,
    updated: Timestamp,
}

impl Backoff {
    /// Until when the next attempt has to wait if the last one ended at `ended`; None: it is free now.
    pub(crate) fn wait_until(&self, ended: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entry.as_ref().filter(|entry| !entry.has_expired(ended))?;
        Some(later(ended, entry.wait)).filter(|until| *until > now)
    }

    /// The wait that is in force, for messages.
    pub(crate) fn wait(&self) -> Duration {
        self.entry.as_ref().map_or(INITIAL, |entry| entry.wait)
    }

    /// Notes an attempt made at `now` because the last one ended at `ended`.
    pub(crate) fn note(&mut self, ended: Timestamp, now: Timestamp) {
        let wait = match &self.entry {
            Some(entry) if !entry.has_expired(ended) => (entry.wait * 2).min(MAXIMUM),
            _ => INITIAL,
        };
        self.entry = Some(Entry { wait, updated: now });
    }

    /// When the last attempt was made.
    pub(super) fn updated_mut(&mut self) -> Option<&mut Timestamp> {
        self.entry.as_mut().map(|entry| &mut entry.updated)
    }

    /// Forgets all attempts.
    pub(crate) fn reset(&mut self) {
        self.entry = None;
    }
}

impl Entry {
    fn has_expired(&self, at: Timestamp) -> bool {
        between(self.updated, at) > 2 * MAXIMUM
    }
}

/// A wait as Go prints durations of whole seconds: `10s`, `2m40s`, `5m0s`.
pub(crate) fn go_duration(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::test_epoch;
    use rstest::rstest;

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut at = test_epoch();
        let mut attempts = vec![];
        for _ in 0..9 {
            let start = backoff.wait_until(at, at).unwrap_or(at);
            backoff.note(at, start);
            attempts.push(between(test_epoch(), start).as_secs());
            at = start;
        }
        assert_eq!(attempts, [0, 10, 30, 70, 150, 310, 610, 910, 1210]);
    }

    #[test]
    fn ten_quiet_minutes_make_the_next_restart_free() {
        let mut backoff = Backoff::default();
        backoff.note(test_epoch(), test_epoch());
        let end = later(test_epoch(), Duration::from_secs(601));
        assert_eq!(backoff.wait_until(end, end), None);
        let early = later(test_epoch(), Duration::from_secs(600));
        assert_eq!(backoff.wait_until(early, early), Some(later(early, INITIAL)));
    }

    #[rstest]
    #[case(10, "10s")]
    #[case(80, "1m20s")]
    #[case(300, "5m0s")]
    fn durations_print_as_go_prints_them(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(go_duration(Duration::from_secs(seconds)), text);
    }
}
