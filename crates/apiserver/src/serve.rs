//! HTTPS: listeners, TLS, HTTP/1.1 and HTTP/2.

use crate::authn::User;
use crate::router::{self, Peer};
use crate::state::Core;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::net::sockopt;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request over HTTP/1.1.
const HEADER_READ: Duration = Duration::from_secs(30);
/// How long requests in flight may take once the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a connection may be silent before the kernel asks whether the other side is still there, and from question to
/// question, and how often it asks (as Go's HTTP servers do).
const KEEP_ALIVE: (Duration, u32) = (Duration::from_secs(15), 9);
/// How long to wait after an accept that failed (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves every listener until `shutdown`, then lets requests in flight finish, for a few seconds.
pub(crate) async fn serve(
    core: Arc<Core>,
    listeners: Vec<TcpListener>,
    tls: Arc<ServerConfig>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let acceptor = TlsAcceptor::from(tls);
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            accept(core.clone(), listener, acceptor.clone(), shutdown.clone(), connections.clone())
        })
        .collect();
    futures::future::join_all(loops).await;
    core.stopping.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were still busy when the API server stopped");
    }
}

async fn accept(
    core: Arc<Core>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(converse(core.clone(), stream, acceptor.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets the kernel notice clients whose machine is gone.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    let (pause, questions) = KEEP_ALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, pause)?;
    sockopt::set_tcp_keepintvl(stream, pause)?;
    sockopt::set_tcp_keepcnt(stream, questions)?;
    // The same for what was sent and is not acknowledged.
    let limit = pause.saturating_mul(questions).as_millis();
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit).unwrap_or(u32::MAX))
}

/// Serves one connection to its end.
async fn converse(core: Arc<Core>, stream: TcpStream, acceptor: TlsAcceptor, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%error, "a connection has no keep-alive");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = match certificate.map(|certificate| User::from_certificate(certificate)).transpose() {
        Ok(user) => user.map(Arc::new),
        Err(error) => return tracing::debug!(%error, "a client certificate names no user"),
    };
    let service = hyper::service::service_fn(move |request| {
        let (core, peer) = (core.clone(), Peer::Tls(user.clone()));
        async move { Ok::<_, Infallible>(router::handle(core, peer, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .max_concurrent_streams(250);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
