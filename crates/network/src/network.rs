//! The node's network as one thing: made, run, taken down.

use crate::balancer::status::LoadBalancers;
use crate::pod::{self, Pods};
use crate::proxy::{Proxy, watch};
use crate::rules;
use crate::rules::model::Node;
use crate::{BoxFuture, DataPlane, NetworkError, PodNetwork};
use futures::StreamExt;
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a service that could not be served is tried again, and idle connections are looked through.
const TICK: Duration = Duration::from_secs(1);

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
}

/// A node's network.
pub struct Network {
    options: Options,
    client: kube::Client,
    pods: Pods,
    proxy: Proxy,
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
        Ok(Arc::new(Self { options, client, pods, proxy }))
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
            () = shutdown.cancelled() => {}
        }
        self.proxy.balancer.sync(&[]);
    }

    /// Serves LoadBalancer services, if this process is to.
    async fn balance(&self) {
        if !self.options.load_balancer {
            return std::future::pending().await;
        }
        let mut balancers = LoadBalancers::new(self.client.clone());
        loop {
            let woken = tokio::time::timeout(TICK, self.proxy.services.notified()).await;
            self.proxy.balancer.sweep(Instant::now());
            let Some(services) = self.proxy.observed_services() else { continue };
            if woken.is_ok() || balancers.unfinished() {
                balancers.reconcile(&services, &self.proxy.balancer, Instant::now()).await;
            }
        }
    }
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
}
