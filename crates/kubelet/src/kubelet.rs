//! The kubelet: its parts, put together.

use crate::clock::Clock;
use crate::cluster::{Cluster, KubeCluster};
use crate::config::Config;
use crate::error::KubeletError;
use crate::events::Recorder;
use crate::eviction;
use crate::logs::{self, LogError, LogOptions, LogStream};
use crate::node;
use crate::node::facts::Facts;
use crate::pod::manager::{Inbox, PodManager, PodUpdate, Views};
use crate::shared::Shared;
use crate::volumes;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use sagong_image::Images;
use sagong_network::{DataPlane, PodNetwork};
use sagong_runtime::Runtime;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Runs the pods that are bound to one node, and speaks for that node.
///
/// It keeps no state of its own: what runs is asked of the runtime, what should run of the API.
pub struct Kubelet {
    config: Config,
    client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    images: Arc<dyn Images>,
    network: Arc<dyn PodNetwork>,
    data_plane: Arc<dyn DataPlane>,
    views: Views,
}

impl Kubelet {
    /// A kubelet that does nothing before [`Kubelet::run`].
    pub fn new(
        config: Config,
        client: Client,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
        network: Arc<dyn PodNetwork>,
        data_plane: Arc<dyn DataPlane>,
    ) -> Self {
        Kubelet { config, client, runtime, images, network, data_plane, views: Views::default() }
    }

    /// Registers the node and runs its pods until `shutdown` is done. Containers go on running afterwards and
    /// are taken over by the next run. Trouble with the API is waited out.
    ///
    /// # Errors
    /// If the runtime or network do not say what there is, or the data directory cannot be made.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), KubeletError> {
        let directory = |source| KubeletError::Directory { path: self.config.data_dir.clone(), source };
        for name in ["pods", "logs"] {
            std::fs::create_dir_all(self.config.data_dir.join(name)).map_err(directory)?;
        }
        let facts = Facts::read(&self.config.data_dir);
        let writer = Writer::<Service>::default();
        let cluster: Arc<dyn Cluster> = Arc::new(KubeCluster::new(self.client.clone(), writer.as_reader()));
        let clock = Clock::System;
        let (recorder, write_events) =
            Recorder::new(cluster.clone(), self.config.node_name.clone(), clock.clone());
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            clock,
            cluster,
            recorder,
            runtime: self.runtime.clone(),
            images: self.images.clone(),
            network: self.network.clone(),
            data_plane: self.data_plane.clone(),
            node_memory: facts.memory,
            node_storage: facts.storage,
            pressures: Default::default(),
            shows: Default::default(),
            tokens: Default::default(),
        });
        let (uid, uid_seen) = watch::channel(None);
        let (updates, pods) = mpsc::unbounded_channel();
        let (changes, outdated) = mpsc::unbounded_channel();
        let (evict, evictions) = mpsc::unbounded_channel();
        let views = || self.views.read().values().map(|view| view.borrow().clone()).collect();
        let stop = CancellationToken::new();
        let manager = PodManager::new(shared.clone(), self.views.clone());
        tokio::select! {
            result = manager.run(Inbox { pods, outdated, evictions }, stop.child_token()) => result,
            () = shutdown => Ok(()),
            () = write_events => Ok(()),
            () = node::register::run(&shared, self.client.clone(), facts, uid) => Ok(()),
            () = node::lease::run(&shared, self.client.clone(), uid_seen) => Ok(()),
            () = eviction::run(&shared, views, evict) => Ok(()),
            () = volumes::follow(self.client.clone(), &shared.shows, changes) => Ok(()),
            () = follow_services(self.client.clone(), writer) => Ok(()),
            () = follow_pods(self.client.clone(), &self.config.node_name, updates) => Ok(()),
        }
    }

    /// The log of a container, as `kubectl logs` shows it. `uid` may be empty if it is not known.
    ///
    /// # Errors
    /// If there is no such pod, container or run of it.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<LogStream, LogError> {
        let watched = {
            let views = self.views.read();
            let fits = |view: &watch::Receiver<_>| logs::is_of(&view.borrow(), namespace, pod, uid);
            views.values().find(|view| fits(view)).cloned()
        };
        let watched =
            watched.ok_or_else(|| LogError::PodNotFound { namespace: namespace.into(), pod: pod.into() })?;
        logs::read(&self.config, watched, container, options).await
    }
}

/// Keeps the list of services for the environment of containers.
async fn follow_services(client: Client, writer: Writer<Service>) {
    let events = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff();
    let mut services = pin!(reflector(writer, events));
    while let Some(event) = services.next().await {
        if let Err(error) = event {
            tracing::debug!(%error, "watching services");
        }
    }
}

/// Hands on what the API says about the pods of this node.
async fn follow_pods(client: Client, node: &str, updates: mpsc::UnboundedSender<PodUpdate>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let events = watcher(Api::<Pod>::all(client), config).default_backoff();
    let mut events = pin!(pod_updates(events));
    while let Some(update) = events.next().await {
        if updates.send(update).is_err() {
            return;
        }
    }
}

/// Turns watch events into updates; the listing at the beginning becomes one.
fn pod_updates(
    events: impl Stream<Item = watcher::Result<watcher::Event<Pod>>>,
) -> impl Stream<Item = PodUpdate> {
    let mut listed: Vec<Arc<Pod>> = Vec::new();
    events.inspect_err(|error| tracing::warn!(%error, "watching pods")).filter_map(move |event| {
        let update = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(pod)) => {
                listed.push(Arc::new(pod));
                None
            }
            Ok(watcher::Event::InitDone) => Some(PodUpdate::Synced(std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(pod)) => Some(PodUpdate::Applied(Arc::new(pod))),
            Ok(watcher::Event::Delete(pod)) => Some(PodUpdate::Deleted(Arc::new(pod))),
            Err(_) => None,
        };
        std::future::ready(update)
    })
}
