//! Which tracked UDP flows lead to where they no longer should. Pure.
//!
//! The kernel translates the packets of a flow as it did the first one for as long as packets keep coming: a
//! client that goes on sending from the same port would be led to a pod that is gone for ever. TCP clients notice.

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

/// The UDP services' destinations, and where packets to each may end up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flows(BTreeMap<Destination, BTreeSet<SocketAddrV4>>);

impl Flows {
    /// Those of these service ports.
    pub(crate) fn of(ports: &[ServicePort]) -> Self {
        let mut flows: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            let address = |ip: &Ipv4Addr| Destination::Address(SocketAddrV4::new(*ip, port.port));
            flows.entry(address(&port.cluster_ip)).or_default().extend(&port.endpoints);
            for ip in &port.external_ips {
                flows.entry(address(ip)).or_default().extend(&port.external_endpoints);
            }
            if let Some(number) = port.node_port {
                flows.entry(Destination::NodePort(number)).or_default().extend(&port.external_endpoints);
            }
        }
        Self(flows)
    }

    /// Whether something led somewhere before that does not any more.
    pub(crate) fn lost_since(&self, before: &Self) -> bool {
        before.0.iter().any(|(destination, endpoints)| {
            endpoints.iter().any(|endpoint| !self.leads(*destination, *endpoint))
        })
    }

    fn leads(&self, destination: Destination, endpoint: SocketAddrV4) -> bool {
        self.0.get(&destination).is_some_and(|endpoints| endpoints.contains(&endpoint))
    }

    /// Whether a flow that was sent to `sent` and is answered by `answered` has to be forgotten. What nobody
    /// ever answered for a service counts, too: it was sent before there was an endpoint.
    pub(crate) fn is_stale(&self, before: &Self, sent: SocketAddrV4, answered: SocketAddrV4) -> bool {
        let direct = Destination::Address(sent);
        if self.0.contains_key(&direct) || before.0.contains_key(&direct) {
            return !self.leads(direct, answered);
        }
        let any = Destination::NodePort(sent.port());
        before.leads(any, answered) && !self.leads(any, answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn flows(endpoints: &[&str]) -> Flows {
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

    #[rstest]
    #[case::lasting("10.96.0.20:53", "10.244.0.5:5353", false)]
    #[case::gone("10.96.0.20:53", "10.244.0.6:5353", true)]
    #[case::never_translated("10.96.0.20:53", "10.96.0.20:53", true)]
    #[case::external("127.0.0.1:53", "10.244.0.6:5353", true)]
    #[case::node_port("192.0.2.1:30053", "10.244.0.6:5353", true)]
    #[case::node_port_lasting("192.0.2.1:30053", "10.244.0.5:5353", false)]
    #[case::same_port_elsewhere("192.0.2.1:30053", "192.0.2.1:30053", false)]
    #[case::pod_itself("10.244.0.6:5353", "10.244.0.6:5353", false)]
    #[case::somebody_else("192.0.2.1:53", "192.0.2.1:53", false)]
    fn a_flow_to_an_endpoint_that_left_is_stale(#[case] sent: &str, #[case] by: &str, #[case] stale: bool) {
        let (before, now) = (flows(&["10.244.0.5:5353", "10.244.0.6:5353"]), flows(&["10.244.0.5:5353"]));
        assert!(now.lost_since(&before) && !before.lost_since(&now));
        assert_eq!(now.is_stale(&before, sent.parse().unwrap(), by.parse().unwrap()), stale);
    }

    #[test]
    fn all_flows_of_a_service_that_is_gone_are_stale() {
        let (before, now) = (flows(&["10.244.0.5:5353"]), Flows::default());
        assert!(now.is_stale(&before, "10.96.0.20:53".parse().unwrap(), "10.244.0.5:5353".parse().unwrap()));
    }
}
