//! Steady traffic, every answer counted: a request that brings no whole answer with status 200 has failed.
//!
//! Only the standard library: `native/caller.rs` does the same inside of pods.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Connections {
    /// One each.
    Fresh,
    /// Kept alive; a new one only when the server said that it closes, or did so while it was idle.
    KeptAlive,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// A line for a line, which nobody between can tell from any other bytes.
    Raw,
}

/// How and where requests go. Written `http:fresh:kubia:80`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// What is spoken.
    pub protocol: Protocol,
    /// How connections are used.
    pub connections: Connections,
    /// A name, looked up for each connection, or an address.
    pub host: String,
    /// Of TCP.
    pub port: u16,
}

impl Way {
    /// HTTP to an address.
    pub fn http(address: SocketAddr, connections: Connections) -> Self {
        Self { protocol: Protocol::Http, connections, host: address.ip().to_string(), port: address.port() }
    }

    /// The way that is written so, if it is one.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let protocol = match parts.next()? {
            "http" => Protocol::Http,
            "raw" => Protocol::Raw,
            _ => return None,
        };
        let connections = match parts.next()? {
            "fresh" => Connections::Fresh,
            "kept" => Connections::KeptAlive,
            _ => return None,
        };
        let (host, port) = parts.next()?.rsplit_once(':')?;
        Some(Self { protocol, connections, host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.protocol == Protocol::Http { "http" } else { "raw" };
        let connections = if self.connections == Connections::Fresh { "fresh" } else { "kept" };
        write!(f, "{protocol}:{connections}:{}:{}", self.host, self.port)
    }
}

/// What came of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Bodies of good answers, by version: `v1`.
    pub versions: std::collections::BTreeMap<String, usize>,
    /// Why requests failed.
    pub failures: Vec<String>,
}

impl Tally {
    /// Requests sent.
    pub fn sent(&self) -> usize {
        self.versions.values().sum::<usize>() + self.failures.len()
    }
}

/// Traffic that flows until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients that speak HTTP, each sending about a hundred requests a second.
    pub fn start(address: SocketAddr, connections: Connections, clients: usize) -> Self {
        Self::on(&Way::http(address, connections), clients, Duration::from_millis(10))
    }

    /// Starts `clients` clients, each pausing between its requests.
    pub fn on(way: &Way, clients: usize, pause: Duration) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let spawn = |_| {
            let (stop, tally, way) = (stop.clone(), tally.clone(), way.clone());
            std::thread::spawn(move || {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = request(&way, &mut connection);
                    let mut tally = tally.lock().unwrap();
                    match answer {
                        Ok(version) => *tally.versions.entry(version).or_default() += 1,
                        Err(reason) => {
                            tally.failures.push(format!("after {:?}: {reason}", begun.elapsed()));
                        }
                    }
                    drop(tally);
                    // The rate, not a wait for anything.
                    std::thread::sleep(pause);
                }
            })
        };
        let clients = (0..clients).map(spawn).collect();
        Self { stop, tally, clients }
    }

    /// What came of the requests so far.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Stops, waits for the last answers, and tells what came of all.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        self.tally.lock().unwrap().clone()
    }
}

type Connection = BufReader<TcpStream>;

fn request(way: &Way, kept: &mut Option<Connection>) -> Result<String, String> {
    let reused = kept.take().filter(|connection| !is_closed(connection.get_ref()));
    let mut connection = match reused {
        Some(connection) => connection,
        None => connect(way)?,
    };
    let close = if way.connections == Connections::Fresh { "Connection: close\r\n" } else { "" };
    let text = match way.protocol {
        Protocol::Http => format!("GET / HTTP/1.1\r\nHost: {}\r\n{close}\r\n", way.host),
        Protocol::Raw => "who is there?\n".to_owned(),
    };
    connection.get_mut().write_all(text.as_bytes()).map_err(|error| format!("send: {error}"))?;
    let answer = match way.protocol {
        Protocol::Http => read_answer(&mut connection),
        Protocol::Raw => read_line(&mut connection),
    };
    let (version, keeps) = answer.map_err(|error| format!("answer: {error}"))?;
    if way.connections == Connections::KeptAlive && keeps {
        *kept = Some(connection);
    }
    Ok(version)
}

fn connect(way: &Way) -> Result<Connection, String> {
    let found =
        (way.host.as_str(), way.port).to_socket_addrs().map_err(|error| format!("look-up: {error}"))?;
    let address = { found }.next().ok_or("look-up: no address")?;
    let opened = || {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        std::io::Result::Ok(BufReader::new(stream))
    };
    opened().map_err(|error| format!("connect: {error}"))
}

/// Whether the other side has closed an idle connection, as any HTTP client checks before it reuses one.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut byte));
    let open = matches!(&peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_err() || !open
}

/// Reads a whole answer: the version that gave it, and whether the connection stays open.
fn read_answer(connection: &mut Connection) -> std::io::Result<(String, bool)> {
    let bad = |what: &str| std::io::Error::other(what.to_owned());
    let (mut length, mut keeps, mut first) = (None, true, String::new());
    connection.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(bad("closed before the answer was whole"));
        }
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(("connection", value)) => keeps = value != "close",
            Some(_) => {}
        }
    }
    if !first.starts_with("HTTP/1.1 200") {
        return Err(bad(first.trim_end()));
    }
    let mut body = vec![0; length.ok_or_else(|| bad("no content-length"))?];
    connection.read_exact(&mut body)?;
    Ok((version(&String::from_utf8_lossy(&body))?, keeps))
}

/// Reads a line; the connection always stays open.
fn read_line(connection: &mut Connection) -> std::io::Result<(String, bool)> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(std::io::Error::other("closed before the answer was whole"));
    }
    Ok((version(&line)?, true))
}

/// The version in `This is v1 running in pod kubia-1`.
fn version(body: &str) -> std::io::Result<String> {
    let version = body.strip_prefix("This is ").and_then(|rest| rest.split(' ').next());
    version.map(str::to_owned).ok_or_else(|| std::io::Error::other(body.to_owned()))
}
