//! What can be wrong with the ports of a service.

use crate::address::{validate_port, validate_protocol};
use crate::field::{self, Errors, Path};
use crate::name;
use crate::pod::validate::port::validate_number_or_name;
use crate::pod::validate::{all_invalid, list, text};
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use std::collections::BTreeSet;

/// Everything wrong with the ports.
pub(super) fn validate(spec: &ServiceSpec, path: &Path) -> Errors {
    let ports = list(&spec.ports);
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_one(port, ports.len() > 1, &at));
        let name = text(&port.name);
        if !name.is_empty() && !names.insert(name) {
            errors.push(field::duplicate(&at.child("name"), name));
        }
    }
    errors.extend(validate_node_ports(spec, path));
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let protocol = text(&port.protocol);
        if !seen.insert((protocol, port.port)) {
            let shown = json!({"port": port.port, "protocol": protocol});
            errors.push(field::duplicate(&path.index(index), shown));
        }
    }
    errors
}

fn validate_one(port: &ServicePort, needs_name: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    match text(&port.name) {
        "" if needs_name => errors.push(field::required(&path.child("name"), "")),
        "" => {}
        name => errors.extend(all_invalid(&path.child("name"), name, &name::dns1123_label(name))),
    }
    errors.extend(validate_port(port.port, &path.child("port")));
    errors.extend(validate_protocol(text(&port.protocol), &path.child("protocol")));
    let target = port.target_port.clone().unwrap_or(IntOrString::Int(0));
    errors.extend(validate_number_or_name(&target, &path.child("targetPort")));
    if let Some(protocol) = &port.app_protocol {
        let at = path.child("appProtocol");
        errors.extend(all_invalid(&at, protocol, &name::qualified_name(protocol)));
    }
    errors
}

fn validate_node_ports(spec: &ServiceSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, port) in list(&spec.ports).iter().enumerate() {
        let at = path.index(index).child("nodePort");
        let Some(number) = port.node_port.filter(|number| *number != 0) else { continue };
        if text(&spec.type_) == "ClusterIP" {
            errors.push(field::forbidden(&at, "may not be used when `type` is 'ClusterIP'"));
        }
        if !seen.insert((text(&port.protocol), number)) {
            errors.push(field::duplicate(&at, number));
        }
    }
    errors
}
