//! What stands behind one port of a service: its endpoints, and how one is chosen and reached.

use super::affinity::Affinity;
use super::endpoint::{Endpoint, InFlight, Sender};
use parking_lot::Mutex;
use rand::Rng;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long a client waits for a pod to become ready before it is told that there is none.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long a pod may take to accept a connection before another one is tried.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause before pods that refused are tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Endpoints of one service port.
pub(crate) struct Backend {
    /// `namespace/name` of the service, for messages.
    pub(crate) service: String,
    endpoints: watch::Sender<Arc<[Arc<Endpoint>]>>,
    affinity: Mutex<Affinity>,
    patience: Duration,
}

/// A way to a pod.
pub(crate) enum Link {
    /// A connection used before.
    Used(Sender),
    /// A connection nothing was sent on yet.
    Fresh(TcpStream),
}

/// No pod could be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPod {
    #[error("no ready pod behind service {0}")]
    None(String),
    #[error("no pod behind service {service} accepts connections: {address}: {message}")]
    Unreachable { service: String, address: SocketAddr, message: String },
}

impl Backend {
    pub(crate) fn new(service: String) -> Arc<Self> {
        Self::with_patience(service, PATIENCE)
    }

    pub(crate) fn with_patience(service: String, patience: Duration) -> Arc<Self> {
        let (endpoints, _) = watch::channel(Arc::from([]));
        Arc::new(Self { service, endpoints, affinity: Mutex::default(), patience })
    }

    /// Changes the endpoints; connections being made see it at once.
    pub(crate) fn set(&self, endpoints: Vec<Arc<Endpoint>>) {
        self.endpoints.send_replace(endpoints.into());
    }

    /// For how long a client is sent to the same pod.
    pub(crate) fn remember(&self, timeout: Option<Duration>) {
        self.affinity.lock().set(timeout);
    }

    /// The endpoint for a client: the one it was sent to last if the service remembers that, else any.
    fn choose(&self, client: IpAddr, but: &[SocketAddr]) -> Option<InFlight> {
        let now = Instant::now();
        let last = self.affinity.lock().get(client, now).filter(|last| !but.contains(last));
        let again = last.and_then(|last| {
            let all = self.endpoints.borrow().clone();
            all.iter().find(|endpoint| endpoint.address == last)?.enter()
        });
        let chosen = again.or_else(|| self.choose_any(but))?;
        self.affinity.lock().put(client, chosen.0.address, now);
        Some(chosen)
    }

    /// The less busy of two random endpoints that are not in `but`.
    fn choose_any(&self, but: &[SocketAddr]) -> Option<InFlight> {
        let all = self.endpoints.borrow().clone();
        let usable = |endpoint: &&Arc<Endpoint>| !endpoint.is_retired() && !but.contains(&endpoint.address);
        let candidates: Vec<&Arc<Endpoint>> = all.iter().filter(usable).collect();
        let first = match candidates.len() {
            0 => return None,
            1 => 0,
            count => {
                let mut random = rand::rng();
                let first = random.random_range(0..count);
                let second = (first + random.random_range(1..count)) % count;
                if candidates[second].in_flight() < candidates[first].in_flight() { second } else { first }
            }
        };
        // If it retires this very moment, take any other.
        candidates[first].enter().or_else(|| candidates.iter().find_map(|endpoint| endpoint.enter()))
    }

    /// Reaches a pod; waits a little if there is none. `used` allows connections used before, which the pod
    /// may just be closing: only for requests that could be sent a second time. `avoid` is a pod that is only
    /// tried when there is no other.
    pub(crate) async fn reach(
        &self,
        client: IpAddr,
        used: bool,
        avoid: Option<SocketAddr>,
    ) -> Result<(Link, InFlight), NoPod> {
        let deadline = Instant::now() + self.patience;
        let mut changes = self.endpoints.subscribe();
        let mut failed: Vec<SocketAddr> = avoid.into_iter().collect();
        let mut last = NoPod::None(self.service.clone());
        loop {
            let Some(in_flight) = self.choose(client, &failed) else {
                let now = Instant::now();
                if now >= deadline {
                    return Err(last);
                }
                let pause = if failed.is_empty() { deadline - now } else { AGAIN.min(deadline - now) };
                failed.clear();
                let _ = tokio::time::timeout(pause, changes.changed()).await;
                continue;
            };
            if used && let Some(sender) = in_flight.0.take_idle(Instant::now()) {
                return Ok((Link::Used(sender), in_flight));
            }
            let address = in_flight.0.address;
            let message = match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok((Link::Fresh(stream), in_flight));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {CONNECT:?}"),
            };
            tracing::debug!(service = self.service, %address, message, "cannot connect to pod");
            failed.push(address);
            last = NoPod::Unreachable { service: self.service.clone(), address, message };
        }
    }

    /// Like [`Backend::reach`] for connections that are no HTTP: always a fresh one.
    pub(crate) async fn connect(&self, client: IpAddr) -> Result<(TcpStream, InFlight), NoPod> {
        match self.reach(client, false, None).await? {
            (Link::Fresh(stream), in_flight) => Ok((stream, in_flight)),
            // Not given out without `used`.
            (Link::Used(_), _) => Err(NoPod::None(self.service.clone())),
        }
    }
}
