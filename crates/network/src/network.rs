//! The node's network as one thing: made, run, taken down.

use crate::balancer::status::LoadBalancers;
use crate::dns::clients::Clients;
use crate::dns::listener::Sockets;
use crate::dns::service::Place;
use crate::dns::upstream::Upstreams;
use crate::dns::zone::Zone;
use crate::dns::{self, Dns};
use crate::pod::{self, Pods};
use crate::proxy::{Proxy, health, watch};
use crate::rules;
use crate::rules::model::Node;
use crate::{BoxFuture, DataPlane, NetworkError, PodNetwork};
use futures::StreamExt;
use hickory_proto::rr::Name;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a service that could not be served is tried again, and idle connections are looked through.
const TICK: Duration = Duration::from_secs(1);

/// Where the host says which resolvers it asks.
const HOST_RESOLVERS: &str = "/etc/resolv.conf";

/// How a node's network is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Six lowercase hex digits that name everything made on the host.
    pub instance: String,
    /// Addresses of pods on this node; the whole `pod_cidr` if there is only one node.
    pub node_cidr: Ipv4Net,
    /// Addresses of pods on all nodes.
    pub pod_cidr: Ipv4Net,
    /// ClusterIPs.
    pub service_cidr: Ipv4Net,
    /// Whether LoadBalancer services are served in this process.
    pub load_balancer: bool,
}

impl Options {
    /// The node's gateway: first address of the node's CIDR. Pods reach the host under it.
    pub fn gateway(&self) -> Ipv4Addr {
        pod::bridge::gateway(self.node_cidr)
    }

    /// Address of the cluster's name server: the tenth of the service CIDR, as upstream's installers choose it.
    /// None if the CIDR is too small to have one; there is no name server then.
    pub fn cluster_dns(&self) -> Option<Ipv4Addr> {
        dns::address(self.service_cidr)
    }
}

/// A node's network.
pub struct Network {
    options: Options,
    client: kube::Client,
    pods: Pods,
    proxy: Arc<Proxy>,
    /// The name server's, until [`Network::run`] serves them.
    names: Mutex<Option<(Sockets, Place)>>,
}

impl Network {
    /// Makes or adopts what the node needs: bridge, routes, kernel parameters, nftables table. Does not need
    /// the API yet; rules and cables of an earlier run go on working as they are.
    pub async fn start(options: Options, client: kube::Client) -> Result<Arc<Self>, NetworkError> {
        let allocated = options.node_cidr;
        Self::start_within(options, allocated, client).await
    }

    /// The same for a node that gives pods only the addresses in `allocated`, the beginning of its CIDR. The
    /// rest of the CIDR is somebody else's; what is sent there and has no route of its own is refused at once.
    pub async fn start_within(
        options: Options,
        allocated: Ipv4Net,
        client: kube::Client,
    ) -> Result<Arc<Self>, NetworkError> {
        let pods = Pods::new(&options.instance, options.node_cidr, options.service_cidr)?.within(allocated);
        let proxy = Proxy::new(Node {
            instance: options.instance.clone(),
            node_cidr: options.node_cidr,
            pod_cidr: options.pod_cidr,
            service_cidr: options.service_cidr,
        });
        tokio::try_join!(pods.prepare(), proxy.prepare())?;
        let names = Mutex::new(listen_for_names(&options).await?);
        Ok(Arc::new(Self { options, client, pods, proxy: Arc::new(proxy), names }))
    }

    /// Follows services and endpoints until `shutdown`. What is set up then stays: pods go on.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let changes =
            futures::stream::select(watch::services(self.client.clone()), watch::slices(self.client.clone()));
        let watching = changes.for_each(|change| {
            self.proxy.change(change);
            std::future::ready(())
        });
        tokio::select! {
            () = watching => {}
            () = self.proxy.follow() => {}
            () = self.balance() => {}
            () = health::answer(self.proxy.clone()) => {}
            () = self.name() => {}
            () = shutdown.cancelled() => {}
        }
        self.proxy.balancer.sync(&[]);
    }

    /// Answers questions about names.
    async fn name(&self) {
        let Some((sockets, place)) = self.names.lock().take() else { return std::future::pending().await };
        let zone = Zone {
            domain: Name::from_ascii(dns::DOMAIN).unwrap_or_default(),
            server: place.cluster_ip,
            networks: [self.options.pod_cidr, self.options.service_cidr],
        };
        let own = vec![IpAddr::V4(place.cluster_ip), IpAddr::V4(place.address)];
        let dns = Dns::new(zone, Upstreams::new(HOST_RESOLVERS.into(), own));
        tokio::join!(
            sockets.serve(Arc::new(dns), self.proxy.clone(), Arc::new(Clients::new(self.options.pod_cidr))),
            dns::service::keep(self.client.clone(), &self.proxy, place)
        );
    }

    /// Serves LoadBalancer services, if this process is to.
    async fn balance(&self) {
        if !self.options.load_balancer {
            return std::future::pending().await;
        }
        let mut balancers = LoadBalancers::new(self.client.clone());
        loop {
            let woken = tokio::time::timeout(TICK, self.proxy.services.notified()).await;
            self.proxy.balancer.sweep();
            let Some(services) = self.proxy.observed_services() else { continue };
            if woken.is_ok() || balancers.unfinished() {
                balancers.reconcile(&services, &self.proxy.balancer, Instant::now()).await;
            }
        }
    }
}

/// Binds the name server's sockets to the gateway's address.
async fn listen_for_names(options: &Options) -> Result<Option<(Sockets, Place)>, NetworkError> {
    let Some(cluster_ip) = options.cluster_dns() else {
        tracing::warn!(cidr = %options.service_cidr, "too few service addresses for a name server");
        return Ok(None);
    };
    let address = options.gateway();
    let sockets = Sockets::bind(address).await?;
    let ports = sockets.ports().map_err(|error| NetworkError::Failed {
        step: "listening for DNS on",
        object: address.to_string(),
        message: error.to_string(),
    })?;
    Ok(Some((sockets, Place { cluster_ip, address, ports })))
}

/// Removes everything an instance made on the host: cables, bridge, routes, nftables table. No error if there
/// is nothing. Kernel parameters are left as they are: others may rely on them by now.
pub async fn destroy(instance: &str) -> Result<(), NetworkError> {
    let links = pod::destroy(instance).await;
    let table = rules::apply::destroy(instance).await;
    links.and(table)
}

impl PodNetwork for Network {
    fn attach<'a>(&'a self, id: &'a str, netns: &'a Path) -> BoxFuture<'a, Result<IpAddr, NetworkError>> {
        self.pods.attach(id, netns)
    }

    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.pods.detach(id)
    }

    fn adopt<'a>(&'a self, attached: &'a [(String, IpAddr)]) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.pods.adopt(attached)
    }
}

impl DataPlane for Network {
    fn withdraw<'a>(&'a self, address: IpAddr) -> BoxFuture<'a, Result<(), NetworkError>> {
        self.proxy.withdraw(address)
    }

    fn connections<'a>(
        &'a self,
        address: IpAddr,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<usize, NetworkError>> {
        self.proxy.connections(address, netns)
    }

    fn restore(&self, address: IpAddr) {
        self.proxy.restore(address);
    }

    fn readmit(&self, address: IpAddr) {
        self.proxy.readmit(address);
    }
}
