//! What services and endpoint slices say about a name: the records of the cluster's domain. Pure.
//!
//! There is no table of records that would have to follow every change: an answer is compiled from what the
//! proxies know at this moment, so a pod that left the rules has left the names too.

use super::question::{Subject, dashes};
use crate::proxy::observed::{Key, Observed, Port, ServiceInfo};
use crate::proxy::withdrawal::Withdrawals;
use crate::rules::model::Protocol;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Seconds a record may be remembered, as CoreDNS gives them.
pub(crate) const TTL: u32 = 5;
/// Version of the scheme of names.
const SCHEME: &str = "1.1.0";

/// What is the same for every answer.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// `cluster.local.`
    pub(crate) domain: Name,
    /// Address of the name server.
    pub(crate) server: Ipv4Addr,
    /// Networks whose addresses nobody else can name.
    pub(crate) networks: [Ipv4Net; 2],
}

/// What is known of services.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) observed: &'a Observed,
    pub(crate) withdrawals: &'a Withdrawals,
}

/// What is said about a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// The name exists. Without answers it has no records of this type (NODATA).
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// No such name (NXDOMAIN).
    NoName,
    /// It is another name for this one.
    Alias(Name),
    /// Somebody else has to be asked.
    Elsewhere,
}

/// An endpoint of a service as names know it.
#[derive(Clone, Debug)]
struct Endpoint {
    address: IpAddr,
    label: String,
    ports: Vec<(String, Protocol, u16)>,
}

impl Zone {
    /// The zone a name is in, for the record that says who answers for it.
    fn apex(&self, subject: &Subject) -> Name {
        match subject {
            Subject::Reverse(IpAddr::V4(_)) => Name::from_ascii("in-addr.arpa.").unwrap_or_default(),
            Subject::Reverse(IpAddr::V6(_)) => Name::from_ascii("ip6.arpa.").unwrap_or_default(),
            _ => self.domain.clone(),
        }
    }

    /// The record that goes with negative answers. `serial` is the time in seconds.
    pub(crate) fn authority(&self, subject: &Subject, serial: u32) -> Record {
        let data = SOA::new(self.below("ns.dns"), self.below("hostmaster"), serial, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.apex(subject), TTL, RData::SOA(data))
    }

    /// `prefix` below the domain; the domain itself if that is no name.
    fn below(&self, prefix: &str) -> Name {
        let name = Name::from_ascii(prefix).and_then(|name| name.append_domain(&self.domain));
        name.unwrap_or_else(|_| self.domain.clone())
    }

    fn service_name(&self, key: &Key) -> Name {
        self.below(&format!("{}.{}.svc", key.name, key.namespace))
    }

    /// What is said about `subject`, which was asked for under the name `name`.
    pub(crate) fn find(&self, known: Known<'_>, subject: &Subject, name: &Name, kind: RecordType) -> Found {
        match subject {
            Subject::Apex => self.of_apex(name, kind),
            Subject::Version => {
                let text = RData::TXT(TXT::new(vec![SCHEME.to_owned()]));
                records(name, kind, vec![(RecordType::TXT, text)])
            }
            Subject::NameServer => addresses(name, kind, [IpAddr::V4(self.server)]),
            Subject::Branch => Found::Records { answers: Vec::new(), additionals: Vec::new() },
            Subject::Namespace(namespace) => {
                if known.observed.has_namespace(namespace) {
                    nothing()
                } else {
                    Found::NoName
                }
            }
            Subject::Service(key) => self.of_service(known, key, name, kind),
            Subject::Endpoint(key, label) => {
                let mut found = endpoints(known, key);
                found.retain(|endpoint| endpoint.label.eq_ignore_ascii_case(label));
                some_addresses(name, kind, &found)
            }
            Subject::Protocol(key, protocol) => {
                let Some(service) = service(known, key) else { return Found::NoName };
                let exists = self.ports(known, key, service).any(|port| port.protocol == *protocol);
                if exists { nothing() } else { Found::NoName }
            }
            Subject::Port(key, protocol, port) => {
                let Some(service) = service(known, key) else { return Found::NoName };
                let ports: Vec<Port> = self
                    .ports(known, key, service)
                    .filter(|given| given.protocol == *protocol && given.name == *port && !port.is_empty())
                    .collect();
                if ports.is_empty() {
                    Found::NoName
                } else {
                    self.locate(known, key, service, &ports, name, kind)
                }
            }
            Subject::Pod(address) => addresses(name, kind, [*address]),
            Subject::Reverse(address) => self.of_address(known, *address, name, kind),
            Subject::Nothing => Found::NoName,
        }
    }

    fn of_apex(&self, name: &Name, kind: RecordType) -> Found {
        let server = self.below("ns.dns");
        let soa = self.authority(&Subject::Apex, 1).data;
        let mut found = records(
            name,
            kind,
            vec![(RecordType::NS, RData::NS(NS(server.clone()))), (RecordType::SOA, soa)],
        );
        if let (RecordType::NS, Found::Records { additionals, .. }) = (kind, &mut found) {
            additionals.push(Record::from_rdata(server, TTL, RData::A(A(self.server))));
        }
        found
    }

    fn of_service(&self, known: Known<'_>, key: &Key, name: &Name, kind: RecordType) -> Found {
        let Some(service) = service(known, key) else { return Found::NoName };
        if let Some(target) = &service.external_name {
            let target = Name::from_ascii(target).map(|mut name| {
                name.set_fqdn(true);
                name
            });
            return target.map_or(Found::NoName, Found::Alias);
        }
        if kind == RecordType::SRV {
            // Not in the specification, but CoreDNS answers so.
            let ports: Vec<Port> = self.ports(known, key, service).collect();
            let found = self.locate(known, key, service, &ports, name, kind);
            // Without ports there are no such records; the name exists all the same if it has others.
            let exists = !service.headless || !endpoints(known, key).is_empty();
            return if found == Found::NoName && exists { nothing() } else { found };
        }
        match service.cluster_ip {
            Some(address) => addresses(name, kind, [IpAddr::V4(address)]),
            None if service.headless => some_addresses(name, kind, &endpoints(known, key)),
            None => nothing(),
        }
    }

    /// Ports of a service; those of its endpoints if it is headless, which need not declare any.
    fn ports<'a>(
        &self,
        known: Known<'a>,
        key: &'a Key,
        service: &'a ServiceInfo,
    ) -> impl Iterator<Item = Port> + 'a {
        let declared = service.ports.iter().filter(|_| !service.headless).cloned();
        let of_endpoints = service.headless.then(|| endpoints(known, key)).into_iter().flatten();
        let mut distinct = BTreeMap::new();
        for (name, protocol, port) in of_endpoints.flat_map(|endpoint| endpoint.ports) {
            distinct.insert((name, protocol), port);
        }
        let listed = distinct.into_iter().map(|((name, protocol), port)| Port {
            name,
            protocol,
            port,
            node_port: None,
        });
        declared.chain(listed)
    }

    /// SRV records of these ports, with the addresses of what they point to.
    fn locate(
        &self,
        known: Known<'_>,
        key: &Key,
        service: &ServiceInfo,
        ports: &[Port],
        name: &Name,
        kind: RecordType,
    ) -> Found {
        let own = self.service_name(key);
        let mut targets: Vec<(Name, u16, IpAddr)> = Vec::new();
        if let Some(address) = service.cluster_ip {
            targets.extend(ports.iter().map(|port| (own.clone(), port.port, IpAddr::V4(address))));
        } else {
            for endpoint in endpoints(known, key) {
                let Ok(target) = own.prepend_label(endpoint.label.as_str()) else { continue };
                let wanted = |(name, protocol, _): &&(String, Protocol, u16)| {
                    ports.iter().any(|port| port.name == *name && port.protocol == *protocol)
                };
                let given = endpoint.ports.iter().filter(wanted);
                targets.extend(given.map(|(_, _, port)| (target.clone(), *port, endpoint.address)));
            }
            if targets.is_empty() {
                return Found::NoName;
            }
        }
        if kind != RecordType::SRV {
            return nothing();
        }
        // All alike; the weights add up to a hundred, as CoreDNS gives them.
        let weight = (100 / targets.len().max(1)).max(1) as u16;
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (target, port, address) in targets {
            let data = RData::SRV(SRV::new(0, weight, port, target.clone()));
            answers.push(Record::from_rdata(name.clone(), TTL, data));
            let glue = Record::from_rdata(target, TTL, address_data(address));
            if !additionals.contains(&glue) {
                additionals.push(glue);
            }
        }
        Found::Records { answers, additionals }
    }

    fn of_address(&self, known: Known<'_>, address: IpAddr, name: &Name, kind: RecordType) -> Found {
        let named = known.observed.service_of(address);
        let mut names: Vec<Name> = named.map(|key| self.service_name(key)).into_iter().collect();
        if names.is_empty() {
            for key in known.observed.services_at(address) {
                let found = endpoints(known, key).into_iter().filter(|endpoint| endpoint.address == address);
                let own = self.service_name(key);
                names.extend(found.filter_map(|endpoint| own.prepend_label(endpoint.label.as_str()).ok()));
            }
        }
        let ours =
            matches!(address, IpAddr::V4(v4) if self.networks.iter().any(|network| network.contains(&v4)));
        match (names.is_empty(), ours) {
            (true, true) => Found::NoName,
            (true, false) => Found::Elsewhere,
            (false, _) => {
                let all = names.into_iter().map(|target| (RecordType::PTR, RData::PTR(PTR(target))));
                records(name, kind, all.collect())
            }
        }
    }
}

/// The record that says that one name stands for another.
pub(crate) fn alias(name: &Name, target: &Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())))
}

fn nothing() -> Found {
    Found::Records { answers: Vec::new(), additionals: Vec::new() }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// Those of the type that was asked for.
fn records(name: &Name, kind: RecordType, all: Vec<(RecordType, RData)>) -> Found {
    let wanted = all.into_iter().filter(|(given, _)| *given == kind || kind == RecordType::ANY);
    let answers = wanted.map(|(_, data)| Record::from_rdata(name.clone(), TTL, data)).collect();
    Found::Records { answers, additionals: Vec::new() }
}

fn addresses(name: &Name, kind: RecordType, all: impl IntoIterator<Item = IpAddr>) -> Found {
    let typed = |address| match address {
        IpAddr::V4(_) => (RecordType::A, address_data(address)),
        IpAddr::V6(_) => (RecordType::AAAA, address_data(address)),
    };
    records(name, kind, all.into_iter().map(typed).collect())
}

/// A name without any address does not exist (specification, 2.4.1).
fn some_addresses(name: &Name, kind: RecordType, endpoints: &[Endpoint]) -> Found {
    match endpoints {
        [] => Found::NoName,
        some => addresses(name, kind, some.iter().map(|endpoint| endpoint.address)),
    }
}

fn service<'a>(known: Known<'a>, key: &Key) -> Option<&'a ServiceInfo> {
    known.observed.services.get(key)
}

/// The endpoints of a service that names lead to: those ready, each address once, in order.
fn endpoints(known: Known<'_>, key: &Key) -> Vec<Endpoint> {
    let Some(service) = service(known, key) else { return Vec::new() };
    let mut all: BTreeMap<(IpAddr, String), Endpoint> = BTreeMap::new();
    let mut add = |address: IpAddr, hostname: &Option<String>, ports: &[(String, Protocol, u16)]| {
        let label = hostname.clone().unwrap_or_else(|| dashes(address));
        let endpoint = all.entry((address, label.clone())).or_insert_with(|| Endpoint {
            address,
            label,
            ports: Vec::new(),
        });
        endpoint
            .ports
            .extend(ports.iter().filter(|port| !endpoint.ports.contains(port)).cloned().collect::<Vec<_>>());
    };
    for slice in known.observed.slices_of(key) {
        let usable = |endpoint: &&crate::proxy::observed::EndpointInfo| {
            // A service that publishes pods that are not ready publishes those that are going, too.
            let hidden = if service.publishes_not_ready {
                known.withdrawals.is_gone(endpoint)
            } else {
                known.withdrawals.blocks(endpoint)
            };
            endpoint.ready && !hidden
        };
        for endpoint in slice.endpoints.iter().filter(usable) {
            add(IpAddr::V4(endpoint.address), &endpoint.hostname, &slice.ports);
        }
        for endpoint in slice.endpoints_v6.iter().filter(|endpoint| endpoint.ready) {
            add(IpAddr::V6(endpoint.address), &endpoint.hostname, &slice.ports);
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
#[path = "zone_tests.rs"]
pub(crate) mod tests;
