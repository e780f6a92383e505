//! Probes that open a TCP connection, and how a failure to open one is worded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;

/// Opens a connection and closes it.
pub(crate) async fn probe(target: SocketAddr) -> Result<(), String> {
    connect(target).await.map(drop)
}

/// Where `host` is: at `known`, if that is known already, or where its name leads.
pub(crate) async fn resolve(host: &str, known: Option<IpAddr>, port: u16) -> Result<SocketAddr, String> {
    if let Some(address) = known {
        return Ok(SocketAddr::new(address, port));
    }
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| format!("dial tcp: lookup {host}: {error}"))?;
    found.next().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))
}

/// Opens a connection; the error is worded as Go's dialer words it.
pub(crate) async fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(target)
        .await
        .map_err(|error| format!("dial tcp {target}: connect: {}", reason(&error)))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}
