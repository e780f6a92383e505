//! The node's network: pod addresses, service rules, the balancer behind LoadBalancer services.
//!
//! The kubelet knows it through [`PodNetwork`] (addresses) and [`DataPlane`] (withdrawal before SIGTERM).
//!
//! * [`pod`]: a routed veth per pod, addresses;
//! * [`rules`]: services compiled to nftables text, applied in one transaction;
//! * [`proxy`]: follows services and endpoints, feeds rules and balancer, takes pods out of service;
//! * [`balancer`]: LoadBalancer addresses on loopback, HTTP-aware;
//! * [`dns`]: names of services and pods; [`local`]: this machine's addresses;
//! * [`network`]: all of it as one thing; [`tunnel()`]: the balancer alone; [`check()`]: before anything is made.

mod balancer;
mod check;
mod dns;
mod local;
mod network;
mod pod;
mod proxy;
mod rules;
mod tunnel;

#[cfg(test)]
mod kernel_tests;

pub use check::check;
pub use network::{Network, Options, destroy};
pub use tunnel::tunnel;

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;

/// A future in a box, as the seams below return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connects pods' network namespaces to the node's bridge.
pub trait PodNetwork: Send + Sync {
    /// Gives the namespace at `netns` a veth pair, an address, and a default route. `id` names the
    /// attachment (the sandbox id); asking again for the same id gives the same address.
    fn attach<'a>(&'a self, id: &'a str, netns: &'a Path) -> BoxFuture<'a, Result<IpAddr, NetworkError>>;
    /// Takes the veth pair away and frees the address. No error if there is none.
    fn detach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), NetworkError>>;
    /// Tells which attachments exist after a restart; all others are freed.
    fn adopt<'a>(&'a self, attached: &'a [(String, IpAddr)]) -> BoxFuture<'a, Result<(), NetworkError>>;
}

/// What carries service traffic to pods on this node (nftables rules and the balancer).
pub trait DataPlane: Send + Sync {
    /// Takes a pod's address out of every service, now, whatever the EndpointSlices still say, and returns
    /// once no new connection can reach the pod through a service. The address stays out until
    /// [`DataPlane::restore`].
    fn withdraw<'a>(&'a self, address: IpAddr) -> BoxFuture<'a, Result<(), NetworkError>>;
    /// How many connections to the pod are open or being opened, seen from inside its network namespace
    /// (`netns`; whatever carries them), those of the balancer that are idle not counted: these it closes itself.
    fn connections<'a>(
        &'a self,
        address: IpAddr,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<usize, NetworkError>>;
    /// Forgets a withdrawal: the address is free for another pod.
    fn restore(&self, address: IpAddr);
    /// Takes a withdrawal back: the same pod serves again, wherever the EndpointSlices list it.
    fn readmit(&self, address: IpAddr);
}

/// Where the network can fail.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Every address of the pod CIDR is in use.
    #[error("no free pod address in {0}")]
    Exhausted(String),
    /// The program that service rules are applied with is missing.
    #[error("nft not found: install nftables")]
    NoNft,
    /// A step failed.
    #[error("{step} {object}: {message}")]
    Failed {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// Why.
        message: String,
    },
}
