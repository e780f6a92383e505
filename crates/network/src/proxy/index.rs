//! Which services have an address: an index beside what is observed, for questions about addresses.

use super::observed::{Key, ServiceInfo, SliceInfo};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Addresses and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Index {
    cluster_ips: BTreeSet<(Ipv4Addr, Key)>,
    /// Endpoints, with the name of the slice that lists them.
    endpoints: BTreeSet<(IpAddr, Key, String)>,
}

impl Index {
    pub(crate) fn add_service(&mut self, key: &Key, service: &ServiceInfo) {
        self.cluster_ips.extend(service.cluster_ip.map(|address| (address, key.clone())));
    }

    pub(crate) fn remove_service(&mut self, key: &Key, service: &ServiceInfo) {
        if let Some(address) = service.cluster_ip {
            self.cluster_ips.remove(&(address, key.clone()));
        }
    }

    pub(crate) fn add_slice(&mut self, service: &Key, name: &str, slice: &SliceInfo) {
        self.endpoints.extend(addresses(slice).map(|address| (address, service.clone(), name.to_owned())));
    }

    pub(crate) fn remove_slice(&mut self, service: &Key, name: &str, slice: &SliceInfo) {
        for address in addresses(slice) {
            self.endpoints.remove(&(address, service.clone(), name.to_owned()));
        }
    }

    /// The service with a ClusterIP: the first if there are several.
    pub(crate) fn service_of(&self, address: Ipv4Addr) -> Option<&Key> {
        let from = (address, Key::default());
        self.cluster_ips.range(from..).next().filter(|(found, _)| *found == address).map(|(_, key)| key)
    }

    /// The services that list an address, each once and in order.
    pub(crate) fn services_at(&self, address: IpAddr) -> BTreeSet<&Key> {
        let from = (address, Key::default(), String::new());
        let found = self.endpoints.range(from..).take_while(|(found, ..)| *found == address);
        found.map(|(_, key, _)| key).collect()
    }
}

fn addresses(slice: &SliceInfo) -> impl Iterator<Item = IpAddr> {
    let v4 = slice.endpoints.iter().map(|endpoint| IpAddr::V4(endpoint.address));
    v4.chain(slice.endpoints_v6.iter().map(|endpoint| IpAddr::V6(endpoint.address)))
}
