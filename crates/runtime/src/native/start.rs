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

/// How long a shim that has taken a container may take to say who it is: it does so next, but machines stall.
const NAMING: Duration = Duration::from_secs(10);

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
        // An earlier Sagong may have ended while it was starting this one.
        let mut taken = false;
        if self.inner.shim_of(id).is_none() {
            let (inner, id_, name_) = (self.inner.clone(), id.to_owned(), name.clone());
            let (shim, reply) =
                blocking(move || inner.launch(&id_).map_err(failed("starting container", &name_))).await?;
            self.watch(id.to_owned(), shim);
            taken = reply.taken;
            if let Some(message) = reply.error.filter(|_| !taken) {
                self.inner.settle(id);
                return Err(failed("starting container", &name)(message));
            }
        }
        match self.started(id, taken).await {
            Some(ContainerState::Exited { started: None, message, .. }) => {
                self.inner.settle(id);
                Err(failed("starting container", &name)(message))
            }
            Some(state) => {
                self.set_state(id, state);
                self.announce(id);
                Ok(())
            }
            None => Err(failed("starting container", &name)("its shim ended without a word")),
        }
    }

    /// What became of a start: at once if its shim answered, else when there are records of it. The state cannot be
    /// told from the answer: a short container may have ended since. `taken`: the shim of an earlier Sagong has the
    /// container, and may not have said yet who it is.
    async fn started(&self, id: &str, taken: bool) -> Option<ContainerState> {
        let directory = self.inner.layout.container(id);
        let now = tokio::time::Instant::now();
        let (deadline, named_by) = (now + STARTING, now + if taken { NAMING } else { Duration::ZERO });
        loop {
            // Asked before the records are read: they are complete when the shim is gone.
            let shim = self.inner.shim_of(id);
            if let Some(state) = observed(&directory) {
                if let Some(shim) = shim {
                    self.watch(id.to_owned(), shim);
                }
                return Some(state);
            }
            let now = tokio::time::Instant::now();
            if shim.is_none() && now >= named_by || now > deadline {
                return None;
            }
            // Only when another Sagong's shim is at work, for milliseconds; it tells nobody.
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

/// The process, if it lives.
pub(super) fn living(shim: &ShimRecord) -> Option<OwnedFd> {
    let handle = shim.process.open().ok().flatten()?;
    (!process::wait_ended(&handle, Duration::ZERO)).then_some(handle)
}

impl Inner {
    /// The container's shim, if it lives.
    pub(super) fn shim_of(&self, id: &str) -> Option<OwnedFd> {
        living(&ShimRecord::load(&self.layout.container(id)).ok().flatten()?)
    }

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
            let message = format!("the shim did not answer: {error} {}", notes.trim());
            StartReply { error: Some(message), taken: false }
        });
        Ok((shim, reply))
    }
}
