//! Which key is looked at next.
//!
//! A key is in the queue at most once, and never worked on twice at the same time: what changes while it is being
//! worked on puts it back when that is done. Keys can also be scheduled for later, and failing keys back off.

use crate::cache::Key;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The pauses after the first, second, … failure in a row: `first`, doubled each time, never above `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Default for Backoff {
    /// 5 ms as in upstream's work queue; at most one minute (upstream: 16 minutes 40 seconds), so that a cluster
    /// whose obstacle is gone recovers while somebody is still looking.
    fn default() -> Self {
        Self { first: Duration::from_millis(5), longest: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The pause after `failures` failures in a row (at least one): 1 → 5 ms, 2 → 10 ms, 5 → 80 ms.
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// Wanted: in `ready`, or to be put there when it is no longer in `working`.
    dirty: HashSet<Key>,
    working: HashSet<Key>,
    later: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

/// The keys of one controller.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
    backoff: Backoff,
}

impl Queue {
    /// An empty queue whose failing keys back off like this.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, ..Self::default() }
    }

    /// Wants the key looked at as soon as possible.
    pub fn add(&self, key: Key) {
        if self.state.lock().want(key) {
            self.wake.notify_one();
        }
    }

    /// Wants the key looked at after `pause`, or earlier if that is already planned.
    pub fn add_after(&self, key: Key, pause: Duration) {
        if pause.is_zero() {
            return self.add(key);
        }
        self.state.lock().schedule(key, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// Wants the key looked at again after a failure. The pause grows with every failure until [`Queue::forget`].
    pub fn add_failed(&self, key: Key) -> Duration {
        self.add_failed_after(key, Duration::ZERO)
    }

    /// The same, with a pause of at least `least`.
    pub fn add_failed_after(&self, key: Key, least: Duration) -> Duration {
        let failures = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let pause = self.backoff.pause(failures).max(least);
        self.add_after(key, pause);
        pause
    }

    /// Forgets earlier failures of the key.
    pub fn forget(&self, key: &Key) {
        self.state.lock().failures.remove(key);
    }

    /// The next key if one is ready now, for those who bring their own loop. It is worked on from now until
    /// [`Queue::done`].
    pub fn try_next(&self) -> Option<Key> {
        let mut state = self.state.lock();
        state.promote(Instant::now());
        state.start()
    }

    /// The next key. It is worked on from now until [`Queue::done`].
    pub async fn next(&self) -> Key {
        loop {
            let wake = self.wake.notified();
            let next_due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.start() {
                    return key;
                }
                state.later.first().map(|(due, _)| *due)
            };
            match next_due {
                None => wake.await,
                Some(due) => tokio::select! {
                    () = wake => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    /// Ends the work on a key; it comes back at once if it was wanted meanwhile.
    pub fn done(&self, key: &Key) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }
}

impl State {
    /// Returns whether the key became ready.
    fn want(&mut self, key: Key) -> bool {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn schedule(&mut self, key: Key, due: Instant) {
        if let Some(planned) = self.due.get(&key).copied() {
            if planned <= due {
                return;
            }
            self.later.remove(&(planned, key.clone()));
        }
        self.due.insert(key.clone(), due);
        self.later.insert((due, key));
    }

    fn promote(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.want(key);
            }
        }
    }

    /// A plan tells anew when to look again, so what was scheduled before it is void.
    fn start(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        if let Some(due) = self.due.remove(&key) {
            self.later.remove(&(due, key.clone()));
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[rstest]
    #[case::first(1, 5)]
    #[case::second(2, 10)]
    #[case::fifth(5, 80)]
    #[case::fourteenth(14, 40_960)]
    #[case::capped(15, 60_000)]
    #[case::far_beyond(4_000_000, 60_000)]
    fn the_pause_doubles_up_to_its_cap(#[case] failures: u32, #[case] milliseconds: u64) {
        assert_eq!(Backoff::default().pause(failures), Duration::from_millis(milliseconds));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_wanted_many_times_is_handed_out_once() {
        let queue = Queue::default();
        (0..5).for_each(|_| queue.add(key("a")));
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.next().await, key("b"));
        assert!(futures::poll!(std::pin::pin!(queue.next())).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_wanted_while_worked_on_comes_back_when_done() {
        let queue = Queue::default();
        queue.add(key("a"));
        let working = queue.next().await;
        queue.add(key("a"));
        assert!(futures::poll!(std::pin::pin!(queue.next())).is_pending());
        queue.done(&working);
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_schedules_counts_and_work_voids_the_rest() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(9));
        queue.add_after(key("a"), Duration::from_secs(3));
        queue.add_after(key("a"), Duration::from_secs(6));
        let working = queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 3);
        queue.done(&working);
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_they_are_forgotten() {
        let queue = Queue::default();
        assert_eq!(queue.add_failed(key("a")), Duration::from_millis(5));
        assert_eq!(queue.add_failed(key("a")), Duration::from_millis(10));
        queue.forget(&key("a"));
        assert_eq!(queue.add_failed(key("a")), Duration::from_millis(5));
    }
}
