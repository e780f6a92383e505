//! Running containers, behind a trait shaped like CRI (`k8s.io/cri-api`), so that containerd fits behind it.
//!
//! * `streams`: commands and containers whose input and output somebody holds.
//! * [`native`]: the embedded OCI runtime: libcontainer in one shim process per container.

pub mod native;
mod streams;

pub use streams::{Connection, Input, Output, Resize, Session, SessionOptions, Streams, TerminalSize};

use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a pod sandbox (the namespaces its containers share) is made from.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// `metadata.namespace` of the pod.
    pub namespace: String,
    /// `metadata.name` of the pod.
    pub name: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// Grows with each sandbox made for the same pod.
    pub attempt: u32,
    /// Host name inside.
    pub hostname: String,
    /// Share the host's network namespace instead of an own one.
    pub host_network: bool,
    /// Share the host's IPC namespace.
    pub host_ipc: bool,
    /// Have a namespace of processes that containers can share ([`PidNamespace::Pod`]).
    #[serde(default)]
    pub share_processes: bool,
    /// `net.…` and other namespaced sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup of the pod below Sagong's own, e.g. `burstable/pod<uid>`.
    pub cgroup_parent: String,
    /// Directory of the containers' log files.
    pub log_directory: PathBuf,
    /// Kept with the sandbox and given back by `list` (the kubelet keeps the pod's address here).
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox that exists.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Opaque, unique.
    pub id: String,
    /// What it was made from.
    pub config: SandboxConfig,
    /// Whether its namespaces still exist.
    pub ready: bool,
    /// Path of the pinned network namespace; None on the host's network.
    pub network_namespace: Option<PathBuf>,
    /// When it was made.
    pub created: Timestamp,
}

/// A bind mount into a container.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub container_path: String,
    /// Path on the host.
    pub host_path: PathBuf,
    /// Whether the container may not write.
    pub read_only: bool,
    /// Whether it may not write to what is mounted below either (`recursiveReadOnly`).
    #[serde(default)]
    pub recursive_read_only: bool,
}

/// Limits of a container.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// CPU weight, in upstream's shares (1024 per CPU requested; at least 2).
    pub cpu_shares: Option<u64>,
    /// CPU time per `cpu_period`, in microseconds.
    pub cpu_quota: Option<i64>,
    /// In microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Processes and threads at once.
    #[serde(default)]
    pub pids_limit: Option<i64>,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Seccomp {
    /// All.
    #[default]
    Unconfined,
    /// Those that containerd and Docker allow by default.
    RuntimeDefault,
    /// Those of a profile: the text of an OCI `linux.seccomp` object.
    Profile(String),
}

/// Which processes a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PidNamespace {
    /// Its own only.
    #[default]
    Own,
    /// Those of all containers of its sandbox that say the same.
    Pod,
    /// All of the host.
    Host,
    /// Those of the container with this id.
    Of(String),
}

/// Who runs in the container and what it may do.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// User id; None: the image's user, or root.
    pub run_as_user: Option<i64>,
    /// Group id.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Leave out the groups that the image gives the user.
    #[serde(default)]
    pub only_given_groups: bool,
    /// All capabilities, devices and no masked paths.
    pub privileged: bool,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Capabilities on top of the default set, without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities removed from the default set; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// System calls; not asked of privileged containers.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Processes it sees.
    #[serde(default)]
    pub pid_namespace: PidNamespace,
}

/// What a container is made from.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// `spec.containers[].name`.
    pub name: String,
    /// Grows with each restart: the restart count.
    pub attempt: u32,
    /// The image's id (its config digest), as the image store knows it.
    pub image_id: String,
    /// Directory that is the root of the container's file system; already mounted, owned by the caller.
    pub root: PathBuf,
    /// Full argument vector; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, in order, last wins.
    pub env: Vec<String>,
    /// Working directory; created if missing.
    pub working_dir: String,
    /// User as the image gives it (`uid`, `uid:gid`, `name`), used when `security.run_as_user` is None.
    pub image_user: String,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// Identity and capabilities.
    pub security: Security,
    /// Whether stdin is kept open.
    pub stdin: bool,
    /// Whether stdin ends with the first session that is attached to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Whether to allocate a terminal.
    pub tty: bool,
    /// Log file, relative to the sandbox's `log_directory`; CRI format.
    pub log_path: PathBuf,
    /// Kept with the container and given back by `list` (container hash, pod generation).
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life. Never goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started: Timestamp,
        /// Process id on the host.
        pid: u32,
    },
    /// Its process is gone.
    Exited {
        /// When it had started; None if it never did.
        started: Option<Timestamp>,
        /// When it ended.
        finished: Timestamp,
        /// Exit code; 128 + signal when killed by one.
        exit_code: i32,
        /// The signal that ended it, or 0.
        signal: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
        reason: String,
        /// More, for people; empty if none.
        message: String,
    },
}

/// A container that exists.
#[derive(Clone, Debug)]
pub struct Container {
    /// Opaque, unique.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// What it was made from.
    pub config: ContainerConfig,
    /// Who its first process is; None if the runtime does not say.
    pub identity: Option<Identity>,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created: Timestamp,
}

/// Numbers of a user and its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// First group.
    pub gid: u32,
    /// All groups, the first one included, ascending, each once.
    pub groups: Vec<u32>,
}

/// Something happened to a container that was not asked for in a call, or that a call only began.
#[derive(Clone, Debug)]
pub struct ContainerEvent {
    /// The sandbox.
    pub sandbox_id: String,
    /// The container.
    pub container_id: String,
}

/// What a command run in a container gave.
#[derive(Clone, Debug)]
pub struct ExecOutput {
    /// Exit code; 128 + signal when killed by one.
    pub exit_code: i32,
    /// Standard output, cut at 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, cut at 16 MiB.
    pub stderr: Vec<u8>,
}

/// Where a runtime can fail.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No sandbox or container has this id.
    #[error("{0} not found")]
    NotFound(String),
    /// A step failed.
    #[error("{step} {object}: {message}")]
    Failed {
        /// What was being done, e.g. `creating sandbox`.
        step: &'static str,
        /// To what.
        object: String,
        /// Why, the whole chain of causes.
        message: String,
    },
    /// A command or a stop took longer than allowed.
    #[error("{step} {object}: timed out after {after:?}")]
    TimedOut {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// The time allowed.
        after: Duration,
    },
}

/// Pod sandboxes. Every call is idempotent.
#[async_trait]
pub trait Sandboxes: Send + Sync {
    /// Makes the namespaces (no containers yet, no network inside but loopback).
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError>;
    /// Changes the annotations kept with a sandbox.
    async fn annotate_sandbox(
        &self,
        id: &str,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), RuntimeError>;
    /// Kills what still runs in it and unpins its namespaces.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Stops it if need be and forgets it, with its containers.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// All sandboxes, those of earlier runs of Sagong included.
    async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError>;
}

/// Containers in sandboxes.
#[async_trait]
pub trait Containers: Send + Sync {
    /// Prepares a container; its process does not run yet.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError>;
    /// Starts its process; returns once it was executed.
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Sends a signal to its first process. No error if it is gone already.
    async fn signal_container(&self, id: &str, signal: i32) -> Result<(), RuntimeError>;
    /// Forgets a container, killing it if need be. Leaves its log file.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// All containers, those of earlier runs of Sagong included.
    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError>;
    /// Runs a command in a running container and waits for it; killed at the timeout.
    async fn exec(&self, id: &str, command: &[String], timeout: Duration)
    -> Result<ExecOutput, RuntimeError>;
}

/// A container runtime.
pub trait Runtime: Sandboxes + Containers + Streams {
    /// Every start and exit of a container from now on. A receiver that lags is told so and must list.
    fn events(&self) -> tokio::sync::broadcast::Receiver<ContainerEvent>;
    /// `sagong://VERSION`, as `status.nodeInfo.containerRuntimeVersion` shows it.
    fn version(&self) -> String;
}
