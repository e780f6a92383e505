//! The name server's sockets: one for UDP, one for TCP (RFC 7766), both on an address of the instance's own.

use super::clients::Clients;
use super::{Dns, Step};
use crate::NetworkError;
use crate::proxy::Proxy;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// The port that is tried first: the same after a restart, so that clients' sockets go on.
pub(crate) const PORT: u16 = 10053;
/// Connections at a time.
const MOST_CONNECTIONS: usize = 200;
/// UDP queries at a time that cannot be answered at once.
const MOST_WAITING: usize = 1000;
/// How long a connection may be idle, and how long a client may take to receive an answer.
const IDLE: Duration = Duration::from_secs(10);

/// Sockets that are bound and not served yet.
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both, on a port of the system's choice where the usual one is taken. Must be called within a tokio
    /// runtime.
    pub(crate) async fn bind(address: Ipv4Addr) -> Result<Self, NetworkError> {
        let udp = match UdpSocket::bind((address, PORT)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => UdpSocket::bind((address, 0)).await,
            bound => bound,
        };
        let tcp = match TcpListener::bind((address, PORT)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => TcpListener::bind((address, 0)).await,
            bound => bound,
        };
        let failed = |error: io::Error| NetworkError::Failed {
            step: "listening for DNS on",
            object: address.to_string(),
            message: error.to_string(),
        };
        Ok(Self { udp: udp.map_err(failed)?, tcp: tcp.map_err(failed)? })
    }

    /// Ports for UDP and TCP.
    pub(crate) fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.udp.local_addr()?.port(), self.tcp.local_addr()?.port()))
    }

    /// Answers `clients` without end.
    pub(crate) async fn serve(self, dns: Arc<Dns>, proxy: Arc<Proxy>, clients: Arc<Clients>) {
        tokio::join!(
            datagrams(Arc::new(self.udp), dns.clone(), proxy.clone(), clients.clone()),
            streams(self.tcp, dns, proxy, clients)
        );
    }
}

async fn datagrams(socket: Arc<UdpSocket>, dns: Arc<Dns>, proxy: Arc<Proxy>, clients: Arc<Clients>) {
    let waiting = Arc::new(Semaphore::new(MOST_WAITING));
    let mut buffer = vec![0; 4096];
    loop {
        let (count, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What an earlier answer met, for instance a client that is gone.
            Err(error) => {
                tracing::debug!(%error, "receiving DNS queries");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if !clients.may_ask(client.ip()) {
            continue;
        }
        match dns.begin(&proxy, &buffer[..count], false) {
            Step::Nothing => {}
            Step::Send(answer) => send(&socket, &answer, client).await,
            Step::Wait(query, judgement) => {
                // So many are waiting: this client will ask again.
                let Ok(permit) = waiting.clone().try_acquire_owned() else { continue };
                let (socket, dns, proxy) = (socket.clone(), dns.clone(), proxy.clone());
                tokio::spawn(async move {
                    if let Some(answer) = dns.finish(&proxy, *query, judgement, false).await {
                        send(&socket, &answer, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "sending a DNS answer");
    }
}

async fn streams(listener: TcpListener, dns: Arc<Dns>, proxy: Arc<Proxy>, allowed: Arc<Clients>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = places.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                if !allowed.may_ask(client.ip()) {
                    continue;
                }
                let Some(seat) = allowed.seat(client.ip()) else { continue };
                let (dns, proxy) = (dns.clone(), proxy.clone());
                clients.spawn(async move {
                    // An end of the connection is no news.
                    let _ = stream_of_queries(stream, &dns, &proxy).await;
                    drop((seat, permit));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept DNS connections");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Answers one query after the other until the client is done.
async fn stream_of_queries(mut stream: TcpStream, dns: &Dns, proxy: &Proxy) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let query = tokio::time::timeout(IDLE, read(&mut stream)).await.map_err(io::Error::other)??;
        let answer = match dns.begin(proxy, &query, true) {
            Step::Nothing => None,
            Step::Send(answer) => Some(answer),
            Step::Wait(query, judgement) => dns.finish(proxy, *query, judgement, true).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        write(&mut stream, &answer, IDLE).await?;
    }
}

/// Sends an answer. A client that does not receive it within a time has left.
async fn write(stream: &mut (impl AsyncWrite + Unpin), answer: &[u8], within: Duration) -> io::Result<()> {
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    let bytes = [&length.to_be_bytes()[..], answer].concat();
    tokio::time::timeout(within, stream.write_all(&bytes)).await.map_err(io::Error::other)?
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut query = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut query).await?;
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_receives_nothing_is_not_waited_for() {
        let (mut server, _client) = tokio::io::duplex(4);
        let within = Duration::from_millis(20);
        write(&mut server, &[0; 100], within).await.unwrap_err();
        let (mut server, mut client) = tokio::io::duplex(4);
        let (written, received) = tokio::join!(write(&mut server, b"hello", IDLE), read_from(&mut client));
        written.unwrap();
        assert_eq!(received, b"\0\x05hello");
    }

    async fn read_from(client: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut received = vec![0; 7];
        client.read_exact(&mut received).await.unwrap();
        received
    }
}
