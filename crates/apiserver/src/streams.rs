//! Streams of pods: `exec`, `attach` and `portforward`, over WebSocket and over SPDY/3.1, handed to whoever runs the
//! pods.
//!
//! * `options`: what is asked for; `upgrade`: in which protocol.
//! * `remote_command`: a session between a client and a program, whatever the protocol; `status`: how it ended.
//! * `websocket`: RFC 6455; `channels`: the messages of `channel.k8s.io`; `exec_channels` and `forward_channels`:
//!   sessions and ports in such messages.
//! * `spdy`: frames and streams; `exec_spdy` and `forward_spdy`: sessions and ports in such streams. `tunnel`: SPDY
//!   within a WebSocket (KEP-4006).
//! * `idle`: when nobody says anything for hours; `patience`: when nobody takes what is said.

mod channels;
mod exec_channels;
mod exec_spdy;
mod forward_channels;
mod forward_spdy;
mod idle;
mod options;
mod patience;
mod remote_command;
mod serve;
mod spdy;
mod status;
mod tunnel;
mod upgrade;
mod websocket;

pub(crate) use serve::{answer, is_stream};

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a session's program reads. Dropping it ends the program's input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// What a session's program writes.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;
/// Changes the size of a session's terminal.
pub type Resize = Arc<dyn Fn(TerminalSize) + Send + Sync>;

/// The size of a terminal, in characters, as clients send it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Characters in a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// Which streams a client wants (`PodExecOptions`, `PodAttachOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The program's input.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// Its errors; never together with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// A program whose streams are held. Dropping it ends a command, and leaves a container alone.
pub struct Session {
    /// None if it was not asked for, or the container has none.
    pub stdin: Option<Input>,
    /// None if it was not asked for; a command's terminal is there in any case, and has to be read.
    pub stdout: Option<Output>,
    /// None if it was not asked for.
    pub stderr: Option<Output>,
    /// None without a terminal.
    pub resize: Option<Resize>,
    /// The exit code of a command; 0 for a container.
    pub end: BoxFuture<'static, Result<i32, StreamError>>,
}

/// A connection to a port inside of a pod.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no stream, worded as upstream's kubelet words it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(pub String);

/// Where the pods run: the kubelet in the same process, or one that is asked over the network. The pods given are
/// bound to a node.
#[async_trait]
pub trait StreamSource: Send + Sync {
    /// Whether a container runs.
    async fn runs(&self, pod: &Pod, container: &str) -> Result<bool, StreamError>;
    /// Runs a command in a container.
    async fn exec(
        &self,
        pod: &Pod,
        container: &str,
        command: &[String],
        options: StreamOptions,
    ) -> Result<Session, StreamError>;
    /// Takes part in the streams of a container's own program.
    async fn attach(
        &self,
        pod: &Pod,
        container: &str,
        options: StreamOptions,
    ) -> Result<Session, StreamError>;
    /// Fails with `pod not found ("kubia_default")` when the pod does not run.
    async fn find_pod(&self, pod: &Pod) -> Result<(), StreamError>;
    /// Connects to a port on the loopback address inside of a pod.
    async fn connect(&self, pod: &Pod, port: u16) -> Result<Box<dyn Connection>, StreamError>;
}
