//! What services hold of shared things: cluster addresses and node ports.
//!
//! Both are kept in memory, rebuilt from the store at start and guarded by one lock, so that two writes never
//! get the same. A write takes a [`Reservation`] first; when the write does not happen, dropping it gives
//! everything back.

mod cluster_ip;
mod node_port;

use crate::failure::Outcome;
use crate::resources::Resource;
use crate::wire::Stored;
use cluster_ip::ClusterIps;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use node_port::NodePorts;
use parking_lot::Mutex;
use sagong_api::error::ApiError;
use sagong_api::field::{Errors, Path};
use sagong_api::kind::Object;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// One thing held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Held {
    Address(Ipv4Addr),
    /// Protocol and number.
    Port(String, u16),
}

struct Ledger {
    addresses: ClusterIps,
    ports: NodePorts,
}

impl Ledger {
    fn release(&mut self, held: &Held) {
        match held {
            Held::Address(address) => self.addresses.release(*address),
            Held::Port(protocol, port) => self.ports.release(protocol, *port),
        }
    }
}

/// The allocators of the API server.
#[derive(Clone)]
pub(crate) struct Allocators(Arc<Mutex<Ledger>>);

/// What a write takes and gives back.
#[derive(Default)]
pub(crate) struct Reservation {
    ledger: Option<Arc<Mutex<Ledger>>>,
    taken: Vec<Held>,
    surplus: Vec<Held>,
}

impl Reservation {
    /// The write happened: what it took stays taken, what the object no longer holds is free.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
        let surplus = std::mem::take(&mut self.surplus);
        if let Some(ledger) = &self.ledger {
            let mut ledger = ledger.lock();
            surplus.iter().for_each(|held| ledger.release(held));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.as_ref().filter(|_| !self.taken.is_empty()) {
            let mut ledger = ledger.lock();
            self.taken.iter().for_each(|held| ledger.release(held));
        }
    }
}

fn service(resource: &Resource, object: &dyn Object) -> Option<Service> {
    object.as_any().downcast_ref::<Service>().filter(|_| resource.qualified == "services").cloned()
}

/// Whether services of this type have a cluster address (headless ones say `None`).
fn needs_address(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName") && spec.cluster_ip.as_deref() != Some("None")
}

fn needs_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// What a service holds.
fn held_by(spec: &ServiceSpec) -> Vec<Held> {
    let address = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()).map(Held::Address);
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.node_port.unwrap_or(0)).ok().filter(|n| *n != 0)?;
        Some(Held::Port(node_port::protocol(port).to_owned(), number))
    });
    let mut held: Vec<Held> = address.into_iter().chain(ports).collect();
    held.dedup();
    held
}

impl Allocators {
    /// Empty ledgers for these ranges.
    pub(crate) fn new(cidr: Ipv4Net, ports: RangeInclusive<u16>) -> Self {
        Self(Arc::new(Mutex::new(Ledger { addresses: ClusterIps::new(cidr), ports: NodePorts::new(ports) })))
    }

    /// Notes what a service that is already stored holds.
    pub(crate) fn adopt(&self, service: &Service) {
        let mut ledger = self.0.lock();
        for held in service.spec.as_ref().map(held_by).unwrap_or_default() {
            match held {
                Held::Address(address) => ledger.addresses.adopt(address),
                Held::Port(protocol, port) => ledger.ports.adopt(&protocol, port),
            }
        }
    }

    /// Gives a new service its address and ports.
    pub(crate) fn create(&self, resource: &Resource, object: &mut dyn Object) -> Outcome<Reservation> {
        let Some(new) = service(resource, object) else { return Ok(Reservation::default()) };
        self.allocate(resource, object, new, &ServiceSpec::default())
    }

    /// Gives a changed service what it newly needs, and notes what it no longer does.
    pub(crate) fn update(
        &self,
        resource: &Resource,
        object: &mut dyn Object,
        old: &dyn Object,
    ) -> Outcome<Reservation> {
        let Some(new) = service(resource, object) else { return Ok(Reservation::default()) };
        let old = service(resource, old).and_then(|s| s.spec).unwrap_or_default();
        self.allocate(resource, object, new, &old)
    }

    /// Frees what a service held that is gone.
    pub(crate) fn release(&self, resource: &Resource, last: &Stored) {
        if resource.qualified != "services" {
            return;
        }
        let Ok(service) = serde_json::from_slice::<Service>(&last.bytes) else { return };
        let mut ledger = self.0.lock();
        for held in service.spec.as_ref().map(held_by).unwrap_or_default() {
            ledger.release(&held);
        }
    }

    fn allocate(
        &self,
        resource: &Resource,
        object: &mut dyn Object,
        mut new: Service,
        old: &ServiceSpec,
    ) -> Outcome<Reservation> {
        let name = new.metadata.name.clone().unwrap_or_default();
        let Some(spec) = new.spec.as_mut() else { return Ok(Reservation::default()) };
        let had = held_by(old);
        let mut reservation =
            Reservation { ledger: Some(self.0.clone()), taken: Vec::new(), surplus: Vec::new() };
        let mut errors = Errors::new();
        {
            let mut ledger = self.0.lock();
            take_address(&mut ledger, spec, &had, &mut reservation.taken, &mut errors);
            take_ports(&mut ledger, spec, old, &had, &mut reservation.taken, &mut errors);
        }
        if !errors.is_empty() {
            let kind = resource.qualified_kind.clone();
            return Err(ApiError::Invalid { kind, name, errors }.into());
        }
        let has = held_by(spec);
        reservation.surplus = had.into_iter().filter(|held| !has.contains(held)).collect();
        if let Some(slot) = object.as_any_mut().downcast_mut::<Service>() {
            *slot = new;
        }
        Ok(reservation)
    }
}

fn take_address(
    ledger: &mut Ledger,
    spec: &mut ServiceSpec,
    had: &[Held],
    taken: &mut Vec<Held>,
    errors: &mut Errors,
) {
    if spec.type_.as_deref() == Some("ExternalName") {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        return;
    }
    if needs_address(spec) {
        let given = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
        match given.map(str::parse::<Ipv4Addr>) {
            Some(Ok(address)) if had.contains(&Held::Address(address)) => {}
            Some(Ok(address)) => match ledger.addresses.take(address) {
                Ok(()) => taken.push(Held::Address(address)),
                Err(why) => errors.push(cluster_ip::refused(address, &why)),
            },
            Some(Err(_)) => return,
            None => match ledger.addresses.take_any(&mut rand::rng()) {
                Some(address) => {
                    taken.push(Held::Address(address));
                    spec.cluster_ip = Some(address.to_string());
                }
                None => errors.push(cluster_ip::exhausted()),
            },
        }
    }
    spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    spec.ip_families.get_or_insert_with(|| vec!["IPv4".into()]);
    spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
}

fn take_ports(
    ledger: &mut Ledger,
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
    had: &[Held],
    taken: &mut Vec<Held>,
    errors: &mut Errors,
) {
    let needs = needs_ports(spec);
    let keeps_given = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let path = Path::new("spec.ports");
    let mut ports = spec.ports.take().unwrap_or_default();
    for (index, port) in ports.iter_mut().enumerate() {
        let protocol = node_port::protocol(port).to_owned();
        if port.node_port.unwrap_or(0) == 0 && needs {
            port.node_port = node_port::of_same_port(old, port);
        }
        let given = port.node_port.unwrap_or(0);
        if !keeps_given {
            port.node_port = None;
        } else if given != 0 {
            let number = u16::try_from(given).unwrap_or(0);
            let held = Held::Port(protocol.clone(), number);
            if had.contains(&held) || taken.contains(&held) {
                continue;
            }
            match ledger.ports.take(&protocol, number) {
                Ok(()) => taken.push(held),
                Err(why) => errors.push(node_port::refused(&path.index(index), given, &why)),
            }
        } else if needs {
            match ledger.ports.take_any(&protocol, &mut rand::rng()) {
                Some(number) => {
                    taken.push(Held::Port(protocol, number));
                    port.node_port = Some(number.into());
                }
                None => errors.push(node_port::exhausted(&path.index(index))),
            }
        }
    }
    spec.ports = (!ports.is_empty()).then_some(ports);
}
