//! The node's own end: link `sg-<instance>`, which holds the gateway address and the routes of the two CIDRs.
//!
//! Pods are not ports of this bridge (`docs/adr/0001-routed-pods.md` says why): it is where the gateway address
//! lives whichever pods exist, and through it host processes find a route and a source address for service
//! addresses even on a host without a default route.

use super::netlink::{Netlink, code, direct, failed, unreachable};
use crate::NetworkError;
use ipnet::Ipv4Net;
use rtnetlink::LinkBridge;
use std::net::Ipv4Addr;

/// Name of the bridge.
pub(crate) fn name(instance: &str) -> String {
    format!("sg-{instance}")
}

/// First address of the node's CIDR: the pods' gateway and the host's source address towards pods and services.
pub(crate) fn gateway(node_cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(node_cidr.network()).saturating_add(1))
}

/// The addresses pods see instead of the host's when it calls them through a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// For calls from 127.0.0.0/8 to node ports.
    pub(crate) loopback: Ipv4Addr,
    /// For calls to ClusterIPs, and to all else that is translated.
    pub(crate) translated: Ipv4Addr,
}

/// How many addresses at the end of a node's CIDR are kept for [`Sources`]: none if there are few.
pub(crate) fn reserved(cidr: Ipv4Net) -> u32 {
    if cidr.prefix_len() <= 26 { 2 } else { 0 }
}

/// The last addresses of the node's CIDR, which no link has: only the rules translate to them and back.
///
/// They differ from each other and from the gateway because TCP timestamps begin at an offset of their own for
/// every pair of addresses the caller knows of. Were calls to a pod's address, to a ClusterIP and to 127.0.0.1
/// all seen as the gateway's, one from a port that another had used within the last minute could look older
/// than that one: the pod, which still remembers it (TIME_WAIT), would not take the SYN (PAWS, RFC 7323, 5), and
/// the caller would try again only after a second. With probes alone that met one call in eight thousand.
pub(crate) fn sources(node_cidr: Ipv4Net) -> Sources {
    if reserved(node_cidr) == 0 {
        let gateway = gateway(node_cidr);
        return Sources { loopback: gateway, translated: gateway };
    }
    let from_end = |back: u32| Ipv4Addr::from(u32::from(node_cidr.broadcast()).saturating_sub(back));
    Sources { loopback: from_end(1), translated: from_end(2) }
}

/// Makes or adopts the bridge with its address and routes.
pub(crate) async fn ensure(
    netlink: &Netlink,
    instance: &str,
    node_cidr: Ipv4Net,
    service_cidr: Ipv4Net,
) -> Result<(), NetworkError> {
    let name = name(instance);
    let gateway = gateway(node_cidr);
    let wanted = Ipv4Net::new(gateway, node_cidr.prefix_len()).unwrap_or(node_cidr);
    if let Some(index) = netlink.index(&name).await?
        && netlink.addresses().await?.iter().any(|(link, address)| *link == index && *address != wanted)
    {
        // Other CIDRs than the last time: start over.
        remove(netlink, instance).await?;
    }
    match netlink.handle().link().add(LinkBridge::new(&name).build()).execute().await {
        Err(error) if code(&error) != Some(nix::libc::EEXIST) => {
            return Err(failed("creating bridge", &name, &error));
        }
        _ => {}
    }
    let index = netlink.expect(&name).await?;
    netlink.up(index).await?;
    // The prefix length is what `remove` later learns the CIDR from.
    netlink.address(index, wanted).await?;
    let services = direct(service_cidr, index).pref_source(gateway).build();
    netlink.route(services, service_cidr).await?;
    // Each pod has a /32 of its own. Without this a packet to a pod that is gone would leave by the default
    // route and its sender would wait for a timeout instead of being told.
    netlink.route(unreachable(node_cidr), node_cidr).await
}

/// Removes bridge and routes. No error if there are none.
pub(crate) async fn remove(netlink: &Netlink, instance: &str) -> Result<(), NetworkError> {
    let name = name(instance);
    let Some(index) = netlink.index(&name).await? else { return Ok(()) };
    for (link, address) in netlink.addresses().await? {
        if link == index {
            let cidr = address.trunc();
            netlink.delete_route(unreachable(cidr), cidr).await?;
        }
    }
    netlink.delete(&name).await
}
