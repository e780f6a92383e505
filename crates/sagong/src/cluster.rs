//! The wiring: which part knows which, in what order they start and stop, and how all of it is taken down.

use crate::container_logs::Logs;
use crate::container_streams::Streams;
use crate::controllers;
use crate::data_dir::{ClusterConfig, DataDir, write_private};
use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use sagong_apiserver::authn::User;
use sagong_apiserver::pki::{Pki, default_names};
use sagong_apiserver::{ApiServer, Config};
use sagong_image::{ImageStore, Images};
use sagong_kubelet::{Kubelet, SimulatedNodes};
use sagong_network::Network;
use sagong_runtime::native::{NativeRuntime, Options as RuntimeOptions, ShimCommand};
use sagong_store::EmbeddedStore;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The hidden command that is a container's shim.
pub(crate) const SHIM: &str = "shim";
/// How long the node may take to become Ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the parts may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// The parts a cluster may have or not.
pub(crate) struct Parts {
    /// Our controllers. Without, somebody else's are to run.
    pub(crate) controllers: bool,
    /// Our scheduler. Without, somebody else's is to run.
    pub(crate) scheduler: bool,
    /// Nodes beside this machine's whose pods are only played.
    pub(crate) simulated_nodes: Option<SimulatedNodes>,
}

/// A running cluster.
pub(crate) struct Cluster {
    began: Instant,
    client: Client,
    store: Arc<EmbeddedStore>,
    /// Each ends at shutdown; one that ends before has failed.
    parts: tokio::sync::Mutex<JoinSet<&'static str>>,
}

impl Cluster {
    /// Starts every part. Order: what answers before what asks.
    pub(crate) async fn start(
        data: &DataDir,
        config: &ClusterConfig,
        optional: Parts,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let began = Instant::now();
        let network_options = network_options(data, config);
        let gateway = IpAddr::V4(network_options.gateway());
        let node_addresses = vec![host_address().unwrap_or(gateway)];

        let store = Arc::new(open_store(data).await?);
        let (pki, server) = api_server(data, config, store.clone(), gateway).await?;
        let user = |name: &str| server.client(User::new(name, &[sagong_apiserver::authn::MASTERS]));
        let allocated = allocated(config, &optional);
        let network = Network::start_within(network_options, allocated, user("system:kube-proxy")).await?;
        let listeners = listen(&[Ipv4Addr::LOCALHOST.into(), gateway], config.port).await?;
        server.bootstrap(gateway, config.port).await?;
        let kubeconfig = pki.admin_kubeconfig(&format!("https://127.0.0.1:{}", config.port));
        write_private(&data.kubeconfig(), kubeconfig.as_bytes())?;

        let kubelet = kubelet(data, config, node_addresses, user("system:kubelet"), network.clone())?;
        server.set_logs(Arc::new(Logs(kubelet.clone())));
        server.set_streams(Arc::new(Streams(kubelet.clone())));

        let mut parts = JoinSet::new();
        let mut part = |name: &'static str, work: Work| {
            parts.spawn(async move {
                work.await;
                name
            });
        };
        let tls = pki.server_config()?;
        let serving = server.clone();
        let stop = shutdown.clone();
        part("API server", Box::pin(async move { serving.serve(listeners, tls, stop).await }));
        part("network", Box::pin(network.run(shutdown.clone())));
        let stop = shutdown.clone();
        part(
            "kubelet",
            Box::pin(async move {
                if let Err(error) = kubelet.run(stop.cancelled_owned()).await {
                    tracing::error!(%error, "kubelet");
                }
            }),
        );
        if optional.controllers {
            let (client, stop) = (user("system:kube-controller-manager"), shutdown.clone());
            let options =
                sagong_controllers::Options { root_ca: Some(pki.ca_pem.clone()), ..Default::default() };
            let instance = data.instance();
            part(
                "controllers",
                Box::pin(async move {
                    let running = controllers::beside_the_server(client, options, &instance, stop);
                    if let Err(error) = running.await {
                        tracing::error!("{error:#}");
                    }
                }),
            );
        }
        if optional.scheduler {
            part(
                "scheduler",
                Box::pin(sagong_scheduler::run(user("system:kube-scheduler"), shutdown.clone())),
            );
        }
        if let Some(nodes) = optional.simulated_nodes {
            let (client, stop) = (user("system:simulated-nodes"), shutdown.clone());
            part(
                "simulated nodes",
                Box::pin(
                    async move { stop.run_until_cancelled(nodes.run(client)).await.unwrap_or_default() },
                ),
            );
        }

        let client = user("sagong");
        Ok(Self { began, client, store, parts: tokio::sync::Mutex::new(parts) })
    }

    /// Waits until this machine's node is Ready.
    pub(crate) async fn node_ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let name = node_name();
        let ready = kube::runtime::wait::await_condition(nodes, &name, |node: Option<&Node>| {
            let status = node.and_then(|node| node.status.as_ref());
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let in_time = tokio::select! {
            ready = tokio::time::timeout(PATIENCE, ready) => ready,
            failed = self.failed() => return Err(failed),
        };
        in_time.with_context(|| {
            format!("the node is not Ready after {PATIENCE:?}; see `kubectl describe node`")
        })??;
        Ok(())
    }

    /// Time since [`Cluster::start`] was called.
    pub(crate) fn since_start(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until a part ends that should not have.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        match self.parts.lock().await.join_next().await {
            Some(Ok(name)) => anyhow!("the {name} stopped"),
            Some(Err(error)) => anyhow!("a part of the cluster failed: {error}"),
            None => anyhow!("nothing runs"),
        }
    }

    /// Waits until every part has ended, after shutdown was asked for.
    pub(crate) async fn stopped(&self) {
        let mut parts = self.parts.lock().await;
        let ended = async { while parts.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::warn!("parts of the cluster did not end within {ENDING:?}");
        }
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells why the cluster's network cannot be set up on this machine. Changes nothing.
pub(crate) async fn check_network(data: &DataDir, config: &ClusterConfig) -> Result<()> {
    sagong_network::check(&network_options(data, config)).await.map_err(|reason| anyhow!(reason))
}

/// Removes everything a cluster made on this machine but its data directory. The cluster must not run.
pub(crate) async fn destroy(data: &DataDir) -> Result<()> {
    let instance = data.instance();
    let RuntimeOptions { root, run, .. } = runtime_options(data);
    // All is tried; the first error is told.
    let of = instance.clone();
    let containers =
        tokio::task::spawn_blocking(move || sagong_runtime::native::destroy_all(&of, &root, &run)).await?;
    let snapshots = unmount_all(data).await;
    let network = sagong_network::destroy(&instance).await;
    // On a read-only disk the image store cannot take its mounts down itself.
    let mounts = unmount_below(&data.join("images")).and(unmount_below(&data.join("pods")));
    containers.context("stopping containers")?;
    snapshots?;
    network.context("removing the network")?;
    mounts
}

async fn unmount_all(data: &DataDir) -> Result<()> {
    let directory = data.join("images");
    if !directory.exists() {
        return Ok(());
    }
    let images = ImageStore::open(&directory)?;
    for key in images.mounted().await? {
        images.unmount(&key).await?;
    }
    Ok(())
}

/// Unmounts what is left of volumes and of containers' roots.
fn unmount_below(directory: &std::path::Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let ours: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    for point in ours.iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", point.display()))?;
    }
    Ok(())
}

/// The node's name: the host's, in lower case, as upstream's kubelet takes it.
pub(crate) fn node_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().trim().to_lowercase();
    if name.is_empty() { "localhost".into() } else { name }
}

/// The address other machines know this one by, if it has one: the first of an interface that is up.
fn host_address() -> Option<IpAddr> {
    use nix::net::if_::InterfaceFlags;
    let usable = |interface: &nix::ifaddrs::InterfaceAddress| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && !["sg", "docker", "br-", "veth", "cni"]
                .iter()
                .any(|prefix| interface.interface_name.starts_with(prefix))
    };
    let mut addresses = nix::ifaddrs::getifaddrs().ok()?.filter(usable);
    addresses.find_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip().into()))
}

fn network_options(data: &DataDir, config: &ClusterConfig) -> sagong_network::Options {
    sagong_network::Options {
        instance: data.instance(),
        node_cidr: config.pod_cidr,
        pod_cidr: config.pod_cidr,
        service_cidr: config.service_cidr,
        load_balancer: config.load_balancer,
    }
}

/// The addresses real pods get: the first half of the pod network if the second is for simulated ones.
fn allocated(config: &ClusterConfig, parts: &Parts) -> ipnet::Ipv4Net {
    let whole = config.pod_cidr;
    let half = || whole.subnets(whole.prefix_len().saturating_add(1)).ok()?.next();
    parts.simulated_nodes.as_ref().and_then(|_| half()).unwrap_or(whole)
}

fn runtime_options(data: &DataDir) -> RuntimeOptions {
    let instance = data.instance();
    let run = PathBuf::from(format!("/run/sagong-{instance}"));
    RuntimeOptions { instance, root: data.join("runtime"), run, shim: ShimCommand::own(SHIM) }
}

fn kubelet(
    data: &DataDir,
    config: &ClusterConfig,
    node_addresses: Vec<IpAddr>,
    client: Client,
    network: Arc<Network>,
) -> Result<Arc<Kubelet>> {
    let images = ImageStore::open(&data.join("images"))?;
    images.clean()?;
    let runtime = Arc::new(NativeRuntime::open(runtime_options(data))?);
    let config = sagong_kubelet::Config {
        pod_cidr: Some(config.pod_cidr.to_string()),
        node_addresses,
        max_pods: config.max_pods,
        lacks: sagong_runtime::native::missing_limits(),
        cluster_dns: network_options(data, config).cluster_dns().map(IpAddr::V4).into_iter().collect(),
        ..sagong_kubelet::Config::new(node_name(), data.instance(), data.path())
    };
    Ok(Arc::new(Kubelet::new(config, client, runtime, Arc::new(images), network.clone(), network)))
}

async fn open_store(data: &DataDir) -> Result<EmbeddedStore> {
    let path = data.join("state.redb");
    Ok(tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await??)
}

async fn api_server(
    data: &DataDir,
    config: &ClusterConfig,
    store: Arc<EmbeddedStore>,
    gateway: IpAddr,
) -> Result<(Pki, ApiServer)> {
    let service_ip = Ipv4Addr::from(u32::from(config.service_cidr.network()) + 1);
    let addresses: Vec<IpAddr> = [gateway, service_ip.into()].into_iter().chain(host_address()).collect();
    let pki = Pki::open(data.path(), &default_names(&node_name()), &addresses)?;
    let server = ApiServer::new(Config {
        store,
        kinds: sagong_api::kinds::registry(),
        service_cidr: config.service_cidr,
        node_ports: 30000..=32767,
        tokens: vec![(pki.admin_token.clone(), User::admin("kubernetes-admin"))],
        token_key: Some(pki.token_key()?),
    })
    .await?;
    Ok((pki, server))
}

async fn listen(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error) => bail!("cannot listen on {address}: {error}; choose another --port"),
        }
    }
    Ok(listeners)
}
