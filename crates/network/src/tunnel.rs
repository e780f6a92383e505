//! `sagong tunnel`: LoadBalancer services served by a process of its own, as `minikube tunnel` does.

use crate::balancer::status::LoadBalancers;
use crate::balancer::{Balancer, PortKey};
use crate::proxy::observed::{Key, Observed, ServiceInfo};
use crate::proxy::watch;
use crate::rules::model::Protocol;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a service that could not be served is tried again.
const TICK: Duration = Duration::from_secs(1);

/// Serves every LoadBalancer service until `shutdown`, then takes the addresses back from their statuses.
///
/// Connects to ClusterIPs, each time anew: the service rules choose the pod, so pods withdrawn by the node are
/// avoided without this process having to know. Must run on the node.
pub async fn tunnel(client: kube::Client, shutdown: CancellationToken) {
    let balancer = Balancer::default();
    let mut balancers = LoadBalancers::new(client.clone());
    let mut observed = Observed::default();
    let mut listed = false;
    {
        let mut changes = pin!(watch::services(client));
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => {
                        listed = true;
                        change.apply(&mut observed);
                    }
                    None => break,
                },
                () = tokio::time::sleep(TICK) => if !balancers.unfinished() { continue },
                () = shutdown.cancelled() => break,
            }
            if listed {
                balancer.set(backends(&observed.services), false);
                balancers.reconcile(&observed.services, &balancer, Instant::now()).await;
            }
        }
    }
    balancer.sync(&[]);
    balancers.withdraw_all(&observed.services).await;
}

/// Each port leads to the ClusterIP's.
fn backends(services: &BTreeMap<Key, ServiceInfo>) -> BTreeMap<PortKey, Vec<SocketAddr>> {
    let mut all = BTreeMap::new();
    for (key, service) in services.iter().filter(|(_, service)| service.load_balancer) {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            let address = service.cluster_ip.map(|ip| SocketAddr::from((ip, port.port)));
            all.insert((key.clone(), port.port), address.into_iter().collect());
        }
    }
    all
}
