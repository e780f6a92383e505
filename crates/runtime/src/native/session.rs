//! Running a command in a container while somebody holds its streams.

use super::exec::OVERHEAD;
use super::shim::{ExecReply, ExecRequest, STARTED};
use super::terminal::Terminal;
use super::{NativeRuntime, failed};
use crate::{RuntimeError, Session, SessionOptions};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;

const STEP: &str = "executing a command in container";

impl NativeRuntime {
    pub(super) async fn begin_command(
        &self,
        id: &str,
        command: &[String],
        mut options: SessionOptions,
    ) -> Result<Session, RuntimeError> {
        let name = self.running(id, STEP)?.name;
        options.stderr &= !options.tty;
        let request = ExecRequest {
            id: id.to_owned(),
            command: command.to_vec(),
            timeout: None,
            session: Some(options),
        };
        let begun = tokio::time::timeout(OVERHEAD, self.begin(&request)).await;
        let timed_out = || RuntimeError::TimedOut { step: STEP, object: name.clone(), after: OVERHEAD };
        let (shim, streams) = begun.map_err(|_| timed_out())?.map_err(failed(STEP, &name))?;
        let mut session = match options.tty {
            true => with_terminal(streams, options),
            false => with_pipes(streams, options),
        }
        .map_err(failed(STEP, &name))?;
        session.end = Box::pin(async move {
            let reply = shim.ended().await.map_err(failed(STEP, &name))?;
            match reply.error {
                Some(message) => Err(failed(STEP, &name)(message)),
                None => Ok(reply.exit_code),
            }
        });
        Ok(session)
    }

    /// The shim, and the outer ends of the command's streams.
    async fn begin(&self, request: &ExecRequest) -> io::Result<(Shim, Vec<OwnedFd>)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(ours)?;
        let child = tokio::process::Command::new(&self.inner.options.shim.program)
            .args(&self.inner.options.shim.arguments)
            .arg("exec")
            .arg(self.inner.layout.container(&request.id))
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // With it goes the command: it dies with its shim.
            .kill_on_drop(true)
            .spawn()?;
        socket.write_all(&serde_json::to_vec(request).map_err(io::Error::other)?).await?;
        socket.shutdown().await?;
        let (first, streams) = socket.async_io(Interest::READABLE, || receive(&socket)).await?;
        let shim = Shim { socket, child };
        match first {
            Some(STARTED) => Ok((shim, streams)),
            Some(first) => {
                let reply = shim.rest(vec![first]).await?;
                let unknown = || "the shim did not start it".to_owned();
                Err(io::Error::other(reply.error.unwrap_or_else(unknown)))
            }
            None => Err(io::Error::other("the shim did not answer")),
        }
    }
}

/// The process beside the command.
struct Shim {
    socket: UnixStream,
    child: Child,
}

impl Shim {
    async fn ended(self) -> io::Result<ExecReply> {
        self.rest(Vec::new()).await
    }

    async fn rest(mut self, mut answer: Vec<u8>) -> io::Result<ExecReply> {
        self.socket.read_to_end(&mut answer).await?;
        self.child.wait().await?;
        serde_json::from_slice(&answer).map_err(|_| io::Error::other("the shim did not answer"))
    }
}

/// The first byte of the answer, and the descriptors that came with it.
fn receive(socket: &UnixStream) -> io::Result<(Option<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let received =
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut messages, RecvFlags::CMSG_CLOEXEC)?;
    let mut streams = Vec::new();
    for message in messages.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors);
        }
    }
    Ok(((received.bytes > 0).then_some(byte[0]), streams))
}

fn unfinished() -> Session {
    let end = Box::pin(async { Ok(0) });
    Session { stdin: None, stdout: None, stderr: None, resize: None, end }
}

fn with_terminal(streams: Vec<OwnedFd>, options: SessionOptions) -> io::Result<Session> {
    let terminal = streams.into_iter().next().ok_or_else(|| io::Error::other("no terminal was sent"))?;
    let terminal = Terminal::new(terminal)?;
    Ok(Session {
        stdin: options.stdin.then(|| Box::pin(terminal.clone()) as _),
        resize: Some(terminal.resize()),
        // Read in any case: its programs wait for a reader.
        stdout: Some(Box::pin(terminal)),
        ..unfinished()
    })
}

fn with_pipes(streams: Vec<OwnedFd>, options: SessionOptions) -> io::Result<Session> {
    let mut streams = streams.into_iter();
    let mut session = unfinished();
    let mut next = || streams.next().ok_or_else(|| io::Error::other("a stream was not sent"));
    if options.stdin {
        session.stdin = Some(Box::pin(pipe::Sender::from_owned_fd(next()?)?));
    }
    if options.stdout {
        session.stdout = Some(Box::pin(pipe::Receiver::from_owned_fd(next()?)?));
    }
    if options.stderr {
        session.stderr = Some(Box::pin(pipe::Receiver::from_owned_fd(next()?)?));
    }
    Ok(session)
}
