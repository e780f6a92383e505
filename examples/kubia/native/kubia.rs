//! The native twin of the chapter's app: the same answers, no Node.js, one static executable.
//!
//! `KUBIA_VERSION` (1 to 4) chooses the version. Like most naive apps it knows nothing of graceful shutdown:
//! SIGTERM ends it at once, requests in flight or not. Only the standard library, so that one `rustc` call
//! builds it.

use std::ffi::c_int;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SIGTERM: c_int = 15;

unsafe extern "C" {
    fn signal(signum: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn _exit(status: c_int) -> !;
}

extern "C" fn die(signum: c_int) {
    // SAFETY: _exit is async-signal-safe (POSIX).
    unsafe { _exit(128 + signum) }
}

static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn main() -> std::io::Result<()> {
    // The first process of a container has no default action for SIGTERM: without this it would not end.
    // SAFETY: the handler only calls _exit.
    unsafe { signal(SIGTERM, die) };
    println!("Kubia server starting...");
    let version = std::env::var("KUBIA_VERSION").unwrap_or_else(|_| "1".into());
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hostname: &'static str = Box::leak(hostname.trim().to_owned().into_boxed_str());
    let version: &'static str = Box::leak(version.into_boxed_str());
    let listener = TcpListener::bind(("0.0.0.0", 8080))?;
    for connection in listener.incoming().flatten() {
        // Out of threads or of connections: drop this one, as a busy server does.
        let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let _ = serve(connection, version, hostname);
        });
    }
    Ok(())
}

fn serve(connection: TcpStream, version: &str, hostname: &str) -> std::io::Result<()> {
    // Node.js closes an idle keep-alive connection after five seconds.
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.set_nodelay(true)?;
    let peer = connection.peer_addr()?.ip();
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader)? {
        println!("Received request from {peer}");
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let (status, body) = if version == "3" && count >= 5 {
            ("500 Internal Server Error", format!("Some internal error has occurred! This is pod {hostname}\n"))
        } else {
            ("200 OK", format!("This is v{version} running in pod {hostname}\n"))
        };
        let connection = if request.keep_alive { "keep-alive" } else { "close" };
        let content = if request.head { "" } else { body.as_str() };
        let length = body.len();
        // One write, so that the answer is one packet.
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{content}"
        );
        writer.write_all(answer.as_bytes())?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

struct Request {
    keep_alive: bool,
    head: bool,
}

/// Reads a request and its body; None at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut keep_alive = line.trim_end().ends_with("HTTP/1.1");
    let head = line.starts_with("HEAD ");
    let mut body = 0u64;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(':') {
            None => break,
            Some(("connection", value)) => keep_alive = value.trim() != "close" && (keep_alive || value.trim() == "keep-alive"),
            Some(("content-length", value)) => body = value.trim().parse().unwrap_or(0),
            Some(_) => {}
        }
    }
    std::io::copy(&mut reader.by_ref().take(body), &mut std::io::sink())?;
    Ok(Some(Request { keep_alive, head }))
}
