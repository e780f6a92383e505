//! A whole node and its API in memory, on tokio's pausable clock, with a journal of what was done to them.

use crate::clock::{Clock, later};
use crate::cluster::{Cluster, ClusterError};
use crate::config::Config;
use crate::events::Recorder;
use crate::eviction::Eviction;
use crate::pod::manager::{Inbox, PodManager, PodUpdate, Views};
use crate::shared::Shared;
use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service};
use parking_lot::Mutex;
use sagong_image::{Credentials, Image, ImageConfig, ImageError, Images, Progress};
use sagong_network::{BoxFuture, DataPlane, NetworkError, PodNetwork};
use sagong_runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerState, Containers, ExecOutput, Runtime,
    RuntimeError, Sandbox, SandboxConfig, Sandboxes,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// How a container behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// Ends by itself after this time with this code.
    pub(crate) ends: Option<(Duration, i32)>,
    /// Does not end on SIGTERM.
    pub(crate) ignores_term: bool,
    /// Exec probes succeed this long after the start; None: never.
    pub(crate) answers_after: Option<Duration>,
    /// Exec probes fail again this long after the start.
    pub(crate) fails_after: Option<Duration>,
    /// Cannot be started at all.
    pub(crate) broken: bool,
}

/// What comes of taking a pod out of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Withdrawal {
    #[default]
    Confirmed,
    Fails,
    /// Nothing is heard of it.
    Hangs,
}

#[derive(Default)]
pub(crate) struct State {
    /// What was done, in order: `run_sandbox`, `signal 15 main`, …
    pub(crate) journal: Vec<(Duration, String)>,
    /// Events: type, reason, message.
    pub(crate) events: Vec<(String, String, String)>,
    /// Names of images that are there.
    pub(crate) images: BTreeSet<String>,
    /// Names of images the registry has.
    pub(crate) registry: BTreeSet<String>,
    /// By container name.
    pub(crate) programs: BTreeMap<String, Program>,
    /// Numbers of connections to report, one after the other; the last one for ever.
    pub(crate) connections: Vec<usize>,
    /// What comes of taking a pod out of service.
    pub(crate) withdrawal: Withdrawal,
    /// How often making a sandbox fails.
    pub(crate) sandbox_failures: usize,
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) mounts: BTreeSet<String>,
    pub(crate) addresses: BTreeMap<String, IpAddr>,
    pub(crate) adopted: Vec<(String, IpAddr)>,
    pub(crate) pods: BTreeMap<String, Pod>,
    /// Every status phase/ready pair a pod went through: `Pending/False`.
    pub(crate) history: Vec<String>,
    version: u64,
    next: u32,
}

/// The node and its API.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) state: Mutex<State>,
    begun: tokio::time::Instant,
    exits: broadcast::Sender<ContainerEvent>,
    watch: Mutex<Option<mpsc::UnboundedSender<PodUpdate>>>,
    changes: Mutex<Option<mpsc::UnboundedSender<String>>>,
    evict: Mutex<Option<mpsc::UnboundedSender<Eviction>>>,
    me: std::sync::Weak<World>,
    pub(crate) dir: tempfile::TempDir,
}

/// A kubelet at work in a world.
pub(crate) struct Running {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Ends it as a crash does: at once, without a word to anybody.
    pub(crate) async fn crash(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| World {
            clock: Clock::for_tests(),
            state: Mutex::new(State {
                images: BTreeSet::from(["kubia:v1".to_owned(), "kubia:v2".to_owned()]),
                ..Default::default()
            }),
            begun: tokio::time::Instant::now(),
            exits: broadcast::channel(256).0,
            watch: Mutex::new(None),
            changes: Mutex::new(None),
            evict: Mutex::new(None),
            me: me.clone(),
            dir: tempfile::tempdir().unwrap(),
        })
    }

    /// Starts a kubelet, which sees all pods there are.
    pub(crate) fn start(self: &Arc<Self>) -> Running {
        let mut config = Config::new("node", "abcdef", self.dir.path());
        config.node_addresses = vec![IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1))];
        let (recorder, write_events) = Recorder::new(self.clone(), "node".into(), self.clock.clone());
        let shared = Arc::new(Shared {
            config,
            clock: self.clock.clone(),
            cluster: self.clone(),
            recorder,
            runtime: self.clone(),
            images: self.clone(),
            network: self.clone(),
            data_plane: self.clone(),
            node_memory: 1 << 30,
            node_storage: 1 << 40,
            pressures: Default::default(),
            shows: Default::default(),
            tokens: Default::default(),
        });
        let (updates, pods) = mpsc::unbounded_channel();
        let (changes, outdated) = mpsc::unbounded_channel();
        let (evict, evictions) = mpsc::unbounded_channel();
        let all = self.state.lock().pods.values().cloned().map(Arc::new).collect();
        updates.send(PodUpdate::Synced(all)).unwrap();
        *self.watch.lock() = Some(updates);
        *self.changes.lock() = Some(changes);
        *self.evict.lock() = Some(evict);
        let stop = CancellationToken::new();
        let manager =
            PodManager::new(shared, Views::default()).run(Inbox { pods, outdated, evictions }, stop.clone());
        let tasks = vec![
            tokio::spawn(async move {
                manager.await.unwrap();
            }),
            tokio::spawn(write_events),
        ];
        Running { stop, tasks }
    }

    fn note(&self, what: impl Into<String>) {
        self.state.lock().journal.push((self.begun.elapsed(), what.into()));
    }

    fn me(&self) -> Arc<World> {
        self.me.upgrade().unwrap()
    }

    fn publish(&self, update: PodUpdate) {
        if let Some(watch) = &*self.watch.lock() {
            let _ = watch.send(update);
        }
    }

    // --- what users do ---------------------------------------------------------------------------------

    pub(crate) fn create(&self, name: &str, spec: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}"),
            "resourceVersion": state.version.to_string()});
        let scheduled = json!([{"type": "PodScheduled", "status": "True"}]);
        let status = json!({"phase": "Pending", "qosClass": "BestEffort", "conditions": scheduled});
        let pod: Pod =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
        state.pods.insert(name.to_owned(), pod.clone());
        drop(state);
        self.publish(PodUpdate::Applied(Arc::new(pod)));
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Pod)) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let Some(pod) = state.pods.get_mut(name) else { return };
        change(pod);
        pod.metadata.resource_version = Some(version.to_string());
        let pod = pod.clone();
        drop(state);
        self.publish(PodUpdate::Applied(Arc::new(pod)));
    }

    pub(crate) fn delete(&self, name: &str, grace: i64) {
        let ends = later(self.clock.now(), Duration::from_secs(grace.unsigned_abs()));
        self.note("DELETE");
        self.change(name, |pod| {
            pod.metadata.deletion_timestamp = Some(crate::clock::api_time(ends));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        });
    }

    pub(crate) fn force_delete(&self, name: &str) {
        let pod = self.state.lock().pods.remove(name).unwrap();
        self.publish(PodUpdate::Deleted(Arc::new(pod)));
    }

    /// Writes a config map, and tells the kubelet that these pods show an older one.
    pub(crate) fn write_config_map(&self, name: &str, data: Value, shown_by: &[&str]) {
        let map = json!({"metadata": {"name": name}, "data": data});
        self.state.lock().config_maps.insert(name.to_owned(), serde_json::from_value(map).unwrap());
        let changes = self.changes.lock();
        let Some(changes) = &*changes else { return };
        shown_by.iter().for_each(|pod| changes.send(format!("uid-{pod}")).unwrap());
    }

    /// The node is short of something, and this pod has to go.
    pub(crate) fn evict(&self, name: &str, message: &str) {
        let eviction = Eviction { uid: format!("uid-{name}"), message: message.into() };
        self.evict.lock().as_ref().unwrap().send(eviction).unwrap();
    }

    pub(crate) fn program(&self, container: &str, program: Program) {
        self.state.lock().programs.insert(container.to_owned(), program);
    }

    // --- what tests look at ----------------------------------------------------------------------------

    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        self.state.lock().pods.get(name).cloned()
    }

    /// A value of the pod's object by JSON pointer.
    pub(crate) fn get(&self, name: &str, pointer: &str) -> Value {
        let pod = serde_json::to_value(self.pod(name)).unwrap();
        pod.pointer(pointer).cloned().unwrap_or_default()
    }

    /// Virtual time since the beginning.
    pub(crate) fn begun_elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn journal(&self) -> Vec<String> {
        self.state.lock().journal.iter().map(|(_, what)| what.clone()).collect()
    }

    pub(crate) fn when(&self, what: &str) -> Duration {
        let state = self.state.lock();
        let found = state.journal.iter().find(|(_, done)| done == what);
        found.unwrap_or_else(|| panic!("{what} was not done: {:?}", state.journal)).0
    }

    /// Events and history so far.
    pub(crate) fn told(&self) -> (Vec<(String, String, String)>, Vec<String>) {
        let state = self.state.lock();
        (state.events.clone(), state.history.clone())
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.journal().iter().filter(|done| *done == what).count()
    }

    pub(crate) fn has_event(&self, reason: &str, message: &str) -> bool {
        self.state.lock().events.iter().any(|(_, r, m)| r == reason && m == message)
    }

    /// Waits until something holds; panics after a virtual hour.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..400_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(9)).await;
        }
        panic!("never: {what}; {:?}\n{:#?}", self.journal(), self.state.lock().pods);
    }

    pub(crate) async fn until_ready(&self, name: &str) {
        self.until("ready", |world| {
            let pod = world.pod(name).unwrap();
            let conditions = pod.status.unwrap().conditions.unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
        .await;
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        self.until("gone", |world| world.pod(name).is_none()).await;
        self.until("cleaned", |world| world.state.lock().sandboxes.is_empty()).await;
    }

    fn end(&self, id: &str, exit_code: i32, signal: i32) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(container) = state.containers.get_mut(id) else { return };
        let ContainerState::Running { started, .. } = container.state else { return };
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        container.state = ContainerState::Exited {
            started: Some(started),
            finished: now,
            exit_code,
            signal,
            reason: reason.into(),
            message: String::new(),
        };
        let event = ContainerEvent { sandbox_id: container.sandbox_id.clone(), container_id: id.into() };
        drop(state);
        let _ = self.exits.send(event);
    }
}

fn failed(object: &str) -> RuntimeError {
    RuntimeError::Failed { step: "doing", object: object.into(), message: "out of luck".into() }
}

#[async_trait]
impl Sandboxes for World {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError> {
        self.note("run_sandbox");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut state = self.state.lock();
        if state.sandbox_failures > 0 {
            state.sandbox_failures -= 1;
            return Err(failed("sandbox"));
        }
        state.next += 1;
        let id = format!("sandbox-{}", state.next);
        let netns = (!config.host_network).then(|| PathBuf::from("/netns").join(&id));
        let sandbox = Sandbox {
            id: id.clone(),
            config,
            ready: true,
            network_namespace: netns,
            created: self.clock.now(),
        };
        state.sandboxes.insert(id, sandbox.clone());
        Ok(sandbox)
    }

    async fn annotate_sandbox(
        &self,
        id: &str,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let sandbox = state.sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.into()))?;
        sandbox.config.annotations = annotations;
        Ok(())
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.note("stop_sandbox");
        let mut state = self.state.lock();
        let sandbox = state.sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.into()))?;
        sandbox.ready = false;
        let inside: Vec<String> =
            state.containers.values().filter(|c| c.sandbox_id == id).map(|c| c.id.clone()).collect();
        drop(state);
        inside.iter().for_each(|container| self.end(container, 137, 9));
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.note("remove_sandbox");
        let mut state = self.state.lock();
        state.sandboxes.remove(id);
        state.containers.retain(|_, container| container.sandbox_id != id);
        Ok(())
    }

    async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }
}

#[async_trait]
impl Containers for World {
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError> {
        self.note(format!("create {}#{}", config.name, config.attempt));
        let mut state = self.state.lock();
        if !state.sandboxes.get(sandbox_id).is_some_and(|sandbox| sandbox.ready) {
            return Err(RuntimeError::NotFound(sandbox_id.into()));
        }
        state.next += 1;
        let id = format!("container-{}", state.next);
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            config,
            identity: None,
            state: ContainerState::Created,
            created: self.clock.now(),
        };
        state.containers.insert(id, container.clone());
        Ok(container)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut state = self.state.lock();
        let programs = state.programs.clone();
        let container = state.containers.get_mut(id).ok_or_else(|| RuntimeError::NotFound(id.into()))?;
        let program = programs.get(&container.config.name).cloned().unwrap_or_default();
        if program.broken {
            return Err(failed(id));
        }
        container.state = ContainerState::Running { started: self.clock.now(), pid: 1 };
        let what = format!("start {}#{}", container.config.name, container.config.attempt);
        let event = ContainerEvent { sandbox_id: container.sandbox_id.clone(), container_id: id.into() };
        state.journal.push((self.begun.elapsed(), what));
        drop(state);
        let _ = self.exits.send(event);
        if let Some((after, code)) = program.ends {
            let (world, id) = (self.me(), id.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                world.end(&id, code, 0);
            });
        }
        Ok(())
    }

    async fn signal_container(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let state = self.state.lock();
        let container = state.containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.into()))?;
        let name = container.config.name.clone();
        let ignores = state.programs.get(&name).is_some_and(|program| program.ignores_term);
        drop(state);
        self.note(format!("signal {signal} {name}"));
        if signal == 9 || !ignores {
            self.end(id, if signal == 9 { 137 } else { 0 }, if signal == 9 { 9 } else { 0 });
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.note(format!("remove {id}"));
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<Container>, RuntimeError> {
        Ok(self.state.lock().containers.values().cloned().collect())
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let state = self.state.lock();
        let container = state.containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.into()))?;
        let program = state.programs.get(&container.config.name).cloned().unwrap_or_default();
        let ContainerState::Running { started, .. } = container.state else { return Err(failed(id)) };
        let age = crate::clock::between(started, self.clock.now());
        let name = container.config.name.clone();
        drop(state);
        if command.first().is_some_and(|word| word == "prestop") {
            self.note(format!("prestop {name}"));
            return Ok(ExecOutput { exit_code: 0, stdout: vec![], stderr: vec![] });
        }
        let works = program.answers_after.is_some_and(|after| age >= after)
            && program.fails_after.is_none_or(|after| age < after);
        let stdout = if works { Vec::new() } else { b"no answer".to_vec() };
        Ok(ExecOutput { exit_code: i32::from(!works), stdout, stderr: vec![] })
    }
}

impl Runtime for World {
    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.exits.subscribe()
    }

    fn version(&self) -> String {
        "sagong://test".into()
    }
}

fn image(name: &str) -> Image {
    let config = ImageConfig { cmd: vec!["/app".into()], ..Default::default() };
    let digest = format!("docker.io/{}@sha256:{name}", name.split(':').next().unwrap_or_default());
    Image { id: format!("sha256:{name}"), tags: vec![name.into()], digests: vec![digest], size: 1000, config }
}

#[async_trait]
impl Images for World {
    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        if reference.contains(' ') || reference.chars().any(char::is_uppercase) {
            let message = "invalid reference format".into();
            return Err(ImageError::InvalidName { reference: reference.into(), message });
        }
        Ok(self.state.lock().images.contains(reference).then(|| image(reference)))
    }

    async fn pull(
        &self,
        reference: &str,
        _credentials: Option<Credentials>,
        _progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        self.note(format!("pull {reference}"));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let mut state = self.state.lock();
        if !state.registry.contains(reference) {
            let message = "manifest unknown".into();
            return Err(ImageError::Pull { reference: reference.into(), message });
        }
        state.images.insert(reference.into());
        Ok(image(reference))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.state.lock().images.iter().map(|name| image(name)).collect())
    }

    async fn remove(&self, _id: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn prune(&self) -> Result<(), ImageError> {
        Ok(())
    }

    async fn mount(&self, _image_id: &str, key: &str) -> Result<PathBuf, ImageError> {
        self.state.lock().mounts.insert(key.into());
        Ok(PathBuf::from("/roots").join(key))
    }

    async fn unmount(&self, key: &str) -> Result<(), ImageError> {
        self.state.lock().mounts.remove(key);
        Ok(())
    }

    async fn mounted(&self) -> Result<Vec<String>, ImageError> {
        Ok(self.state.lock().mounts.iter().cloned().collect())
    }
}

impl PodNetwork for World {
    fn attach<'a>(&'a self, id: &'a str, _netns: &'a Path) -> BoxFuture<'a, Result<IpAddr, NetworkError>> {
        Box::pin(async move {
            self.note("attach");
            let mut state = self.state.lock();
            state.next += 1;
            let next = IpAddr::V4(Ipv4Addr::new(10, 244, 0, u8::try_from(state.next).unwrap()));
            Ok(*state.addresses.entry(id.to_owned()).or_insert(next))
        })
    }

    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            self.note("detach");
            self.state.lock().addresses.remove(id);
            Ok(())
        })
    }

    fn adopt<'a>(&'a self, attached: &'a [(String, IpAddr)]) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            self.state.lock().adopted = attached.to_vec();
            Ok(())
        })
    }
}

impl DataPlane for World {
    fn withdraw<'a>(&'a self, _address: IpAddr) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            self.note("withdraw");
            let withdrawal = self.state.lock().withdrawal;
            match withdrawal {
                Withdrawal::Confirmed => Ok(()),
                Withdrawal::Fails => Err(NetworkError::Failed {
                    step: "applying",
                    object: "rules".into(),
                    message: "no such table".into(),
                }),
                Withdrawal::Hangs => std::future::pending().await,
            }
        })
    }

    fn connections<'a>(
        &'a self,
        _address: IpAddr,
        _netns: &'a Path,
    ) -> BoxFuture<'a, Result<usize, NetworkError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let count = match state.connections.len() {
                0 => 0,
                1 => state.connections[0],
                _ => state.connections.remove(0),
            };
            state.journal.push((self.begun.elapsed(), format!("connections {count}")));
            Ok(count)
        })
    }

    fn restore(&self, _address: IpAddr) {
        self.note("restore");
    }

    fn readmit(&self, _address: IpAddr) {
        self.note("readmit");
    }
}

#[async_trait]
impl Cluster for World {
    async fn patch_pod_status(
        &self,
        _namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Pod, ClusterError> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version.to_string();
        let found = state.pods.get(name).ok_or_else(|| ClusterError::NotFound(name.into()))?;
        if patch["metadata"]["uid"] != json!(found.metadata.uid) {
            return Err(ClusterError::NotFound(name.into()));
        }
        let mut object = serde_json::to_value(found).unwrap();
        object["metadata"]["resourceVersion"] = json!(version);
        merge_status(&mut object["status"], &patch["status"]);
        let pod: Pod = serde_json::from_value(object).unwrap();
        state.pods.insert(name.into(), pod.clone());
        let status = pod.status.as_ref().unwrap();
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let ready = ready.map_or("None", |ready| ready.status.as_str());
        let step = format!("{}/{ready}", status.phase.as_deref().unwrap_or_default());
        if state.history.last() != Some(&step) {
            state.history.push(step);
        }
        state.journal.push((self.begun.elapsed(), "patch".into()));
        drop(state);
        self.publish(PodUpdate::Applied(Arc::new(pod.clone())));
        Ok(pod)
    }

    async fn delete_pod(&self, _namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError> {
        let mut state = self.state.lock();
        match state.pods.get(name) {
            Some(pod) if pod.metadata.uid.as_deref() == Some(uid) => {}
            _ => return Err(ClusterError::NotFound(name.into())),
        }
        let pod = state.pods.remove(name).unwrap();
        state.journal.push((self.begun.elapsed(), "delete_pod".into()));
        drop(state);
        self.publish(PodUpdate::Deleted(Arc::new(pod)));
        Ok(())
    }

    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError> {
        Ok(self.state.lock().config_maps.get(name).cloned())
    }

    async fn secret(&self, _namespace: &str, _name: &str) -> Result<Option<Secret>, ClusterError> {
        Ok(None)
    }

    async fn request_token(
        &self,
        _namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequestStatus, ClusterError> {
        let mut state = self.state.lock();
        state.next += 1;
        let token = format!("{account}-{}", state.next);
        let seconds = request.spec.expiration_seconds.unwrap_or_default();
        let life = Duration::from_secs(seconds.unsigned_abs());
        let expiration_timestamp = crate::clock::api_time(later(self.clock.now(), life));
        Ok(TokenRequestStatus { token, expiration_timestamp })
    }

    async fn services(&self, _namespace: &str) -> Vec<Arc<Service>> {
        Vec::new()
    }

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let event = (text(&event.type_), text(&event.reason), text(&event.message));
        self.state.lock().events.push(event);
        Ok(())
    }

    async fn patch_event(&self, _namespace: &str, _name: &str, _patch: &Value) -> Result<(), ClusterError> {
        Ok(())
    }
}

/// A strategic merge, as far as the kubelet's patches need it.
pub(crate) fn merge_status(status: &mut Value, patch: &Value) {
    for (key, change) in patch.as_object().unwrap() {
        if change.is_null() {
            status.as_object_mut().unwrap().remove(key);
            continue;
        }
        let mut change = change.clone();
        if let Some(items) = change.as_array_mut() {
            items.retain(|item| item.get("$patch").is_none());
        }
        if key != "conditions" {
            status[key] = change;
            continue;
        }
        let mut all = status[key].as_array().cloned().unwrap_or_default();
        for item in change.as_array().unwrap() {
            match all.iter_mut().find(|old| old["type"] == item["type"]) {
                Some(old) => {
                    for (name, value) in item.as_object().unwrap() {
                        match value {
                            Value::Null => drop(old.as_object_mut().unwrap().remove(name)),
                            value => old[name] = value.clone(),
                        }
                    }
                }
                None => all.push(item.clone()),
            }
        }
        status[key] = json!(all);
    }
}
