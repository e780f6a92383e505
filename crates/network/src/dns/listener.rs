//! The name server's sockets: one for UDP, one for TCP (RFC 7766), both on an address of the instance's own.

use super::{Dns, Step};
use crate::NetworkError;
use crate::proxy::Proxy;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// The port that is tried first: the same after a restart, so that clients' sockets go on.
const PORT: u16 = 10053;
/// Connections at a time.
const MOST_CONNECTIONS: usize = 200;
/// UDP queries at a time that cannot be answered at once.
const MOST_WAITING: usize = 1000;
/// How long a connection may be idle.
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

    /// Answers without end.
    pub(crate) async fn serve(self, dns: Arc<Dns>, proxy: Arc<Proxy>) {
        tokio::join!(
            datagrams(Arc::new(self.udp), dns.clone(), proxy.clone()),
            streams(self.tcp, dns, proxy)
        );
    }
}

async fn datagrams(socket: Arc<UdpSocket>, dns: Arc<Dns>, proxy: Arc<Proxy>) {
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

async fn streams(listener: TcpListener, dns: Arc<Dns>, proxy: Arc<Proxy>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = places.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (dns, proxy) = (dns.clone(), proxy.clone());
                clients.spawn(async move {
                    // An end of the connection is no news.
                    let _ = stream_of_queries(stream, &dns, &proxy).await;
                    drop(permit);
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
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut query = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
