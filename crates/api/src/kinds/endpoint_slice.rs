//! `EndpointSlice` of discovery.k8s.io/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part};
use crate::{address, meta, name, table};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most endpoints, ports, and addresses of an endpoint a slice may have.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

/// What is particular to `EndpointSlice`.
pub struct EndpointSliceKind;

impl Kind for EndpointSliceKind {
    type Object = EndpointSlice;

    fn identity(&self) -> Identity {
        Identity {
            group: "discovery.k8s.io",
            version: "v1",
            kind: "EndpointSlice",
            plural: "endpointslices",
            singular: "endpointslice",
            short_names: &[],
            categories: &[],
            namespaced: true,
        }
    }

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn spec_changed(&self, new: &EndpointSlice, old: &EndpointSlice) -> bool {
        new.endpoints != old.endpoints
            || new.ports != old.ports
            || new.address_type != old.address_type
            || new.metadata.labels != old.metadata.labels
    }

    fn validate_create(&self, slice: &EndpointSlice) -> Errors {
        let path = Path::new("addressType");
        let mut errors = Errors::new();
        match slice.address_type.as_str() {
            "" => errors.push(field::required(&path, "")),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.push(field::not_supported(&path, other, &["FQDN", "IPv4", "IPv6"])),
        }
        errors.extend(validate_endpoints(slice, &Path::new("endpoints")));
        errors.extend(validate_ports(slice.ports.as_deref().unwrap_or_default(), &Path::new("ports")));
        errors
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice, _part: Part) -> Errors {
        let mut errors = self.validate_create(new);
        errors.extend(meta::immutable(&new.address_type, &old.address_type, &Path::new("addressType")));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 5] = [
            table::NAME,
            table::string("AddressType", "What kind of addresses it has."),
            table::string("Ports", "The first ports."),
            table::string("Endpoints", "The first addresses."),
            table::AGE,
        ];
        &COLUMNS
    }

    fn cells(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = slice.ports.iter().flatten().map(shown_port).collect();
        let addresses: Vec<String> =
            slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
        vec![
            table::name(&slice.metadata),
            slice.address_type.clone().into(),
            table::first_three(&ports, "<unset>").into(),
            table::first_three(&addresses, "<unset>").into(),
            table::age(&slice.metadata, now),
        ]
    }
}

/// A port without a number stands for all.
fn shown_port(port: &EndpointPort) -> String {
    let name = port.name.clone().filter(|name| !name.is_empty());
    port.port.map(|port| port.to_string()).or(name).unwrap_or_else(|| "*".to_owned())
}

fn validate_endpoints(slice: &EndpointSlice, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if slice.endpoints.len() > ENDPOINTS_MAX {
        errors.push(field::too_many(path, slice.endpoints.len(), ENDPOINTS_MAX));
        return errors;
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        errors.extend(validate_endpoint(endpoint, &slice.address_type, &path.index(index)));
    }
    errors
}

fn validate_endpoint(endpoint: &Endpoint, type_: &str, path: &Path) -> Errors {
    let at = path.child("addresses");
    let mut errors = Errors::new();
    match endpoint.addresses.len() {
        0 => errors.push(field::required(&at, "must contain at least 1 address")),
        many if many > ADDRESSES_MAX => errors.push(field::too_many(&at, many, ADDRESSES_MAX)),
        _ => {}
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        errors.extend(validate_address(address, type_, &at.index(index)));
    }
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    let node = optional(&endpoint.node_name);
    if endpoint.node_name.is_some() {
        let at = path.child("nodeName");
        errors.extend(name::dns1123_subdomain(&node).iter().map(|wrong| field::invalid(&at, &node, wrong)));
    }
    let hostname = optional(&endpoint.hostname);
    if endpoint.hostname.is_some() {
        let at = path.child("hostname");
        errors
            .extend(name::dns1123_label(&hostname).iter().map(|wrong| field::invalid(&at, &hostname, wrong)));
    }
    errors
}

fn validate_address(text: &str, type_: &str, path: &Path) -> Errors {
    let family = |wrong: bool, expected: &str| {
        let mut errors = address::validate_endpoint_ip(text, path);
        if wrong && errors.is_empty() {
            errors.push(field::invalid(path, text, expected));
        }
        errors
    };
    match type_ {
        "IPv4" => family(text.contains(':'), "must be a valid IPv4 address"),
        "IPv6" => family(!text.contains(':'), "must be a valid IPv6 address"),
        "FQDN" => {
            name::dns1123_subdomain(text).iter().map(|wrong| field::invalid(path, text, wrong)).collect()
        }
        _ => Errors::new(),
    }
}

fn validate_ports(ports: &[EndpointPort], path: &Path) -> Errors {
    if ports.len() > PORTS_MAX {
        return vec![field::too_many(path, ports.len(), PORTS_MAX)];
    }
    let mut names = BTreeSet::new();
    let mut errors = Errors::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let (at, name) = (path.child("name"), port.name.as_deref().unwrap_or_default());
        if !name.is_empty() {
            errors.extend(name::dns1123_label(name).iter().map(|wrong| field::invalid(&at, name, wrong)));
        }
        if !names.insert(name) {
            errors.push(field::duplicate(&at, name));
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        errors.extend(address::validate_protocol(protocol, &path.child("protocol")));
        errors.extend(port.port.into_iter().flat_map(|p| address::validate_port(p, &path.child("port"))));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn slice(type_: &str, addresses: &[&str], ports: &[(&str, Option<i32>)]) -> EndpointSlice {
        let endpoint =
            |address: &&str| Endpoint { addresses: vec![(*address).into()], ..Endpoint::default() };
        let port = |(name, port): &(&str, Option<i32>)| EndpointPort {
            name: Some((*name).into()),
            port: *port,
            ..EndpointPort::default()
        };
        let mut slice = EndpointSlice {
            address_type: type_.into(),
            endpoints: addresses.iter().map(endpoint).collect(),
            ports: Some(ports.iter().map(port).collect()),
            ..EndpointSlice::default()
        };
        EndpointSliceKind.default(&mut slice);
        slice
    }

    #[rstest]
    #[case(slice("IPv4", &["10.0.0.1"], &[("", Some(80))]), &[])]
    #[case(slice("", &[], &[]), &["addressType: Required value"])]
    #[case(slice("IPv5", &[], &[]), &["addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""])]
    #[case(slice("IPv4", &["fd00::1"], &[]), &["endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"])]
    #[case(slice("IPv4", &[], &[("a", Some(80)), ("a", Some(81))]), &["ports[1].name: Duplicate value: \"a\""])]
    #[case(slice("IPv4", &[], &[("a", Some(70000))]), &["ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"])]
    fn a_wrong_slice_is_reported(#[case] slice: EndpointSlice, #[case] wrong: &[&str]) {
        let errors: Vec<String> =
            EndpointSliceKind.validate_create(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(errors, wrong);
    }

    #[test]
    fn ports_and_addresses_are_shown_and_their_absence_too() {
        let now = Timestamp::UNIX_EPOCH;
        let cells =
            EndpointSliceKind.cells(&slice("IPv4", &["10.0.0.1", "10.0.0.2"], &[("", Some(80))]), now);
        assert_eq!((&cells[2], &cells[3]), (&"80".into(), &"10.0.0.1,10.0.0.2".into()));
        let cells = EndpointSliceKind.cells(&slice("IPv4", &[], &[]), now);
        assert_eq!((&cells[2], &cells[3]), (&"<unset>".into(), &"<unset>".into()));
    }

    #[test]
    fn the_address_type_does_not_change() {
        let errors =
            EndpointSliceKind.validate_update(&slice("IPv4", &[], &[]), &slice("IPv6", &[], &[]), Part::Main);
        assert_eq!(errors[0].to_string(), "addressType: Invalid value: \"IPv4\": field is immutable");
    }
}
