//! A registry that does as it is told: answers, and when it hangs up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A request that came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    pub(crate) cut: Option<usize>,
    /// Bytes of the body after which nothing comes until [`Server::go_on`].
    pub(crate) stall: Option<usize>,
}

impl Answer {
    pub(crate) fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, body, ..Self::default() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The part of it that was asked for.
    pub(crate) fn ranged(self, request: &Request) -> Self {
        let Some(range) = request.header("range") else { return self };
        let begin: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        if begin >= self.body.len() {
            return Self::status(416);
        }
        let range = format!("bytes {begin}-{}/{}", self.body.len() - 1, self.body.len());
        let answer = Self { status: 206, body: self.body[begin..].to_vec(), ..self };
        answer.with("Content-Range", range)
    }
}

type Handler = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

struct State {
    handler: Handler,
    seen: Mutex<Vec<Request>>,
    /// Bytes that may still be sent before it falls silent for good.
    budget: AtomicI64,
    going_on: Notify,
    stalled: Notify,
}

/// Listens on loopback until it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            handler: Box::new(handler),
            seen: Mutex::default(),
            budget: AtomicI64::new(i64::MAX),
            going_on: Notify::new(),
            stalled: Notify::new(),
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { port, state, task }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Those whose path contains this.
    pub(crate) fn seen_of(&self, part: &str) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.path.contains(part)).collect()
    }

    /// Lets it send so many bytes more, then nothing.
    pub(crate) fn allow(&self, bytes: i64) {
        self.state.budget.store(bytes, Ordering::SeqCst);
    }

    /// How much of that is left.
    pub(crate) fn left(&self) -> i64 {
        self.state.budget.load(Ordering::SeqCst)
    }

    /// Waits until an answer has stalled.
    pub(crate) async fn stalled(&self) {
        self.state.stalled.notified().await;
    }

    /// Lets one answer that stalled go on.
    pub(crate) fn go_on(&self) {
        self.state.going_on.notify_one();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let request = Request { path, headers };
    let answer = (state.handler)(&request);
    state.seen.lock().unwrap().push(request);

    let mut head = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", answer.status);
    head += &format!("Content-Length: {}\r\n", answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let all = [head.as_bytes(), &answer.body].concat();
    let end = answer.cut.map_or(all.len(), |cut| head.len() + cut);
    if let Some(stall) = answer.stall {
        let first = head.len() + stall;
        if send(&mut stream, &all[..first], &state).await.is_some() {
            state.stalled.notify_one();
            state.going_on.notified().await;
            send(&mut stream, &all[first..end], &state).await;
        }
    } else {
        send(&mut stream, &all[..end], &state).await;
    }
    // Nothing but the end comes after that; otherwise what was sent could be lost with the connection.
    let _ = stream.shutdown().await;
    let _ = stream.read(&mut [0; 1]).await;
}

/// Sends as much as is allowed; None if that was not all.
async fn send(stream: &mut TcpStream, bytes: &[u8], state: &State) -> Option<()> {
    let length = bytes.len() as i64;
    let left = state.budget.fetch_sub(length, Ordering::SeqCst).clamp(0, length);
    stream.write_all(&bytes[..left as usize]).await.ok()?;
    (left == length).then_some(())
}
