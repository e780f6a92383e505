//! Ports: their numbers and names, and those of containers.

use super::{all_invalid, list, text};
use crate::address::{validate_port, validate_protocol};
use crate::field::{self, Errors, Path};
use crate::name::max_len_message;
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;

/// The longest name of a port (an IANA service name, RFC 6335).
const NAME_MAX: usize = 15;

/// Complains about a port that is neither a number nor a name.
pub(crate) fn validate_number_or_name(port: &IntOrString, path: &Path) -> Errors {
    match port {
        IntOrString::Int(number) => validate_port(*number, path),
        IntOrString::String(name) => all_invalid(path, name, &wrong_with_name(name)),
    }
}

/// What is wrong with the name of a port.
fn wrong_with_name(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > NAME_MAX {
        wrong.push(max_len_message(NAME_MAX));
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(fits) {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// Everything wrong with the ports of one container.
pub(super) fn validate_container_ports(ports: &[ContainerPort], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = text(&port.name);
        if !name.is_empty() {
            let wrong = wrong_with_name(name);
            if wrong.is_empty() && !names.insert(name) {
                errors.push(field::duplicate(&at.child("name"), name));
            }
            errors.extend(all_invalid(&at.child("name"), name, &wrong));
        }
        match port.container_port {
            0 => errors.push(field::required(&at.child("containerPort"), "")),
            number => errors.extend(validate_port(number, &at.child("containerPort"))),
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            errors.extend(validate_port(number, &at.child("hostPort")));
        }
        errors.extend(validate_protocol(text(&port.protocol), &at.child("protocol")));
    }
    errors
}

/// Complains about host ports that more than one of these containers wants.
pub(super) fn validate_host_ports(containers: &[Container], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index).child("ports");
        for (index, port) in list(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|number| *number != 0) else { continue };
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if !taken.insert(key.clone()) {
                errors.push(field::duplicate(&at.index(index).child("hostPort"), key));
            }
        }
    }
    errors
}

/// On the host's network a container port is a host port, so the two cannot differ. In templates the host
/// port may be left out, as it is filled in for the pods.
pub(super) fn validate_host_network(spec: &PodSpec, in_pod: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if spec.host_network != Some(true) {
        return errors;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let at = path.index(index).child("ports");
        for (index, port) in list(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if (in_pod || host_port != 0) && host_port != port.container_port {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(field::invalid(&at.index(index).child("hostPort"), host_port, detail));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http", 0)]
    #[case("http-2", 0)]
    #[case("8080", 1)]
    #[case("Http", 1)]
    #[case("a--b", 1)]
    #[case("-a", 1)]
    #[case("abcdefghijklmnop", 1)]
    #[case("", 2)]
    fn a_port_name_is_a_short_service_name(#[case] name: &str, #[case] wrong: usize) {
        assert_eq!(wrong_with_name(name).len(), wrong, "{:?}", wrong_with_name(name));
    }
}
