//! Addresses of simulated pods. Pure. One that was just freed is the last to be given out again.

use ipnet::Ipv4Net;
use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;

/// Addresses of one range, each given out once at a time.
#[derive(Debug)]
pub(crate) struct Addresses {
    taken: HashSet<Ipv4Addr>,
    /// Never given out so far, from here on.
    fresh: u32,
    last: u32,
    freed: VecDeque<Ipv4Addr>,
}

impl Addresses {
    /// All addresses of `range` but the first `reserved` after the network address, and the last.
    pub(crate) fn new(range: Ipv4Net, reserved: u32) -> Self {
        let fresh = u32::from(range.network()).saturating_add(reserved).saturating_add(1);
        let last = u32::from(range.broadcast()).saturating_sub(1);
        Addresses { taken: HashSet::new(), fresh, last, freed: VecDeque::new() }
    }

    /// Notes that an address is in use already.
    pub(crate) fn hold(&mut self, address: Ipv4Addr) {
        self.taken.insert(address);
    }

    /// A free address; None if there is none.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        let address = self.next_fresh().or_else(|| self.next_freed())?;
        self.taken.insert(address);
        Some(address)
    }

    /// Takes an address back.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if self.taken.remove(&address) && u32::from(address) < self.fresh {
            self.freed.push_back(address);
        }
    }

    fn next_fresh(&mut self) -> Option<Ipv4Addr> {
        while self.fresh <= self.last {
            let address = Ipv4Addr::from(self.fresh);
            self.fresh += 1;
            if !self.taken.contains(&address) {
                return Some(address);
            }
        }
        None
    }

    fn next_freed(&mut self) -> Option<Ipv4Addr> {
        while let Some(address) = self.freed.pop_front() {
            if !self.taken.contains(&address) {
                return Some(address);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 8, last)
    }

    #[test]
    fn every_address_is_given_out_once_and_a_freed_one_last() {
        let mut addresses = Addresses::new("10.9.8.0/29".parse().unwrap(), 2);
        addresses.hold(ip(4));
        assert_eq!([addresses.allocate(), addresses.allocate()], [Some(ip(3)), Some(ip(5))]);
        addresses.release(ip(3));
        assert_eq!(addresses.allocate(), Some(ip(6)));
        assert_eq!(addresses.allocate(), Some(ip(3)));
        assert_eq!(addresses.allocate(), None);
        addresses.release(ip(4));
        assert_eq!(addresses.allocate(), Some(ip(4)));
    }

    #[test]
    fn an_address_held_before_its_turn_and_freed_is_not_given_out_twice() {
        let mut addresses = Addresses::new("10.9.8.0/29".parse().unwrap(), 0);
        addresses.hold(ip(2));
        addresses.release(ip(2));
        let given: Vec<_> = std::iter::from_fn(|| addresses.allocate()).collect();
        assert_eq!(given, (1..=6).map(ip).collect::<Vec<_>>());
    }
}
