//! Connections to ports inside of a pod.

use super::sandbox::Pins;
use super::{NativeRuntime, failed, lock};
use crate::{Connection, RuntimeError};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

const STEP: &str = "connecting into sandbox";
/// How long a connection may take; within one machine it is made or refused at once.
const PATIENCE: Duration = Duration::from_secs(30);

impl NativeRuntime {
    pub(super) async fn connect_inside(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn Connection>, RuntimeError> {
        let config = lock(&self.inner.sandboxes).get(sandbox_id).map(|record| record.config.clone());
        let config = config.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {sandbox_id}")))?;
        let pins = Pins::of(&self.inner.layout.pins(sandbox_id), &config);
        if !pins.exist() {
            return Err(failed(STEP, sandbox_id)("it is not running"));
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let id = sandbox_id.to_owned();
        // A thread of its own: one that has moved into a pod's network must not be used for anything else.
        std::thread::Builder::new()
            .name("port-forward".to_owned())
            .spawn(move || drop(answer.send(connect_within(pins.network, &id, port))))
            .map_err(failed(STEP, sandbox_id))?;
        let stream = answered.await.map_err(failed(STEP, sandbox_id))?.map_err(failed(STEP, sandbox_id))?;
        let stream = tokio::net::TcpStream::from_std(stream).map_err(failed(STEP, sandbox_id))?;
        Ok(Box::new(stream))
    }
}

/// Moves this thread into a network, if it is not the host's, and connects there. The message is the one that
/// containerd gives.
fn connect_within(network: Option<PathBuf>, id: &str, port: u16) -> Result<TcpStream, String> {
    if let Some(path) = network {
        enter(&path).map_err(|error| format!("failed to enter network namespace {path:?}: {error}"))?;
    }
    let connect = |address: SocketAddr| {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        io::Result::Ok(stream)
    };
    connect((Ipv4Addr::LOCALHOST, port).into()).or_else(|first| {
        connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|second| {
            format!(
                "failed to connect to localhost:{port} inside namespace {id:?}, IPv4: dial tcp4 127.0.0.1:{port}: \
                 connect: {} IPv6 dial tcp6 [::1]:{port}: connect: {}",
                reason(&first),
                reason(&second)
            )
        })
    })
}

fn enter(path: &std::path::Path) -> io::Result<()> {
    Ok(move_into_link_name_space(File::open(path)?.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    }
}
