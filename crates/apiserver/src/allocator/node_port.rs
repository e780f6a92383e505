//! Node ports of services.

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use rand::Rng;
use sagong_api::field::{Cause, FieldError, Path, invalid};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The ports of a range that are taken, by protocol.
pub(super) struct NodePorts {
    range: RangeInclusive<u16>,
    taken: HashSet<(String, u16)>,
}

impl NodePorts {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, taken: HashSet::new() }
    }

    /// Notes a port that is in use, wherever it lies.
    pub(super) fn adopt(&mut self, protocol: &str, port: u16) {
        self.taken.insert((protocol.to_owned(), port));
    }

    /// Takes this port; the error is upstream's reason.
    pub(super) fn take(&mut self, protocol: &str, port: u16) -> Result<(), String> {
        if !self.range.contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.range.start(),
                self.range.end()
            ));
        }
        let free = self.taken.insert((protocol.to_owned(), port));
        if free { Ok(()) } else { Err("provided port is already allocated".into()) }
    }

    /// Takes a free port, at random.
    pub(super) fn take_any(&mut self, protocol: &str, random: &mut impl Rng) -> Option<u16> {
        let (from, to) = (*self.range.start(), *self.range.end());
        let start = random.random_range(from..=to);
        let free = |port: &u16| !self.taken.contains(&(protocol.to_owned(), *port));
        let port = (start..=to).chain(from..start).find(free)?;
        self.adopt(protocol, port);
        Some(port)
    }

    pub(super) fn release(&mut self, protocol: &str, port: u16) {
        self.taken.remove(&(protocol.to_owned(), port));
    }
}

/// The protocol of a service port; TCP when unset.
pub(super) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP")
}

/// The node port the service had for the same port and protocol, so that an update that leaves it out keeps it.
pub(super) fn of_same_port(old: &ServiceSpec, port: &ServicePort) -> Option<i32> {
    let same = |p: &&ServicePort| p.port == port.port && protocol(p) == protocol(port);
    old.ports.iter().flatten().find(same).and_then(|p| p.node_port)
}

/// The error for a port the user asked for.
pub(super) fn refused(path: &Path, port: i32, why: &str) -> FieldError {
    invalid(&path.child("nodePort"), port, why)
}

/// The error when no port is left.
pub(super) fn exhausted(path: &Path) -> FieldError {
    let message = "Internal error: failed to allocate a nodePort: range is full".into();
    FieldError { path: path.child("nodePort"), cause: Cause::Invalid, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_per_protocol() {
        let mut ports = NodePorts::new(30000..=30001);
        assert_eq!(ports.take("TCP", 30000), Ok(()));
        assert_eq!(ports.take("UDP", 30000), Ok(()));
        assert_eq!(ports.take("TCP", 30000).unwrap_err(), "provided port is already allocated");
        assert_eq!(ports.take_any("TCP", &mut rand::rng()), Some(30001));
        assert_eq!(ports.take_any("TCP", &mut rand::rng()), None);
        let outside = ports.take("TCP", 80).unwrap_err();
        assert!(outside.ends_with("The range of valid ports is 30000-30001"), "{outside}");
    }
}
