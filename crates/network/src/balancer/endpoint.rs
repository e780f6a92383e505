//! One pod behind the balancer: what is in flight to it, and the idle connections kept to it.

use super::body::Outgoing;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A connection idle for longer is closed. Servers that take one connection at a time can do nothing else while
/// one is open, not even answer a readiness probe; opening another one costs a tenth of a millisecond.
pub(crate) const LONGEST_IDLE: Duration = Duration::from_millis(100);
/// A connection older than this is closed after its answer, for the same reason: under steady load none is idle.
const LONGEST_LIFE: Duration = Duration::from_millis(500);
/// Idle connections kept per pod.
const MOST_IDLE: usize = 1024;

/// The sending half of a connection to a pod.
pub(crate) struct Sender {
    pub(crate) requests: SendRequest<Outgoing>,
    pub(crate) opened: Instant,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A pod's address and port.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Whether connections are kept for further requests. Not through a ClusterIP: nobody knows which pod
    /// such a connection leads to, so it could not be closed when that pod is withdrawn.
    keeps: bool,
    in_flight: AtomicUsize,
    retired: AtomicBool,
    idle: Mutex<Vec<Idle>>,
    /// Whether somebody looks after `idle`.
    sweeping: AtomicBool,
    /// Cancelled with `retired`, for those who have to wait for it.
    pub(crate) retiring: CancellationToken,
    /// Cancelled when the pod is gone for good: nothing will ever come back from it.
    pub(crate) gone: CancellationToken,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr, keeps: bool) -> Arc<Self> {
        Arc::new(Self {
            address,
            keeps,
            in_flight: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            idle: Mutex::new(Vec::new()),
            sweeping: AtomicBool::new(false),
            retiring: CancellationToken::new(),
            gone: CancellationToken::new(),
        })
    }

    /// Requests and connections that were given to this pod and are not done.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts one more in flight. None if the endpoint is retired: whoever retires it either sees this one in
    /// [`Endpoint::in_flight`] or makes it fail here, whichever comes first.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let entered = InFlight(Arc::clone(self));
        (!self.retired.load(Ordering::SeqCst)).then_some(entered)
    }

    /// Lets nothing new in and closes the idle connections. What is in flight goes on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.retiring.cancel();
        self.idle.lock().clear();
    }

    /// Ends what is still in flight as well.
    pub(crate) fn abandon(&self) {
        self.retire();
        self.gone.cancel();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// An idle connection that is still open as far as can be told, the most recently used one.
    pub(crate) fn take_idle(&self, now: Instant) -> Option<Sender> {
        let mut idle = self.idle.lock();
        while let Some(candidate) = idle.pop() {
            let young = now.saturating_duration_since(candidate.since) < LONGEST_IDLE;
            if !young {
                // All others are older still.
                idle.clear();
                return None;
            }
            if candidate.sender.requests.is_ready() && !candidate.sender.requests.is_closed() {
                return Some(candidate.sender);
            }
        }
        None
    }

    /// Keeps a connection whose last response was read to its end. Must be called within a tokio runtime.
    pub(crate) fn keep(self: &Arc<Self>, sender: Sender, now: Instant) {
        let old = now.saturating_duration_since(sender.opened) >= LONGEST_LIFE;
        let mut idle = self.idle.lock();
        // Checked under the lock, so that `retire` cannot miss this one.
        if self.keeps && !old && !self.is_retired() && idle.len() < MOST_IDLE {
            idle.push(Idle { sender, since: now });
            if !self.sweeping.swap(true, Ordering::SeqCst) {
                tokio::spawn(Arc::clone(self).sweep_until_empty());
            }
        }
    }

    /// Closes connections idle for too long until there is none.
    async fn sweep_until_empty(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LONGEST_IDLE / 2).await;
            let now = Instant::now();
            let young = |idle: &Idle| now.saturating_duration_since(idle.since) < LONGEST_IDLE;
            let mut idle = self.idle.lock();
            idle.retain(|idle| young(idle) && !idle.sender.requests.is_closed());
            if idle.is_empty() {
                // Under the lock: whoever keeps the next one starts this again.
                self.sweeping.store(false, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Whether one more connection would be kept for long. If not, the pod is asked to close it first, which
    /// leaves the waiting time of the closed connection (TIME_WAIT) with the pod instead of using up our ports.
    pub(crate) fn has_plenty(&self) -> bool {
        !self.keeps || self.idle.lock().len() >= 32
    }
}

/// One request or connection in flight; counted until dropped.
pub(crate) struct InFlight(pub(crate) Arc<Endpoint>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}
