//! Which pod addresses are out of service, whatever the EndpointSlices say. Pure.
//!
//! The kubelet withdraws an address before it stops a pod, and restores it when the pod is gone and the address
//! is free. The slices may then still list the old pod for a while; a packet sent there would be lost, or
//! worse, reach the address's next pod before that one is ready. So what the slices said of the withdrawn pod
//! (known by its uid) at that address stays unbelieved until they have changed.

use super::observed::{EndpointInfo, Observed};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses and pods out of service.
#[derive(Debug, Default)]
pub(crate) struct Withdrawals {
    /// Withdrawn, with the uids the slices gave for the address meanwhile.
    active: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Pods gone from an address that was restored; true once the slices said that they are not ready.
    stale: BTreeMap<(IpAddr, String), bool>,
}

impl Withdrawals {
    /// Takes an address out of service.
    pub(crate) fn withdraw(&mut self, address: IpAddr, observed: &Observed) {
        self.active.entry(address).or_default();
        self.observe(observed);
    }

    /// Frees an address for another pod. The pod that had it is gone, even if it was never withdrawn.
    pub(crate) fn restore(&mut self, address: IpAddr, observed: &Observed) {
        self.withdraw(address, observed);
        for uid in self.active.remove(&address).unwrap_or_default() {
            self.stale.insert((address, uid), false);
        }
    }

    /// Takes a withdrawal back: what the slices say of the address is believed again.
    pub(crate) fn readmit(&mut self, address: IpAddr) {
        self.active.remove(&address);
    }

    /// Takes note of what the slices say now; to be called whenever they changed.
    pub(crate) fn observe(&mut self, observed: &Observed) {
        if self.active.is_empty() && self.stale.is_empty() {
            return;
        }
        let mut listed = BTreeSet::new();
        for endpoint in observed.endpoints().filter(|endpoint| !endpoint.uid.is_empty()) {
            let pod = (IpAddr::V4(endpoint.address), endpoint.uid.clone());
            if let Some(uids) = self.active.get_mut(&pod.0) {
                uids.insert(pod.1.clone());
            }
            match (self.stale.get_mut(&pod), endpoint.ready) {
                (Some(seen), false) => *seen = true,
                (Some(true), true) => drop(self.stale.remove(&pod)),
                _ => {}
            }
            listed.insert(pod);
        }
        self.stale.retain(|pod, _| listed.contains(pod));
    }

    /// Whether no new connection may go to an endpoint.
    pub(crate) fn blocks(&self, endpoint: &EndpointInfo) -> bool {
        self.active.contains_key(&IpAddr::V4(endpoint.address)) || self.is_gone(endpoint)
    }

    /// Whether an endpoint's pod is gone, and only the slices do not know yet.
    pub(crate) fn is_gone(&self, endpoint: &EndpointInfo) -> bool {
        let pod = || (IpAddr::V4(endpoint.address), endpoint.uid.clone());
        !self.stale.is_empty() && self.stale.contains_key(&pod())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing(pods: &[(&str, bool)]) -> Observed {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|(uid, ready)| {
                json!({
                    "addresses": ["10.244.0.5"], "targetRef": {"uid": uid},
                    "conditions": {"ready": ready, "serving": true, "terminating": !ready}
                })
            })
            .collect();
        let slice = serde_json::from_value(json!({
            "metadata": {"namespace": "d", "name": "s", "labels": {"kubernetes.io/service-name": "k"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": []
        }))
        .unwrap();
        let mut observed = Observed::default();
        observed.slice(&slice);
        observed
    }

    fn blocked(withdrawals: &mut Withdrawals, observed: &Observed) -> Vec<bool> {
        withdrawals.observe(observed);
        observed.endpoints().map(|endpoint| withdrawals.blocks(endpoint)).collect()
    }

    fn address() -> IpAddr {
        "10.244.0.5".parse().unwrap()
    }

    #[test]
    fn a_withdrawn_address_is_blocked_whatever_the_slices_say() {
        let mut w = Withdrawals::default();
        w.withdraw(address(), &Observed::default());
        assert_eq!(blocked(&mut w, &listing(&[("old", true)])), [true]);
        assert_eq!(blocked(&mut w, &listing(&[("old", false)])), [true]);
    }

    #[test]
    fn after_restoring_the_old_pod_stays_blocked_and_a_new_one_is_free() {
        let mut w = Withdrawals::default();
        w.withdraw(address(), &listing(&[("old", true)]));
        w.restore(address(), &Observed::default());
        assert_eq!(blocked(&mut w, &listing(&[("old", true)])), [true]);
        assert_eq!(blocked(&mut w, &listing(&[("old", true), ("new", true)])), [true, false]);
        assert_eq!(blocked(&mut w, &listing(&[("old", false)])), [true]);
        assert_eq!(blocked(&mut w, &listing(&[("new", true)])), [false]);
        assert!(w.stale.is_empty());
    }

    #[test]
    fn a_pod_that_is_readmitted_is_free_at_once_whatever_the_slices_missed() {
        let mut w = Withdrawals::default();
        w.withdraw(address(), &listing(&[("same", true)]));
        w.readmit(address());
        assert_eq!(blocked(&mut w, &listing(&[("same", true)])), [false]);
    }

    #[test]
    fn a_pod_that_was_never_withdrawn_is_gone_all_the_same_when_its_address_is_restored() {
        let mut w = Withdrawals::default();
        w.restore(address(), &listing(&[("old", true)]));
        assert_eq!(blocked(&mut w, &listing(&[("old", true), ("new", true)])), [true, false]);
    }

    #[test]
    fn the_same_pod_is_free_again_once_it_became_unready_and_ready() {
        let mut w = Withdrawals::default();
        w.withdraw(address(), &listing(&[("same", true)]));
        w.restore(address(), &Observed::default());
        assert_eq!(blocked(&mut w, &listing(&[("same", false)])), [true]);
        assert_eq!(blocked(&mut w, &listing(&[("same", true)])), [false]);
    }
}
