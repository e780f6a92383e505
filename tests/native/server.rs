//! A program for pods of the tests: answers HTTP on port 8080 and lines on port 9000 with its version and its pod.
//!
//! `VERSION` is what it says it is. On SIGTERM it dies at once, requests in flight or not; with `IGNORE_TERM` it does
//! not mind. `/alive` answers 200 until somebody asked for `/sicken`. Only the standard library, so that one `rustc`
//! call builds it.

use std::ffi::c_int;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

const SIGTERM: c_int = 15;
static SICK: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn signal(signum: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn _exit(status: c_int) -> !;
}

extern "C" fn die(signum: c_int) {
    // SAFETY: _exit is async-signal-safe (POSIX).
    unsafe { _exit(128 + signum) }
}

fn main() -> std::io::Result<()> {
    // The first process of a container ignores SIGTERM if it does nothing about it.
    if std::env::var_os("IGNORE_TERM").is_none() {
        // SAFETY: the handler only calls _exit.
        unsafe { signal(SIGTERM, die) };
    }
    let version = std::env::var("VERSION").unwrap_or_default();
    let pod = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let answer: &'static str = Box::leak(format!("This is v{version} running in pod {pod}").into_boxed_str());
    // The line port last: who can connect to it can connect to both.
    let http = TcpListener::bind(("0.0.0.0", 8080))?;
    let lines = TcpListener::bind(("0.0.0.0", 9000))?;
    std::thread::spawn(move || listen(&lines, move |stream| serve_lines(stream, answer)));
    listen(&http, move |stream| serve_http(stream, answer));
    Ok(())
}

fn listen(listener: &TcpListener, serve: impl Fn(TcpStream) -> std::io::Result<()> + Copy + Send + 'static) {
    for stream in listener.incoming().flatten() {
        let _ = stream.set_nodelay(true);
        let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || serve(stream));
    }
}

fn serve_lines(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        stream.write_all(answer.as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn serve_http(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    while reader.read_line(&mut request)? > 0 {
        let (mut line, mut closes) = (String::new(), false);
        while reader.read_line(&mut line)? > 0 && line.trim_end() != "" {
            closes |= line.trim_end().eq_ignore_ascii_case("connection: close");
            line.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path == "/sicken" {
            SICK.store(true, Ordering::Relaxed);
        }
        let bad = path == "/alive" && SICK.load(Ordering::Relaxed);
        let status = if bad { "500 Internal Server Error" } else { "200 OK" };
        let connection = if closes { "close" } else { "keep-alive" };
        let length = answer.len();
        // One write, so that the answer is one packet.
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n");
        stream.write_all((head + answer).as_bytes())?;
        if closes {
            break;
        }
        request.clear();
    }
    Ok(())
}
