//! Sandboxes: made, listed, stopped, forgotten.

use super::holder;
use super::sandbox::{Pins, unpin};
use super::state::{self, Record, SandboxRecord};
use super::{Inner, NativeRuntime, blocking, cgroup_root, failed, lock, new_id};
use crate::{RuntimeError, Sandbox, SandboxConfig};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

/// The cgroup of the first process of a shared namespace, below the pod's.
const HOLDER: &str = "holder";
/// How long the kernel may take to let go of a cgroup whose process has ended.
const REMOVING: Duration = Duration::from_secs(2);

impl NativeRuntime {
    pub(super) fn adopt_sandboxes(&self) -> Result<(), RuntimeError> {
        let directory = self.inner.layout.sandboxes();
        let names =
            state::children(&directory).map_err(failed("listing", &directory.display().to_string()))?;
        for id in names {
            match SandboxRecord::load(&directory.join(&id)) {
                Ok(Some(record)) => {
                    lock(&self.inner.sandboxes).insert(id, record);
                }
                // Sagong ended while it was making or removing this one; or it was power that failed, and with it
                // the record's contents. Nothing runs in it that could be found again.
                Ok(None) => self.inner.discard_sandbox(&id),
                Err(error) => {
                    tracing::warn!(sandbox = id, %error, "removing a sandbox whose record cannot be read");
                    self.inner.discard_sandbox(&id);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn make_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError> {
        if let Some(sandbox) = self.same_attempt(&config) {
            return Ok(sandbox);
        }
        let object = format!("{}/{}", config.namespace, config.name);
        if !is_inside(&config.cgroup_parent) {
            return Err(failed("creating sandbox", &object)("its cgroup is outside of Sagong's"));
        }
        let id = new_id();
        let record = SandboxRecord { config, created: Timestamp::now() };
        let (layout, id_, record_) = (self.inner.layout.clone(), id.clone(), record.clone());
        let inner = self.inner.clone();
        blocking(move || {
            let made = state::make_private(&layout.sandbox(&id_))
                .and_then(|()| record_.save(&layout.sandbox(&id_)))
                .and_then(|()| {
                    let pins = Pins::of(&layout.pins(&id_), &record_.config);
                    pins.make(&record_.config, &layout.keeper())?;
                    inner.hold(&layout.pins(&id_), &record_.config)
                });
            made.map_err(|error| {
                inner.discard_sandbox(&id_);
                failed("creating sandbox", &object)(error)
            })
        })
        .await?;
        let sandbox = self.describe(&id, &record);
        lock(&self.inner.sandboxes).insert(id, record);
        Ok(sandbox)
    }

    /// The sandbox that an earlier, equal call made.
    fn same_attempt(&self, config: &SandboxConfig) -> Option<Sandbox> {
        let sandboxes = lock(&self.inner.sandboxes);
        let same = |record: &&SandboxRecord| {
            record.config.uid == config.uid && record.config.attempt == config.attempt
        };
        let (id, record) = sandboxes.iter().find(|(_, record)| same(record))?;
        Some(self.describe(id, record)).filter(|sandbox| sandbox.ready)
    }

    pub(super) async fn annotate(
        &self,
        id: &str,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let mut sandboxes = lock(&self.inner.sandboxes);
        let record = sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NotFound(format!("sandbox {id}")))?;
        let mut changed = record.clone();
        changed.config.annotations = annotations;
        changed.save(&self.inner.layout.sandbox(id)).map_err(failed("annotating sandbox", id))?;
        *record = changed;
        Ok(())
    }

    pub(super) fn sandboxes(&self) -> Vec<Sandbox> {
        lock(&self.inner.sandboxes).iter().map(|(id, record)| self.describe(id, record)).collect()
    }

    fn describe(&self, id: &str, record: &SandboxRecord) -> Sandbox {
        let pins = Pins::of(&self.inner.layout.pins(id), &record.config);
        Sandbox {
            id: id.to_owned(),
            config: record.config.clone(),
            ready: pins.exist(),
            network_namespace: pins.network,
            created: record.created,
        }
    }

    pub(super) async fn end_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        if !lock(&self.inner.sandboxes).contains_key(id) {
            return Ok(());
        }
        let containers = self.containers_of(id);
        futures::future::try_join_all(containers.iter().map(|container| self.end_container(container)))
            .await?;
        let (pins, object) = (self.inner.layout.pins(id), id.to_owned());
        blocking(move || unpin(&pins).map_err(failed("unpinning the namespaces of sandbox", &object))).await
    }

    pub(super) async fn forget_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.end_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.forget_container(&container).await?;
        }
        // Of attempts at the same pod, which share a cgroup, the last one to go takes it along.
        let (record, shared) = {
            let mut sandboxes = lock(&self.inner.sandboxes);
            let Some(record) = sandboxes.remove(id) else { return Ok(()) };
            let parent = &record.config.cgroup_parent;
            let shared = sandboxes.values().any(|other| other.config.cgroup_parent == *parent);
            (record, shared)
        };
        let (inner, object, parent) =
            (self.inner.clone(), id.to_owned(), record.config.cgroup_parent.trim_matches('/').to_owned());
        let removed = blocking(move || {
            if !shared && !parent.is_empty() {
                let cgroup = format!("{}/{parent}", cgroup_root(&inner.options.instance));
                // Its process has ended with the sandbox; what cannot be removed now goes with the instance.
                let _ = inner.cgroups.remove(&format!("{cgroup}/{HOLDER}"), REMOVING);
                inner.cgroups.prune(&cgroup);
            }
            sagong_image::remove_tree(&inner.layout.sandbox(&object))
                .map_err(failed("removing sandbox", &object))
        })
        .await;
        if removed.is_err() {
            lock(&self.inner.sandboxes).insert(id.to_owned(), record);
        }
        removed
    }

    fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let containers = lock(&self.inner.containers);
        let of_sandbox = containers.values().filter(|entry| entry.container.sandbox_id == sandbox);
        of_sandbox.map(|entry| entry.container.id.clone()).collect()
    }
}

impl Inner {
    /// Takes away what was made half way, which is of no use to anybody.
    fn discard_sandbox(&self, id: &str) {
        let _ = unpin(&self.layout.pins(id));
        if let Err(error) = sagong_image::remove_tree(&self.layout.sandbox(id)) {
            tracing::warn!(sandbox = id, %error, "cannot remove a sandbox made half way");
        }
    }

    /// Puts the first process of a shared namespace, if there is one, where the pod's processes are.
    fn hold(&self, pins: &Path, config: &SandboxConfig) -> std::io::Result<()> {
        let Some(pid) = holder::pid(pins) else { return Ok(()) };
        let parent = config.cgroup_parent.trim_matches('/');
        self.cgroups.take_in(&format!("{}/{parent}/{HOLDER}", cgroup_root(&self.options.instance)), pid)
    }
}

/// Whether a cgroup's path cannot lead out of the cgroup it is below.
fn is_inside(path: &str) -> bool {
    Path::new(path.trim_matches('/')).components().all(|component| matches!(component, Component::Normal(_)))
}
