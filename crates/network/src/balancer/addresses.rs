//! Which loopback address a LoadBalancer service gets. Pure.

use crate::proxy::observed::Key;
use crate::rules::model::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// First address of the pool.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Addresses in the pool: 127.0.0.1 to 127.0.0.254.
const POOL: u32 = 254;

/// A service that wants an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) service: Key,
    /// For ordering: who was there first chooses first.
    pub(crate) created: String,
    /// What it has now, kept if possible.
    pub(crate) current: Option<Ipv4Addr>,
    /// `spec.loadBalancerIP`; only loopback addresses are heeded.
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) ports: Vec<(Protocol, u16)>,
}

/// Gives each service the first address on which none of its ports is another service's. A service for which
/// there is none is left out.
pub(crate) fn assign(mut wishes: Vec<Wish>) -> BTreeMap<Key, Ipv4Addr> {
    wishes.sort_by(|a, b| {
        let order = |wish: &Wish| (wish.current.is_none(), wish.created.clone(), wish.service.clone());
        order(a).cmp(&order(b))
    });
    let mut used = BTreeSet::new();
    let mut assigned = BTreeMap::new();
    for wish in wishes {
        let pool = (0..POOL).map(|offset| Ipv4Addr::from(u32::from(FIRST) + offset));
        let requested = wish.requested.filter(Ipv4Addr::is_loopback);
        let current = wish.current.filter(|address| address.is_loopback() && requested.is_none());
        let candidates: Vec<Ipv4Addr> = match requested {
            Some(only) => vec![only],
            None => current.into_iter().chain(pool).collect(),
        };
        let free = |address: &Ipv4Addr| wish.ports.iter().all(|port| !used.contains(&(*address, *port)));
        if let Some(address) = candidates.into_iter().find(free) {
            used.extend(wish.ports.iter().map(|port| (address, *port)));
            assigned.insert(wish.service, address);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str, created: u32, current: Option<&str>, ports: &[u16]) -> Wish {
        Wish {
            service: Key { namespace: "default".into(), name: name.into() },
            created: format!("2026-01-01T00:00:{created:02}Z"),
            current: current.map(|text| text.parse().unwrap()),
            requested: None,
            ports: ports.iter().map(|port| (Protocol::Tcp, *port)).collect(),
        }
    }

    fn assigned(wishes: Vec<Wish>) -> Vec<String> {
        assign(wishes).into_iter().map(|(key, address)| format!("{} {address}", key.name)).collect()
    }

    #[test]
    fn services_with_different_ports_share_the_first_address() {
        let wishes = vec![wish("a", 1, None, &[80]), wish("b", 2, None, &[8080])];
        assert_eq!(assigned(wishes), ["a 127.0.0.1", "b 127.0.0.1"]);
    }

    #[test]
    fn a_port_in_use_leads_to_the_next_address() {
        let wishes =
            vec![wish("a", 2, None, &[80]), wish("b", 1, None, &[80, 443]), wish("c", 3, None, &[443])];
        assert_eq!(assigned(wishes), ["a 127.0.0.2", "b 127.0.0.1", "c 127.0.0.2"]);
    }

    #[test]
    fn an_address_is_kept_even_when_a_lower_one_is_free() {
        let wishes = vec![wish("a", 2, None, &[80]), wish("b", 1, Some("127.0.0.2"), &[80])];
        assert_eq!(assigned(wishes), ["a 127.0.0.1", "b 127.0.0.2"]);
    }

    #[test]
    fn an_address_outside_loopback_is_not_kept() {
        assert_eq!(assigned(vec![wish("a", 1, Some("203.0.113.5"), &[80])]), ["a 127.0.0.1"]);
    }

    #[test]
    fn a_requested_address_is_given_or_none() {
        let mut a = wish("a", 1, None, &[80]);
        a.requested = Some("127.0.0.9".parse().unwrap());
        let mut b = wish("b", 2, None, &[80]);
        b.requested = a.requested;
        assert_eq!(assigned(vec![a, b]), ["a 127.0.0.9"]);
    }
}
