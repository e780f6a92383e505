//! Pods' connection to the node: one routed veth each, an address from the node's pod CIDR.

pub(crate) mod allocation;
pub(crate) mod bridge;
pub(crate) mod netlink;
pub(crate) mod veth;

use crate::{BoxFuture, NetworkError, PodNetwork};
use allocation::Allocator;
use ipnet::Ipv4Net;
use netlink::Netlink;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The pod network of one node.
pub(crate) struct Pods {
    instance: String,
    node_cidr: Ipv4Net,
    service_cidr: Ipv4Net,
    netlink: Netlink,
    allocator: Mutex<Allocator>,
}

impl Pods {
    /// Opens the connection to the kernel; makes nothing yet. Must be called within a tokio runtime.
    pub(crate) fn new(
        instance: &str,
        node_cidr: Ipv4Net,
        service_cidr: Ipv4Net,
    ) -> Result<Self, NetworkError> {
        let netlink = open_netlink()?;
        let allocator = Mutex::new(Allocator::new(node_cidr));
        Ok(Self { instance: instance.to_owned(), node_cidr, service_cidr, netlink, allocator })
    }

    /// Gives pods only addresses in `allocated`, which is the beginning of the node's CIDR.
    pub(crate) fn within(self, allocated: Ipv4Net) -> Self {
        Self { allocator: Mutex::new(Allocator::new(allocated)), ..self }
    }

    /// Makes or adopts the bridge and its routes, and turns forwarding on.
    pub(crate) async fn prepare(&self) -> Result<(), NetworkError> {
        sysctl("net/ipv4/ip_forward", "1")?;
        bridge::ensure(&self.netlink, &self.instance, self.node_cidr, self.service_cidr).await
    }
}

/// Removes bridge, routes and every pod's cable of an instance.
pub(crate) async fn destroy(instance: &str) -> Result<(), NetworkError> {
    let netlink = open_netlink()?;
    veth::retain(&netlink, instance, &[]).await?;
    bridge::remove(&netlink, instance).await
}

/// A netlink connection in this thread's namespace.
pub(crate) fn open_netlink() -> Result<Netlink, NetworkError> {
    Netlink::here().map_err(|error| NetworkError::Failed {
        step: "opening",
        object: "netlink socket".to_owned(),
        message: error.to_string(),
    })
}

impl PodNetwork for Pods {
    fn attach<'a>(&'a self, id: &'a str, netns: &'a Path) -> BoxFuture<'a, Result<IpAddr, NetworkError>> {
        Box::pin(async move {
            let known = self.allocator.lock().get(id);
            if let Some(address) = known
                && self.netlink.index(&veth::name(&self.instance, address)).await?.is_some()
            {
                return Ok(IpAddr::V4(address));
            }
            let address = self.allocator.lock().allocate(id);
            let address = address.ok_or_else(|| NetworkError::Exhausted(self.node_cidr.to_string()))?;
            let gateway = bridge::gateway(self.node_cidr);
            if let Err(error) = veth::attach(&self.netlink, &self.instance, gateway, address, netns).await {
                if let Err(left) = veth::detach(&self.netlink, &self.instance, address).await {
                    tracing::warn!(%left, "a veth of a failed attachment stays behind");
                }
                self.allocator.lock().release(id);
                return Err(error);
            }
            Ok(IpAddr::V4(address))
        })
    }

    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            let Some(address) = self.allocator.lock().get(id) else { return Ok(()) };
            veth::detach(&self.netlink, &self.instance, address).await?;
            self.allocator.lock().release(id);
            Ok(())
        })
    }

    fn adopt<'a>(&'a self, attached: &'a [(String, IpAddr)]) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            let only_v4 = |(id, address): &(String, IpAddr)| match address {
                IpAddr::V4(address) => Some((id.clone(), *address)),
                IpAddr::V6(_) => None,
            };
            let attached: Vec<(String, Ipv4Addr)> = attached.iter().filter_map(only_v4).collect();
            self.allocator.lock().adopt(&attached);
            let addresses: Vec<Ipv4Addr> = attached.iter().map(|(_, address)| *address).collect();
            veth::retain(&self.netlink, &self.instance, &addresses).await
        })
    }
}

/// Sets a kernel parameter of the calling thread's network namespace, unless it already has that value.
pub(crate) fn sysctl(parameter: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/{parameter}");
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|error| NetworkError::Failed {
        step: "setting kernel parameter",
        object: parameter.replace('/', "."),
        message: error.to_string(),
    })
}

/// Runs a closure on a thread of its own inside the network namespace pinned at `netns`.
///
/// The thread ends afterwards: a thread that changed its namespace must not go back to a pool.
pub(crate) async fn within<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let namespace = std::fs::File::open(netns)?;
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let entered = nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET);
        // Nobody waits any more if this fails: the caller was cancelled.
        let _ = done.send(entered.map_err(std::io::Error::from).map(|()| work()));
    })?;
    result.await.map_err(|_| std::io::Error::other("the thread in the namespace panicked"))?
}
