use super::*;
use crate::dns::question;
use rstest::rstest;
use serde_json::{Value, json};
use std::str::FromStr;

pub(crate) fn zone() -> Zone {
    Zone {
        domain: Name::from_str("cluster.local.").unwrap(),
        server: "10.96.0.10".parse().unwrap(),
        networks: ["10.244.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()],
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

fn slice(service: &str, family: &str, endpoints: Value, ports: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": format!("{service}-{family}"),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": family, "endpoints": endpoints, "ports": ports})
}

fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> Value {
    json!({"addresses": [address], "hostname": hostname, "conditions": {"ready": ready, "serving": true},
        "targetRef": {"kind": "Pod", "uid": address}})
}

/// A cluster with one service of each sort.
pub(crate) fn observed() -> Observed {
    let mut observed = Observed::default();
    let http =
        json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "", "port": 7, "protocol": "UDP"}]);
    let services = [
        service("kubia", json!({"type": "ClusterIP", "clusterIP": "10.96.0.20", "ports": http})),
        service("db", json!({"type": "ClusterIP", "clusterIP": "None", "ports": []})),
        service("early", json!({"clusterIP": "None", "publishNotReadyAddresses": true})),
        service("empty", json!({"type": "ClusterIP", "clusterIP": "None"})),
        service("ext", json!({"type": "ExternalName", "externalName": "www.example.com"})),
        service("near", json!({"type": "ExternalName", "externalName": "kubia.ns.svc.cluster.local"})),
        service("loop", json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local."})),
    ];
    for value in services {
        observed.service(&serde_json::from_value(value).unwrap());
    }
    let pg = json!([{"name": "pg", "port": 5432, "protocol": "TCP"}]);
    let db = json!([
        endpoint("10.244.0.5", Some("db-0"), true),
        endpoint("10.244.0.6", None, true),
        endpoint("10.244.0.7", Some("db-2"), false)
    ]);
    let slices = [
        slice(
            "kubia",
            "IPv4",
            json!([endpoint("10.244.0.8", None, true)]),
            json!([{"name": "http", "port": 8080}]),
        ),
        slice("db", "IPv4", db, pg.clone()),
        slice("db", "IPv6", json!([endpoint("2001:db8::5", Some("db-0"), true)]), pg.clone()),
        // The controller lists them as ready.
        slice("early", "IPv4", json!([endpoint("10.244.0.9", None, true)]), json!([])),
    ];
    for value in slices {
        observed.slice(&serde_json::from_value(value).unwrap());
    }
    observed
}

/// Answers as "TYPE data", or "NXDOMAIN", "elsewhere", "alias NAME".
fn ask_of(withdrawals: &Withdrawals, name: &str, kind: RecordType) -> Vec<String> {
    let (zone, observed) = (zone(), observed());
    let name = Name::from_ascii(name).unwrap();
    let subject = question::subject(&name, &zone.domain).unwrap();
    match zone.find(Known { observed: &observed, withdrawals }, &subject, &name, kind) {
        Found::NoName => vec!["NXDOMAIN".to_owned()],
        Found::Elsewhere => vec!["elsewhere".to_owned()],
        Found::Alias(target) => vec![format!("alias {target}")],
        Found::Records { answers, .. } => {
            assert!(answers.iter().all(|record| record.ttl == 5 && record.name == name));
            answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
        }
    }
}

fn ask(name: &str, kind: RecordType) -> Vec<String> {
    ask_of(&Withdrawals::default(), name, kind)
}

const NODATA: &[&str] = &[];
const NXDOMAIN: &[&str] = &["NXDOMAIN"];

#[rstest]
#[case::cluster_ip("kubia.ns.svc", RecordType::A, &["A 10.96.0.20"])]
#[case::no_ipv6_is_no_error("kubia.ns.svc", RecordType::AAAA, NODATA)]
#[case::unknown_service("nobody.ns.svc", RecordType::A, NXDOMAIN)]
#[case::unknown_namespace("kubia.other.svc", RecordType::A, NXDOMAIN)]
#[case::namespace("ns.svc", RecordType::A, NODATA)]
#[case::no_namespace("other.svc", RecordType::A, NXDOMAIN)]
#[case::no_ports("early.ns.svc", RecordType::SRV, NODATA)]
#[case::no_ports_and_no_pods("empty.ns.svc", RecordType::SRV, NXDOMAIN)]
#[case::svc("svc", RecordType::A, NODATA)]
#[case::nonsense("example.com", RecordType::A, NXDOMAIN)]
#[case::headless("db.ns.svc", RecordType::A, &["A 10.244.0.5", "A 10.244.0.6"])]
#[case::headless_v6("db.ns.svc", RecordType::AAAA, &["AAAA 2001:db8::5"])]
#[case::headless_without_pods("empty.ns.svc", RecordType::A, NXDOMAIN)]
#[case::published_not_ready("early.ns.svc", RecordType::A, &["A 10.244.0.9"])]
#[case::hostname("db-0.db.ns.svc", RecordType::A, &["A 10.244.0.5"])]
#[case::hostname_not_ready("db-2.db.ns.svc", RecordType::A, NXDOMAIN)]
#[case::hostname_made_of_the_address("10-244-0-6.db.ns.svc", RecordType::A, &["A 10.244.0.6"])]
#[case::named_port("_http._tcp.kubia.ns.svc", RecordType::SRV, &["SRV 0 100 80 kubia.ns.svc.cluster.local."])]
#[case::port_of_another_protocol("_http._udp.kubia.ns.svc", RecordType::SRV, NXDOMAIN)]
#[case::unknown_port("_https._tcp.kubia.ns.svc", RecordType::SRV, NXDOMAIN)]
#[case::port_has_no_address("_http._tcp.kubia.ns.svc", RecordType::A, NODATA)]
#[case::protocol("_tcp.kubia.ns.svc", RecordType::SRV, NODATA)]
#[case::unused_protocol("_sctp.kubia.ns.svc", RecordType::SRV, NXDOMAIN)]
#[case::headless_port("_pg._tcp.db.ns.svc", RecordType::SRV, &[
    "SRV 0 33 5432 db-0.db.ns.svc.cluster.local.", "SRV 0 33 5432 10-244-0-6.db.ns.svc.cluster.local.",
    "SRV 0 33 5432 db-0.db.ns.svc.cluster.local."])]
#[case::pod("10-244-0-5.ns.pod", RecordType::A, &["A 10.244.0.5"])]
#[case::no_pod("a-b.ns.pod", RecordType::A, NXDOMAIN)]
#[case::external_name("ext.ns.svc", RecordType::A, &["alias www.example.com."])]
#[case::version("dns-version", RecordType::TXT, &["TXT 1.1.0"])]
#[case::name_server("ns.dns", RecordType::A, &["A 10.96.0.10"])]
fn a_name_has_the_records_of_the_specification(
    #[case] name: &str,
    #[case] kind: RecordType,
    #[case] expected: &[&str],
) {
    assert_eq!(ask(&format!("{name}.cluster.local."), kind), expected);
}

#[rstest]
#[case::cluster_ip("20.0.96.10.in-addr.arpa.", "PTR kubia.ns.svc.cluster.local.")]
#[case::hostname("5.0.244.10.in-addr.arpa.", "PTR db-0.db.ns.svc.cluster.local.")]
#[case::no_hostname("6.0.244.10.in-addr.arpa.", "PTR 10-244-0-6.db.ns.svc.cluster.local.")]
#[case::not_ready("7.0.244.10.in-addr.arpa.", "NXDOMAIN")]
#[case::ours_and_unknown("77.0.244.10.in-addr.arpa.", "NXDOMAIN")]
#[case::not_ours("1.2.0.192.in-addr.arpa.", "elsewhere")]
fn an_address_has_a_name(#[case] name: &str, #[case] expected: &str) {
    assert_eq!(ask(name, RecordType::PTR), [expected]);
}

#[test]
fn the_domain_itself_has_a_server_and_an_authority() {
    assert_eq!(ask("cluster.local.", RecordType::NS), ["NS ns.dns.cluster.local."]);
    assert!(ask("cluster.local.", RecordType::SOA)[0].starts_with("SOA ns.dns.cluster.local. hostmaster."));
    assert_eq!(ask("cluster.local.", RecordType::A), NODATA);
}

#[test]
fn a_withdrawn_pod_leaves_its_names_at_once() {
    let mut withdrawals = Withdrawals::default();
    withdrawals.withdraw("10.244.0.5".parse().unwrap(), &observed());
    assert_eq!(ask_of(&withdrawals, "db.ns.svc.cluster.local.", RecordType::A), ["A 10.244.0.6"]);
    assert_eq!(ask_of(&withdrawals, "db-0.db.ns.svc.cluster.local.", RecordType::A), NODATA);
    // This one wants its pods named as long as they exist.
    withdrawals.withdraw("10.244.0.9".parse().unwrap(), &observed());
    assert_eq!(ask_of(&withdrawals, "early.ns.svc.cluster.local.", RecordType::A), ["A 10.244.0.9"]);
    withdrawals.restore("10.244.0.9".parse().unwrap(), &observed());
    assert_eq!(ask_of(&withdrawals, "early.ns.svc.cluster.local.", RecordType::A), NXDOMAIN);
}

#[test]
fn locations_come_with_the_addresses_they_point_to() {
    let (zone, observed, withdrawals) = (zone(), observed(), Withdrawals::default());
    let name = Name::from_ascii("_http._tcp.kubia.ns.svc.cluster.local.").unwrap();
    let subject = question::subject(&name, &zone.domain).unwrap();
    let known = Known { observed: &observed, withdrawals: &withdrawals };
    let Found::Records { additionals, .. } = zone.find(known, &subject, &name, RecordType::SRV) else {
        panic!()
    };
    let texts: Vec<String> =
        additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(texts, ["kubia.ns.svc.cluster.local. 10.96.0.20"]);
}
