//! The in-process balancer behind LoadBalancer services.
//!
//! Knows nothing of the API: it is told which services there are ([`Balancer::sync`]), where their pods are
//! ([`Balancer::set`]) and which pods are being stopped ([`Balancer::withdraw`]).

pub(crate) mod addresses;
pub(crate) mod affinity;
pub(crate) mod backend;
pub(crate) mod body;
pub(crate) mod endpoint;
pub(crate) mod headers;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod prefixed;
pub(crate) mod sniff;
pub(crate) mod status;
pub(crate) mod tcp;

use crate::proxy::observed::Key;
use backend::Backend;
use endpoint::Endpoint;
use listener::Listener;
use parking_lot::Mutex;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// A port of a service.
pub(crate) type PortKey = (Key, u16);

/// Listeners, backends and endpoints.
#[derive(Default)]
pub(crate) struct Balancer {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    backends: BTreeMap<PortKey, Arc<Backend>>,
    listeners: BTreeMap<PortKey, (SocketAddr, Listener)>,
    held: BTreeMap<PortKey, UdpSocket>,
    endpoints: HashMap<SocketAddr, Arc<Endpoint>>,
    /// Endpoints of withdrawn addresses, until they are restored.
    withdrawn: HashMap<IpAddr, Vec<Arc<Endpoint>>>,
    /// Endpoints that left all services and still have something in flight.
    leaving: Vec<Arc<Endpoint>>,
}

/// A service to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) service: Key,
    pub(crate) address: Ipv4Addr,
    /// TCP ports.
    pub(crate) ports: Vec<u16>,
    /// UDP ports. The service rules lead their packets to pods; here they are only held, so that no other
    /// process thinks it had them, and so that one that has them keeps them.
    pub(crate) udp_ports: Vec<u16>,
}

impl Balancer {
    /// Listens for exactly these services and tells which could not be served, and why. A service is served on
    /// all its ports or on none. Must be called within a tokio runtime.
    pub(crate) fn sync(&self, wanted: &[Served]) -> BTreeMap<Key, String> {
        let mut inner = self.inner.lock();
        let address_of = |(service, port): &PortKey| {
            let served = wanted.iter().find(|served| served.service == *service)?;
            served.ports.contains(port).then(|| SocketAddr::from((served.address, *port)))
        };
        inner.listeners.retain(|key, (address, _)| address_of(key) == Some(*address));
        let holds = |(service, port): &PortKey, socket: &UdpSocket| {
            let served = wanted.iter().find(|served| served.service == *service);
            let address = socket.local_addr().ok();
            served.is_some_and(|served| {
                served.udp_ports.contains(port) && address == Some(SocketAddr::from((served.address, *port)))
            })
        };
        inner.held.retain(|key, socket| holds(key, socket));
        let mut failed = BTreeMap::new();
        for served in wanted {
            if let Err(message) = inner.listen(served) {
                inner.listeners.retain(|(service, _), _| *service != served.service);
                inner.held.retain(|(service, _), _| *service != served.service);
                failed.insert(served.service.clone(), message);
            }
        }
        failed
    }

    /// Sets the endpoints of every service port; ports not named have none. Endpoints that are in no service
    /// any more get nothing new; what is in flight to them is finished.
    pub(crate) fn set(&self, ports: BTreeMap<PortKey, Vec<SocketAddr>>, keeps: bool) {
        self.inner.lock().set(&ports, keeps);
    }

    /// Lets nothing new go to an address and closes idle connections to it. What is in flight goes on.
    pub(crate) fn withdraw(&self, address: IpAddr) {
        let mut inner = self.inner.lock();
        let taken: Vec<Arc<Endpoint>> = inner
            .endpoints
            .extract_if(|endpoint, _| endpoint.ip() == address)
            .map(|(_, taken)| taken)
            .collect();
        taken.iter().for_each(|endpoint| endpoint.retire());
        let (mut same, others) = std::mem::take(&mut inner.leaving)
            .into_iter()
            .partition::<Vec<_>, _>(|endpoint| endpoint.address.ip() == address);
        inner.leaving = others;
        same.extend(taken);
        inner.withdrawn.entry(address).or_default().extend(same);
    }

    /// The pod at a withdrawn address is gone: ends what is still in flight to it.
    pub(crate) fn restore(&self, address: IpAddr) {
        let gone = self.inner.lock().withdrawn.remove(&address);
        gone.iter().flatten().for_each(|endpoint| endpoint.abandon());
    }

    /// Requests and connections in flight to an address.
    pub(crate) fn in_flight(&self, address: IpAddr) -> usize {
        let inner = self.inner.lock();
        let withdrawn = inner.withdrawn.get(&address).into_iter().flatten();
        let all = inner
            .endpoints
            .values()
            .chain(&inner.leaving)
            .filter(|endpoint| endpoint.address.ip() == address);
        withdrawn.chain(all).map(|endpoint| endpoint.in_flight()).sum()
    }

    /// For how long service ports send a client to the same pod; ports not named do not care.
    pub(crate) fn remember(&self, ports: &BTreeMap<PortKey, Duration>) {
        for (key, backend) in &self.inner.lock().backends {
            backend.remember(ports.get(key).copied());
        }
    }

    /// Forgets what is over. To be called about once a second.
    pub(crate) fn sweep(&self) {
        self.inner.lock().leaving.retain(|endpoint| endpoint.in_flight() > 0);
    }
}

impl Inner {
    fn backend(&mut self, key: &PortKey) -> Arc<Backend> {
        Arc::clone(self.backends.entry(key.clone()).or_insert_with(|| Backend::new(key.0.to_string())))
    }

    fn listen(&mut self, served: &Served) -> Result<(), String> {
        let refused = |address: SocketAddr, error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("cannot listen on {address}: another process listens there")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        for port in &served.udp_ports {
            let key = (served.service.clone(), *port);
            if let Entry::Vacant(free) = self.held.entry(key) {
                let address = SocketAddr::from((served.address, *port));
                free.insert(UdpSocket::bind(address).map_err(|error| refused(address, error))?);
            }
        }
        for port in &served.ports {
            let key = (served.service.clone(), *port);
            if self.listeners.contains_key(&key) {
                continue;
            }
            let address = SocketAddr::from((served.address, *port));
            let listener =
                Listener::bind(address, self.backend(&key)).map_err(|error| refused(address, error))?;
            self.listeners.insert(key, (address, listener));
        }
        Ok(())
    }

    fn set(&mut self, ports: &BTreeMap<PortKey, Vec<SocketAddr>>, keeps: bool) {
        for (key, addresses) in ports {
            let endpoints = addresses
                .iter()
                .filter(|address| !self.withdrawn.contains_key(&address.ip()))
                .map(|address| {
                    let endpoint =
                        self.endpoints.entry(*address).or_insert_with(|| Endpoint::new(*address, keeps));
                    Arc::clone(endpoint)
                })
                .collect();
            self.backend(key).set(endpoints);
        }
        self.backends.retain(|key, backend| {
            let stays = ports.contains_key(key);
            if !stays {
                backend.set(Vec::new());
            }
            stays || self.listeners.contains_key(key)
        });
        let listed: std::collections::HashSet<SocketAddr> = ports.values().flatten().copied().collect();
        for (_, endpoint) in self.endpoints.extract_if(|address, _| !listed.contains(address)) {
            endpoint.retire();
            if endpoint.in_flight() > 0 {
                self.leaving.push(endpoint);
            }
        }
    }
}

#[cfg(test)]
#[path = "balancer/tests.rs"]
mod tests;
