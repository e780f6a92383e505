//! Checks of addresses, ports and protocols (`k8s.io/apimachinery/pkg/util/validation`).

use crate::field::{self, Errors, Path};
use std::net::IpAddr;

/// What is wrong with a text that is to be an IP address.
const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Everything wrong with an IP address.
pub fn validate_ip(text: &str, path: &Path) -> Errors {
    match text.parse::<IpAddr>() {
        Ok(_) => Errors::new(),
        Err(_) => vec![field::invalid(path, text, NO_IP)],
    }
}

/// Everything wrong with the address of an endpoint: one that traffic may not be sent to for a service, lest
/// a service reach what listens only on its host (CVE-2021-25737).
pub fn validate_endpoint_ip(text: &str, path: &Path) -> Errors {
    let Ok(ip) = text.parse::<IpAddr>() else { return validate_ip(text, path) };
    let wrong = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if is_link_local(ip) {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if is_link_local_multicast(ip) {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else {
        return Errors::new();
    };
    vec![field::invalid(path, text, wrong)]
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Everything wrong with a port number.
pub fn validate_port(port: i32, path: &Path) -> Errors {
    if (1..=65535).contains(&port) {
        return Errors::new();
    }
    vec![field::invalid(path, port, "must be between 1 and 65535, inclusive")]
}

/// Everything wrong with a transport protocol.
pub fn validate_protocol(protocol: &str, path: &Path) -> Errors {
    match protocol {
        "" => vec![field::required(path, "")],
        "TCP" | "UDP" | "SCTP" => Errors::new(),
        other => vec![field::not_supported(path, other, &["SCTP", "TCP", "UDP"])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10.244.0.7", true)]
    #[case("fd00::7", true)]
    #[case("0.0.0.0", false)]
    #[case("127.0.0.1", false)]
    #[case("::1", false)]
    #[case("169.254.1.1", false)]
    #[case("fe80::1", false)]
    #[case("224.0.0.5", false)]
    #[case("ff02::1", false)]
    #[case("10.0.0", false)]
    fn endpoints_are_reachable_unicast_addresses(#[case] ip: &str, #[case] valid: bool) {
        assert_eq!(validate_endpoint_ip(ip, &Path::new("ip")).is_empty(), valid);
    }
}
