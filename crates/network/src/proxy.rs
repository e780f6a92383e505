//! Keeps rules and balancer in line with services and endpoints, and takes pods out of service.

pub(crate) mod connections;
pub(crate) mod forgetting;
pub(crate) mod health;
pub(crate) mod index;
pub(crate) mod observed;
pub(crate) mod stale;
pub(crate) mod tracked;
pub(crate) mod watch;
pub(crate) mod withdrawal;

use crate::balancer::{Balancer, PortKey};
use crate::rules::apply::Rules;
use crate::rules::model::{Node, Protocol, ServicePort};
use crate::{BoxFuture, DataPlane, NetworkError};
use forgetting::Forgetting;
use observed::Observed;
use parking_lot::Mutex;
use stale::Flows;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{Notify, watch as channel};
use watch::Change;
use withdrawal::Withdrawals;

/// How long a withdrawal waits for the first lists after a start.
const FIRST_LISTS: Duration = Duration::from_secs(5);
/// Pause after the kernel refused the rules.
const RETRY: Duration = Duration::from_secs(1);

/// The node's service proxy, without the API: fed with [`Change`]s.
pub(crate) struct Proxy {
    state: Mutex<State>,
    node: Node,
    /// What the kernel has.
    applied: tokio::sync::Mutex<Rules>,
    pub(crate) forgetting: Forgetting,
    pub(crate) balancer: Balancer,
    /// Whether rules have to be compiled again.
    dirty: Notify,
    /// Whether both lists were read once. Until then the rules of an earlier run stay.
    listed: channel::Sender<bool>,
    /// Told whenever services changed.
    pub(crate) services: Notify,
}

#[derive(Default)]
struct State {
    observed: Observed,
    withdrawals: Withdrawals,
    services_listed: bool,
    slices_listed: bool,
}

impl Proxy {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            state: Mutex::default(),
            applied: tokio::sync::Mutex::new(Rules::new(node.clone())),
            forgetting: Forgetting::default(),
            node,
            balancer: Balancer::default(),
            dirty: Notify::new(),
            listed: channel::channel(false).0,
            services: Notify::new(),
        }
    }

    /// Makes the table if there is none.
    pub(crate) async fn prepare(&self) -> Result<(), NetworkError> {
        self.applied.lock().await.prepare().await
    }

    /// Takes note of a change; the rules follow.
    pub(crate) fn change(&self, change: Change) {
        let mut state = self.state.lock();
        let of_services = match &change {
            Change::Services(_) => {
                state.services_listed = true;
                true
            }
            Change::Slices(_) => {
                state.slices_listed = true;
                false
            }
            Change::Service(_) | Change::ServiceGone(_) => true,
            Change::Slice(_) | Change::SliceGone(_) => false,
        };
        change.apply(&mut state.observed);
        if !of_services {
            let State { observed, withdrawals, .. } = &mut *state;
            withdrawals.observe(observed);
        }
        let listed = state.services_listed && state.slices_listed;
        drop(state);
        if listed {
            self.listed.send_replace(true);
            self.dirty.notify_one();
        }
        if of_services {
            self.services.notify_one();
        }
    }

    /// The services as last observed; None before they were listed.
    pub(crate) fn observed_services(&self) -> Option<BTreeMap<observed::Key, observed::ServiceInfo>> {
        let state = self.state.lock();
        state.services_listed.then(|| state.observed.services.clone())
    }

    /// Applies changes without end. Those that come while the kernel is busy are applied together.
    pub(crate) async fn follow(&self) {
        tokio::join!(self.follow_changes(), self.forgetting.follow());
    }

    async fn follow_changes(&self) {
        loop {
            self.dirty.notified().await;
            // Somebody's address was restored; the rules of an earlier run stay until it is known what should be.
            if !self.is_listed() {
                continue;
            }
            if let Err(error) = self.apply().await {
                tracing::error!(%error, "service rules not applied, trying again");
                tokio::time::sleep(RETRY).await;
                self.dirty.notify_one();
            }
        }
    }

    /// Brings balancer and kernel to what is known now.
    pub(crate) async fn apply(&self) -> Result<(), NetworkError> {
        // Locked first: whoever is second compiles what is known then, so the last one applied is the newest.
        let mut applied = self.applied.lock().await;
        let (ports, flows) = self.state.lock().feed(&self.node, &self.balancer);
        let begun = std::time::Instant::now();
        applied.apply(&ports).await?;
        self.forgetting.want(flows);
        tracing::debug!(ports = ports.len(), took = ?begun.elapsed(), "service rules applied");
        Ok(())
    }

    /// Whether both lists were read once.
    pub(crate) fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Waits for both lists; false if they were not read in time.
    pub(crate) async fn listed_within(&self, time: Duration) -> bool {
        let mut listed = self.listed.subscribe();
        tokio::time::timeout(time, listed.wait_for(|listed| *listed)).await.is_ok()
    }

    /// Ports at which services are asked for their health, while that is known.
    fn health_check_ports(&self) -> Option<BTreeMap<u16, observed::Key>> {
        let state = self.state.lock();
        let services = state.observed.services.iter();
        let ports = services.filter_map(|(key, service)| Some((service.health_check_port?, key.clone())));
        state.services_listed.then(|| ports.collect())
    }

    /// How many ready pods of a service are on this node.
    fn ready_here(&self, service: &observed::Key) -> usize {
        let State { observed, withdrawals, .. } = &*self.state.lock();
        observed.ready_here(service, self.node.node_cidr, |endpoint| withdrawals.blocks(endpoint))
    }

    /// Looks at what is known now. What is withdrawn is so at once, before the rules follow.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Observed, &Withdrawals) -> T) -> T {
        let state = self.state.lock();
        look(&state.observed, &state.withdrawals)
    }

    async fn wait_for_lists(&self) -> Result<(), NetworkError> {
        if self.listed_within(FIRST_LISTS).await {
            return Ok(());
        }
        Err(NetworkError::Failed {
            step: "waiting for",
            object: "services and endpoint slices".to_owned(),
            message: format!("not listed within {FIRST_LISTS:?}"),
        })
    }
}

impl State {
    /// Gives the balancer its endpoints and returns the ports for the rules, and where UDP flows may go on. Under
    /// one lock, so that no older list can overtake a withdrawal.
    fn feed(&mut self, node: &Node, balancer: &Balancer) -> (Vec<ServicePort>, Flows) {
        self.withdrawals.observe(&self.observed);
        let blocked = |endpoint: &observed::EndpointInfo| self.withdrawals.blocks(endpoint);
        let mut backends: BTreeMap<PortKey, Vec<SocketAddr>> = BTreeMap::new();
        let mut affinities = BTreeMap::new();
        for (key, service) in self.observed.services.iter().filter(|(_, service)| service.load_balancer) {
            for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
                let chosen = self.observed.chosen_outside(key, service, port, node.node_cidr, blocked);
                let addresses = chosen.into_iter().map(SocketAddr::V4).collect();
                backends.insert((key.clone(), port.port), addresses);
                if let Some(seconds) = service.affinity {
                    affinities.insert((key.clone(), port.port), Duration::from_secs(seconds.into()));
                }
            }
        }
        balancer.set(backends, true);
        balancer.remember(&affinities);
        let gone = |endpoint: &observed::EndpointInfo| self.withdrawals.is_gone(endpoint);
        let flows = Flows::of(&self.observed.flow_ports(node.node_cidr, gone));
        (self.observed.service_ports(node.node_cidr, blocked), flows)
    }
}

/// Waits until no packet is being judged by rules that were replaced: those run as readers of RCU, and this
/// call waits for all readers there are.
async fn packets_settled() {
    let barrier = || rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global);
    match tokio::task::spawn_blocking(barrier).await {
        Ok(Ok(())) => {}
        // Kernels with isolated CPUs do not offer it; packets take microseconds.
        Ok(Err(error)) => tracing::debug!(%error, "cannot wait for packets in work"),
        Err(error) => tracing::debug!(%error, "waiting for packets in work"),
    }
}

/// Connections the pod does not know of yet. None if the kernel does not tell.
async fn on_their_way(address: IpAddr) -> usize {
    let IpAddr::V4(address) = address else { return 0 };
    let counted = tokio::task::spawn_blocking(move || tracked::on_their_way(address)).await;
    match counted.map_err(std::io::Error::other).and_then(|counted| counted) {
        Ok(count) => count,
        Err(error) => {
            tracing::debug!(%error, "cannot ask connection tracking");
            0
        }
    }
}

impl DataPlane for Proxy {
    fn withdraw<'a>(&'a self, address: IpAddr) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            {
                let State { observed, withdrawals, .. } = &mut *self.state.lock();
                withdrawals.withdraw(address, observed);
                self.balancer.withdraw(address);
            }
            self.wait_for_lists().await?;
            self.apply().await?;
            packets_settled().await;
            Ok(())
        })
    }

    fn connections<'a>(
        &'a self,
        address: IpAddr,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<usize, NetworkError>> {
        Box::pin(async move {
            // In this order: what is no longer on its way has a socket.
            let on_their_way = on_their_way(address).await;
            let tables = crate::pod::within(netns, connections::read).await.and_then(|read| read);
            let tables = tables.map_err(|error| NetworkError::Failed {
                step: "reading connections in",
                object: netns.display().to_string(),
                message: error.to_string(),
            })?;
            // The balancer may have chosen the pod and not connected yet.
            Ok(connections::count(&tables).max(self.balancer.in_flight(address)) + on_their_way)
        })
    }

    fn restore(&self, address: IpAddr) {
        {
            let State { observed, withdrawals, .. } = &mut *self.state.lock();
            withdrawals.restore(address, observed);
            self.balancer.withdraw(address);
            self.balancer.restore(address);
        }
        self.dirty.notify_one();
    }

    fn readmit(&self, address: IpAddr) {
        {
            let mut state = self.state.lock();
            state.withdrawals.readmit(address);
            self.balancer.restore(address);
        }
        self.dirty.notify_one();
    }
}
