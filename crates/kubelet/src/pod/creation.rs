//! From a container's spec to a process that runs: its environment, its mounts, its file system, and the calls that make
//! and start it.

use super::container_config::{self, Parts, mount_key};
use super::environment::{self, Sources};
use super::etc_files;
use super::operations::{Context, message_file};
use super::outcome::Outcome;
use super::snapshot::{Instance, StartFailure};
use crate::events::Severity::{Normal, Warning};
use crate::{hooks, volumes};
use k8s_openapi::api::core::v1::Container as ContainerSpec;
use sagong_image::Image;
use sagong_runtime::{ContainerState, Mount};
use std::path::Path;
use std::time::Duration;

/// Where `Localhost` profiles of seccomp are, below the kubelet's directory, as upstream has it.
const PROFILES: &str = "seccomp";
/// How long a postStart hook may take. Upstream waits without end, and so does nothing else for the pod.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

impl Context {
    /// Creates and starts a container, and runs its postStart hook.
    pub(super) async fn start(&self, name: &str, attempt: u32, image: &Image) -> Outcome {
        let Some(spec) = self.spec(name) else { return Outcome::Failed };
        let failure = |(reason, message): (&'static str, String)| {
            self.shared.recorder.container(&self.pod, name, Warning, "Failed", format!("Error: {message}"));
            Some(StartFailure { reason, message, at: self.shared.clock.now() })
        };
        let began = tokio::time::Instant::now();
        let created = match self.create(spec, attempt, image).await {
            Ok(created) => created,
            Err(error) => return Outcome::Started { instance: None, failure: failure(error) },
        };
        let recorder = &self.shared.recorder;
        recorder.container(&self.pod, name, Normal, "Created", format!("Created container: {name}"));
        tracing::debug!(pod = self.name().1, container = name, took = ?began.elapsed(), "container created");
        if let Err(error) = self.shared.runtime.start_container(&created.id).await {
            let message = error.to_string();
            let instance = Instance { state: self.failed_start(&created, &message).await, ..created };
            return Outcome::Started {
                instance: Some(instance),
                failure: failure(("RunContainerError", message)),
            };
        }
        recorder.container(&self.pod, name, Normal, "Started", format!("Started container {name}"));
        let instance = self.look_at(created).await;
        let hook = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let mut post_start_failure = None;
        if let Some(hook) = hook {
            let place = hooks::Place { pod: &self.pod, address: self.address, spec, instance: &instance.id };
            if let Err(message) = hooks::run(hook, &self.shared, place, POST_START_LIMIT).await {
                recorder.container(&self.pod, name, Warning, "FailedPostStartHook", "PostStartHook failed");
                let at = self.shared.clock.now();
                post_start_failure = Some(StartFailure { reason: "PostStartHookError", message, at });
            }
        }
        Outcome::Started { instance: Some(instance), failure: post_start_failure }
    }

    async fn create(
        &self,
        spec: &ContainerSpec,
        attempt: u32,
        image: &Image,
    ) -> Result<Instance, (&'static str, String)> {
        let config_error = |message| ("CreateContainerConfigError", message);
        let create_error = |message: String| ("CreateContainerError", message);
        let sandbox_id =
            self.sandbox_id.as_deref().ok_or_else(|| create_error("pod has no sandbox".into()))?;
        let sources = self.sources(spec).await.map_err(config_error)?;
        let env = environment::resolve(&self.pod, spec, &sources).map_err(config_error)?;
        let mounts = self.mounts(spec, attempt, &env).await.map_err(config_error)?;
        let key = mount_key(self.name().2, &spec.name, attempt);
        let root = self
            .shared
            .images
            .mount(&image.id, &key)
            .await
            .map_err(|error| create_error(error.to_string()))?;
        let config = container_config::build(Parts {
            pod: &self.pod,
            spec,
            attempt,
            image,
            root,
            env,
            mounts,
            hostname: etc_files::kernel_name(&self.pod, &self.shared.config).map_err(config_error)?,
            node_memory: self.shared.node_memory,
            target: self.target(&spec.name)?,
            profiles: &self.shared.config.data_dir.join(PROFILES),
        });
        let created = match config {
            Ok(config) => {
                let made = self.shared.runtime.create_container(sandbox_id, config).await;
                made.map_err(|error| create_error(error.to_string()))
            }
            Err(error) => Err(error),
        };
        match created {
            Ok(container) => Ok(Instance::from_runtime(&container)),
            Err(error) => {
                if let Err(error) = self.shared.images.unmount(&key).await {
                    tracing::warn!(%error, key, "file system of a container that was not created stays mounted");
                }
                Err(error)
            }
        }
    }

    /// The container whose processes an ephemeral one is to see.
    fn target(&self, name: &str) -> Result<Option<String>, (&'static str, String)> {
        let all = self.pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let wanted =
            { all }.find(|spec| spec.name == name).and_then(|spec| spec.target_container_name.as_ref());
        let Some(wanted) = wanted.filter(|target| !target.is_empty()) else { return Ok(None) };
        match self.running.get(wanted) {
            Some(id) => Ok(Some(id.clone())),
            None => Err(("CreateContainerError", format!("unable to find target container \"{wanted}\""))),
        }
    }

    async fn sources(&self, spec: &ContainerSpec) -> Result<Sources, String> {
        let (namespace, ..) = self.name();
        let cluster = &self.shared.cluster;
        let (config_maps, secrets) = environment::references(spec);
        let mut sources = Sources {
            services: cluster.services(namespace).await,
            pod_ip: self.address,
            host_ips: self.host_ips.clone(),
            ..Sources::of_node(self.shared.node_memory, self.shared.node_storage)
        };
        for name in config_maps {
            let found = cluster.config_map(namespace, &name).await.map_err(|error| error.to_string())?;
            sources.config_maps.insert(name, found);
        }
        for name in secrets {
            let found = cluster.secret(namespace, &name).await.map_err(|error| error.to_string())?;
            sources.secrets.insert(name, found);
        }
        Ok(sources)
    }

    /// Volumes, the files in `/etc` and the termination message file, unless volumes are mounted there.
    async fn mounts(
        &self,
        spec: &ContainerSpec,
        attempt: u32,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, String> {
        let dir = self.pod_dir();
        etc_files::write(&dir, &self.pod, &self.shared.config, self.address)?;
        let logs = self.log_dir().join(&spec.name);
        std::fs::create_dir_all(&logs).map_err(|error| format!("creating {}: {error}", logs.display()))?;
        let message = message_file(&dir, &spec.name, attempt);
        write_empty(&message)?;
        let values = env.iter().cloned().collect();
        let (of_pod, pod, of_container) = (dir.clone(), self.pod.clone(), spec.clone());
        let mounts = move || volumes::mounts(&of_pod, &pod, &of_container, &values);
        let mut mounts = volumes::blocking(mounts).await?;
        let message_path = spec.termination_message_path.clone();
        let message_path =
            message_path.filter(|path| !path.is_empty()).unwrap_or("/dev/termination-log".into());
        let files = [
            ("/etc/hosts".to_owned(), dir.join("etc-hosts")),
            ("/etc/hostname".to_owned(), dir.join("hostname")),
            ("/etc/resolv.conf".to_owned(), dir.join("resolv.conf")),
            (message_path, message),
        ];
        for (container_path, host_path) in files {
            if mounts.iter().all(|mount| mount.container_path != container_path) {
                let (read_only, recursive_read_only) = (false, false);
                mounts.push(Mount { container_path, host_path, read_only, recursive_read_only });
            }
        }
        Ok(mounts)
    }

    /// The state of a container that was just started; it may have ended already.
    async fn look_at(&self, created: Instance) -> Instance {
        let listed = self.shared.runtime.list_containers().await;
        if let Err(error) = &listed {
            tracing::warn!(%error, "containers not listed after a start");
        }
        let found = listed.ok().and_then(|all| all.into_iter().find(|container| container.id == created.id));
        let state = match found {
            Some(container) if container.state != ContainerState::Created => container.state,
            _ => ContainerState::Running { started: self.shared.clock.now(), pid: 0 },
        };
        Instance { state, ..created }
    }

    /// The state of a container that did not start: as the runtime has it, or as upstream shows it.
    async fn failed_start(&self, created: &Instance, message: &str) -> ContainerState {
        let listed = self.shared.runtime.list_containers().await.unwrap_or_default();
        let found = listed.into_iter().find(|container| container.id == created.id);
        match found.map(|container| container.state) {
            Some(state @ ContainerState::Exited { .. }) => state,
            _ => ContainerState::Exited {
                started: None,
                finished: self.shared.clock.now(),
                exit_code: 128,
                signal: 0,
                reason: "StartError".into(),
                message: message.into(),
            },
        }
    }
}

fn write_empty(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("creating {}: {error}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, "").map_err(failed)?;
    // Whatever user the container runs as may write it.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(path, all).map_err(failed)
}
