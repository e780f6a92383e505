//! What must be true before anything is changed on the host.

use crate::network::Options;
use crate::pod::{bridge, netlink::Netlink, open_netlink, veth};
use crate::rules;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use std::collections::BTreeMap;

/// Bit of `CAP_NET_ADMIN` in a capability mask.
const CAP_NET_ADMIN: u32 = 12;

/// Tells in one line, remedy included, why a network could not be set up here. Changes nothing.
pub async fn check(options: &Options) -> Result<(), String> {
    if !may_administer() {
        return Err("not allowed to change network settings: run as root".to_owned());
    }
    let probe = format!("add table ip {}\n", rules::model::table(&options.instance));
    rules::apply::nft(&["-c", "-f", "-"], &probe).await.map_err(|error| match error {
        crate::NetworkError::NoNft => error.to_string(),
        other => format!("nftables cannot be used: {other}: the kernel needs CONFIG_NF_TABLES"),
    })?;
    let wanted = [("--pod-cidr", options.pod_cidr), ("--service-cidr", options.service_cidr)];
    if overlap(options.pod_cidr, options.service_cidr) {
        return Err(format!(
            "pod CIDR {} and service CIDR {} overlap: choose others with --pod-cidr and --service-cidr",
            options.pod_cidr, options.service_cidr
        ));
    }
    let netlink = open_netlink().map_err(|error| error.to_string())?;
    let existing = existing(&netlink, options).await.map_err(|error| error.to_string())?;
    for (option, cidr) in wanted {
        if let Some(clash) = existing.iter().find(|network| clashes(network, cidr)) {
            let (network, link) = (clash.destination, &clash.link);
            return Err(format!(
                "{cidr} clashes with {network} on {link}: choose another range with {option}"
            ));
        }
    }
    Ok(())
}

fn may_administer() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << CAP_NET_ADMIN) != 0)
}

/// A network the host knows a way to.
#[derive(Clone, Debug)]
struct Existing {
    destination: Ipv4Net,
    /// Whether hosts in it are reached without a router.
    direct: bool,
    link: String,
}

/// All networks but those of this very instance.
async fn existing(netlink: &Netlink, options: &Options) -> Result<Vec<Existing>, crate::NetworkError> {
    let links: BTreeMap<u32, String> = netlink.links().await?.into_iter().collect();
    let bridge = bridge::name(&options.instance);
    let prefix = veth::prefix(&options.instance);
    let own = |link: &str| link == bridge || link.starts_with(&prefix);
    let bridged: Vec<Ipv4Net> = netlink
        .addresses()
        .await?
        .into_iter()
        .filter(|(index, _)| links.get(index).is_some_and(|link| *link == bridge))
        .map(|(_, address)| address.trunc())
        .collect();
    let routes = netlink.routes().await?;
    let network = |route: &RouteMessage| {
        let destination = destination(route)?;
        let refused = route.header.kind == RouteType::Unreachable;
        if refused && bridged.contains(&destination) {
            return None;
        }
        let link = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => links.get(index).cloned(),
            _ => None,
        });
        let link = link.unwrap_or_else(|| "an existing route".to_owned());
        let direct = refused || route.header.scope == RouteScope::Link;
        (!own(&link)).then_some(Existing { destination, direct, link })
    };
    Ok(routes.iter().filter_map(network).collect())
}

/// None for the default route.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Ipv4Net::new(*address, route.header.destination_prefix_length).ok()
        }
        _ => None,
    })
}

/// A network inside ours would lose its packets to us, and one around ours too if it is directly attached. A
/// wide route to a router (10.0.0.0/8 into a company's network) only loses a part that can be spared.
fn clashes(existing: &Existing, ours: Ipv4Net) -> bool {
    ours.contains(&existing.destination) || (existing.direct && existing.destination.contains(&ours))
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10.244.0.0/24", true, true)]
    #[case("10.244.7.1/32", false, true)]
    #[case("10.0.0.0/8", true, true)]
    #[case("10.0.0.0/8", false, false)]
    #[case("192.168.0.0/16", true, false)]
    fn a_clash_is_a_network_that_would_lose_packets(
        #[case] destination: &str,
        #[case] direct: bool,
        #[case] expected: bool,
    ) {
        let existing = Existing { destination: destination.parse().unwrap(), direct, link: "eth0".into() };
        assert_eq!(clashes(&existing, "10.244.0.0/16".parse().unwrap()), expected);
    }
}
