//! Cluster addresses of services.

use ipnet::Ipv4Net;
use rand::Rng;
use sagong_api::field::{Cause, FieldError, Path, invalid};
use std::collections::HashSet;
use std::net::Ipv4Addr;

/// The addresses of a range that are taken.
pub(super) struct ClusterIps {
    cidr: Ipv4Net,
    taken: HashSet<Ipv4Addr>,
}

impl ClusterIps {
    /// None taken but the first, which is the `kubernetes` service's and is taken by name only.
    pub(super) fn new(cidr: Ipv4Net) -> Self {
        Self { cidr, taken: HashSet::new() }
    }

    /// Notes an address that is in use, wherever it lies.
    pub(super) fn adopt(&mut self, address: Ipv4Addr) {
        self.taken.insert(address);
    }

    /// Takes this address; the error is upstream's reason.
    pub(super) fn take(&mut self, address: Ipv4Addr) -> Result<(), String> {
        let (first, last) = self.bounds();
        if !(first..=last).contains(&u32::from(address)) {
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            ));
        }
        if self.taken.insert(address) { Ok(()) } else { Err("provided IP is already allocated".into()) }
    }

    /// Takes a free address: at random from the upper part of the range, and only when that is full from the
    /// lower, which is left to addresses that users choose (KEP-3070).
    pub(super) fn take_any(&mut self, random: &mut impl Rng) -> Option<Ipv4Addr> {
        let (first, last) = self.bounds();
        let dynamic = (first + 1 + static_band(last - first)).min(last);
        let address =
            self.free_in(dynamic, last, random).or_else(|| self.free_in(first + 1, dynamic, random))?;
        self.taken.insert(address);
        Some(address)
    }

    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }

    /// The first and last usable address.
    fn bounds(&self) -> (u32, u32) {
        let (network, broadcast) = (u32::from(self.cidr.network()), u32::from(self.cidr.broadcast()));
        (network.saturating_add(1).min(broadcast), broadcast.saturating_sub(1).max(network))
    }

    /// A free address in `from..=to`: the first one found going round from a random place.
    fn free_in(&self, from: u32, to: u32, random: &mut impl Rng) -> Option<Ipv4Addr> {
        if from > to {
            return None;
        }
        let start = random.random_range(from..=to);
        (start..=to).chain(from..start).map(Ipv4Addr::from).find(|address| !self.taken.contains(address))
    }
}

/// How many addresses at the start are left to users: `min(max(16, size / 16), 256)`; none of a tiny range.
fn static_band(size: u32) -> u32 {
    if size < 32 { 0 } else { (size / 16).clamp(16, 256) }
}

fn path() -> Path {
    Path::new("spec.clusterIPs")
}

/// The error for an address the user asked for.
pub(super) fn refused(address: Ipv4Addr, why: &str) -> FieldError {
    invalid(&path(), [address.to_string()], &format!("failed to allocate IP {address}: {why}"))
}

/// The error when no address is left.
pub(super) fn exhausted() -> FieldError {
    let message = "Internal error: failed to allocate a serviceIP: range is full".into();
    FieldError { path: path(), cause: Cause::Invalid, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(cidr: &str) -> ClusterIps {
        ClusterIps::new(cidr.parse().unwrap())
    }

    #[test]
    fn every_address_but_the_first_is_given_once_and_then_none() {
        let mut ips = ips("10.0.0.0/29");
        let mut given: Vec<_> = std::iter::from_fn(|| ips.take_any(&mut rand::rng())).collect();
        given.sort();
        let expected: Vec<Ipv4Addr> = (2..=6).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        assert_eq!(given, expected);
        ips.release(expected[0]);
        assert_eq!(ips.take_any(&mut rand::rng()), Some(expected[0]));
    }

    #[test]
    fn chosen_addresses_are_taken_once_and_only_from_the_range() {
        let mut ips = ips("10.96.0.0/12");
        let chosen = Ipv4Addr::new(10, 96, 0, 10);
        assert_eq!(ips.take(chosen), Ok(()));
        assert_eq!(ips.take(chosen).unwrap_err(), "provided IP is already allocated");
        let outside = ips.take(Ipv4Addr::new(1, 2, 3, 4)).unwrap_err();
        assert!(outside.ends_with("The range of valid IPs is 10.96.0.0/12"), "{outside}");
    }

    #[test]
    fn addresses_nobody_chose_come_from_above_the_band_for_chosen_ones() {
        let mut ips = ips("10.96.0.0/12");
        for _ in 0..100 {
            let address = ips.take_any(&mut rand::rng()).unwrap();
            assert!(address > Ipv4Addr::new(10, 96, 1, 0), "{address}");
        }
    }
}
