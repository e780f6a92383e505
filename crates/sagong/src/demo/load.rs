//! Steady HTTP traffic to one address, every answer counted.
//!
//! Half of the requests open a connection of their own; half go over connections that are kept alive. A
//! request fails when anything but a whole answer with status 200 comes back. Nothing is retried.

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Connections kept alive.
const KEPT_ALIVE: u32 = 16;
/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// What came of the requests so far.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Answers by version: index 0 is v1.
    pub(crate) versions: [AtomicU64; 4],
    /// Why requests failed, and how many did so.
    reasons: Mutex<BTreeMap<String, u64>>,
    /// Microseconds from before the connection, or the request on a kept one, to the end of the answer.
    latencies: Mutex<Vec<u32>>,
}

impl Tally {
    fn count(&self, began: Instant, result: Result<String, String>) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let version = match result {
            Ok(body) => body.strip_prefix("This is v").and_then(|rest| rest.bytes().next()),
            Err(reason) => return self.fail(reason),
        };
        match version.map(|digit| usize::from(digit.wrapping_sub(b'1'))).and_then(|i| self.versions.get(i)) {
            Some(version) => version.fetch_add(1, Ordering::Relaxed),
            None => return self.fail("an answer that is not the app's".into()),
        };
        self.latencies.lock().push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }

    fn fail(&self, reason: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.reasons.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.lock().clone()
    }

    /// Milliseconds that half and 99 in 100 of the answers took at most.
    pub(crate) fn percentiles(&self) -> (f64, f64) {
        let mut all = self.latencies.lock().clone();
        all.sort_unstable();
        let at = |share: usize| all.get(all.len().saturating_sub(1) * share / 100).copied().unwrap_or(0);
        (f64::from(at(50)) / 1000.0, f64::from(at(99)) / 1000.0)
    }
}

/// Sends `rate` requests a second until `stop`, and returns once each has its answer.
pub(crate) async fn run(address: SocketAddr, rate: u32, tally: Arc<Tally>, stop: CancellationToken) {
    let mut workers = JoinSet::new();
    let half = (rate / 2).max(1);
    workers.spawn(fresh(address, half, Arc::clone(&tally), stop.clone()));
    let kept = KEPT_ALIVE.min(half);
    for _ in 0..kept {
        workers.spawn(keep_alive(
            address,
            Duration::from_secs(1) * kept / half,
            Arc::clone(&tally),
            stop.clone(),
        ));
    }
    while workers.join_next().await.is_some() {}
}

async fn fresh(address: SocketAddr, rate: u32, tally: Arc<Tally>, stop: CancellationToken) {
    let mut requests = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let tally = Arc::clone(&tally);
        requests.spawn(async move {
            let began = Instant::now();
            let result = within_limit(async { get(&mut connect(address).await?, "close").await }).await;
            tally.count(began, result);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn keep_alive(address: SocketAddr, every: Duration, tally: Arc<Tally>, stop: CancellationToken) {
    let mut connection: Option<SendRequest<Empty<Bytes>>> = None;
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let began = Instant::now();
        let result = within_limit(async {
            // A connection that the other side has closed while it was idle is simply replaced.
            let kept = match connection.take() {
                Some(kept) => usable(kept).await,
                None => None,
            };
            let mut open = match kept {
                Some(kept) => kept,
                None => connect(address).await?,
            };
            let body = get(&mut open, "keep-alive").await?;
            connection = Some(open);
            Ok(body)
        })
        .await;
        tally.count(began, result);
    }
}

async fn usable(mut kept: SendRequest<Empty<Bytes>>) -> Option<SendRequest<Empty<Bytes>>> {
    kept.ready().await.is_ok().then_some(kept)
}

async fn within_limit(request: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    timeout(LIMIT, request).await.unwrap_or_else(|_| Err(format!("no answer in {LIMIT:?}")))
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| format!("connect: {error}"))?;
    // Its errors come back through the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn get(connection: &mut SendRequest<Empty<Bytes>>, keep: &str) -> Result<String, String> {
    let request = Request::get("/").header("host", "kubia").header("connection", keep).body(Empty::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = connection.send_request(request).await.map_err(|error| format!("request: {error}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| format!("answer: {error}"))?.to_bytes();
    if status.is_success() {
        Ok(String::from_utf8_lossy(&body).into_owned())
    } else {
        Err(format!("status {status}"))
    }
}
