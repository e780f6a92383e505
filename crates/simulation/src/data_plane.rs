//! What carries traffic to pods: follows EndpointSlices at its own pace, and takes single addresses out at once when a
//! kubelet asks for it. A model: the real one is `sagong_network::DataPlane`, tested against the kernel.

use crate::feed::Cursor;
use crate::ground::Ground;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sagong_controllers::cache::Key;
use std::collections::{BTreeMap, BTreeSet};

/// The rules of the cluster's nodes.
pub(crate) struct DataPlane {
    slices: Cursor,
    ready: BTreeMap<Key, BTreeSet<String>>,
    withdrawn: BTreeSet<String>,
}

impl DataPlane {
    pub(crate) fn new() -> Self {
        Self { slices: Cursor::new("endpointslices"), ready: BTreeMap::new(), withdrawn: BTreeSet::new() }
    }

    pub(crate) fn release(&mut self) {
        self.slices.release();
    }

    pub(crate) fn lags(&self, ground: &Ground) -> bool {
        self.slices.lags(&ground.api)
    }

    pub(crate) fn feed(&mut self, ground: &mut Ground) -> bool {
        if !self.slices.is_open(ground) {
            return false;
        }
        let range = self.slices.events(ground);
        for event in &ground.api.table("endpointslices").log[range] {
            let Some(slice) = event.object.as_any().downcast_ref::<EndpointSlice>() else { continue };
            let key = Key::of(&slice.metadata);
            match event.deleted {
                true => self.ready.remove(&key),
                false => self.ready.insert(key, ready_addresses(slice)),
            };
        }
        true
    }

    /// Takes an address out of every service, now.
    pub(crate) fn withdraw(&mut self, address: &str) {
        self.withdrawn.insert(address.to_owned());
    }

    /// Whether a new connection can reach this address through a service.
    pub(crate) fn routes_to(&self, address: &str) -> bool {
        !self.withdrawn.contains(address) && self.ready.values().any(|ready| ready.contains(address))
    }
}

/// The addresses a slice sends new connections to.
pub(crate) fn ready_addresses(slice: &EndpointSlice) -> BTreeSet<String> {
    let is_ready = |conditions: Option<&k8s_openapi::api::discovery::v1::EndpointConditions>| {
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint.conditions.as_ref()));
    ready.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
}
