//! Steady traffic, every answer counted: a request that brings no whole answer with status 200 has failed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One each.
    Fresh,
    /// Kept alive; a new one only when the server said that it closes, or did so while it was idle.
    KeptAlive,
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
    /// Starts `clients` clients, each sending about a hundred requests a second.
    pub fn start(address: SocketAddr, connections: Connections, clients: usize) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let spawn = |_| {
            let (stop, tally) = (stop.clone(), tally.clone());
            std::thread::spawn(move || {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let answer = request(address, connections, &mut connection);
                    let mut tally = tally.lock().unwrap();
                    match answer {
                        Ok(version) => *tally.versions.entry(version).or_default() += 1,
                        Err(reason) => tally.failures.push(reason),
                    }
                    drop(tally);
                    // The rate, not a wait for anything.
                    std::thread::sleep(Duration::from_millis(10));
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

fn request(address: SocketAddr, kind: Connections, kept: &mut Option<Connection>) -> Result<String, String> {
    let reused = kept.take().filter(|connection| !is_closed(connection.get_ref()));
    let mut connection = match reused {
        Some(connection) => connection,
        None => connect(address).map_err(|error| format!("connect: {error}"))?,
    };
    let close = if kind == Connections::Fresh { "Connection: close\r\n" } else { "" };
    let text = format!("GET / HTTP/1.1\r\nHost: kubia\r\n{close}\r\n");
    connection.get_mut().write_all(text.as_bytes()).map_err(|error| format!("send: {error}"))?;
    let (version, keeps) = read_answer(&mut connection).map_err(|error| format!("answer: {error}"))?;
    if kind == Connections::KeptAlive && keeps {
        *kept = Some(connection);
    }
    Ok(version)
}

fn connect(address: SocketAddr) -> std::io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
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
    let body = String::from_utf8_lossy(&body).into_owned();
    let version = body.strip_prefix("This is ").and_then(|rest| rest.split(' ').next());
    Ok((version.ok_or_else(|| bad(&body))?.to_owned(), keeps))
}
