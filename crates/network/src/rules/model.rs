//! What the rules are compiled from, and what they are compiled to.

use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// What is the same for every service of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Names the table and the links.
    pub(crate) instance: String,
    /// Pods on this node.
    pub(crate) node_cidr: Ipv4Net,
    /// Pods of the whole cluster.
    pub(crate) pod_cidr: Ipv4Net,
    /// ClusterIPs.
    pub(crate) service_cidr: Ipv4Net,
}

impl Node {
    pub(crate) fn table(&self) -> String {
        table(&self.instance)
    }
}

/// Name of an instance's table.
pub(crate) fn table(instance: &str) -> String {
    format!("sagong-{instance}")
}

/// Transport protocol of a service port (`spec.ports[].protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// None for anything upstream does not know either.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As nft and chain names spell it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One port of one service with the endpoints new connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// `namespace/name:port`, for people reading the rules.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) cluster_ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    /// `spec.externalIPs`.
    pub(crate) external_ips: Vec<Ipv4Addr>,
    /// For connections to the ClusterIP. Sorted, without duplicates; empty: connections are refused.
    pub(crate) endpoints: Vec<SocketAddrV4>,
    /// The same for all other addresses: only those on this node if the service wants that.
    pub(crate) external_endpoints: Vec<SocketAddrV4>,
    /// For how many seconds a client is sent to the endpoint it was sent to last.
    pub(crate) affinity: Option<u32>,
}

/// The changing part of the table: chains, and elements of maps and sets. Base chains are fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) node: Node,
    /// Sets that remember clients by endpoint, and for how many seconds.
    pub(crate) memories: BTreeMap<String, u32>,
    /// Chain name to its rules.
    pub(crate) chains: BTreeMap<String, Vec<String>>,
    /// Map or set name to its elements: key, and verdict for a map.
    pub(crate) sets: BTreeMap<&'static str, BTreeMap<String, Option<String>>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A TCP port 80 without endpoints, to be varied.
    pub(crate) fn service_port() -> ServicePort {
        ServicePort {
            name: "default/kubia:http".into(),
            protocol: Protocol::Tcp,
            cluster_ip: Ipv4Addr::new(10, 96, 0, 20),
            port: 80,
            node_port: None,
            external_ips: Vec::new(),
            endpoints: Vec::new(),
            external_endpoints: Vec::new(),
            affinity: None,
        }
    }
}
