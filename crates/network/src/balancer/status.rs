//! LoadBalancer services as the API sees them: who gets which address, `status.loadBalancer`, events.

use super::addresses::{self, Wish};
use super::{Balancer, Served};
use crate::proxy::observed::{Key, ServiceInfo};
use crate::rules::model::Protocol;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// As upstream's service controller names itself in events.
const COMPONENT: &str = "service-controller";
/// First and longest pause between two events about the same failure.
const COMPLAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Keeps listeners and statuses in line with the services.
pub(crate) struct LoadBalancers {
    client: kube::Client,
    assigned: BTreeMap<Key, Ipv4Addr>,
    /// What was last written, and over which resource version: not again until the watch has shown it.
    written: BTreeMap<Key, (String, Vec<String>)>,
    complaints: BTreeMap<Key, Complaint>,
    unfinished: bool,
}

/// A failure that was told.
struct Complaint {
    message: String,
    event: String,
    count: i32,
    pause: Duration,
    next: Instant,
}

/// What has to be done for one service. Pure part of [`LoadBalancers::reconcile`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Write this ingress; an event says so if it is not empty.
    Write(Key, Vec<String>),
    /// Tell why there is none.
    Complain(Key, String),
}

impl LoadBalancers {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            client,
            assigned: BTreeMap::new(),
            written: BTreeMap::new(),
            complaints: BTreeMap::new(),
            unfinished: false,
        }
    }

    /// Whether something could not be done the last time and should be tried again.
    pub(crate) fn unfinished(&self) -> bool {
        self.unfinished
    }

    /// Serves these services as far as possible.
    pub(crate) async fn reconcile(
        &mut self,
        services: &BTreeMap<Key, ServiceInfo>,
        balancer: &Balancer,
        now: Instant,
    ) {
        self.unfinished = false;
        self.assigned = addresses::assign(wishes(services, &self.assigned));
        let (served, mut failed) = served(services, &self.assigned);
        failed.extend(balancer.sync(&served));
        self.written.retain(|key, _| services.contains_key(key));
        self.complaints.retain(|key, _| failed.contains_key(key));
        for step in steps(services, &served, &failed) {
            match step {
                Step::Write(key, ingress) => self.write(&key, &services[&key], ingress).await,
                Step::Complain(key, message) => self.complain(&key, &services[&key], message, now).await,
            }
        }
        self.unfinished |= !failed.is_empty();
    }

    /// Takes back every ingress this one has written: nobody serves it any more.
    pub(crate) async fn withdraw_all(&mut self, services: &BTreeMap<Key, ServiceInfo>) {
        let ours: Vec<Key> =
            self.assigned.keys().filter(|key| services.contains_key(*key)).cloned().collect();
        for key in ours {
            let address = self.assigned[&key].to_string();
            let wrote = self.written.get(&key).is_some_and(|(_, ingress)| ingress.contains(&address));
            if services[&key].ingress.contains(&address) || wrote {
                self.write(&key, &services[&key], Vec::new()).await;
            }
        }
    }

    async fn write(&mut self, key: &Key, service: &ServiceInfo, ingress: Vec<String>) {
        let written = (service.resource_version.clone(), ingress.clone());
        if self.written.get(key) == Some(&written) {
            return;
        }
        let list: Vec<_> = ingress.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let list = if list.is_empty() { serde_json::Value::Null } else { json!(list) };
        let patch = json!({"status": {"loadBalancer": {"ingress": list}}});
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => drop(self.written.insert(key.clone(), written)),
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => {
                self.unfinished = true;
                return tracing::warn!(service = %key, %error, "cannot write load balancer status");
            }
        }
        if !ingress.is_empty() {
            self.event(key, service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer").await;
        }
    }

    async fn complain(&mut self, key: &Key, service: &ServiceInfo, message: String, now: Instant) {
        if let Some(complaint) = self.complaints.get_mut(key)
            && complaint.message == message
        {
            if now < complaint.next {
                return;
            }
            complaint.count += 1;
            complaint.pause = (complaint.pause * 2).min(COMPLAIN.1);
            complaint.next = now + complaint.pause;
            let patch = json!({"count": complaint.count, "lastTimestamp": seconds()});
            let api: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
            let patched = api.patch(&complaint.event, &PatchParams::default(), &Patch::Merge(patch)).await;
            if patched.is_ok() {
                return;
            }
        }
        tracing::warn!(service = %key, message, "load balancer");
        let text = format!("Error syncing load balancer: failed to ensure load balancer: {message}");
        let event = self.event(key, service, "Warning", "SyncLoadBalancerFailed", &text).await;
        let pause = COMPLAIN.0;
        let complaint = Complaint { message, event, count: 1, pause, next: now + pause };
        self.complaints.insert(key.clone(), complaint);
    }

    /// Records an event and gives its name.
    async fn event(
        &self,
        key: &Key,
        service: &ServiceInfo,
        kind: &str,
        reason: &str,
        message: &str,
    ) -> String {
        let name = format!("{}.{:x}", key.name, rand::random::<u64>());
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Service", "namespace": key.namespace, "name": key.name,
                "uid": service.uid, "resourceVersion": service.resource_version
            },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": seconds(), "lastTimestamp": seconds(),
            "source": {"component": COMPONENT}, "reportingComponent": COMPONENT, "reportingInstance": ""
        });
        let api: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let created = match serde_json::from_value::<Event>(event) {
            Ok(event) => api.create(&PostParams::default(), &event).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = created {
            tracing::warn!(service = %key, reason, error, "cannot record event");
        }
        name
    }
}

/// Now, as `metav1.Time` has it.
fn seconds() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn wishes(services: &BTreeMap<Key, ServiceInfo>, assigned: &BTreeMap<Key, Ipv4Addr>) -> Vec<Wish> {
    let balanced = services.iter().filter(|(_, service)| service.load_balancer);
    let wish = |(key, service): (&Key, &ServiceInfo)| Wish {
        service: key.clone(),
        created: service.created.clone(),
        current: assigned.get(key).copied().or_else(|| service.ingress.first()?.parse().ok()),
        requested: service.requested_ip,
        ports: service.ports.iter().map(|port| (port.protocol, port.port)).collect(),
    };
    balanced.map(wish).collect()
}

/// The services the balancer can serve, and why it cannot serve the others.
fn served(
    services: &BTreeMap<Key, ServiceInfo>,
    assigned: &BTreeMap<Key, Ipv4Addr>,
) -> (Vec<Served>, BTreeMap<Key, String>) {
    let (mut served, mut failed) = (Vec::new(), BTreeMap::new());
    for (key, service) in services.iter().filter(|(_, service)| service.load_balancer) {
        let other = service.ports.iter().find(|port| port.protocol == Protocol::Sctp);
        let numbers = |protocol| {
            let of = service.ports.iter().filter(move |port| port.protocol == protocol);
            of.map(|port| port.port).collect()
        };
        match (assigned.get(key), other) {
            (_, Some(port)) => {
                let why = format!("port {}: only TCP and UDP are balanced, not SCTP", port.port);
                failed.insert(key.clone(), why);
            }
            (None, None) => {
                let requested = service.requested_ip.map(|ip| format!(" {ip}")).unwrap_or_default();
                failed.insert(key.clone(), format!("no free load balancer address{requested}"));
            }
            (Some(address), None) => served.push(Served {
                service: key.clone(),
                address: *address,
                ports: numbers(Protocol::Tcp),
                udp_ports: numbers(Protocol::Udp),
            }),
        }
    }
    (served, failed)
}

fn steps(
    services: &BTreeMap<Key, ServiceInfo>,
    served: &[Served],
    failed: &BTreeMap<Key, String>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (key, service) in services.iter().filter(|(_, service)| !service.foreign) {
        let address =
            served.iter().find(|served| served.service == *key).map(|served| served.address.to_string());
        let wanted: Vec<String> = address.filter(|_| !failed.contains_key(key)).into_iter().collect();
        // What is no loopback address was not written here.
        let ours = |ip: &String| ip.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        if service.ingress != wanted && (service.load_balancer || service.ingress.iter().any(ours)) {
            steps.push(Step::Write(key.clone(), wanted));
        }
        if let Some(message) = failed.get(key) {
            steps.push(Step::Complain(key.clone(), message.clone()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::observed::Port;

    fn key(name: &str) -> Key {
        Key { namespace: "default".into(), name: name.into() }
    }

    fn service(ingress: &[&str], protocol: Protocol) -> ServiceInfo {
        ServiceInfo {
            load_balancer: true,
            ingress: ingress.iter().map(ToString::to_string).collect(),
            ports: vec![Port { name: String::new(), protocol, port: 80, node_port: None }],
            ..ServiceInfo::default()
        }
    }

    fn plan(service: ServiceInfo, bound: Result<(), &str>) -> Vec<Step> {
        let services = BTreeMap::from([(key("kubia"), service)]);
        let assigned = addresses::assign(wishes(&services, &BTreeMap::new()));
        let (served, mut failed) = served(&services, &assigned);
        if let Err(message) = bound {
            failed.insert(key("kubia"), message.to_owned());
        }
        steps(&services, &served, &failed)
    }

    #[test]
    fn a_service_that_listens_gets_its_address_once() {
        let write = Step::Write(key("kubia"), vec!["127.0.0.1".into()]);
        assert_eq!(plan(service(&[], Protocol::Tcp), Ok(())), [write]);
        assert_eq!(plan(service(&["127.0.0.1"], Protocol::Tcp), Ok(())), []);
    }

    #[test]
    fn a_service_that_cannot_listen_stays_pending_and_says_why() {
        let complain = Step::Complain(key("kubia"), "taken".into());
        assert_eq!(plan(service(&[], Protocol::Tcp), Err("taken")), std::slice::from_ref(&complain));
        let clear = Step::Write(key("kubia"), vec![]);
        assert_eq!(plan(service(&["127.0.0.1"], Protocol::Tcp), Err("taken")), [clear, complain]);
    }

    #[test]
    fn udp_is_served_and_sctp_refused_with_a_reason() {
        let write = Step::Write(key("kubia"), vec!["127.0.0.1".into()]);
        assert_eq!(plan(service(&[], Protocol::Udp), Ok(())), [write]);
        let message = "port 80: only TCP and UDP are balanced, not SCTP".to_owned();
        assert_eq!(plan(service(&[], Protocol::Sctp), Ok(())), [Step::Complain(key("kubia"), message)]);
    }

    #[test]
    fn a_service_of_another_type_loses_our_address_and_keeps_others() {
        let changed = |ingress| ServiceInfo { load_balancer: false, ..service(ingress, Protocol::Tcp) };
        assert_eq!(plan(changed(&["127.0.0.1"]), Ok(())), [Step::Write(key("kubia"), vec![])]);
        assert_eq!(plan(changed(&["203.0.113.5"]), Ok(())), []);
        let foreign = ServiceInfo { foreign: true, ..changed(&["127.0.0.1"]) };
        assert_eq!(plan(foreign, Ok(())), []);
    }
}
