//! Running a command in a container and collecting what it writes.

use super::shim::{ExecReply, ExecRequest};
use super::{NativeRuntime, failed, lock};
use crate::{ContainerConfig, ContainerState, ExecOutput, RuntimeError};
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// What is kept of each stream.
const MOST: usize = 16 << 20;
/// What getting into the container and out again may take beside the command.
pub(super) const OVERHEAD: Duration = Duration::from_secs(30);

impl NativeRuntime {
    pub(super) async fn run_command(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        const STEP: &str = "executing a command in container";
        let name = self.running(id, STEP)?.name;
        let request = ExecRequest {
            id: id.to_owned(),
            command: command.to_vec(),
            timeout: Some(timeout),
            session: None,
        };
        let attempt = tokio::time::timeout(timeout.saturating_add(OVERHEAD), self.attempt(&request)).await;
        let timed_out = || RuntimeError::TimedOut { step: STEP, object: name.clone(), after: timeout };
        let (reply, stdout, stderr) = attempt.map_err(|_| timed_out())?.map_err(failed(STEP, &name))?;
        match reply {
            ExecReply { error: Some(message), .. } => Err(failed(STEP, &name)(message)),
            ExecReply { timed_out: true, .. } => Err(timed_out()),
            ExecReply { exit_code, .. } => Ok(ExecOutput { exit_code, stdout, stderr }),
        }
    }

    /// The configuration of a container that runs.
    pub(super) fn running(&self, id: &str, step: &'static str) -> Result<ContainerConfig, RuntimeError> {
        let containers = lock(&self.inner.containers);
        let entry = containers.get(id).ok_or_else(|| RuntimeError::NotFound(format!("container {id}")))?;
        let config = &entry.container.config;
        match entry.container.state {
            ContainerState::Running { .. } => Ok(config.clone()),
            _ => Err(failed(step, &config.name)("it is not running")),
        }
    }

    async fn attempt(&self, request: &ExecRequest) -> io::Result<(ExecReply, Vec<u8>, Vec<u8>)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(ours)?;
        let (stdout, inner_stdout) = std::io::pipe()?;
        let (stderr, inner_stderr) = std::io::pipe()?;
        let mut child = tokio::process::Command::new(&self.inner.options.shim.program)
            .args(&self.inner.options.shim.arguments)
            .arg("exec")
            .arg(self.inner.layout.container(&request.id))
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(inner_stdout)
            .stderr(inner_stderr)
            // With it goes the command: it dies with its shim.
            .kill_on_drop(true)
            .spawn()?;
        socket.write_all(&serde_json::to_vec(request).map_err(io::Error::other)?).await?;
        socket.shutdown().await?;
        let (mut stdout, mut stderr) = (Output::new(stdout.into())?, Output::new(stderr.into())?);
        let ended = async {
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await?;
            child.wait().await?;
            io::Result::Ok(answer)
        };
        tokio::pin!(ended);
        // The command may leave processes behind that hold its streams open: its end counts, not theirs.
        let answer = loop {
            tokio::select! {
                answer = &mut ended => break answer?,
                _ = stdout.pipe.readable(), if !stdout.ended => stdout.take(),
                _ = stderr.pipe.readable(), if !stderr.ended => stderr.take(),
            }
        };
        stdout.take();
        stderr.take();
        let reply =
            serde_json::from_slice(&answer).map_err(|_| io::Error::other("the shim did not answer"))?;
        Ok((reply, stdout.bytes, stderr.bytes))
    }
}

struct Output {
    pipe: pipe::Receiver,
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: pipe::Receiver::from_owned_fd(pipe)?, bytes: Vec::new(), ended: false })
    }

    /// Takes what there is to read, keeping no more than the most.
    fn take(&mut self) {
        let mut buffer = [0; 8192];
        loop {
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    let room = MOST - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..length.min(room)]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.ended = true,
            }
            break;
        }
    }
}
