//! The embedded runtime: libcontainer in one small process (the shim) per container.
//!
//! Everything known is on disk and every container has a process of its own beside it, so that Sagong may be stopped,
//! killed or replaced at any time: the next one adopts what runs. Ends of containers are noticed as ends of shims,
//! through file descriptors of these processes; nothing is polled.

mod attach;
mod cgroup;
mod connect;
mod containers;
mod destroy;
mod exec;
mod fit;
mod holder;
mod process;
mod program;
mod sandbox;
mod sandboxes;
mod session;
mod shim;
mod spec;
mod start;
mod state;
mod terminal;
#[cfg(test)]
mod testing;
mod watch;

pub use destroy::destroy_all;
pub use fit::{check_cgroups, missing_limits};
pub use shim::shim_main;

use crate::{
    Connection, Container, ContainerConfig, ContainerEvent, Containers, ExecOutput, Runtime, RuntimeError,
    Sandbox, SandboxConfig, Sandboxes, Session, SessionOptions, Streams,
};
use async_trait::async_trait;
use cgroup::Cgroups;
use state::{Layout, SandboxRecord};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::broadcast;

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Six lowercase hex digits naming this cluster among those of the machine; cgroups are named after it.
    pub instance: String,
    /// Directory of records; survives a reboot. Made if missing.
    pub root: PathBuf,
    /// Directory of pinned namespaces, best on a file system that does not survive a reboot
    /// (`/run/sagong-<instance>`). Made if missing.
    pub run: PathBuf,
    /// How to start a shim.
    pub shim: ShimCommand,
}

/// The command that ends up in [`shim_main`], which gets what is appended to `arguments`.
#[derive(Clone, Debug)]
pub struct ShimCommand {
    /// Path of the executable.
    pub program: PathBuf,
    /// Arguments before the shim's own.
    pub arguments: Vec<String>,
}

impl ShimCommand {
    /// The running binary with a hidden command, also after its file was replaced.
    pub fn own(command: &str) -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), arguments: vec![command.to_owned()] }
    }
}

/// The embedded runtime. Clones share everything.
#[derive(Clone)]
pub struct NativeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    layout: Layout,
    cgroups: Cgroups,
    sandboxes: Mutex<HashMap<String, SandboxRecord>>,
    containers: Mutex<HashMap<String, Entry>>,
    events: broadcast::Sender<ContainerEvent>,
}

/// A container, and whose turn it is to change it.
struct Entry {
    container: Container,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl NativeRuntime {
    /// Opens the runtime, adopting the sandboxes and containers of earlier runs. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When directories cannot be made or read. A sandbox without a readable record is removed, a container with
    /// an unreadable one left alone, each with a warning.
    pub fn open(options: Options) -> Result<Self, RuntimeError> {
        let layout = Layout { root: options.root.clone(), run: options.run.clone() };
        for directory in [layout.sandboxes(), layout.containers(), layout.run.join("ns")] {
            state::make_private(&directory)
                .map_err(failed("making directory", &directory.display().to_string()))?;
        }
        let mut options = options;
        match program::guard(&options.shim.program, &options.run) {
            Ok(guarded) => options.shim.program = guarded,
            // Containers still run; what they could do is only possible while no Sagong does.
            Err(error) => {
                tracing::warn!(%error, "the program of the shims is not guarded against containers")
            }
        }
        layout.install_keeper().map_err(failed("writing", &layout.keeper().display().to_string()))?;
        let cgroups = Cgroups::detect().map_err(failed("reading", "/proc/self/mountinfo"))?;
        cgroups.arrange().map_err(failed("passing controllers on in", "the root cgroup"))?;
        let runtime = Self {
            inner: Arc::new(Inner {
                options,
                layout,
                cgroups,
                sandboxes: Mutex::default(),
                containers: Mutex::default(),
                // Receivers that lag list instead; this is enough for hundreds of containers at once.
                events: broadcast::channel(1024).0,
            }),
        };
        runtime.adopt_sandboxes()?;
        runtime.adopt_containers()?;
        Ok(runtime)
    }

    /// Ends every container and shim of this instance, and removes all that is kept of it: namespaces, cgroups,
    /// records. Log files stay.
    ///
    /// # Errors
    /// Says what remains; can be repeated.
    pub async fn purge(&self) -> Result<(), RuntimeError> {
        let Options { instance, root, run, .. } = self.inner.options.clone();
        blocking(move || destroy_all(&instance, &root, &run)).await?;
        lock(&self.inner.containers).clear();
        lock(&self.inner.sandboxes).clear();
        Ok(())
    }
}

#[async_trait]
impl Sandboxes for NativeRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError> {
        self.make_sandbox(config).await
    }

    async fn annotate_sandbox(
        &self,
        id: &str,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        self.annotate(id, annotations).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.end_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.forget_sandbox(id).await
    }

    async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.sandboxes())
    }
}

#[async_trait]
impl Containers for NativeRuntime {
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError> {
        self.make_container(sandbox_id, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.start(id).await
    }

    async fn signal_container(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        self.signal(id, signal).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.forget_container(id).await
    }

    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError> {
        Ok(lock(&self.inner.containers).values().map(|entry| entry.container.clone()).collect())
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.run_command(id, command, timeout).await
    }
}

#[async_trait]
impl Streams for NativeRuntime {
    async fn exec_session(
        &self,
        id: &str,
        command: &[String],
        options: SessionOptions,
    ) -> Result<Session, RuntimeError> {
        self.begin_command(id, command, options).await
    }

    async fn attach(&self, id: &str, options: SessionOptions) -> Result<Session, RuntimeError> {
        self.take_part(id, options).await
    }

    async fn connect(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Connection>, RuntimeError> {
        self.connect_inside(sandbox_id, port).await
    }
}

impl Runtime for NativeRuntime {
    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }

    fn version(&self) -> String {
        format!("sagong://{}", env!("CARGO_PKG_VERSION"))
    }
}

/// Cgroup below which all of an instance's are.
fn cgroup_root(instance: &str) -> String {
    format!("sagong-{instance}")
}

/// A panic while a map is locked leaves no half-made change behind, so that the lock is good for others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs what would block the thread for a while.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(failed("running", "a step of the runtime")(error)),
    }
}

/// Names the step and the object that an error belongs to.
fn failed<E: std::fmt::Display>(step: &'static str, object: &str) -> impl FnOnce(E) -> RuntimeError {
    let object = object.to_owned();
    move |error| RuntimeError::Failed { step, object, message: error.to_string() }
}

/// 64 hex digits, as users of other runtimes expect.
fn new_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
