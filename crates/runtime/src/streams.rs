//! Sessions: commands and containers whose input and output somebody holds, and connections into a pod.

use crate::RuntimeError;
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a session's program reads. Dropping it ends the program's input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// What a session's program writes. Ends when nobody can write any more.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;
/// Changes the size of a session's terminal.
pub type Resize = Arc<dyn Fn(TerminalSize) + Send + Sync>;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Which streams of a program are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionOptions {
    /// Its input; without, it reads nothing.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// Its errors. With a terminal they are part of the output.
    pub stderr: bool,
    /// Give a command a terminal. A container that is attached to has one or not, whatever is said here.
    pub tty: bool,
}

/// A program whose streams somebody holds. Dropping all of it kills a command at once, and leaves a container alone.
pub struct Session {
    /// None if it was not asked for, or the container has none.
    pub stdin: Option<Input>,
    /// None if it was not asked for; a command's terminal is there in any case, and has to be read.
    pub stdout: Option<Output>,
    /// None if it was not asked for, or is part of the output.
    pub stderr: Option<Output>,
    /// None without a terminal.
    pub resize: Option<Resize>,
    /// The command's exit code, 128 + signal when killed by one; 0 at the end of being attached. Does not wait for
    /// the output to be read.
    pub end: BoxFuture<'static, Result<i32, RuntimeError>>,
}

/// A connection to a port inside of a pod. Shutting it down ends what the pod reads, not what it writes.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Sessions with what runs (`Exec`, `Attach` and `PortForward` of CRI).
#[async_trait]
pub trait Streams: Send + Sync {
    /// Runs a command in a running container. Returns once it was executed.
    async fn exec_session(
        &self,
        id: &str,
        command: &[String],
        options: SessionOptions,
    ) -> Result<Session, RuntimeError>;
    /// Takes part in the streams of a running container's own program, from now on. Input needs a container made
    /// with `stdin`.
    async fn attach(&self, id: &str, options: SessionOptions) -> Result<Session, RuntimeError>;
    /// Connects to a port on the loopback address inside of a sandbox.
    async fn connect(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Connection>, RuntimeError>;
}
