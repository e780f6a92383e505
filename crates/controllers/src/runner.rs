//! The one loop all controllers share: take a key, observe, plan, apply, wait for one's own writes, look again.
//!
//! A new controller is a file with a type that implements [`Controller`], and a line in [`crate::registry`]:
//!
//! * `watch` names the caches whose changes wake a key ([`Watch::on_own`], [`Watch::on`]);
//! * `observe` collects an owned snapshot, so that a test can make one up;
//! * `plan` returns the writes, and `look_again` if time alone will change the answer. It need not remember what it
//!   did: a key is planned again only when the caches show its own last writes, and right after that it is.

use crate::apply::{Applier, Outcome, Receipt};
use crate::cache::{Cache, Cached, Change, Key};
use crate::caches::Caches;
use crate::plan::{Failure, Plan};
use crate::queue::Queue;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A key is planned on caches that lack its own last writes only after this long: a watch that is stuck for longer
/// than that must not stop the cluster altogether. (Upstream's expectations lapse after five minutes.)
const BLIND_AFTER: Duration = Duration::from_secs(30);

/// After a create whose answer was lost a key rests at least this long: it may have been made, and the watch needs time to
/// show it before it is made again.
pub const UNCERTAIN: Duration = Duration::from_secs(1);

/// A key rests this many times as long as its planning took, so that no key, however large, takes more than a
/// fifth of a processor, and what changes meanwhile is looked at in one go.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_millis(100);
const SHORTEST_REST: Duration = Duration::from_micros(500);

/// What a kind of controller knows. Everything else is the runner's.
pub trait Controller: Send + Sync + 'static {
    /// All that a plan depends on.
    type Snapshot: Send + Sync;

    /// As it appears as the source of events, e.g. `deployment-controller`.
    fn name(&self) -> &'static str;

    /// Tells which changes make which keys worth a look.
    fn watch(&self, watch: &mut Watch);

    /// Takes what a plan for `key` needs from the caches; none when there is nothing to do, e.g. because the object
    /// is gone. Does not write.
    fn observe(&self, caches: &Caches, key: &Key) -> Option<Self::Snapshot>;

    /// Decides. Pure: the same snapshot and time give the same plan.
    fn plan(&self, snapshot: &Self::Snapshot, now: Timestamp) -> Plan;

    /// What to write when a write of the plan failed, such as a condition that says so. Pure. The key is planned
    /// again after a pause in any case.
    fn after_failure(&self, _snapshot: &Self::Snapshot, _failure: &Failure, _now: Timestamp) -> Plan {
        Plan::default()
    }
}

/// Where a controller says what wakes it.
pub struct Watch {
    caches: Arc<Caches>,
    queue: Arc<Queue>,
}

impl Watch {
    /// Makes changes in these caches fill this queue.
    pub fn new(caches: Arc<Caches>, queue: Arc<Queue>) -> Self {
        Self { caches, queue }
    }

    /// The caches, to look up more in a handler.
    pub fn caches(&self) -> Arc<Caches> {
        self.caches.clone()
    }

    /// Wakes the keys that `map` hands to its last argument whenever an object of this cache changes. `map` is
    /// called in the order of changes and must be quick.
    pub fn on<K: Cached>(
        &mut self,
        cache: &Cache<K>,
        map: impl Fn(&Change<K>, &mut dyn FnMut(Key)) + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        cache.on_change(move |change| map(change, &mut |key| queue.add(key)));
    }

    /// Wakes the key of every object of this cache that changes.
    pub fn on_own<K: Cached>(&mut self, cache: &Cache<K>) {
        self.on(cache, |change, wake| {
            if let Some(object) = change.latest() {
                wake(Key::of(object.metadata()));
            }
        });
    }

    /// Wakes the keys that `map` hands to its last argument after `pause`.
    pub fn on_later<K: Cached>(
        &mut self,
        cache: &Cache<K>,
        pause: Duration,
        map: impl Fn(&Change<K>, &mut dyn FnMut(Key)) + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        cache.on_change(move |change| map(change, &mut |key| queue.add_after(key, pause)));
    }
}

/// Runs one controller.
pub struct Runner<C> {
    controller: Arc<C>,
    caches: Arc<Caches>,
    applier: Applier,
    queue: Arc<Queue>,
    workers: Arc<Semaphore>,
    clock: fn() -> Timestamp,
}

impl<C: Controller> Runner<C> {
    /// Registers the controller with the caches. Do this before the caches start, so that nothing is missed.
    pub fn new(
        controller: C,
        caches: Arc<Caches>,
        applier: Applier,
        queue: Queue,
        workers: usize,
        clock: fn() -> Timestamp,
    ) -> Self {
        let queue = Arc::new(queue);
        controller.watch(&mut Watch::new(caches.clone(), queue.clone()));
        let workers = Arc::new(Semaphore::new(workers.max(1)));
        Self { controller: Arc::new(controller), caches, applier, queue, workers, clock }
    }

    /// Works until `shutdown`, then lets the plans being applied finish.
    pub async fn run(self, shutdown: CancellationToken) {
        let this = Arc::new(self);
        let tasks = TaskTracker::new();
        loop {
            let next = async {
                let permit = this.workers.clone().acquire_owned().await.ok()?;
                Some((permit, this.queue.next().await))
            };
            let (permit, key) = tokio::select! {
                () = shutdown.cancelled() => break,
                next = next => match next {
                    Some(next) => next,
                    None => break,
                },
            };
            let work = Work { queue: this.queue.clone(), key };
            let (this, shutdown) = (this.clone(), shutdown.clone());
            tasks.spawn(async move {
                let (receipts, rest) = this.reconcile(&work.key).await;
                drop(permit);
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = this.settle(&work.key, receipts, rest) => {}
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Returns what to see before the key may be planned again, and how long it should rest.
    async fn reconcile(&self, key: &Key) -> (Vec<Receipt>, Duration) {
        let began = Instant::now();
        let Some(snapshot) = self.controller.observe(&self.caches, key) else {
            self.queue.forget(key);
            return (Vec::new(), Duration::ZERO);
        };
        let now = (self.clock)();
        let plan = self.controller.plan(&snapshot, now);
        let rest = (began.elapsed() * REST).min(LONGEST_REST);
        let look_again = plan.look_again;
        let outcome = if plan.is_idle() { Outcome::default() } else { self.applier.apply(plan).await };
        let mut receipts = outcome.receipts;
        if let Some(failure) = &outcome.failure {
            let plan = self.controller.after_failure(&snapshot, failure, (self.clock)());
            receipts.extend(self.applier.apply(plan).await.receipts);
        }
        self.schedule(key, outcome.failure, look_again, now);
        (receipts, rest)
    }

    fn schedule(&self, key: &Key, failure: Option<Failure>, look_again: Option<Timestamp>, now: Timestamp) {
        let controller = self.controller.name();
        match failure {
            Some(failure) => {
                let least = if failure.is_uncertain() { UNCERTAIN } else { Duration::ZERO };
                let pause = self.queue.add_failed_after(key.clone(), least);
                let Failure { verb, kind, message, .. } = &failure;
                if failure.is_conflict() {
                    tracing::debug!(controller, %key, verb, kind = kind.plural, message, ?pause, "conflict");
                } else {
                    tracing::warn!(controller, %key, verb, kind = kind.plural, message, ?pause, "write failed");
                }
            }
            None => self.queue.forget(key),
        }
        if let Some(when) = look_again {
            let pause = Duration::try_from(when.duration_since(now)).unwrap_or_default();
            // Never early: a plan made a moment too soon would ask for the same moment again and again.
            self.queue.add_after(key.clone(), pause + Duration::from_millis(1));
        }
    }

    async fn settle(&self, key: &Key, receipts: Vec<Receipt>, rest: Duration) {
        if !receipts.is_empty()
            && tokio::time::timeout(BLIND_AFTER, self.applier.seen(receipts)).await.is_err()
        {
            tracing::warn!(controller = self.controller.name(), %key, "own writes not seen, going on without");
        }
        if rest > SHORTEST_REST {
            tokio::time::sleep(rest).await;
        }
    }
}

/// A key being worked on. Dropping it ends the work, also when planning panicked.
struct Work {
    queue: Arc<Queue>,
    key: Key,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.queue.done(&self.key);
    }
}
