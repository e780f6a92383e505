//! `Endpoints` of core/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part};
use crate::{address, name, table};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// What is particular to `Endpoints`.
pub struct EndpointsKind;

impl Kind for EndpointsKind {
    type Object = Endpoints;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Endpoints",
            plural: "endpoints",
            singular: "endpoints",
            short_names: &["ep"],
            categories: &[],
            namespaced: true,
        }
    }

    fn default(&self, endpoints: &mut Endpoints) {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                port.protocol.get_or_insert_with(|| "TCP".to_owned());
            }
        }
    }

    fn validate_create(&self, endpoints: &Endpoints) -> Errors {
        let subsets = endpoints.subsets.iter().flatten().enumerate();
        subsets
            .flat_map(|(index, subset)| validate_subset(subset, &Path::new("subsets").index(index)))
            .collect()
    }

    fn validate_update(&self, new: &Endpoints, _old: &Endpoints, _part: Part) -> Errors {
        self.validate_create(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 3] =
            [table::NAME, table::string("Endpoints", "The first ready addresses."), table::AGE];
        &COLUMNS
    }

    fn cells(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        let meta = &endpoints.metadata;
        vec![table::name(meta), shown(endpoints).into(), table::age(meta, now)]
    }
}

/// `10.244.0.5:8080,10.244.0.6:8080`.
pub fn shown(endpoints: &Endpoints) -> String {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let ready: Vec<String> = subsets.iter().flat_map(ready_addresses).collect();
    table::first_three(&ready, "")
}

fn ready_addresses(subset: &EndpointSubset) -> Vec<String> {
    let addresses = subset.addresses.as_deref().unwrap_or_default();
    match subset.ports.as_deref().unwrap_or_default() {
        // A headless service may have no ports.
        [] => addresses.iter().map(|address| address.ip.clone()).collect(),
        ports => {
            let with_port = |port: &EndpointPort| {
                let port = port.port;
                addresses.iter().map(move |address| host_and_port(&address.ip, port)).collect::<Vec<_>>()
            };
            ports.iter().flat_map(with_port).collect()
        }
    }
}

/// `10.244.0.5:8080`, `[fd00::5]:8080`.
fn host_and_port(ip: &str, port: i32) -> String {
    match (ip.parse::<IpAddr>(), u16::try_from(port)) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{ip}:{port}"),
    }
}

fn validate_subset(subset: &EndpointSubset, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let lists = [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)];
    if lists.iter().all(|(_, list)| list.as_ref().is_none_or(Vec::is_empty)) {
        errors.push(field::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (name, list) in lists {
        for (index, address) in list.iter().flatten().enumerate() {
            errors.extend(validate_address(address, &path.child(name).index(index)));
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        errors.extend(validate_port(port, ports.len() > 1, &path.child("ports").index(index)));
    }
    errors
}

fn validate_address(endpoint: &EndpointAddress, path: &Path) -> Errors {
    let mut errors = address::validate_endpoint_ip(&endpoint.ip, &path.child("ip"));
    if let Some(hostname) = endpoint.hostname.as_deref().filter(|name| !name.is_empty()) {
        let at = path.child("hostname");
        errors.extend(name::dns1123_label(hostname).iter().map(|wrong| field::invalid(&at, hostname, wrong)));
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        let at = path.child("nodeName");
        errors.extend(name::dns1123_subdomain(node).iter().map(|wrong| field::invalid(&at, node, wrong)));
    }
    errors
}

fn validate_port(port: &EndpointPort, several: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("name");
    match port.name.as_deref().unwrap_or_default() {
        "" if several => errors.push(field::required(&at, "")),
        "" => {}
        name => errors.extend(name::dns1123_label(name).iter().map(|wrong| field::invalid(&at, name, wrong))),
    }
    errors.extend(address::validate_port(port.port, &path.child("port")));
    let protocol = port.protocol.as_deref().unwrap_or_default();
    errors.extend(address::validate_protocol(protocol, &path.child("protocol")));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn endpoints(ips: &[&str], ports: &[i32]) -> Endpoints {
        let address = |ip: &&str| EndpointAddress { ip: (*ip).to_owned(), ..EndpointAddress::default() };
        let port = |port: &i32| EndpointPort { port: *port, ..EndpointPort::default() };
        let subset = EndpointSubset {
            addresses: Some(ips.iter().map(address).collect()),
            ports: Some(ports.iter().map(port).collect()),
            not_ready_addresses: None,
        };
        let mut endpoints = Endpoints { subsets: Some(vec![subset]), ..Endpoints::default() };
        EndpointsKind.default(&mut endpoints);
        endpoints
    }

    #[rstest]
    #[case(&["10.0.0.1"], &[80], "10.0.0.1:80")]
    #[case(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], &[80], "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80")]
    #[case(
        &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"],
        &[80],
        "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
    )]
    #[case(&["10.0.0.1"], &[], "10.0.0.1")]
    #[case(&["fd00::1"], &[80], "[fd00::1]:80")]
    #[case(&[], &[80], "")]
    fn three_addresses_are_shown(#[case] ips: &[&str], #[case] ports: &[i32], #[case] text: &str) {
        assert_eq!(shown(&endpoints(ips, ports)), text);
    }

    #[test]
    fn no_subset_is_shown_as_none() {
        assert_eq!(shown(&Endpoints::default()), "<none>");
    }

    #[rstest]
    #[case(&["10.0.0.1"], &[80], &[])]
    #[case(&["nonsense"], &[80], &["subsets[0].addresses[0].ip"])]
    #[case(&["127.0.0.1"], &[80], &["subsets[0].addresses[0].ip"])]
    #[case(&["10.0.0.1"], &[0], &["subsets[0].ports[0].port"])]
    #[case(&["10.0.0.1"], &[80, 81], &["subsets[0].ports[0].name", "subsets[0].ports[1].name"])]
    #[case(&[], &[80], &["subsets[0]"])]
    fn wrong_subsets_are_reported_at_their_path(
        #[case] ips: &[&str],
        #[case] ports: &[i32],
        #[case] wrong: &[&str],
    ) {
        let errors = EndpointsKind.validate_create(&endpoints(ips, ports));
        let paths: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
        assert_eq!(paths, wrong);
    }
}
