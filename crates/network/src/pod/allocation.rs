//! Which pod address goes to whom. Pure: no kernel, no clock.
//!
//! An address that was just freed is the last to be given out again, so that a client that still holds it
//! (a stale DNS answer, a retransmitted SYN) does not end up at another pod.

use super::bridge::reserved;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

/// Addresses of one node's pod CIDR.
///
/// The network address, the first address (the gateway), the broadcast address and what [`reserved`] keeps before
/// it are never given out.
#[derive(Debug)]
pub(crate) struct Allocator {
    cidr: Ipv4Net,
    held: BTreeMap<String, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// Never given out so far, from here on.
    fresh: u32,
    /// Given out before and free again, longest ago first.
    freed: VecDeque<Ipv4Addr>,
}

impl Allocator {
    pub(crate) fn new(cidr: Ipv4Net) -> Self {
        let fresh = u32::from(cidr.network()).saturating_add(2);
        Self { cidr, held: BTreeMap::new(), taken: BTreeSet::new(), fresh, freed: VecDeque::new() }
    }

    /// The address of `id`, a new one if it has none. None when all are in use.
    pub(crate) fn allocate(&mut self, id: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.held.get(id) {
            return Some(*address);
        }
        let address = self.next_fresh().or_else(|| self.freed.pop_front())?;
        self.hold(id, address);
        Some(address)
    }

    /// The address of `id`, if it has one.
    pub(crate) fn get(&self, id: &str) -> Option<Ipv4Addr> {
        self.held.get(id).copied()
    }

    /// Frees the address of `id` and gives it back.
    pub(crate) fn release(&mut self, id: &str) -> Option<Ipv4Addr> {
        let address = self.held.remove(id)?;
        self.taken.remove(&address);
        if self.may_give(address) {
            self.freed.push_back(address);
        }
        Some(address)
    }

    /// Forgets everything and starts from what is attached. Addresses outside the CIDR are held, too (the
    /// CIDR may have been changed between two runs), but never given out again.
    pub(crate) fn adopt(&mut self, attached: &[(String, Ipv4Addr)]) {
        *self = Self::new(self.cidr);
        for (id, address) in attached {
            self.hold(id, *address);
        }
        // Go on behind the highest one: those below may have been freed moments before the restart.
        let highest = self.taken.iter().rev().find(|address| self.cidr.contains(*address));
        if let Some(highest) = highest.copied() {
            let first = self.fresh;
            self.fresh = u32::from(highest).saturating_add(1);
            let skipped = (first..u32::from(highest)).map(Ipv4Addr::from);
            self.freed = skipped.filter(|address| self.may_give(*address)).collect();
        }
    }

    fn hold(&mut self, id: &str, address: Ipv4Addr) {
        self.held.insert(id.to_owned(), address);
        self.taken.insert(address);
    }

    fn next_fresh(&mut self) -> Option<Ipv4Addr> {
        while self.fresh < self.end() {
            let address = Ipv4Addr::from(self.fresh);
            self.fresh += 1;
            if self.may_give(address) {
                return Some(address);
            }
        }
        None
    }

    /// The first address behind those that may be given out.
    fn end(&self) -> u32 {
        u32::from(self.cidr.broadcast()).saturating_sub(reserved(self.cidr))
    }

    /// Whether an address is a pod's to have, and nobody has it.
    fn may_give(&self, address: Ipv4Addr) -> bool {
        let first = u32::from(self.cidr.network()).saturating_add(2);
        (first..self.end()).contains(&u32::from(address)) && !self.taken.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(cidr: &str) -> Allocator {
        Allocator::new(cidr.parse().unwrap())
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_gateway_is_never_given_out() {
        assert_eq!(allocator("10.244.0.0/24").allocate("a"), Some(ip("10.244.0.2")));
    }

    #[test]
    fn the_hosts_addresses_are_never_given_out() {
        let mut a = allocator("10.244.0.0/26");
        let all: Vec<Ipv4Addr> = (0..64).map_while(|number| a.allocate(&number.to_string())).collect();
        assert_eq!(all.last(), Some(&ip("10.244.0.60")));
        let sources = super::super::bridge::sources("10.244.0.0/26".parse().unwrap());
        assert_eq!([sources.loopback, sources.translated], [ip("10.244.0.62"), ip("10.244.0.61")]);
    }

    #[test]
    fn the_same_id_keeps_its_address() {
        let mut a = allocator("10.244.0.0/24");
        let first = a.allocate("a");
        a.allocate("b");
        assert_eq!(a.allocate("a"), first);
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut a = allocator("10.244.0.0/29"); // .2 to .6
        for id in ["a", "b", "c"] {
            a.allocate(id);
        }
        a.release("b");
        a.release("a");
        let next: Vec<_> = ["d", "e", "f", "g"].iter().map(|id| a.allocate(id)).collect();
        let expected = ["10.244.0.5", "10.244.0.6", "10.244.0.3", "10.244.0.2"];
        assert_eq!(next, expected.map(|text| Some(ip(text))));
    }

    #[test]
    fn no_address_is_left_when_all_are_held() {
        let mut a = allocator("10.244.0.0/30");
        assert!(a.allocate("a").is_some());
        assert_eq!(a.allocate("b"), None);
        a.release("a");
        assert!(a.allocate("b").is_some());
    }

    #[test]
    fn adopted_addresses_are_held_and_those_below_come_last() {
        let mut a = allocator("10.244.0.0/29");
        a.adopt(&[("x".into(), ip("10.244.0.4")), ("old".into(), ip("192.168.7.9"))]);
        assert_eq!(a.get("x"), Some(ip("10.244.0.4")));
        let next: Vec<_> = ["d", "e", "f", "g"].iter().map(|id| a.allocate(id)).collect();
        let expected = ["10.244.0.5", "10.244.0.6", "10.244.0.2", "10.244.0.3"];
        assert_eq!(next, expected.map(|text| Some(ip(text))));
        assert_eq!(a.allocate("h"), None);
    }

    #[test]
    fn what_is_not_a_pods_to_have_is_not_given_out_again_either() {
        let mut a = allocator("10.244.0.0/26");
        // As a version without the last two reserved gave it, and as another CIDR had it.
        let adopted = ["10.244.0.62", "192.168.7.9", "10.244.0.1"].map(ip);
        a.adopt(&adopted.map(|address| (address.to_string(), address)));
        for address in adopted {
            assert_eq!(a.release(&address.to_string()), Some(address));
        }
        let given: Vec<Ipv4Addr> = (0..64).map_while(|number| a.allocate(&number.to_string())).collect();
        assert_eq!((given.len(), given.iter().max()), (59, Some(&ip("10.244.0.60"))));
        assert_eq!(given.iter().min(), Some(&ip("10.244.0.2")));
    }
}
