//! Starting a container: a shim, and its answer.

use super::shim::{NOTES, StartReply};
use super::state::{Record, ShimRecord};
use super::watch::observed;
use super::{Inner, NativeRuntime, blocking, failed, lock, process};
use crate::{ContainerEvent, ContainerState, RuntimeError};
use rustix::fd::OwnedFd;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a shim may take to start a container; far beyond what a loaded machine needs.
const STARTING: Duration = Duration::from_secs(120);

impl NativeRuntime {
    pub(super) async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let not_found = || RuntimeError::NotFound(format!("container {id}"));
        let turn = self.turn(id).ok_or_else(not_found)?;
        let _turn = turn.lock().await;
        let (name, state) = {
            let containers = lock(&self.inner.containers);
            let container = &containers.get(id).ok_or_else(not_found)?.container;
            (container.config.name.clone(), container.state.clone())
        };
        match state {
            ContainerState::Created => {}
            ContainerState::Running { .. } => return Ok(()),
            ContainerState::Exited { .. } => {
                return Err(failed("starting container", &name)("it has ended already"));
            }
        }
        if let Some(state) = self.started_before(id).await {
            self.set_state(id, state);
            self.announce(id);
            return Ok(());
        }
        let (inner, id_, name_) = (self.inner.clone(), id.to_owned(), name.clone());
        let (shim, reply) =
            blocking(move || inner.launch(&id_).map_err(failed("starting container", &name_))).await?;
        // The records tell more than the reply: a short container may have ended by now.
        let state = observed(&self.inner.layout.container(id));
        if let Some(state) = state {
            self.set_state(id, state);
        }
        self.watch(id.to_owned(), shim);
        match reply.error {
            Some(message) => Err(failed("starting container", &name)(message)),
            None => {
                self.announce(id);
                Ok(())
            }
        }
    }

    /// The state of a container that an earlier Sagong was starting when it ended.
    async fn started_before(&self, id: &str) -> Option<ContainerState> {
        let directory = self.inner.layout.container(id);
        let shim = ShimRecord::load(&directory).ok().flatten()?;
        loop {
            let alive = shim.process.open().is_ok_and(|handle| handle.is_some());
            match observed(&directory) {
                None if alive => {}
                state => return state,
            }
            // Takes milliseconds, and hardly ever happens.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn announce(&self, id: &str) {
        let sandbox_id = lock(&self.inner.containers).get(id).map(|entry| entry.container.sandbox_id.clone());
        if let Some(sandbox_id) = sandbox_id {
            let _ = self.inner.events.send(ContainerEvent { sandbox_id, container_id: id.to_owned() });
        }
    }
}

impl Inner {
    /// The shim's process, and what it said.
    fn launch(&self, id: &str) -> io::Result<(OwnedFd, StartReply)> {
        let directory = self.layout.container(id);
        let notes = OpenOptions::new().append(true).create(true).open(directory.join(NOTES))?;
        let (mut ours, theirs) = UnixStream::pair()?;
        // No zombie remains: whoever watches the process takes its status.
        let child = Command::new(&self.options.shim.program)
            .args(&self.options.shim.arguments)
            .arg("run")
            .arg(&directory)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(notes.try_clone()?)
            .stderr(notes)
            .spawn()?;
        let shim = process::open(child.id())?.ok_or_else(|| io::Error::other("the shim is gone"))?;
        ours.set_read_timeout(Some(STARTING))?;
        let mut bytes = Vec::new();
        let read = ours.read_to_end(&mut bytes);
        let reply = read.and_then(|_| serde_json::from_slice(&bytes).map_err(io::Error::other));
        let reply = reply.unwrap_or_else(|error| {
            let _ = process::signal(&shim, rustix::process::Signal::KILL.as_raw());
            process::wait_ended(&shim, STARTING);
            let notes = std::fs::read_to_string(directory.join(NOTES)).unwrap_or_default();
            StartReply { error: Some(format!("the shim did not answer: {error} {}", notes.trim())) }
        });
        Ok((shim, reply))
    }
}
