//! Everything that is not HTTP: bytes copied between the client and one pod.

use super::backend::Backend;
use super::endpoint::InFlight;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Bytes buffered per direction.
const BUFFER: usize = 32 * 1024;

/// Joins a client with a pod, giving the pod first what was read from the client already. A client for which
/// there is no pod is reset.
pub(crate) async fn serve(backend: &Backend, mut client: TcpStream, peer: SocketAddr, read: &[u8]) {
    match backend.connect(peer.ip()).await {
        Ok((pod, in_flight)) => join(&mut client, read, pod, in_flight).await,
        Err(error) => {
            tracing::debug!(%error, "resetting client");
            reset(&client);
        }
    }
}

/// Joins a client with a pod that is connected already.
pub(crate) async fn join(client: &mut TcpStream, read: &[u8], mut pod: TcpStream, in_flight: InFlight) {
    if let Err(error) = pod.write_all(read).await {
        tracing::debug!(%error, "pod closed the connection");
        return reset(client);
    }
    copy(client, &mut pod, &in_flight.0.gone).await;
}

/// Copies both ways until both sides have ended theirs, one after the other, or the pod is gone.
pub(crate) async fn copy<A, B>(client: &mut A, pod: &mut B, gone: &CancellationToken)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let copied: io::Result<(u64, u64)> = tokio::select! {
        copied = tokio::io::copy_bidirectional_with_sizes(client, pod, BUFFER, BUFFER) => copied,
        () = gone.cancelled() => return,
    };
    if let Err(error) = copied {
        tracing::trace!(%error, "connection ended");
    }
}

/// Makes closing the connection a reset, as from a host on which nobody listens.
fn reset(client: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    if let Err(error) = nix::sys::socket::setsockopt(client, nix::sys::socket::sockopt::Linger, &linger) {
        tracing::debug!(%error, "cannot reset a connection");
    }
}
