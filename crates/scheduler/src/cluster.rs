//! What the scheduler knows of the cluster: nodes, and what the pods on them take.

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sagong_api::quantity::Amount;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// Resources by name, in thousandths.
pub type Resources = BTreeMap<String, i64>;

/// What a pod needs of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Requests, `pods: 1` included.
    pub resources: Resources,
    /// Host ports, with protocol and host address.
    pub host_ports: BTreeSet<(String, String, i32)>,
    /// The uid of the controller, by which equal pods are spread.
    pub controller: Option<String>,
}

impl Wanted {
    /// Reads it from the pod's spec. Per resource, what the containers request together, or the largest init
    /// container if that is more (with sidecars running beside it), plus the overhead
    /// (KEP-753, `spec.overhead`).
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut total = Resources::new();
        for container in &spec.containers {
            add(&mut total, &requests(container));
        }
        let (mut sidecars, mut largest) = (Resources::new(), Resources::new());
        for container in spec.init_containers.iter().flatten() {
            let own = requests(container);
            if container.restart_policy.as_deref() == Some("Always") {
                add(&mut total, &own);
                add(&mut sidecars, &own);
                raise(&mut largest, &sidecars);
            } else {
                let mut at_once = sidecars.clone();
                add(&mut at_once, &own);
                raise(&mut largest, &at_once);
            }
        }
        raise(&mut total, &largest);
        add(&mut total, &amounts(spec.overhead.as_ref()));
        total.insert("pods".into(), 1000);
        let controller =
            pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            resources: total,
            host_ports: host_ports(&spec.containers, spec.host_network == Some(true)),
            controller: controller.map(|owner| owner.uid.clone()),
        }
    }
}

fn requests(container: &Container) -> Resources {
    amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Resources {
    let read = |(name, quantity): (&String, &Quantity)| {
        Some((name.clone(), Amount::try_from(quantity).ok()?.millis()))
    };
    quantities.into_iter().flatten().filter_map(read).collect()
}

fn add(total: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let slot = total.entry(name.clone()).or_default();
        *slot = slot.saturating_add(*amount);
    }
}

fn raise(total: &mut Resources, floor: &Resources) {
    for (name, amount) in floor {
        let slot = total.entry(name.clone()).or_default();
        *slot = (*slot).max(*amount);
    }
}

fn host_ports(containers: &[Container], host_network: bool) -> BTreeSet<(String, String, i32)> {
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number =
                port.host_port.or_else(|| host_network.then_some(port.container_port)).filter(|n| *n > 0)?;
            let address =
                port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "0.0.0.0").unwrap_or_default();
            Some((port.protocol.clone().unwrap_or_else(|| "TCP".into()), address, number))
        })
        .collect()
}

/// A node with what is taken of it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The object.
    pub node: Node,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// What its pods request together.
    pub taken: Resources,
    /// Host ports its pods have.
    pub host_ports: BTreeMap<(String, String, i32), usize>,
    /// How many pods each controller has here.
    pub by_controller: HashMap<String, usize>,
}

impl NodeState {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    fn new(node: Node) -> Self {
        let allocatable = amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        Self {
            node,
            allocatable,
            taken: Resources::new(),
            host_ports: BTreeMap::new(),
            by_controller: HashMap::new(),
        }
    }

    fn take(&mut self, wanted: &Wanted) {
        add(&mut self.taken, &wanted.resources);
        for port in &wanted.host_ports {
            *self.host_ports.entry(port.clone()).or_default() += 1;
        }
        if let Some(controller) = &wanted.controller {
            *self.by_controller.entry(controller.clone()).or_default() += 1;
        }
    }

    fn give_back(&mut self, wanted: &Wanted) {
        for (name, amount) in &wanted.resources {
            if let Some(slot) = self.taken.get_mut(name) {
                *slot -= amount;
            }
        }
        for port in &wanted.host_ports {
            if let Some(count) = self.host_ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.host_ports.remove(port);
                }
            }
        }
        if let Some(controller) = &wanted.controller
            && let Some(count) = self.by_controller.get_mut(controller)
        {
            *count -= 1;
            if *count == 0 {
                self.by_controller.remove(controller);
            }
        }
    }
}

/// Nodes and the pods assigned to them, kept up to date change by change: a pod costs the same however many
/// there are.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    /// By uid: where a pod is, and what it takes there.
    assigned: HashMap<Box<str>, (Arc<str>, Arc<Wanted>)>,
    /// The pods of one template want the same: noted once for all of them. The same for names of nodes.
    wants: HashSet<Arc<Wanted>>,
    names: HashSet<Arc<str>>,
}

impl Cluster {
    /// The nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values()
    }

    /// Takes over a node as it is now.
    pub fn set_node(&mut self, node: Node) {
        let Some(name) = node.metadata.name.clone() else { return };
        let mut state = NodeState::new(node);
        for (_, wanted) in self.assigned.values().filter(|(at, _)| **at == *name) {
            state.take(wanted);
        }
        self.nodes.insert(name, state);
    }

    /// Forgets a node. Its pods still count as assigned.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Forgets every node, before a new list of them.
    pub fn clear_nodes(&mut self) {
        self.nodes.clear();
    }

    /// The uids of the pods that are noted as being on a node.
    pub fn assigned(&self) -> impl Iterator<Item = &str> {
        self.assigned.keys().map(|uid| &**uid)
    }

    /// Notes that a pod is on a node, or is about to be bound to it. Replaces what was noted before.
    pub fn assign(&mut self, uid: &str, node: &str, wanted: Wanted) {
        if self.assigned.get(uid).is_some_and(|(at, noted)| **at == *node && **noted == wanted) {
            return;
        }
        self.release(uid);
        if let Some(state) = self.nodes.get_mut(node) {
            state.take(&wanted);
        }
        let (node, wanted) =
            (shared(&mut self.names, node.into()), shared(&mut self.wants, Arc::new(wanted)));
        self.assigned.insert(uid.into(), (node, wanted));
    }

    /// Notes that a pod takes nothing any more: it has ended, is gone, or was not bound after all.
    pub fn release(&mut self, uid: &str) {
        let Some((node, wanted)) = self.assigned.remove(uid) else { return };
        if let Some(state) = self.nodes.get_mut(&*node) {
            state.give_back(&wanted);
        }
        forget_unused(&mut self.names, &node);
        forget_unused(&mut self.wants, &wanted);
    }
}

/// The same value as noted before, or this one from now on.
fn shared<T: Hash + Eq + ?Sized>(known: &mut HashSet<Arc<T>>, value: Arc<T>) -> Arc<T> {
    if let Some(known) = known.get(&value) {
        return known.clone();
    }
    known.insert(value.clone());
    value
}

/// Forgets a value that nobody but the caller has.
fn forget_unused<T: Hash + Eq + ?Sized>(known: &mut HashSet<Arc<T>>, value: &Arc<T>) {
    if Arc::strong_count(value) <= 2 {
        known.remove(value);
    }
}
