//! A pod's cable: `sg<instance>…` on the host, `eth0` in the pod, joined by routes of one address each.

use super::netlink::{Netlink, code, default_via, direct, failed};
use crate::NetworkError;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// What every name of a pod's host end starts with.
pub(crate) fn prefix(instance: &str) -> String {
    format!("sg{instance}")
}

/// Name of the host end for a pod address: the address's last 28 bits in hex keep it within 15 characters.
pub(crate) fn name(instance: &str, address: Ipv4Addr) -> String {
    format!("{}{:x}", prefix(instance), u32::from(address) & 0x0fff_ffff)
}

/// Locally administered hardware address derived from an address.
fn hardware(first: u8, address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [first, 0x58, a, b, c, d]
}

/// The pair to make. Only the second end made, the host's, can be up from the start.
fn pair(name: &str, address: Ipv4Addr, netns: BorrowedFd<'_>) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name("eth0")
        .address(hardware(0x0a, address).to_vec())
        .setns_by_fd(netns.as_raw_fd())
        .build();
    LinkMessageBuilder::<LinkVeth>::new(name, "eth0")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .address(hardware(0x0e, address).to_vec())
        .up()
        .build()
}

/// Connects the namespace at `netns` under `address`. What a broken earlier attempt left is replaced.
pub(crate) async fn attach(
    host: &Netlink,
    instance: &str,
    gateway: Ipv4Addr,
    address: Ipv4Addr,
    netns: &Path,
) -> Result<(), NetworkError> {
    let name = name(instance, address);
    let namespace = std::fs::File::open(netns).map_err(|error| NetworkError::Failed {
        step: "opening network namespace",
        object: netns.display().to_string(),
        message: error.to_string(),
    })?;
    let inside = Netlink::inside(netns).await.map_err(|error| NetworkError::Failed {
        step: "entering network namespace",
        object: netns.display().to_string(),
        message: error.to_string(),
    })?;
    match host.handle().link().add(pair(&name, address, namespace.as_fd())).execute().await {
        Ok(()) => {}
        Err(error) if code(&error) == Some(nix::libc::EEXIST) => {
            host.delete(&name).await?;
            inside.delete("eth0").await?;
            let again = host.handle().link().add(pair(&name, address, namespace.as_fd())).execute().await;
            again.map_err(|error| failed("creating veth", &name, &error))?;
        }
        Err(error) => return Err(failed("creating veth", &name, &error)),
    }
    let (ours, theirs) =
        tokio::try_join!(host_end(host, &name, gateway, address), pod_end(&inside, gateway, address))?;
    tokio::try_join!(host.carries(ours), inside.carries(theirs)).map(drop)
}

/// Gives the index of the link.
async fn host_end(
    host: &Netlink,
    name: &str,
    gateway: Ipv4Addr,
    address: Ipv4Addr,
) -> Result<u32, NetworkError> {
    let index = host.expect(name).await?;
    // Lets 127.0.0.1:nodePort leave through this link; a guard rule keeps pods away from the host's loopback.
    super::sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    // What comes through it must come from the pod's own address: pods may open raw sockets and write any other.
    super::sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "1")?;
    // Pods have no IPv6: what they would send over it anyway is meant to make routes on the host (CVE-2020-10749).
    let parameter = format!("net/ipv6/conf/{name}/disable_ipv6");
    if Path::new("/proc/sys").join(&parameter).exists() {
        super::sysctl(&parameter, "1")?;
    }
    host.neighbour(index, address, hardware(0x0a, address)).await?;
    let only = Ipv4Net::from(address);
    host.route(direct(only, index).pref_source(gateway).build(), only).await?;
    Ok(index)
}

/// Gives the index of the link inside.
async fn pod_end(inside: &Netlink, gateway: Ipv4Addr, address: Ipv4Addr) -> Result<u32, NetworkError> {
    let loopback = inside.expect("lo").await?;
    inside.up(loopback).await?;
    let index = inside.expect("eth0").await?;
    inside.up(index).await?;
    inside.address(index, Ipv4Net::from(address)).await?;
    inside.neighbour(index, gateway, hardware(0x0e, address)).await?;
    let only = Ipv4Net::from(gateway);
    inside.route(direct(only, index).pref_source(address).build(), only).await?;
    inside.route(default_via(gateway, index), Ipv4Net::default()).await?;
    Ok(index)
}

/// Removes a pod's cable. No error if there is none.
pub(crate) async fn detach(host: &Netlink, instance: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
    host.delete(&name(instance, address)).await
}

/// Removes every cable of this instance but those of the given addresses.
pub(crate) async fn retain(host: &Netlink, instance: &str, keep: &[Ipv4Addr]) -> Result<(), NetworkError> {
    let keep: Vec<String> = keep.iter().map(|address| name(instance, *address)).collect();
    let prefix = prefix(instance);
    for (_, link) in host.links().await? {
        if link.starts_with(&prefix) && !keep.contains(&link) {
            host.delete(&link).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_limit_and_differ_by_address() {
        let one = name("a1b2c3", "10.244.255.254".parse().unwrap());
        assert_eq!(one, "sga1b2c3af4fffe");
        assert!(one.len() <= 15);
        assert_ne!(one, name("a1b2c3", "10.244.0.2".parse().unwrap()));
    }
}
