//! What a name below the cluster's domain, or of the reverse tree, stands for. Pure.
//!
//! The scheme is that of the Kubernetes DNS-Based Service Discovery specification, version 1.1.0; pods' names are
//! those CoreDNS gives (`a-b-c-d.NAMESPACE.pod.DOMAIN`).

use crate::proxy::observed::Key;
use crate::rules::model::Protocol;
use hickory_proto::rr::Name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The cluster's domain itself.
    Apex,
    /// `dns-version`: the version of the scheme.
    Version,
    /// `ns.dns`: the name server.
    NameServer,
    /// A name that only has others below it: `svc`, `pod`, `dns`.
    Branch,
    /// `NAMESPACE.svc`.
    Namespace(String),
    Service(Key),
    /// `HOSTNAME.SERVICE…`: one endpoint.
    Endpoint(Key, String),
    /// `_PROTOCOL.SERVICE…`.
    Protocol(Key, Protocol),
    /// `_PORT._PROTOCOL.SERVICE…`.
    Port(Key, Protocol, String),
    /// An address spelled in a pod's name.
    Pod(IpAddr),
    /// An address in the reverse tree.
    Reverse(IpAddr),
    /// A name of ours that cannot exist.
    Nothing,
}

/// What a name stands for; None if it is none of the cluster's business.
pub(crate) fn subject(name: &Name, domain: &Name) -> Option<Subject> {
    if domain.zone_of(name) {
        let own = usize::from(name.num_labels().saturating_sub(domain.num_labels()));
        let labels: Option<Vec<String>> = name.iter().take(own).map(label).collect();
        // A label that is no text names nothing of Kubernetes.
        return Some(labels.map_or(Subject::Nothing, |labels| in_domain(&labels)));
    }
    let labels: Vec<String> = name.iter().map(label).collect::<Option<_>>()?;
    reverse(&labels).map(Subject::Reverse)
}

fn label(bytes: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(bytes).ok()?.to_ascii_lowercase())
}

/// `labels` from left to right, without the domain.
fn in_domain(labels: &[String]) -> Subject {
    let from_right: Vec<&str> = labels.iter().rev().map(String::as_str).collect();
    match from_right.as_slice() {
        [] => Subject::Apex,
        ["dns-version"] => Subject::Version,
        ["dns", "ns"] => Subject::NameServer,
        ["svc" | "pod" | "dns"] => Subject::Branch,
        ["svc", namespace] => Subject::Namespace((*namespace).to_owned()),
        ["svc", namespace, service, below @ ..] => {
            let key = Key { namespace: (*namespace).to_owned(), name: (*service).to_owned() };
            in_service(key, below)
        }
        // Whether the namespace exists is not known here; nothing but pods' names is below.
        ["pod", _] => Subject::Branch,
        ["pod", _, spelled] => dashed(spelled).map_or(Subject::Nothing, Subject::Pod),
        _ => Subject::Nothing,
    }
}

fn in_service(key: Key, below: &[&str]) -> Subject {
    let protocol = |label: &str| Protocol::parse(&label.strip_prefix('_')?.to_ascii_uppercase());
    match below {
        [] => Subject::Service(key),
        [label] if label.starts_with('_') => {
            protocol(label).map_or(Subject::Nothing, |protocol| Subject::Protocol(key, protocol))
        }
        [hostname] => Subject::Endpoint(key, (*hostname).to_owned()),
        [label, port] => match (protocol(label), port.strip_prefix('_')) {
            (Some(protocol), Some(port)) => Subject::Port(key, protocol, port.to_owned()),
            _ => Subject::Nothing,
        },
        _ => Subject::Nothing,
    }
}

/// `10-244-0-5` or `2001-db8--5`.
fn dashed(spelled: &str) -> Option<IpAddr> {
    let v4 = || spelled.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4().or_else(|| spelled.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// An address as the label of an endpoint without a hostname.
pub(crate) fn dashes(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The whole address a name of `in-addr.arpa` or `ip6.arpa` spells.
fn reverse(labels: &[String]) -> Option<IpAddr> {
    let (digits, tree) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    match tree {
        [a, arpa] if a == "in-addr" && arpa == "arpa" => {
            let octets: Vec<u8> =
                digits.iter().rev().map(|digit| digit.parse().ok()).collect::<Option<_>>()?;
            Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)))
        }
        [ip6, arpa] if ip6 == "ip6" && arpa == "arpa" => {
            let digit = |label: &String| u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1);
            let digits: Vec<u128> = digits.iter().rev().map(digit).collect::<Option<_>>()?;
            let whole = digits.iter().fold(0, |sum: u128, digit| (sum << 4) | digit);
            (digits.len() == 32).then(|| IpAddr::V6(Ipv6Addr::from(whole)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::str::FromStr;

    fn asked(name: &str) -> Option<Subject> {
        subject(&Name::from_ascii(name).unwrap(), &Name::from_str("cluster.local.").unwrap())
    }

    fn key() -> Key {
        Key { namespace: "ns".into(), name: "kubia".into() }
    }

    #[rstest]
    #[case("cluster.local.", Subject::Apex)]
    #[case("dns-version.cluster.local.", Subject::Version)]
    #[case("ns.dns.cluster.local.", Subject::NameServer)]
    #[case("svc.cluster.local.", Subject::Branch)]
    #[case("ns.svc.cluster.local.", Subject::Namespace("ns".into()))]
    #[case("kubia.ns.svc.cluster.local.", Subject::Service(key()))]
    #[case("KUBIA.Ns.sVc.Cluster.LOCAL.", Subject::Service(key()))]
    #[case("db-0.kubia.ns.svc.cluster.local.", Subject::Endpoint(key(), "db-0".into()))]
    #[case("_tcp.kubia.ns.svc.cluster.local.", Subject::Protocol(key(), Protocol::Tcp))]
    #[case("_http._tcp.kubia.ns.svc.cluster.local.", Subject::Port(key(), Protocol::Tcp, "http".into()))]
    #[case("_http._quic.kubia.ns.svc.cluster.local.", Subject::Nothing)]
    #[case("http._tcp.kubia.ns.svc.cluster.local.", Subject::Nothing)]
    #[case("a.b.c.kubia.ns.svc.cluster.local.", Subject::Nothing)]
    #[case("example.com.cluster.local.", Subject::Nothing)]
    #[case("10-244-0-5.ns.pod.cluster.local.", Subject::Pod("10.244.0.5".parse().unwrap()))]
    #[case("2001-db8--5.ns.pod.cluster.local.", Subject::Pod("2001:db8::5".parse().unwrap()))]
    #[case("10-244-0.ns.pod.cluster.local.", Subject::Nothing)]
    #[case("5.0.244.10.in-addr.arpa.", Subject::Reverse("10.244.0.5".parse().unwrap()))]
    fn a_name_stands_for(#[case] name: &str, #[case] expected: Subject) {
        assert_eq!(asked(name), Some(expected));
    }

    #[rstest]
    #[case("example.com.")]
    #[case("local.")]
    #[case("notcluster.local.")]
    #[case("0.244.10.in-addr.arpa.")]
    #[case("b.5.0.244.10.in-addr.arpa.")]
    #[case("300.0.244.10.in-addr.arpa.")]
    #[case("arpa.")]
    #[case(".")]
    fn other_names_are_not_the_clusters(#[case] name: &str) {
        assert_eq!(asked(name), None);
    }

    #[test]
    fn an_ipv6_address_is_spelled_in_nibbles() {
        let name = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
        assert_eq!(asked(name), Some(Subject::Reverse("2001:db8::5".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn any_labels_are_read_without_panic(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..12), 0..9)) {
            let domain = Name::from_str("cluster.local.").unwrap();
            let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
            if let Ok(name) = Name::from_labels(labels) {
                let _ = subject(&name, &domain);
                if let Ok(below) = name.append_domain(&domain) {
                    prop_assert!(subject(&below, &domain).is_some());
                }
            }
        }
    }
}
