//! What the proxy knows of the API: services and endpoint slices, cut down to what it needs.

use super::index::Index;
use crate::rules::model::{Protocol, ServicePort};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Labels of services that proxies leave alone: headless by will, or another proxy's.
const LEFT_ALONE: [&str; 2] = ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"];
/// Label that names the service of an EndpointSlice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceInfo {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// Creation time in RFC 3339, for ordering.
    pub(crate) created: String,
    /// Whether it is of type LoadBalancer, not being deleted, and no other implementation's (`loadBalancerClass`).
    pub(crate) load_balancer: bool,
    /// Whether `loadBalancerClass` leaves it to another implementation.
    pub(crate) foreign: bool,
    /// None for headless and ExternalName services.
    pub(crate) cluster_ip: Option<Ipv4Addr>,
    /// Whether `spec.clusterIP` is `None`.
    pub(crate) headless: bool,
    /// `spec.externalName` of a service of that type.
    pub(crate) external_name: Option<String>,
    /// Whether a label tells proxies to leave its addresses alone.
    pub(crate) left_alone: bool,
    /// Whether it has a selector: its slices are then the controllers'.
    pub(crate) selects: bool,
    /// `spec.publishNotReadyAddresses`.
    pub(crate) publishes_not_ready: bool,
    pub(crate) external_ips: Vec<Ipv4Addr>,
    /// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy` are `Local`.
    pub(crate) only_local: Locality,
    /// `spec.healthCheckNodePort` of a LoadBalancer service whose connections from outside stay on their node.
    pub(crate) health_check_port: Option<u16>,
    /// `timeoutSeconds` of `spec.sessionAffinityConfig`, if `spec.sessionAffinity` is `ClientIP`.
    pub(crate) affinity: Option<u32>,
    /// `spec.loadBalancerIP`, if it is an address.
    pub(crate) requested_ip: Option<Ipv4Addr>,
    /// `status.loadBalancer.ingress[].ip`.
    pub(crate) ingress: Vec<String>,
    pub(crate) ports: Vec<Port>,
}

/// Whether connections stay on the node they arrive at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locality {
    /// Those to the ClusterIP.
    pub(crate) internal: bool,
    /// All others.
    pub(crate) external: bool,
}

/// An address in an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointInfo<A = Ipv4Addr> {
    pub(crate) address: A,
    /// The endpoint's own name below its service's.
    pub(crate) hostname: Option<String>,
    /// `targetRef.uid`: the pod's; empty if there is none.
    pub(crate) uid: String,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SliceInfo {
    /// Name, protocol, number.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
    pub(crate) endpoints: Vec<EndpointInfo>,
    /// Those of a slice of IPv6 addresses. Rules know nothing of them, names do.
    pub(crate) endpoints_v6: Vec<EndpointInfo<Ipv6Addr>>,
}

/// Everything observed.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) services: BTreeMap<Key, ServiceInfo>,
    /// By service, then by name of the slice.
    slices: BTreeMap<Key, BTreeMap<String, SliceInfo>>,
    index: Index,
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn v4(addresses: Option<&Vec<String>>) -> Vec<Ipv4Addr> {
    addresses.into_iter().flatten().filter_map(|address| address.parse().ok()).collect()
}

/// Key of a namespaced object.
pub(crate) fn key<K: kube::Resource>(object: &K) -> Key {
    let meta = object.meta();
    Key { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

impl From<&Service> for ServiceInfo {
    fn from(service: &Service) -> Self {
        let meta = &service.metadata;
        let Some(spec) = &service.spec else { return Self::default() };
        let load_balancer = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.is_none()
            && meta.deletion_timestamp.is_none();
        let external_name = spec.type_.as_deref() == Some("ExternalName");
        let cluster_ip = spec.cluster_ip.as_deref().filter(|_| !external_name);
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
            load_balancer,
            foreign: spec.load_balancer_class.is_some(),
            headless: cluster_ip == Some("None"),
            cluster_ip: cluster_ip.and_then(|address| address.parse().ok()),
            external_name: spec.external_name.clone().filter(|name| external_name && !name.is_empty()),
            left_alone: meta
                .labels
                .as_ref()
                .is_some_and(|labels| LEFT_ALONE.iter().any(|label| labels.contains_key(*label))),
            selects: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
            publishes_not_ready: spec.publish_not_ready_addresses == Some(true),
            external_ips: v4(spec.external_ips.as_ref()),
            only_local: Locality {
                internal: spec.internal_traffic_policy.as_deref() == Some("Local"),
                external: spec.external_traffic_policy.as_deref() == Some("Local"),
            },
            health_check_port: health_check_port(spec),
            affinity: affinity(spec),
            requested_ip: spec.load_balancer_ip.as_deref().and_then(|address| address.parse().ok()),
            ingress: ingress.filter_map(|ingress| ingress.ip.clone()).collect(),
            ports: spec.ports.iter().flatten().filter_map(service_port).collect(),
        }
    }
}

fn health_check_port(spec: &ServiceSpec) -> Option<u16> {
    let wanted = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    spec.health_check_node_port.filter(|_| wanted).and_then(port)
}

/// Upstream's default is three hours.
fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client| client.timeout_seconds).unwrap_or(10800);
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

fn service_port(given: &k8s_openapi::api::core::v1::ServicePort) -> Option<Port> {
    Some(Port {
        name: given.name.clone().unwrap_or_default(),
        protocol: Protocol::parse(given.protocol.as_deref().unwrap_or("TCP"))?,
        port: port(given.port)?,
        node_port: given.node_port.and_then(port),
    })
}

impl From<&EndpointSlice> for SliceInfo {
    fn from(slice: &EndpointSlice) -> Self {
        let ports = slice.ports.iter().flatten().filter_map(|given| {
            let protocol = Protocol::parse(given.protocol.as_deref().unwrap_or("TCP"))?;
            Some((given.name.clone().unwrap_or_default(), protocol, port(given.port?)?))
        });
        let of_type = |name: &'static str| slice.endpoints.iter().filter(move |_| slice.address_type == name);
        Self {
            ports: ports.collect(),
            endpoints: of_type("IPv4").filter_map(EndpointInfo::read).collect(),
            endpoints_v6: of_type("IPv6").filter_map(EndpointInfo::read).collect(),
        }
    }
}

impl<A: std::str::FromStr> EndpointInfo<A> {
    /// None without an address of this family.
    fn read(given: &Endpoint) -> Option<Self> {
        let conditions = given.conditions.clone().unwrap_or_default();
        // Unknown readiness counts as ready (field documentation of EndpointConditions).
        let ready = conditions.ready.unwrap_or(true);
        Some(Self {
            address: given.addresses.first()?.parse().ok()?,
            hostname: given.hostname.clone().filter(|name| !name.is_empty()),
            uid: given.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        })
    }
}

impl Observed {
    pub(crate) fn service(&mut self, service: &Service) {
        self.service_gone(service);
        let (key, info) = (key(service), ServiceInfo::from(service));
        self.index.add_service(&key, &info);
        self.services.insert(key, info);
    }

    pub(crate) fn service_gone(&mut self, service: &Service) {
        let key = key(service);
        if let Some(info) = self.services.remove(&key) {
            self.index.remove_service(&key, &info);
        }
    }

    pub(crate) fn slice(&mut self, slice: &EndpointSlice) {
        self.slice_gone(slice);
        let Some((service, name)) = owner(slice) else { return };
        let info = SliceInfo::from(slice);
        self.index.add_slice(&service, &name, &info);
        self.slices.entry(service).or_default().insert(name, info);
    }

    pub(crate) fn slice_gone(&mut self, slice: &EndpointSlice) {
        let Some((service, name)) = owner(slice) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            if let Some(info) = slices.remove(&name) {
                self.index.remove_slice(&service, &name, &info);
            }
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
    }

    pub(crate) fn replace_services(&mut self, services: &[Service]) {
        for (key, info) in std::mem::take(&mut self.services) {
            self.index.remove_service(&key, &info);
        }
        services.iter().for_each(|service| self.service(service));
    }

    pub(crate) fn replace_slices(&mut self, slices: &[EndpointSlice]) {
        for (service, slices) in std::mem::take(&mut self.slices) {
            slices.iter().for_each(|(name, info)| self.index.remove_slice(&service, name, info));
        }
        slices.iter().for_each(|slice| self.slice(slice));
    }

    /// Every endpoint of every slice.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &EndpointInfo> {
        self.slices.values().flat_map(BTreeMap::values).flat_map(|slice| &slice.endpoints)
    }

    /// The slices of a service.
    pub(crate) fn slices_of(&self, service: &Key) -> impl Iterator<Item = &SliceInfo> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// How many ready pods of a service are on this node. What is `blocked` is not ready.
    pub(crate) fn ready_here(
        &self,
        service: &Key,
        node: Ipv4Net,
        blocked: impl Fn(&EndpointInfo) -> bool,
    ) -> usize {
        let endpoints = self.slices_of(service).flat_map(|slice| &slice.endpoints);
        let here = endpoints.filter(|it| it.ready && node.contains(&it.address) && !blocked(it));
        here.map(|endpoint| endpoint.address).collect::<BTreeSet<_>>().len()
    }

    /// Whether a service has a slice of this name.
    pub(crate) fn has_slice(&self, service: &Key, name: &str) -> bool {
        self.slices.get(service).is_some_and(|slices| slices.contains_key(name))
    }

    /// The services that list an address.
    pub(crate) fn services_at(&self, address: IpAddr) -> BTreeSet<&Key> {
        self.index.services_at(address)
    }

    /// The service with a ClusterIP.
    pub(crate) fn service_of(&self, address: IpAddr) -> Option<&Key> {
        match address {
            IpAddr::V4(address) => self.index.service_of(address),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether there is a service in a namespace.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        let from = Key { namespace: namespace.to_owned(), name: String::new() };
        self.services.range(from..).next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    /// Where new connections to a port of a service go: the ready endpoints; if there are none, those that
    /// still serve while they terminate (KEP-1669). What is `blocked` is in neither.
    pub(crate) fn chosen(
        &self,
        service: &Key,
        port: &Port,
        blocked: impl Fn(&EndpointInfo) -> bool,
    ) -> Vec<SocketAddrV4> {
        let (mut ready, mut terminating) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices_of(service) {
            let Some(number) = slice.number(port) else { continue };
            for endpoint in slice.endpoints.iter().filter(|endpoint| !blocked(endpoint)) {
                let address = SocketAddrV4::new(endpoint.address, number);
                if endpoint.ready {
                    ready.insert(address);
                } else if endpoint.serving && endpoint.terminating {
                    terminating.insert(address);
                }
            }
        }
        let chosen = if ready.is_empty() { terminating } else { ready };
        chosen.into_iter().collect()
    }

    /// The same, of those on this node only if `local` is given: this node's pods.
    fn chosen_within(
        &self,
        service: &Key,
        port: &Port,
        local: Option<Ipv4Net>,
        blocked: impl Fn(&EndpointInfo) -> bool,
    ) -> Vec<SocketAddrV4> {
        let elsewhere = |endpoint: &EndpointInfo| local.is_some_and(|node| !node.contains(&endpoint.address));
        self.chosen(service, port, |endpoint| blocked(endpoint) || elsewhere(endpoint))
    }

    /// Where connections to a port of a service from outside the cluster go.
    pub(crate) fn chosen_outside(
        &self,
        key: &Key,
        service: &ServiceInfo,
        port: &Port,
        node: Ipv4Net,
        blocked: impl Fn(&EndpointInfo) -> bool,
    ) -> Vec<SocketAddrV4> {
        self.chosen_within(key, port, service.only_local.external.then_some(node), blocked)
    }

    /// Every port of every service that has a ClusterIP, as the rules of a node with these pods want it.
    pub(crate) fn service_ports(
        &self,
        node: Ipv4Net,
        blocked: impl Fn(&EndpointInfo) -> bool + Copy,
    ) -> Vec<ServicePort> {
        self.ports(node, |key, port, local| self.chosen_within(key, port, local, blocked))
    }

    /// The same with every endpoint that still serves, whether or not it gets anything new: flows that exist may
    /// go on there (as upstream's proxy leaves them), until it is `gone`.
    pub(crate) fn flow_ports(
        &self,
        node: Ipv4Net,
        gone: impl Fn(&EndpointInfo) -> bool + Copy,
    ) -> Vec<ServicePort> {
        self.ports(node, |key, port, _| {
            let all = self.slices_of(key).flat_map(|slice| {
                let number = slice.number(port);
                let serving = slice
                    .endpoints
                    .iter()
                    .filter(move |endpoint| (endpoint.ready || endpoint.serving) && !gone(endpoint));
                serving.filter_map(move |endpoint| Some(SocketAddrV4::new(endpoint.address, number?)))
            });
            all.collect::<BTreeSet<_>>().into_iter().collect()
        })
    }

    /// `endpoints` gives those of a port, on this node only if that is given.
    fn ports(
        &self,
        node: Ipv4Net,
        endpoints: impl Fn(&Key, &Port, Option<Ipv4Net>) -> Vec<SocketAddrV4>,
    ) -> Vec<ServicePort> {
        let mut all = Vec::new();
        for (key, service) in self.services.iter().filter(|(_, service)| !service.left_alone) {
            let Some(cluster_ip) = service.cluster_ip else { continue };
            let Locality { internal, external } = service.only_local;
            all.extend(service.ports.iter().map(|port| ServicePort {
                name: if port.name.is_empty() { key.to_string() } else { format!("{key}:{}", port.name) },
                protocol: port.protocol,
                cluster_ip,
                port: port.port,
                node_port: port.node_port,
                external_ips: service.external_addresses(port.protocol),
                endpoints: endpoints(key, port, internal.then_some(node)),
                external_endpoints: endpoints(key, port, external.then_some(node)),
                affinity: service.affinity,
            }));
        }
        all
    }
}

impl SliceInfo {
    /// The number of a service's port at this slice's endpoints.
    fn number(&self, port: &Port) -> Option<u16> {
        let same =
            |(name, protocol, _): &&(String, Protocol, u16)| *name == port.name && *protocol == port.protocol;
        self.ports.iter().find(same).map(|(_, _, number)| *number)
    }
}

impl ServiceInfo {
    /// Addresses beside the ClusterIP on which packets are translated. The balancer's is one of them for UDP,
    /// of which it only keeps others away from the port.
    fn external_addresses(&self, protocol: Protocol) -> Vec<Ipv4Addr> {
        let balanced = self.load_balancer && protocol == Protocol::Udp;
        let ours = self.ingress.iter().filter(|_| balanced).filter_map(|ip| ip.parse().ok());
        self.external_ips.iter().copied().chain(ours.filter(Ipv4Addr::is_loopback)).collect()
    }
}

/// The service a slice belongs to, and the slice's name.
fn owner(slice: &EndpointSlice) -> Option<(Key, String)> {
    let Key { namespace, name } = key(slice);
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    Some((Key { namespace, name: service }, name))
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
