//! The list of controllers, and how they are started.

use crate::apply::Applier;
use crate::caches::Caches;
use crate::queue::{Backoff, Queue};
use crate::recorder::Recorder;
use crate::runner::{Controller, Runner};
use crate::{
    deployment, endpoint_slice, endpoint_slice_mirroring, endpoints, garbage, live, namespace, node,
    replica_set, replication_controller, root_ca, service_account,
};
use jiff::Timestamp;
use kube::Client;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts every controller. Adding one is one line here.
fn start_all(start: &Starter) {
    start.controller(deployment::Controller);
    start.controller(replica_set::Controller);
    start.controller(replication_controller::Controller);
    start.controller(endpoints::Controller);
    start.controller(endpoint_slice::Controller);
    start.controller(endpoint_slice_mirroring::Controller);
    start.live(garbage::Controller::default());
    start.live(namespace::Controller);
    start.controller(node::lifecycle::Controller::new(start.options.clock));
    start.controller(node::eviction::Controller::new(start.options.clock));
    start.controller(node::pod_gc::Controller::new(start.options.clock));
    start.controller(service_account::Controller);
    if let Some(pem) = &start.options.root_ca {
        start.controller(root_ca::Controller::new(pem));
    }
}

/// How the controllers are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keys each controller works on at once.
    pub workers: usize,
    /// Writes each plan makes at once.
    pub in_flight: usize,
    /// The pauses of keys that fail.
    pub backoff: Backoff,
    /// Where plans get the time from.
    pub clock: fn() -> Timestamp,
    /// The API server's CA, PEM, to publish in every namespace; none: nothing is published.
    pub root_ca: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 8, in_flight: 64, backoff: Backoff::default(), clock: Timestamp::now, root_ca: None }
    }
}

/// Why the controllers ended before they were asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task of theirs panicked.
    #[error("a controller task ended abnormally")]
    Task(#[source] tokio::task::JoinError),
}

/// Runs all controllers against the API server behind `client` until `shutdown`. Watches that cannot be opened yet
/// are retried, so the API server may come up later.
///
/// # Errors
/// [`Error::Task`] if a controller's loop panicked.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let shutdown = shutdown.child_token();
    let _stop_all = shutdown.clone().drop_guard();
    let tasks = TaskTracker::new();
    let starter = Starter {
        caches: Arc::new(Caches::default()),
        runners: parking_lot::Mutex::new(tokio::task::JoinSet::new()),
        client: client.clone(),
        options,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };
    start_all(&starter);
    let Starter { caches, runners, .. } = starter;
    caches.start(&client, &tasks, &shutdown);
    let mut runners = runners.into_inner();
    while let Some(ended) = runners.join_next().await {
        ended.map_err(Error::Task)?;
    }
    shutdown.cancelled().await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Starts controllers on shared caches.
struct Starter {
    caches: Arc<Caches>,
    runners: parking_lot::Mutex<tokio::task::JoinSet<()>>,
    client: Client,
    options: Options,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Starter {
    /// Registers the controller with the caches now and starts it once they are filled.
    fn controller<C: Controller>(&self, controller: C) {
        let Options { workers, in_flight, backoff, clock, .. } = self.options.clone();
        let recorder =
            Recorder::start(self.client.clone(), controller.name(), clock, &self.tasks, &self.shutdown);
        let applier = Applier::new(self.client.clone(), self.caches.clone(), recorder, in_flight);
        let runner =
            Runner::new(controller, self.caches.clone(), applier, Queue::new(backoff), workers, clock);
        let (caches, shutdown) = (self.caches.clone(), self.shutdown.clone());
        self.runners.lock().spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = caches.synced() => {}
            }
            runner.run(shutdown).await;
        });
    }

    /// The same for one that asks the API server before it decides. Its plans make a write or two each, so as many of
    /// them run at once as may be written.
    fn live<C: live::Controller>(&self, controller: C) {
        let Options { in_flight, backoff, clock, .. } = self.options.clone();
        let client = self.client.clone();
        let recorder = Recorder::start(client.clone(), controller.name(), clock, &self.tasks, &self.shutdown);
        let applier = Applier::new(client.clone(), self.caches.clone(), recorder, in_flight);
        let (caches, queue, shutdown) = (self.caches.clone(), Queue::new(backoff), self.shutdown.clone());
        let runner = live::Runner::new(controller, client, caches.clone(), applier, queue, in_flight, clock);
        self.runners.lock().spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = caches.synced() => {}
            }
            runner.run(shutdown).await;
        });
    }
}
