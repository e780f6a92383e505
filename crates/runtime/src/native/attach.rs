//! Taking part in the streams of a container's own program, through the shim that holds them.

use super::shim::attach::{
    ERRORS, HEAD, INPUT, OUTPUT, SIZE, SOCKET, WANTS_ERRORS, WANTS_INPUT, WANTS_OUTPUT,
};
use super::{NativeRuntime, blocking, failed};
use crate::{Resize, RuntimeError, Session, SessionOptions, TerminalSize};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

const STEP: &str = "attaching to container";
/// Bytes on their way between a session and whoever holds it.
const BUFFER: usize = 64 * 1024;

impl NativeRuntime {
    pub(super) async fn take_part(&self, id: &str, options: SessionOptions) -> Result<Session, RuntimeError> {
        let config = self.running(id, STEP)?;
        let directory = self.inner.layout.container(id);
        let name = config.name.clone();
        let stream = blocking(move || connect(&directory).map_err(failed(STEP, &name))).await?;
        let stream = UnixStream::from_std(stream).map_err(failed(STEP, &config.name))?;
        let options = SessionOptions {
            stdin: options.stdin && config.stdin,
            stderr: options.stderr && !config.tty,
            tty: config.tty,
            ..options
        };
        begin(stream, options).await.map_err(failed(STEP, &config.name))
    }
}

/// The path of the socket may be too long for its address: the directory is opened first.
fn connect(directory: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

async fn begin(stream: UnixStream, options: SessionOptions) -> io::Result<Session> {
    let SessionOptions { stdin, stdout, stderr, tty } = options;
    let (reading, mut writing) = stream.into_split();
    let bit = |wanted: bool, bit: u8| if wanted { bit } else { 0 };
    let wants = bit(stdin, WANTS_INPUT) | bit(stdout, WANTS_OUTPUT) | bit(stderr, WANTS_ERRORS);
    writing.write_all(&[wants]).await?;
    let stream = |wanted: bool| wanted.then(|| duplex(BUFFER)).unzip();
    let (input, feed) = stream(stdin);
    let (output, take_output) = stream(stdout);
    let (errors, take_errors) = stream(stderr);
    // Only the latest counts, however many come while the shim takes none.
    let (sizes, sized) = watch::channel(TerminalSize::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = send(writing, feed, sized).await;
        // Not the end: only the other direction's is.
        std::future::pending().await
    });
    tasks.spawn(receive(reading, take_output, take_errors));
    let resize: Resize = Arc::new(move |size| {
        // Nobody changes the size of what has ended.
        sizes.send_replace(size);
    });
    let end = async move {
        tasks.join_next().await;
        Ok(0)
    };
    Ok(Session {
        stdin: input.map(|input| Box::pin(input) as _),
        stdout: output.map(|output| Box::pin(output) as _),
        stderr: errors.map(|errors| Box::pin(errors) as _),
        resize: tty.then_some(resize),
        end: Box::pin(end),
    })
}

/// Passes input and sizes on until both have ended.
async fn send(
    mut socket: OwnedWriteHalf,
    mut input: Option<DuplexStream>,
    mut sizes: watch::Receiver<TerminalSize>,
) -> io::Result<()> {
    let mut buffer = vec![0; 8192];
    loop {
        let read = async {
            match &mut input {
                Some(input) => input.read(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            length = read => {
                let length = length?;
                if length == 0 {
                    input = None;
                }
                socket.write_all(&frame(INPUT, &buffer[..length])).await?;
            }
            Ok(()) = sizes.changed() => {
                let TerminalSize { columns, rows } = *sizes.borrow_and_update();
                let [a, b] = rows.to_be_bytes();
                let [c, d] = columns.to_be_bytes();
                socket.write_all(&frame(SIZE, &[a, b, c, d])).await?;
            }
            else => std::future::pending().await,
        }
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + bytes.len());
    frame.push(kind);
    frame.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Passes output on until the shim ends it.
async fn receive(
    mut socket: OwnedReadHalf,
    mut output: Option<DuplexStream>,
    mut errors: Option<DuplexStream>,
) {
    let mut head = [0; HEAD];
    let mut bytes = vec![0; usize::from(u16::MAX)];
    while socket.read_exact(&mut head).await.is_ok() {
        let bytes = &mut bytes[..usize::from(u16::from_be_bytes([head[1], head[2]]))];
        if socket.read_exact(bytes).await.is_err() {
            return;
        }
        let stream = match head[0] {
            OUTPUT => &mut output,
            ERRORS => &mut errors,
            _ => continue,
        };
        if let Some(open) = stream
            && open.write_all(bytes).await.is_err()
        {
            *stream = None;
        }
    }
}
