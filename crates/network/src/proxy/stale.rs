//! Which tracked UDP flows lead to where they no longer should. Pure.
//!
//! The kernel translates the packets of a flow as it did the first one for as long as packets keep coming: a
//! client that goes on sending from the same port would be led to a pod that is gone for ever, or past a service
//! that is younger than the flow. TCP clients notice.
//!
//! A flow to a pod that terminates and still serves goes on, as upstream: an answer that the pod is working on
//! is translated back by the tracked flow alone. It ends when the slices say that the pod serves no more, or when
//! its address is given back.

use crate::rules::model::{Protocol, ServicePort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where a flow was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Destination {
    Address(SocketAddrV4),
    /// A port of any address of the node.
    NodePort(u16),
}

/// The UDP services' destinations, and where flows to each may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flows(BTreeMap<Destination, BTreeSet<SocketAddrV4>>);

impl Flows {
    /// Those of these service ports, whose endpoints are all that serve.
    pub(crate) fn of(ports: &[ServicePort]) -> Self {
        let mut flows: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            let address = |ip: &Ipv4Addr| Destination::Address(SocketAddrV4::new(*ip, port.port));
            flows.entry(address(&port.cluster_ip)).or_default().extend(&port.endpoints);
            let outside =
                port.external_ips.iter().map(address).chain(port.node_port.map(Destination::NodePort));
            for destination in outside {
                flows.entry(destination).or_default().extend(&port.external_endpoints);
            }
        }
        Self(flows)
    }

    /// Whether there may be stale flows because something led somewhere before that does not any more, or leads
    /// somewhere that did not before: a flow may be older than its service.
    pub(crate) fn leaves_stale(&self, before: &Self) -> bool {
        let lost = |(destination, endpoints): (&Destination, &BTreeSet<SocketAddrV4>)| {
            endpoints.iter().any(|endpoint| !self.leads(*destination, *endpoint))
        };
        let leads =
            |destination: &Destination| before.0.get(destination).is_some_and(|ends| !ends.is_empty());
        let found = |(destination, endpoints): (&Destination, &BTreeSet<SocketAddrV4>)| {
            !endpoints.is_empty() && !leads(destination)
        };
        before.0.iter().any(lost) || self.0.iter().any(found)
    }

    /// Adds what others lead to.
    pub(crate) fn extend(&mut self, others: &Self) {
        for (destination, endpoints) in &others.0 {
            self.0.entry(*destination).or_default().extend(endpoints);
        }
    }

    fn leads(&self, destination: Destination, endpoint: SocketAddrV4) -> bool {
        self.0.get(&destination).is_some_and(|endpoints| endpoints.contains(&endpoint))
    }
}

/// By what flows are looked through.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) before: Flows,
    pub(crate) now: Flows,
}

impl Look {
    /// Whether a flow that was sent to `sent` and is answered by `answered` has to be forgotten. What nobody
    /// ever answered for a service counts, too: it was sent before there was an endpoint.
    pub(crate) fn is_stale(
        &self,
        sent: SocketAddrV4,
        answered: SocketAddrV4,
        is_local: impl Fn(Ipv4Addr) -> bool,
    ) -> bool {
        let Self { before, now } = self;
        let direct = Destination::Address(sent);
        if now.0.contains_key(&direct) || before.0.contains_key(&direct) {
            return !now.leads(direct, answered);
        }
        let any = Destination::NodePort(sent.port());
        // The port of another machine is no business of ours.
        let known = now.0.contains_key(&any) && is_local(*sent.ip());
        (known || before.leads(any, answered)) && !now.leads(any, answered)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;

    pub(crate) fn flows(endpoints: &[&str]) -> Flows {
        let endpoints: Vec<SocketAddrV4> = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        Flows::of(&[ServicePort {
            protocol: Protocol::Udp,
            port: 53,
            node_port: Some(30053),
            external_ips: vec!["127.0.0.1".parse().unwrap()],
            external_endpoints: endpoints.clone(),
            endpoints,
            ..crate::rules::model::tests::service_port()
        }])
    }

    fn is_stale(before: &Flows, now: &Flows, sent: &str, by: &str) -> bool {
        let look = Look { before: before.clone(), now: now.clone() };
        let here = Ipv4Addr::new(192, 0, 2, 1);
        look.is_stale(sent.parse().unwrap(), by.parse().unwrap(), |ip| ip == here)
    }

    #[rstest]
    #[case::lasting("10.96.0.20:53", "10.244.0.5:5353", false)]
    #[case::gone("10.96.0.20:53", "10.244.0.6:5353", true)]
    #[case::never_translated("10.96.0.20:53", "10.96.0.20:53", true)]
    #[case::external("127.0.0.1:53", "10.244.0.6:5353", true)]
    #[case::node_port("192.0.2.1:30053", "10.244.0.6:5353", true)]
    #[case::node_port_lasting("192.0.2.1:30053", "10.244.0.5:5353", false)]
    #[case::node_port_never_translated("192.0.2.1:30053", "192.0.2.1:30053", true)]
    #[case::same_port_elsewhere("192.0.2.9:30053", "192.0.2.9:30053", false)]
    #[case::pod_itself("10.244.0.6:5353", "10.244.0.6:5353", false)]
    #[case::somebody_else("192.0.2.1:53", "192.0.2.1:53", false)]
    fn a_flow_to_an_endpoint_that_left_is_stale(#[case] sent: &str, #[case] by: &str, #[case] stale: bool) {
        let (before, now) = (flows(&["10.244.0.5:5353", "10.244.0.6:5353"]), flows(&["10.244.0.5:5353"]));
        assert!(now.leaves_stale(&before) && !before.leaves_stale(&now) && !now.leaves_stale(&now));
        assert_eq!(is_stale(&before, &now, sent, by), stale);
    }

    #[test]
    fn all_flows_of_a_service_that_is_gone_are_stale() {
        let (before, now) = (flows(&["10.244.0.5:5353"]), Flows::default());
        assert!(now.leaves_stale(&before) && is_stale(&before, &now, "10.96.0.20:53", "10.244.0.5:5353"));
    }

    #[rstest]
    #[case::to_a_node_port("192.0.2.1:30053", "192.0.2.1:30053")]
    #[case::left_by_an_earlier_run("192.0.2.1:30053", "10.244.0.9:5353")]
    #[case::to_an_external_address("127.0.0.1:53", "127.0.0.1:53")]
    fn flows_older_than_their_service_are_stale(#[case] sent: &str, #[case] by: &str) {
        let (before, now) = (Flows::default(), flows(&["10.244.0.5:5353"]));
        assert!(now.leaves_stale(&before) && is_stale(&before, &now, sent, by));
    }
}
