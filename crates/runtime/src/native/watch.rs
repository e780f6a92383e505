//! Noticing the end of containers.

use super::process;
use super::start::living;
use super::state::{ContainerRecord, ExitRecord, Record, ShimRecord, StartRecord};
use super::{Inner, NativeRuntime, lock};
use crate::{ContainerEvent, ContainerState};
use jiff::Timestamp;
use rustix::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Exit code of a container whose end nobody saw, as upstream reports it.
const UNKNOWN: i32 = 137;

impl NativeRuntime {
    /// Settles a container when its shim ends.
    pub(super) fn watch(&self, id: String, shim: OwnedFd) {
        // A watch does not keep the runtime alive: it may be closed while containers run.
        let inner = Arc::downgrade(&self.inner);
        #[allow(unsafe_code)]
        // SAFETY: the descriptor is owned by what is registered, and stays open and the same as long as that lives.
        let watched = unsafe { AsyncFd::register_with_interest(shim, Interest::READABLE) };
        tokio::spawn(async move {
            let shim = match watched {
                Ok(shim) => {
                    let _ = shim.readable().await;
                    shim.into_inner()
                }
                // For want of descriptors or memory: then a thread waits.
                Err(error) => error.into_parts().0,
            };
            let settle = move || {
                process::wait_end(&shim);
                process::reap(&shim);
                if let Some(inner) = inner.upgrade() {
                    inner.settle(&id);
                }
            };
            let _ = tokio::task::spawn_blocking(settle).await;
        });
    }
}

impl Inner {
    /// Takes over what the shim recorded. If it was killed before it could, what it left running is killed too and
    /// the end recorded here. Nothing if the container was never started, or is settled.
    pub(super) fn settle(&self, id: &str) {
        let directory = self.layout.container(id);
        // Not every process that ends here is the one that is beside the container. Looked for before its record, which is
        // complete when it is gone; and once: one that begins meanwhile is not one that has ended.
        let shim = ShimRecord::load(&directory).ok().flatten();
        let alive = shim.as_ref().is_some_and(|shim| living(shim).is_some());
        let exit = match ExitRecord::load(&directory) {
            Ok(Some(exit)) => exit,
            found => {
                let started = shim.is_some();
                let known = ContainerRecord::load(&directory).is_ok_and(|record| record.is_some());
                if alive || !known || (!started && found.is_ok()) {
                    return;
                }
                self.end_orphan(id, &directory)
            }
        };
        let mut containers = lock(&self.containers);
        let Some(entry) = containers.get_mut(id) else { return };
        if matches!(entry.container.state, ContainerState::Exited { .. }) {
            return;
        }
        entry.container.state = exited(exit);
        let event =
            ContainerEvent { sandbox_id: entry.container.sandbox_id.clone(), container_id: id.to_owned() };
        drop(containers);
        let _ = self.events.send(event);
    }

    fn end_orphan(&self, id: &str, directory: &Path) -> ExitRecord {
        if let Some(cgroup) = self.cgroup_of(id)
            && !self.cgroups.kill(&cgroup, Duration::from_secs(10))
        {
            tracing::warn!(container = id, "processes of a container without a shim could not be killed");
        }
        let started = StartRecord::load(directory).ok().flatten().map(|started| started.started);
        let exit = ExitRecord {
            started,
            finished: Timestamp::now(),
            exit_code: UNKNOWN,
            signal: 0,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when it ended: its shim was killed".to_owned(),
        };
        if let Err(error) = exit.save(directory) {
            tracing::warn!(container = id, %error, "the end of a container was not recorded");
        }
        exit
    }
}

/// The state that a container's records tell; None if it was never started.
pub(super) fn observed(directory: &Path) -> Option<ContainerState> {
    if let Some(exit) = ExitRecord::load(directory).ok().flatten() {
        return Some(exited(exit));
    }
    let started = StartRecord::load(directory).ok().flatten()?;
    Some(ContainerState::Running { started: started.started, pid: started.process.pid })
}

fn exited(exit: ExitRecord) -> ContainerState {
    ContainerState::Exited {
        started: exit.started,
        finished: exit.finished,
        exit_code: exit.exit_code,
        signal: exit.signal,
        reason: exit.reason,
        message: exit.message,
    }
}
