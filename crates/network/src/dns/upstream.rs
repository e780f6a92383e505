//! The host's resolvers: which they are, and asking them.

use super::answer::UDP_PAYLOAD;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one resolver may take before another one is asked, or the same again.
const ONE: Duration = Duration::from_millis(1500);
/// How long all of it may take: pods' resolvers ask again after five seconds.
const ALL: Duration = Duration::from_millis(4500);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Resolvers that are asked; the C library looks at three, too.
const MOST: usize = 3;

/// The resolvers of a resolv.conf, read again when it changes.
#[derive(Debug)]
pub(crate) struct Upstreams {
    path: PathBuf,
    /// Addresses under which this server itself is reached: never asked.
    own: Vec<IpAddr>,
    read: Mutex<Read>,
    /// Which one answered last.
    preferred: AtomicUsize,
}

#[derive(Debug, Default)]
struct Read {
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    pub(crate) fn new(path: PathBuf, own: Vec<IpAddr>) -> Self {
        Self { path, own, read: Mutex::default(), preferred: AtomicUsize::new(0) }
    }

    /// The resolvers to ask, the one that answered last first.
    fn servers(&self) -> Vec<SocketAddr> {
        let mut read = self.read.lock();
        if read.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            read.looked = Some(Instant::now());
            let changed = std::fs::metadata(&self.path).and_then(|meta| meta.modified()).ok();
            if read.servers.is_empty() || changed != read.changed {
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                read.servers = servers(&text, &self.own);
                read.changed = changed;
            }
        }
        let mut servers = read.servers.clone();
        let first = self.preferred.load(Ordering::Relaxed);
        if first < servers.len() {
            servers.rotate_left(first);
        }
        servers
    }

    /// Asks one after the other until one answers. None: none did, or none is known.
    pub(crate) async fn ask(&self, question: &Query, edns: Option<bool>, unchecked: bool) -> Option<Message> {
        tokio::time::timeout(ALL, self.ask_all(question, edns, unchecked)).await.ok().flatten()
    }

    async fn ask_all(&self, question: &Query, edns: Option<bool>, unchecked: bool) -> Option<Message> {
        let servers = self.servers();
        let mut refusal = None;
        // Lost packets: each is asked again while there is time.
        for server in servers.iter().chain(&servers) {
            let asked = tokio::time::timeout(ONE, exchange(*server, question, edns, unchecked)).await;
            match asked {
                Ok(Ok(answer)) if useful(&answer) => {
                    let position = self.read.lock().servers.iter().position(|known| known == server);
                    self.preferred.store(position.unwrap_or_default(), Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(Ok(answer)) => refusal = Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver"),
                Err(_) => tracing::debug!(%server, "resolver does not answer within {ONE:?}"),
            }
            if refusal.is_some() && servers.len() == 1 {
                break;
            }
        }
        refusal
    }
}

/// Whether another server could not do better.
fn useful(answer: &Message) -> bool {
    !matches!(
        answer.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

/// The name servers in a resolv.conf, without our own addresses.
fn servers(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let words = text.lines().map(str::split_ascii_whitespace).filter_map(|mut words| {
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()?.parse::<IpAddr>().ok()
    });
    let usable = words.filter(|address| !own.contains(address) && !address.is_unspecified());
    usable.map(|address| SocketAddr::new(address, 53)).take(MOST).collect()
}

/// One question to one server: over UDP, and over TCP if the answer does not fit.
async fn exchange(
    server: SocketAddr,
    question: &Query,
    edns: Option<bool>,
    unchecked: bool,
) -> io::Result<Message> {
    let mut query = Message::query();
    // The identifier and the port the kernel chooses are what keeps strangers from answering.
    query.metadata.id = rand::random();
    query.metadata.recursion_desired = true;
    query.metadata.checking_disabled = unchecked;
    query.add_query(question.clone());
    if let Some(dnssec) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(dnssec);
        query.set_edns(edns);
    }
    let bytes = query.to_vec().map_err(io::Error::other)?;
    let answer = over_udp(server, &query, &bytes).await?;
    if answer.metadata.truncation { over_tcp(server, &query, &bytes).await } else { Ok(answer) }
}

async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let count = socket.recv(&mut buffer).await?;
        if let Some(answer) = answers(&buffer[..count], query) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    answers(&answer, query).ok_or_else(|| io::Error::other("an answer to something else"))
}

/// The message, if it answers this query.
fn answers(bytes: &[u8], query: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == hickory_proto::op::MessageType::Response
        && (answer.queries == query.queries
            // A server that did not understand it may leave it out.
            || (answer.queries.is_empty() && !useful(&answer)));
    same.then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_addresses_are_not_asked() {
        let text = "# nameserver 9.9.9.9\nsearch a\nnameserver 10.96.0.10\n nameserver 127.0.0.53 # stub\n\
                    nameserver ::1\nnameserver nonsense\nnameserver fe80::1%eth0\n";
        let found = servers(text, &["10.96.0.10".parse().unwrap()]);
        assert_eq!(found, ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    #[test]
    fn only_an_answer_to_the_very_question_is_taken() {
        let name = |text: &str| hickory_proto::rr::Name::from_ascii(text).unwrap();
        let mut query = Message::query();
        query.add_query(Query::query(name("a.example."), hickory_proto::rr::RecordType::A));
        let mut answer = query.clone().into_response();
        assert!(answers(&answer.to_vec().unwrap(), &query).is_some());
        assert!(answers(&query.to_vec().unwrap(), &query).is_none());
        answer.metadata.id ^= 1;
        assert!(answers(&answer.to_vec().unwrap(), &query).is_none());
        answer.metadata.id ^= 1;
        answer.queries[0].name = name("b.example.");
        assert!(answers(&answer.to_vec().unwrap(), &query).is_none());
    }
}
