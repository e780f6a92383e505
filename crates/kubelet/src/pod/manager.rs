//! All pods of the node: starts their workers, hands them what happens, takes over what earlier runs left.

use super::container_config::POD_IP;
use super::snapshot::{Instance, PodSnapshot, SandboxFacts};
use super::view::PodView;
use super::worker::{Message, Worker};
use crate::error::KubeletError;
use crate::eviction::Eviction;
use crate::shared::Shared;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;
use sagong_runtime::{Container, ContainerState, Sandbox};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// How often containers are listed although nothing was told, in case something was missed.
const RELIST: Duration = Duration::from_secs(60);
/// How many ended pods are remembered, so that a late view of one does not bring it back.
const ENDED: usize = 1024;

/// How long a pod is without a worker after one failed unexpectedly.
const REPLACED_AFTER: Duration = Duration::from_secs(1);

/// What the API says about pods.
#[derive(Clone, Debug)]
pub(crate) enum PodUpdate {
    /// All there are, at the beginning and after a gap in the watch.
    Synced(Vec<Arc<Pod>>),
    /// One is new or changed.
    Applied(Arc<Pod>),
    /// One is gone.
    Deleted(Arc<Pod>),
}

/// What a kubelet hears of outside.
pub(crate) struct Inbox {
    /// What the API says about pods.
    pub(crate) pods: mpsc::UnboundedReceiver<PodUpdate>,
    /// Uids of pods whose volumes show something that has changed.
    pub(crate) outdated: mpsc::UnboundedReceiver<String>,
    /// Pods that have to go.
    pub(crate) evictions: mpsc::UnboundedReceiver<Eviction>,
}

/// What others may know of the pods, by uid.
pub(crate) type Views = Arc<RwLock<HashMap<String, watch::Receiver<PodView>>>>;

/// All pods of the node.
pub(crate) struct PodManager {
    shared: Arc<Shared>,
    views: Views,
    workers: HashMap<String, mpsc::UnboundedSender<Message>>,
    tasks: JoinSet<()>,
    uids: HashMap<Id, String>,
    ended: HashSet<String>,
    adopted: HashMap<String, Remains>,
    sandboxes: HashMap<String, String>,
    states: HashMap<String, ContainerState>,
    /// The newest view of each pod that has a worker.
    pods: HashMap<String, Arc<Pod>>,
    synced: bool,
}

/// What the runtime still has of a pod.
#[derive(Default)]
struct Remains {
    sandboxes: Vec<Sandbox>,
    containers: Vec<Container>,
}

impl PodManager {
    /// A manager that knows nothing yet.
    pub(crate) fn new(shared: Arc<Shared>, views: Views) -> Self {
        PodManager {
            shared,
            views,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            uids: HashMap::new(),
            ended: HashSet::new(),
            adopted: HashMap::new(),
            sandboxes: HashMap::new(),
            states: HashMap::new(),
            pods: HashMap::new(),
            synced: false,
        }
    }

    /// Takes over what runs, then follows the API until `shutdown`. Containers go on running afterwards.
    ///
    /// # Errors
    /// If the runtime or the network do not say what there is.
    pub(crate) async fn run(
        mut self,
        mut inbox: Inbox,
        shutdown: CancellationToken,
    ) -> Result<(), KubeletError> {
        let mut events = self.shared.runtime.events();
        self.adopt().await?;
        let mut relist = tokio::time::interval(RELIST);
        relist.tick().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                update = inbox.pods.recv() => match update {
                    Some(update) => self.update(update).await,
                    None => return Ok(()),
                },
                Some(eviction) = inbox.evictions.recv() => {
                    self.tell(&eviction.uid, Message::Evict(eviction.message));
                }
                Some(uid) = inbox.outdated.recv() => self.tell(&uid, Message::Outdated),
                event = events.recv() => match event {
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        while matches!(events.try_recv(), Ok(_) | Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_))) {}
                        self.relist().await;
                    }
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = relist.tick() => {
                    self.relist().await;
                    self.check_sandboxes().await;
                }
                Some(done) = self.tasks.join_next_with_id() => {
                    let id = match &done {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    match done {
                        Ok(_) => self.forget(id),
                        Err(error) => {
                            tracing::error!(%error, "a pod's worker failed unexpectedly; another one takes over");
                            self.replace(id).await;
                        }
                    }
                }
            }
        }
    }

    /// Learns what earlier runs left, and tells the network which addresses are in use.
    async fn adopt(&mut self) -> Result<(), KubeletError> {
        let runtime = &self.shared.runtime;
        let sandboxes = runtime.list_sandboxes().await;
        let sandboxes = sandboxes.map_err(|source| KubeletError::List { what: "sandboxes", source })?;
        let containers = runtime.list_containers().await;
        let containers = containers.map_err(|source| KubeletError::List { what: "containers", source })?;
        let attached: Vec<(String, IpAddr)> = sandboxes
            .iter()
            .filter(|it| it.ready)
            .filter_map(|it| Some((it.id.clone(), address(it)?)))
            .collect();
        let adopted = self.shared.network.adopt(&attached).await;
        adopted.map_err(|source| KubeletError::Adopt { count: attached.len(), source })?;
        for container in containers {
            self.states.insert(container.id.clone(), container.state.clone());
            if let Some(sandbox) = sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox_id) {
                self.adopted.entry(sandbox.config.uid.clone()).or_default().containers.push(container);
            }
        }
        for sandbox in sandboxes {
            let uid = sandbox.config.uid.clone();
            self.sandboxes.insert(sandbox.id.clone(), uid.clone());
            self.adopted.entry(uid).or_default().sandboxes.push(sandbox);
        }
        if !self.adopted.is_empty() {
            tracing::info!(pods = self.adopted.len(), "taking over pods that are there already");
        }
        Ok(())
    }

    async fn update(&mut self, update: PodUpdate) {
        match update {
            PodUpdate::Applied(pod) => self.apply(pod),
            PodUpdate::Deleted(pod) => {
                let uid = uid(&pod);
                self.ended.remove(uid);
                self.tell(uid, Message::Removed);
            }
            PodUpdate::Synced(pods) => {
                let listed: HashSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
                self.ended.retain(|uid| listed.contains(uid));
                let gone: Vec<String> =
                    self.workers.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.tell(uid, Message::Removed));
                pods.into_iter().for_each(|pod| self.apply(pod));
                if !std::mem::replace(&mut self.synced, true) {
                    self.remove_orphans().await;
                }
            }
        }
    }

    fn apply(&mut self, pod: Arc<Pod>) {
        let uid = uid(&pod).to_owned();
        if self.ended.contains(&uid) {
            return;
        }
        self.pods.insert(uid.clone(), pod.clone());
        if self.workers.contains_key(&uid) {
            return self.tell(&uid, Message::Pod(pod));
        }
        let mut snapshot =
            PodSnapshot::new(pod, self.shared.config.node_addresses.clone(), self.shared.clock.now());
        if let Some(remains) = self.adopted.remove(&uid) {
            take_over(&mut snapshot, remains);
        }
        self.spawn(uid, snapshot, Duration::ZERO);
    }

    fn spawn(&mut self, uid: String, snapshot: PodSnapshot, after: Duration) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let (view, watched) = watch::channel(PodView::of(&snapshot, &Default::default()));
        self.views.write().insert(uid.clone(), watched);
        let worker = Worker::new(self.shared.clone(), snapshot, inbox, view);
        let task = self.tasks.spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            worker.run().await;
        });
        self.uids.insert(task.id(), uid.clone());
        self.workers.insert(uid, sender);
    }

    fn tell(&self, uid: &str, message: Message) {
        if let Some(worker) = self.workers.get(uid) {
            // A worker that has just ended needs to know nothing.
            let _ = worker.send(message);
        }
    }

    fn forget(&mut self, task: Id) {
        let Some(uid) = self.uids.remove(&task) else { return };
        self.workers.remove(&uid);
        self.views.write().remove(&uid);
        self.pods.remove(&uid);
        self.sandboxes.retain(|_, owner| *owner != uid);
        if self.ended.len() >= ENDED {
            self.ended.clear();
        }
        self.ended.insert(uid);
    }

    /// Gives the pod of a worker that failed to a new one, which begins with what the runtime has of it, as after a
    /// restart of the kubelet. It begins a moment later: whatever failed may fail again.
    async fn replace(&mut self, task: Id) {
        let Some(uid) = self.uids.remove(&task) else { return };
        self.workers.remove(&uid);
        let Some(pod) = self.pods.get(&uid).cloned() else { return };
        let sandboxes = self.learn_sandboxes().await;
        let containers = self.shared.runtime.list_containers().await.unwrap_or_default();
        let sandboxes: Vec<Sandbox> = sandboxes.into_iter().filter(|it| it.config.uid == uid).collect();
        let is_inside = |it: &Container| sandboxes.iter().any(|sandbox| sandbox.id == it.sandbox_id);
        let containers = containers.into_iter().filter(is_inside).collect();
        let now = self.shared.clock.now();
        let mut snapshot = PodSnapshot::new(pod, self.shared.config.node_addresses.clone(), now);
        take_over(&mut snapshot, Remains { sandboxes, containers });
        self.spawn(uid, snapshot, REPLACED_AFTER);
    }

    /// Ends pods that were removed from the API while nobody looked, and removes what is left of others.
    async fn remove_orphans(&mut self) {
        for (uid, remains) in std::mem::take(&mut self.adopted) {
            let Some(first) = remains.sandboxes.first() else { continue };
            let metadata = ObjectMeta {
                name: Some(first.config.name.clone()),
                namespace: Some(first.config.namespace.clone()),
                uid: Some(uid.clone()),
                ..Default::default()
            };
            tracing::info!(
                pod = first.config.name,
                namespace = first.config.namespace,
                "ending an orphaned pod"
            );
            let pod = Arc::new(Pod { metadata, ..Default::default() });
            let mut snapshot = PodSnapshot::new(pod, Vec::new(), self.shared.clock.now());
            snapshot.removed = true;
            take_over(&mut snapshot, remains);
            self.spawn(uid, snapshot, Duration::ZERO);
        }
        self.remove_leftovers().await;
    }

    /// Removes file systems and directories of pods that neither the API nor the runtime know.
    async fn remove_leftovers(&self) {
        let mut unknown: HashSet<String> = HashSet::new();
        match self.shared.images.mounted().await {
            Ok(keys) => unknown.extend(keys.iter().filter_map(|key| Some(key.split_once('_')?.0.to_owned()))),
            Err(error) => tracing::warn!(%error, "mounted file systems not listed"),
        }
        let directories = std::fs::read_dir(self.shared.config.data_dir.join("pods"));
        unknown.extend(
            directories.into_iter().flatten().flatten().filter_map(|it| it.file_name().into_string().ok()),
        );
        unknown.retain(|uid| !self.workers.contains_key(uid));
        for uid in unknown {
            // Its log directory also bears its name, which nobody knows any more.
            let log_dir = self.log_dir_of(&uid);
            if let Err(error) = super::operations::clean(&self.shared, &uid, None, &log_dir).await {
                tracing::warn!(error, uid, "left over of a pod not removed");
            }
        }
    }

    fn log_dir_of(&self, uid: &str) -> std::path::PathBuf {
        let logs = self.shared.config.data_dir.join("logs");
        let suffix = format!("_{uid}");
        let entries = std::fs::read_dir(&logs).into_iter().flatten().flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let name = names.find(|name| name.ends_with(&suffix)).unwrap_or_else(|| format!("none{suffix}"));
        logs.join(name)
    }

    /// Lists containers and tells workers about those that changed.
    async fn relist(&mut self) {
        let containers = match self.shared.runtime.list_containers().await {
            Ok(containers) => containers,
            Err(error) => return tracing::warn!(%error, "containers not listed"),
        };
        let listed: HashSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        self.states.retain(|id, _| listed.contains(id.as_str()));
        let changed: Vec<Container> =
            containers.into_iter().filter(|it| self.states.get(&it.id) != Some(&it.state)).collect();
        if changed.iter().any(|container| !self.sandboxes.contains_key(&container.sandbox_id)) {
            self.learn_sandboxes().await;
        }
        let mut by_uid: BTreeMap<String, Vec<Container>> = BTreeMap::new();
        for container in changed {
            if let Some(uid) = self.sandboxes.get(&container.sandbox_id) {
                self.states.insert(container.id.clone(), container.state.clone());
                by_uid.entry(uid.clone()).or_default().push(container);
            }
        }
        for (uid, containers) in by_uid {
            self.tell(&uid, Message::Containers(containers));
        }
    }

    async fn learn_sandboxes(&mut self) -> Vec<Sandbox> {
        match self.shared.runtime.list_sandboxes().await {
            Ok(sandboxes) => {
                let pairs = sandboxes.iter().map(|sandbox| (sandbox.id.clone(), sandbox.config.uid.clone()));
                self.sandboxes.extend(pairs);
                sandboxes
            }
            Err(error) => {
                tracing::warn!(%error, "sandboxes not listed");
                Vec::new()
            }
        }
    }

    /// Tells workers about sandboxes that died.
    async fn check_sandboxes(&mut self) {
        for sandbox in self.learn_sandboxes().await.into_iter().filter(|sandbox| !sandbox.ready) {
            self.tell(&sandbox.config.uid, Message::SandboxDead(sandbox.id));
        }
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn address(sandbox: &Sandbox) -> Option<IpAddr> {
    sandbox.config.annotations.get(POD_IP)?.parse().ok()
}

/// Puts what the runtime has of a pod into a new snapshot.
fn take_over(snapshot: &mut PodSnapshot, remains: Remains) {
    let newest = remains.sandboxes.iter().max_by_key(|sandbox| sandbox.config.attempt);
    snapshot.sandbox = newest.map(|sandbox| {
        let address = address(sandbox);
        SandboxFacts {
            id: sandbox.id.clone(),
            attempt: sandbox.config.attempt,
            // One whose network was never attached is as good as dead.
            ready: sandbox.ready && (sandbox.config.host_network || address.is_some()),
            address,
            netns: sandbox.network_namespace.clone(),
        }
    });
    // What they show may have changed meanwhile, and somebody has to look at it from now on.
    snapshot.volumes_stale = snapshot.spec().is_some_and(|spec| spec.volumes.is_some());
    let mut containers = remains.containers;
    containers.sort_by_key(|container| container.config.attempt);
    for container in containers {
        let instance = Instance::from_runtime(&container);
        let known = known_status(&snapshot.pod, &container.config.name, &instance);
        let facts = snapshot.containers.entry(container.config.name.clone()).or_default();
        facts.observe(instance);
        if let Some(known) = known {
            // What probes found before holds until they find something else.
            facts.probes.startup = known.started.filter(|started| *started);
            facts.probes.readiness = Some(known.ready).filter(|ready| *ready);
        }
    }
}

/// The API's status of this very instance.
fn known_status(pod: &Pod, name: &str, instance: &Instance) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mains = status.container_statuses.iter().flatten();
    let others = status.init_container_statuses.iter().flatten();
    let mut all = mains.chain(others).chain(status.ephemeral_container_statuses.iter().flatten());
    let id = super::container_status::container_id(instance);
    all.find(|known| known.name == name && known.container_id.as_deref() == Some(&id)).cloned()
}
