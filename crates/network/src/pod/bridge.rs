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
