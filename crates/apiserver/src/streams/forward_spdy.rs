//! Port-forwarding over SPDY/3.1 (`portforward.k8s.io`): for each connection two streams, one for its bytes and one for
//! what went wrong.

use super::idle::{self, Idle};
use super::options;
use super::spdy::{Connection as Spdy, Stream};
use super::{Connection, StreamError};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the second stream of a connection may take (upstream's `streamCreationTimeout`).
const OPENING: Duration = Duration::from_secs(30);
/// How long what is left may take once one side has ended.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// Connects to a port of the pod.
pub(super) type Connect =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Connection>, StreamError>> + Send + Sync>;

/// The first of a connection's streams, waiting for the other.
struct Half {
    stream: Stream,
    since: Instant,
}

/// Serves every connection until the client is gone.
pub(super) async fn serve<S>(io: S, connect: Connect, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let idle = Idle::new();
    let mut spdy = Spdy::new(io, idle.clone());
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = spdy.accept() => stream,
            Some(_) = connections.join_next() => continue,
            () = idle.expired(idle::LIMIT) => None,
            () = stopping.cancelled() => None,
        };
        let Some(stream) = stream else { break };
        expire(&mut halves).await;
        let Some((request, kind)) = request(&stream) else {
            stream.refuse().await;
            continue;
        };
        match halves.remove(&request) {
            Some(Half { stream: first, .. }) if is_pair(&first, &stream) => {
                let (data, error) = if kind == Kind::Data { (stream, first) } else { (first, stream) };
                connections.spawn(forward(data, error, connect.clone()));
            }
            Some(Half { stream: first, .. }) => {
                first.refuse().await;
                stream.refuse().await;
            }
            None => drop(halves.insert(request, Half { stream, since: Instant::now() })),
        }
    }
    drop(halves);
    drop(connections);
    spdy.close().await;
}

async fn expire(halves: &mut HashMap<String, Half>) {
    let old: Vec<String> =
        halves.iter().filter(|(_, half)| half.since.elapsed() > OPENING).map(|(id, _)| id.clone()).collect();
    for id in old {
        if let Some(half) = halves.remove(&id) {
            half.stream.refuse().await;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

fn kind(stream: &Stream) -> Option<Kind> {
    match stream.header("streamtype")? {
        "data" => Some(Kind::Data),
        "error" => Some(Kind::Error),
        _ => None,
    }
}

/// Which connection a stream is of, and which of its two. None if that is not said.
fn request(stream: &Stream) -> Option<(String, Kind)> {
    let kind = kind(stream)?;
    options::port(stream.header("port")?).ok()?;
    let request = match stream.header("requestid") {
        Some(request) => request.to_owned(),
        // The oldest clients open the stream for errors right before the one for bytes.
        None if kind == Kind::Error => format!("stream {}", stream.id),
        None => format!("stream {}", stream.id.checked_sub(2)?),
    };
    Some((request, kind))
}

fn is_pair(first: &Stream, second: &Stream) -> bool {
    kind(first) != kind(second) && first.header("port") == second.header("port")
}

/// One connection from its beginning to its end.
async fn forward(mut data: Stream, error: Stream, connect: Connect) {
    let port = data.header("port").and_then(|port| options::port(port).ok()).unwrap_or_default();
    match connect(port).await {
        Ok(connection) => exchange(&mut data, connection).await,
        Err(reason) => {
            error.output.send(Bytes::from(reason.to_string())).await;
        }
    }
    data.output.end().await;
    error.output.end().await;
}

async fn exchange(data: &mut Stream, connection: Box<dyn Connection>) {
    let (mut reading, mut writing) = tokio::io::split(connection);
    let Stream { input, output, .. } = data;
    let inwards = async {
        while let Some(bytes) = input.recv().await {
            if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                return;
            }
        }
        let _ = writing.shutdown().await;
    };
    let outwards = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length) = reading.read(&mut buffer).await
            && length > 0
            && output.send(Bytes::copy_from_slice(&buffer[..length])).await
        {}
    };
    tokio::pin!(inwards, outwards);
    tokio::select! {
        // The pod has ended the connection; what is left of the client's words it may still take.
        () = &mut outwards => {
            output.end().await;
            let _ = tokio::time::timeout(LEFT_OVER, inwards).await;
        }
        // The client has said all; the answer may take its time.
        () = &mut inwards => tokio::select! {
            () = outwards => {}
            () = output.given_up() => {}
        },
        () = output.given_up() => {}
    }
}
