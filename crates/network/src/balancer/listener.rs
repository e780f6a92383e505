//! One address and port of a service: accepts connections and finds out what they speak.

use super::backend::Backend;
use super::prefixed::Prefixed;
use super::sniff::{self, Speech};
use super::{http, tcp};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A client that says nothing for so long may be waiting for the server to speak first.
const SILENCE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Serves until dropped; then requests in work are finished and connections closed.
pub(crate) struct Listener {
    _serving: DropGuard,
}

impl Listener {
    /// Starts listening. Must be called within a tokio runtime.
    pub(crate) fn bind(address: SocketAddr, backend: Arc<Backend>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let closing = CancellationToken::new();
        tokio::spawn(accept(listener, backend, closing.clone()));
        Ok(Self { _serving: closing.drop_guard() })
    }
}

async fn accept(listener: TcpListener, backend: Arc<Backend>, closing: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((client, peer)) => {
                let _ = client.set_nodelay(true);
                tokio::spawn(serve(client, peer, Arc::clone(&backend), closing.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close some.
                tracing::warn!(service = backend.service, %error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(mut client: TcpStream, peer: SocketAddr, backend: Arc<Backend>, closing: CancellationToken) {
    let mut read = BytesMut::with_capacity(1024);
    let first = tokio::time::timeout(SILENCE, client.read_buf(&mut read)).await;
    let heard = match first {
        Ok(heard) => heard,
        Err(_) => match wait_for_either(client, peer, &backend, &mut read, &closing).await {
            Some(silent) => {
                client = silent;
                Ok(read.len())
            }
            None => return,
        },
    };
    match heard {
        Ok(1..) => {}
        _ => return,
    }
    match listen_on(&mut client, &mut read, &closing).await {
        Some(Speech::Http) => http::serve(backend, Prefixed::new(read.freeze(), client), peer, closing).await,
        Some(_) => tcp::serve(&backend, client, peer, &read).await,
        None => {}
    }
}

/// Reads on until it is clear what the client speaks. None if the service goes away before.
async fn listen_on(
    client: &mut TcpStream,
    read: &mut BytesMut,
    closing: &CancellationToken,
) -> Option<Speech> {
    loop {
        match sniff::judge(read) {
            Speech::Unclear => {}
            clear => return Some(clear),
        }
        let more = tokio::select! {
            more = client.read_buf(read) => more,
            () = closing.cancelled() => return None,
        };
        if !matches!(more, Ok(1..)) {
            // The client has said all it will: let the pod make sense of it.
            return Some(Speech::Other);
        }
    }
}

/// For a silent client: connects to a pod and sees who speaks first. If the pod does, the connection is served
/// here, and None returned; if the client does, its connection comes back with what it said in `read`.
async fn wait_for_either(
    mut client: TcpStream,
    peer: SocketAddr,
    backend: &Backend,
    read: &mut BytesMut,
    closing: &CancellationToken,
) -> Option<TcpStream> {
    loop {
        let connected = tokio::select! {
            connected = backend.connect(peer.ip()) => connected,
            heard = client.read_buf(read) => return matches!(heard, Ok(1..)).then_some(client),
            () = closing.cancelled() => return None,
        };
        let Ok((mut pod, in_flight)) = connected else {
            tokio::select! {
                heard = client.read_buf(read) => return matches!(heard, Ok(1..)).then_some(client),
                () = closing.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_secs(1)) => continue,
            }
        };
        let mut said = BytesMut::with_capacity(1024);
        tokio::select! {
            heard = client.read_buf(read) => return matches!(heard, Ok(1..)).then_some(client),
            heard = pod.read_buf(&mut said) => {
                if matches!(heard, Ok(1..)) {
                    let said: Bytes = said.freeze();
                    let wrote = tokio::io::AsyncWriteExt::write_all(&mut client, &said).await;
                    if wrote.is_ok() {
                        tcp::join(&mut client, &[], pod, in_flight).await;
                    }
                    return None;
                }
                // A server that gets impatient with silent clients; the client may still speak.
                tokio::select! {
                    heard = client.read_buf(read) => return matches!(heard, Ok(1..)).then_some(client),
                    () = closing.cancelled() => return None,
                }
            }
            // The pod must not wait for a connection on which nothing happens: look for another one.
            () = in_flight.0.retiring.cancelled() => {}
            () = closing.cancelled() => return None,
        }
    }
}
