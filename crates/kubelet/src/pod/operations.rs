//! What a pod's worker can do: one function per operation. Each talks to the runtime, the images, the network
//! and the API, and gives an [`Outcome`]; none of them decides anything.

use super::container_config::{self, mount_key};
use super::environment;
use super::outcome::Outcome;
use super::plan::Action;
use super::snapshot::{Instance, PodSnapshot, SandboxFacts};
use super::{etc_files, qos};
use crate::clock::between;
use crate::cluster::ClusterError;
use crate::events::Severity::Warning;
use crate::shared::Shared;
use crate::{hooks, images, volumes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};
use sagong_runtime::{RuntimeError, SandboxConfig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long withdrawing a pod may take; afterwards it is stopped although requests may still arrive.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(5);
/// Pause after the data plane failed to.
const WITHDRAW_PAUSE: Duration = Duration::from_millis(100);
/// First and longest pause between two looks at a pod's connections.
const DRAIN_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// What operations know of their pod: a part of the snapshot, copied when they begin.
#[derive(Clone)]
pub(crate) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) address: Option<IpAddr>,
    pub(super) sandbox_id: Option<String>,
    pub(super) host_ips: Vec<IpAddr>,
    pub(super) ephemeral: Arc<[ContainerSpec]>,
    pub(super) is_evicted: bool,
    /// Ids of the containers that run, by name.
    pub(super) running: BTreeMap<String, String>,
}

impl Context {
    /// The part of a snapshot that operations need.
    pub(crate) fn new(shared: &Arc<Shared>, snapshot: &PodSnapshot) -> Self {
        Context {
            shared: shared.clone(),
            pod: snapshot.pod.clone(),
            address: environment::pod_ip(snapshot),
            sandbox_id: snapshot.sandbox.as_ref().map(|sandbox| sandbox.id.clone()),
            host_ips: snapshot.host_ips.clone(),
            ephemeral: snapshot.ephemeral.clone(),
            is_evicted: snapshot.is_evicted(),
            running: snapshot.running(),
        }
    }

    /// Does what an action says. Actions that take no time are the worker's.
    pub(crate) async fn run(self, action: Action) -> Outcome {
        match action {
            Action::MakeSandbox { attempt, replaces } => self.make_sandbox(attempt, replaces).await,
            Action::PrepareVolumes => self.prepare_volumes().await,
            Action::EnsureImage { container } => match self.spec(&container) {
                Some(spec) => Outcome::Image(images::ensure(&self.shared, &self.pod, spec).await),
                None => Outcome::Failed,
            },
            Action::StartContainer { container, attempt, image } => {
                self.start(&container, attempt, &image).await
            }
            Action::RunPreStop { container, id, deadline } => self.pre_stop(&container, &id, deadline).await,
            Action::Signal { id, signal, .. } => self.signal(&id, signal).await,
            Action::Remove { container, instance } => self.remove(&container, &instance).await,
            Action::Withdraw { address } => self.withdraw(address).await,
            Action::Readmit { address } => {
                self.shared.data_plane.readmit(address);
                Outcome::Readmitted
            }
            Action::Drain { address, netns, until } => self.drain(address, &netns, until).await,
            Action::StopSandbox { id, address } => self.stop_sandbox(&id, address).await,
            Action::DropVolumes => self.drop_volumes().await,
            Action::Clean => self.clean().await,
            Action::PatchStatus(patch) => self.patch_status(patch).await,
            Action::Delete => self.delete().await,
            Action::BeginKill { .. } | Action::Announce { .. } => Outcome::Failed,
        }
    }

    pub(super) fn spec(&self, name: &str) -> Option<&ContainerSpec> {
        let spec = self.pod.spec.as_ref()?;
        let lasting = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        { lasting }.chain(self.ephemeral.iter()).find(|spec| spec.name == name)
    }

    pub(super) fn name(&self) -> (&str, &str, &str) {
        let meta = &self.pod.metadata;
        (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
        )
    }

    /// `metadata.name` of the pod, for traces.
    pub(crate) fn pod_name(&self) -> String {
        self.name().1.to_owned()
    }

    pub(super) fn pod_dir(&self) -> PathBuf {
        self.shared.config.pod_dir(self.name().2)
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        let (namespace, name, uid) = self.name();
        self.shared.config.log_dir(namespace, name, uid)
    }

    async fn make_sandbox(&self, attempt: u32, replaces: Option<(String, Option<IpAddr>)>) -> Outcome {
        let made = async {
            if let Some((old, address)) = replaces {
                self.release(&old, address).await?;
                ignoring_absence(self.shared.runtime.remove_sandbox(&old).await)?;
            }
            self.new_sandbox(attempt).await
        };
        match made.await {
            Ok(sandbox) => Outcome::Sandbox(sandbox),
            Err(message) => {
                let message = format!("Failed to create pod sandbox: {message}");
                tracing::warn!(pod = %super::messages::pod_name(&self.pod), "{message}");
                self.shared.recorder.pod(&self.pod, Warning, "FailedCreatePodSandBox", message);
                Outcome::Failed
            }
        }
    }

    async fn new_sandbox(&self, attempt: u32) -> Result<SandboxFacts, String> {
        let config = self.sandbox_config(attempt)?;
        let mut annotations = config.annotations.clone();
        let runtime = &self.shared.runtime;
        let sandbox = runtime.run_sandbox(config).await.map_err(|error| error.to_string())?;
        let attached = async {
            let Some(netns) = &sandbox.network_namespace else { return Ok(None) };
            let address =
                self.shared.network.attach(&sandbox.id, netns).await.map_err(|error| error.to_string())?;
            // Only now the address is found again after a crash; one lost before is freed by adoption.
            annotations.insert(container_config::POD_IP.into(), address.to_string());
            runtime.annotate_sandbox(&sandbox.id, annotations).await.map_err(|error| error.to_string())?;
            Ok(Some(address))
        };
        match attached.await {
            Ok(address) => Ok(SandboxFacts {
                id: sandbox.id,
                attempt,
                ready: true,
                address,
                netns: sandbox.network_namespace,
            }),
            Err(error) => {
                let _ = self.shared.network.detach(&sandbox.id).await;
                let _ = runtime.remove_sandbox(&sandbox.id).await;
                Err(error)
            }
        }
    }

    fn sandbox_config(&self, attempt: u32) -> Result<SandboxConfig, String> {
        let (namespace, name, uid) = self.name();
        let spec = self.pod.spec.as_ref();
        if spec.and_then(|spec| spec.host_users) == Some(false) {
            return Err("can't set `spec.hostUsers: false`, runtime does not support user namespaces".into());
        }
        let sysctls = spec.and_then(|spec| spec.security_context.as_ref()?.sysctls.as_ref());
        Ok(SandboxConfig {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            attempt,
            hostname: etc_files::kernel_name(&self.pod, &self.shared.config)?,
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            host_ipc: spec.and_then(|spec| spec.host_ipc).unwrap_or(false),
            share_processes: spec.and_then(|spec| spec.share_process_namespace).unwrap_or(false),
            sysctls: sysctls.into_iter().flatten().map(|it| (it.name.clone(), it.value.clone())).collect(),
            cgroup_parent: qos::cgroup_parent(&self.pod),
            log_directory: self.log_dir(),
            annotations: BTreeMap::new(),
        })
    }

    async fn prepare_volumes(&self) -> Outcome {
        match volumes::make(&self.shared, &self.pod).await {
            Ok(renew) => Outcome::Volumes { renew },
            Err(message) => {
                self.shared.recorder.pod(&self.pod, Warning, "FailedMount", message);
                Outcome::Failed
            }
        }
    }

    async fn pre_stop(&self, name: &str, id: &str, deadline: Timestamp) -> Outcome {
        let spec = self.spec(name);
        let hook = spec.and_then(|spec| spec.lifecycle.as_ref()?.pre_stop.as_ref());
        if let (Some(spec), Some(hook)) = (spec, hook) {
            let limit = between(self.shared.clock.now(), deadline);
            let place = hooks::Place { pod: &self.pod, address: self.address, spec, instance: id };
            if let Err(error) = hooks::run(hook, &self.shared, place, limit).await {
                tracing::debug!(container = name, error, "preStop hook failed");
                self.shared.recorder.container(
                    &self.pod,
                    name,
                    Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
        }
        Outcome::HookDone
    }

    async fn signal(&self, id: &str, signal: i32) -> Outcome {
        match self.shared.runtime.signal_container(id, signal).await {
            Ok(()) | Err(RuntimeError::NotFound(_)) => Outcome::Signalled(signal),
            Err(error) => {
                tracing::warn!(%error, signal, "container not signalled");
                Outcome::Failed
            }
        }
    }

    async fn remove(&self, name: &str, instance: &Instance) -> Outcome {
        let key = mount_key(self.name().2, name, instance.attempt);
        let removed = async {
            ignoring_absence(self.shared.runtime.remove_container(&instance.id).await)?;
            self.shared.images.unmount(&key).await.map_err(|error| error.to_string())
        };
        if let Err(error) = removed.await {
            tracing::warn!(error, container = name, "old container not removed");
            return Outcome::Failed;
        }
        // Neither has to be there.
        let _ = std::fs::remove_file(self.log_dir().join(container_config::log_path(name, instance.attempt)));
        let _ = std::fs::remove_file(message_file(&self.pod_dir(), name, instance.attempt));
        Outcome::Removed
    }

    /// Takes the pod out of every service. One that cannot be is stopped after a while all the same: an event says so.
    async fn withdraw(&self, address: IpAddr) -> Outcome {
        let mut reason = "no answer".to_owned();
        let confirmed = async {
            while let Err(error) = self.shared.data_plane.withdraw(address).await {
                reason = error.to_string();
                tokio::time::sleep(WITHDRAW_PAUSE).await;
            }
        };
        if tokio::time::timeout(WITHDRAW_LIMIT, confirmed).await.is_ok() {
            return Outcome::Withdrawn;
        }
        let message = format!(
            "Not confirmed within {WITHDRAW_LIMIT:?} that no service sends to {address} any more, \
             stopping all the same: {reason}"
        );
        tracing::warn!(pod = %super::messages::pod_name(&self.pod), "{message}");
        self.shared.recorder.pod(&self.pod, Warning, "FailedWithdraw", message);
        Outcome::Withdrawn
    }

    /// Waits until the pod has no connection: seen twice, so that one just handed on is not missed.
    async fn drain(&self, address: IpAddr, netns: &Path, until: Timestamp) -> Outcome {
        let (mut pause, longest) = DRAIN_PAUSES;
        let mut zeros = 0;
        while self.shared.clock.now() < until {
            match self.shared.data_plane.connections(address, netns).await {
                Ok(0) => {
                    zeros += 1;
                    pause = DRAIN_PAUSES.0;
                }
                Ok(_) => zeros = 0,
                Err(error) => {
                    tracing::warn!(%error, %address, "connections of the pod not counted");
                    break;
                }
            }
            if zeros == 2 {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(longest);
        }
        Outcome::Drained
    }

    async fn stop_sandbox(&self, id: &str, address: Option<IpAddr>) -> Outcome {
        if id.is_empty() {
            return Outcome::SandboxStopped;
        }
        match self.release(id, address).await {
            Ok(()) => Outcome::SandboxStopped,
            Err(error) => {
                tracing::warn!(error, sandbox = id, "sandbox not stopped");
                Outcome::Failed
            }
        }
    }

    /// Stops a sandbox and gives its address back.
    async fn release(&self, id: &str, address: Option<IpAddr>) -> Result<(), String> {
        ignoring_absence(self.shared.runtime.stop_sandbox(id).await)?;
        self.shared.network.detach(id).await.map_err(|error| error.to_string())?;
        if let Some(address) = address {
            self.shared.data_plane.restore(address);
        }
        Ok(())
    }

    async fn drop_volumes(&self) -> Outcome {
        let (_, _, uid) = self.name();
        volumes::forget(&self.shared, uid);
        // What containers wrote beside their volumes may be what the node was short of.
        if self.is_evicted
            && let Err(error) = unmount_all(&self.shared, uid).await
        {
            tracing::warn!(error, pod = %super::messages::pod_name(&self.pod), "file systems not removed");
            return Outcome::Failed;
        }
        let pod_dir = self.pod_dir();
        match volumes::blocking(move || volumes::remove_volumes(&pod_dir)).await {
            Ok(()) => Outcome::VolumesDropped,
            Err(error) => {
                tracing::warn!(error, pod = %super::messages::pod_name(&self.pod), "volumes not removed");
                Outcome::Failed
            }
        }
    }

    async fn clean(&self) -> Outcome {
        let (_, _, uid) = self.name();
        match clean(&self.shared, uid, self.sandbox_id.as_deref(), &self.log_dir()).await {
            Ok(()) => Outcome::Cleaned,
            Err(error) => {
                tracing::warn!(error, pod = %super::messages::pod_name(&self.pod), "pod not cleaned up");
                Outcome::Failed
            }
        }
    }

    async fn patch_status(&self, patch: Value) -> Outcome {
        let (namespace, name, _) = self.name();
        match self.shared.cluster.patch_pod_status(namespace, name, &patch).await {
            Ok(pod) => Outcome::Patched { patch, pod: Box::new(pod) },
            // That it is gone is for the watch to tell.
            Err(error) => {
                tracing::debug!(%error, "pod status not written");
                Outcome::Failed
            }
        }
    }

    async fn delete(&self) -> Outcome {
        let (namespace, name, uid) = self.name();
        match self.shared.cluster.delete_pod(namespace, name, uid).await {
            Ok(()) | Err(ClusterError::NotFound(_)) => Outcome::Deleted,
            Err(error) => {
                tracing::warn!(%error, "pod not deleted");
                Outcome::Failed
            }
        }
    }
}

/// Removes all that a pod left on the node: containers, file systems, volumes, logs.
pub(crate) async fn clean(
    shared: &Shared,
    uid: &str,
    sandbox: Option<&str>,
    log_dir: &Path,
) -> Result<(), String> {
    if let Some(sandbox) = sandbox {
        ignoring_absence(shared.runtime.remove_sandbox(sandbox).await)?;
    }
    unmount_all(shared, uid).await?;
    volumes::forget(shared, uid);
    let (logs, pod_dir) = (log_dir.to_owned(), shared.config.pod_dir(uid));
    volumes::blocking(move || {
        sagong_image::remove_tree(&logs).map_err(|error| format!("removing {}: {error}", logs.display()))?;
        volumes::remove(&pod_dir)
    })
    .await
}

/// Removes the file systems of a pod's containers, which must not run.
async fn unmount_all(shared: &Shared, uid: &str) -> Result<(), String> {
    let prefix = format!("{uid}_");
    let mounted = shared.images.mounted().await.map_err(|error| error.to_string())?;
    for key in mounted.iter().filter(|key| key.starts_with(&prefix)) {
        shared.images.unmount(key).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Where a run of a container leaves its last words.
pub(crate) fn message_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("messages").join(format!("{container}-{attempt}"))
}

fn ignoring_absence(result: Result<(), RuntimeError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(RuntimeError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
