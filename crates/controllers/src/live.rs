//! The loop of controllers that ask the API server itself before they decide. They delete for good, so what a cache
//! has not seen yet must not count as missing.
//!
//! The same as [`crate::runner`] otherwise: a key at a time, plans are pure, writes are seen before the key is
//! planned again, failing keys back off.

use crate::apply::Applier;
use crate::cache::Key;
use crate::caches::Caches;
use crate::plan::{Failure, KindRef, Plan};
use crate::queue::Queue;
use crate::runner::Watch;
use async_trait::async_trait;
use jiff::Timestamp;
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long own writes are waited for. What follows asks the API server anyway.
const BLIND_AFTER: Duration = Duration::from_secs(5);

/// Why a key could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("reading {what}")]
pub struct ReadError {
    /// What was asked for.
    pub what: String,
    /// What became of it.
    pub source: Box<kube::Error>,
}

impl ReadError {
    /// For `map_err`.
    pub fn of(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |error| Self { what, source: Box::new(error) }
    }
}

/// What a controller of this sort knows.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// All that a plan depends on.
    type Snapshot: Send + Sync;

    /// As it appears as the source of events.
    fn name(&self) -> &'static str;

    /// Tells which changes make which keys worth a look.
    fn watch(&self, watch: &mut Watch);

    /// Gathers what a plan for `key` needs, from the API server where the caches cannot be trusted; none when there
    /// is nothing to do. Does not write.
    async fn observe(
        &self,
        client: &Client,
        caches: &Caches,
        key: &Key,
    ) -> Result<Option<Self::Snapshot>, ReadError>;

    /// Decides. Pure.
    fn plan(&self, snapshot: &Self::Snapshot, now: Timestamp) -> Plan;
}

/// Runs one such controller.
pub struct Runner<C> {
    controller: C,
    client: Client,
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
        client: Client,
        caches: Arc<Caches>,
        applier: Applier,
        queue: Queue,
        workers: usize,
        clock: fn() -> Timestamp,
    ) -> Self {
        let queue = Arc::new(queue);
        controller.watch(&mut Watch::new(caches.clone(), queue.clone()));
        let workers = Arc::new(Semaphore::new(workers.max(1)));
        Self { controller, client, caches, applier, queue, workers, clock }
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
                this.reconcile(&work.key, &shutdown).await;
                drop(permit);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn reconcile(&self, key: &Key, shutdown: &CancellationToken) {
        let controller = self.controller.name();
        let observed = self.controller.observe(&self.client, &self.caches, key);
        let Some(observed) = shutdown.run_until_cancelled(observed).await else { return };
        let snapshot = match observed {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => return self.queue.forget(key),
            Err(error) => {
                let pause = self.queue.add_failed(key.clone());
                let ReadError { what, source } = error;
                return tracing::warn!(controller, %key, what, error = %source, ?pause, "read failed");
            }
        };
        let now = (self.clock)();
        let plan = self.controller.plan(&snapshot, now);
        let look_again = plan.look_again;
        let outcome = self.applier.apply(plan).await;
        match (&outcome.failure, look_again) {
            (Some(failure), _) => self.back_off(key, failure),
            (None, None) => self.queue.forget(key),
            (None, Some(when)) => {
                self.queue.forget(key);
                let pause = Duration::try_from(when.duration_since(now)).unwrap_or_default();
                self.queue.add_after(key.clone(), pause + Duration::from_millis(1));
            }
        }
        // Whether they are seen in time or not, the next look asks the API server.
        let seen = tokio::time::timeout(BLIND_AFTER, self.applier.seen(outcome.receipts));
        let _ = shutdown.run_until_cancelled(seen).await;
    }

    fn back_off(&self, key: &Key, failure: &Failure) {
        let controller = self.controller.name();
        let pause = self.queue.add_failed(key.clone());
        let Failure { verb, kind: KindRef { plural, .. }, message, .. } = failure;
        if failure.is_conflict() {
            tracing::debug!(controller, %key, verb, kind = plural, message, ?pause, "conflict");
        } else {
            tracing::warn!(controller, %key, verb, kind = plural, message, ?pause, "write failed");
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
