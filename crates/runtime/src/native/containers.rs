//! Containers: made, signalled, ended, forgotten.

use super::process;
use super::sandbox::Pins;
use super::spec::{self, Inputs, Machine};
use super::state::{self, ContainerRecord, LaunchRecord, Record, ShimRecord, StartRecord};
use super::watch::observed;
use super::{Entry, Inner, NativeRuntime, blocking, cgroup_root, failed, lock, new_id};
use crate::{
    Container, ContainerConfig, ContainerState, Identity, PidNamespace, RuntimeError, SandboxConfig,
};
use jiff::Timestamp;
use rustix::process::Signal;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the kernel may take to end processes that were killed.
const KILLING: Duration = Duration::from_secs(10);

impl NativeRuntime {
    pub(super) fn adopt_containers(&self) -> Result<(), RuntimeError> {
        let directory = self.inner.layout.containers();
        let names =
            state::children(&directory).map_err(failed("listing", &directory.display().to_string()))?;
        for id in names {
            match ContainerRecord::load(&directory.join(&id)) {
                Ok(Some(record)) => self.adopt(id, record)?,
                Ok(None) => {
                    // Sagong ended while it was making this one; nothing was started.
                    let _ = sagong_image::remove_tree(&directory.join(&id));
                }
                Err(error) => {
                    tracing::warn!(container = id, %error, "ignoring a container whose record is unreadable")
                }
            }
        }
        Ok(())
    }

    fn adopt(&self, id: String, record: ContainerRecord) -> Result<(), RuntimeError> {
        let directory = self.inner.layout.container(&id);
        let shim = ShimRecord::load(&directory).ok().flatten();
        self.insert(&id, record);
        let Some(shim) = shim else { return Ok(()) };
        match shim.process.open().map_err(failed("opening the shim of container", &id))? {
            Some(handle) => {
                if let Some(state) = observed(&directory) {
                    self.set_state(&id, state);
                }
                self.watch(id, handle);
            }
            None => self.inner.settle(&id),
        }
        Ok(())
    }

    fn insert(&self, id: &str, record: ContainerRecord) -> Container {
        let container = Container {
            id: id.to_owned(),
            sandbox_id: record.sandbox_id,
            config: record.config,
            identity: record.identity,
            state: ContainerState::Created,
            created: record.created,
        };
        let entry = Entry { container: container.clone(), turn: Arc::default() };
        lock(&self.inner.containers).insert(id.to_owned(), entry);
        container
    }

    pub(super) async fn make_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError> {
        let sandbox = lock(&self.inner.sandboxes).get(sandbox_id).map(|record| record.config.clone());
        let sandbox = sandbox.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {sandbox_id}")))?;
        if let Some(container) = self.same_container(sandbox_id, &config) {
            return Ok(container);
        }
        let id = new_id();
        let (inner, id_, sandbox_id) = (self.inner.clone(), id.clone(), sandbox_id.to_owned());
        let record = blocking(move || {
            let directory = inner.layout.container(&id_);
            let identity = spec::identity_of(&config).map_err(failed("creating container", &config.name))?;
            let who = Some(identity.clone());
            let record = ContainerRecord { sandbox_id, config, identity: who, created: Timestamp::now() };
            inner.prepare(&id_, &directory, &sandbox, &record, identity).map_err(|error| {
                let _ = sagong_image::remove_tree(&directory);
                failed("creating container", &record.config.name)(error)
            })?;
            Ok(record)
        })
        .await?;
        Ok(self.insert(&id, record))
    }

    /// The container that an earlier, equal call made.
    fn same_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Option<Container> {
        let containers = lock(&self.inner.containers);
        let same = |container: &&Container| {
            container.sandbox_id == sandbox_id
                && container.config.name == config.name
                && container.config.attempt == config.attempt
        };
        containers.values().map(|entry| &entry.container).find(same).cloned()
    }

    pub(super) async fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        if !lock(&inner.containers).contains_key(&id) {
            return Err(RuntimeError::NotFound(format!("container {id}")));
        }
        blocking(move || inner.signal(&id, signal).map_err(failed("signalling container", &id))).await
    }

    /// Kills a container and waits for its end; nothing if it has ended.
    pub(super) async fn end_container(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(turn) = self.turn(id) else { return Ok(()) };
        let _turn = turn.lock().await;
        self.end(id).await
    }

    /// To be called by whoever has the turn.
    async fn end(&self, id: &str) -> Result<(), RuntimeError> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        blocking(move || {
            inner.kill(&id).map_err(failed("killing container", &id))?;
            inner.settle(&id);
            Ok(())
        })
        .await
    }

    pub(super) async fn forget_container(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(turn) = self.turn(id) else { return Ok(()) };
        let _turn = turn.lock().await;
        self.end(id).await?;
        let (inner, id_) = (self.inner.clone(), id.to_owned());
        blocking(move || {
            let cgroup = inner.cgroup_of(&id_);
            let removed = cgroup.map_or(Ok(()), |cgroup| inner.cgroups.remove(&cgroup, KILLING));
            removed
                .and_then(|()| sagong_image::remove_tree(&inner.layout.container(&id_)))
                .map_err(failed("removing container", &id_))
        })
        .await?;
        lock(&self.inner.containers).remove(id);
        Ok(())
    }

    pub(super) fn turn(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        lock(&self.inner.containers).get(id).map(|entry| entry.turn.clone())
    }

    pub(super) fn set_state(&self, id: &str, state: ContainerState) {
        if let Some(entry) = lock(&self.inner.containers).get_mut(id) {
            entry.container.state = state;
        }
    }
}

impl Inner {
    /// Writes all the shim needs.
    fn prepare(
        &self,
        id: &str,
        directory: &Path,
        sandbox: &SandboxConfig,
        record: &ContainerRecord,
        identity: Identity,
    ) -> io::Result<()> {
        let config = &record.config;
        check(config)?;
        let pins = Pins::of(&self.layout.pins(&record.sandbox_id), sandbox);
        if !pins.exist() {
            return Err(io::Error::other("its sandbox is not ready"));
        }
        let root = cgroup_root(&self.options.instance);
        let parent = sandbox.cgroup_parent.trim_matches('/');
        let cgroup =
            [root.as_str(), parent, id].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let cgroup = cgroup.join("/");
        spec::make_working_directory(config)?;
        let uid = identity.uid;
        let processes = self.processes(config, &pins)?;
        let inputs = Inputs {
            container: config,
            pins: &pins,
            processes: processes.as_deref(),
            identity,
            cgroup: &cgroup,
            machine: Machine {
                unified: self.cgroups.is_unified(),
                hierarchies: &self.cgroups.hierarchies,
                cpu: self.cgroups.has_controller("cpu"),
                memory: self.cgroups.has_controller("memory"),
                pids: self.cgroups.has_controller("pids"),
                swap: self.cgroups.accounts_swap(),
                bounding: spec::bounding_set(),
                devices: if config.security.privileged { spec::host_devices() } else { Vec::new() },
            },
        };
        let spec = spec::plan(&inputs)?;
        state::make_private(&directory.join("oci"))?;
        std::fs::write(directory.join("config.json"), serde_json::to_vec(&spec).map_err(io::Error::other)?)?;
        let launch = LaunchRecord {
            id: id.to_owned(),
            instance: self.options.instance.clone(),
            cgroup,
            log: sandbox.log_directory.join(&config.log_path),
            oom_score_adj: config.resources.oom_score_adj,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            tty: config.tty,
            uid,
            keeper: self.layout.keeper(),
        };
        launch.save(directory)?;
        // Last: a container without this record was never made.
        record.save(directory)
    }

    /// The namespace of the processes a container is to see, if it is one that exists already.
    fn processes(&self, config: &ContainerConfig, pins: &Pins) -> io::Result<Option<PathBuf>> {
        let other = match &config.security.pid_namespace {
            PidNamespace::Of(other) => other,
            PidNamespace::Pod => return Ok(pins.processes.clone()),
            PidNamespace::Own | PidNamespace::Host => return Ok(None),
        };
        let started = StartRecord::load(&self.layout.container(other))?;
        let gone = || io::Error::other("the container whose processes it is to see does not run");
        let started = started.ok_or_else(gone)?;
        started.process.open()?.ok_or_else(gone)?;
        Ok(Some(PathBuf::from(format!("/proc/{}/ns/pid", started.process.pid))))
    }

    fn signal(&self, id: &str, signal: i32) -> io::Result<()> {
        let started = StartRecord::load(&self.layout.container(id))?;
        let handle = started.map(|started| started.process.open()).transpose()?.flatten();
        handle.map_or(Ok(()), |handle| process::signal(handle, signal))
    }

    /// Kills the process of a container, what else is in its cgroup, and, should it not notice, the shim.
    fn kill(&self, id: &str) -> io::Result<()> {
        self.signal(id, Signal::KILL.as_raw())?;
        if let Some(cgroup) = self.cgroup_of(id)
            && !self.cgroups.kill(&cgroup, KILLING)
        {
            return Err(io::Error::other(format!("processes remain in the cgroup {cgroup} after a kill")));
        }
        let Some(shim) = ShimRecord::load(&self.layout.container(id))? else { return Ok(()) };
        let Some(shim) = shim.process.open()? else { return Ok(()) };
        if !process::wait_ended(&shim, KILLING) {
            process::signal(&shim, Signal::KILL.as_raw())?;
            process::wait_ended(&shim, KILLING);
        }
        Ok(())
    }

    pub(super) fn cgroup_of(&self, id: &str) -> Option<String> {
        LaunchRecord::load(&self.layout.container(id)).ok().flatten().map(|launch| launch.cgroup)
    }
}

/// What the program's start would stumble over less clearly.
fn check(config: &ContainerConfig) -> io::Result<()> {
    if config.args.is_empty() {
        return Err(io::Error::other("no command specified"));
    }
    for mount in &config.mounts {
        if let Err(error) = mount.host_path.metadata() {
            return Err(io::Error::other(format!("mounting {}: {error}", mount.host_path.display())));
        }
        if !mount.container_path.starts_with('/') {
            return Err(io::Error::other(format!(
                "mounting at {:?}: not an absolute path",
                mount.container_path
            )));
        }
    }
    if config.args.iter().chain(&config.env).any(|text| text.contains('\0')) {
        return Err(io::Error::other("an argument or variable holds a zero byte"));
    }
    Ok(())
}
