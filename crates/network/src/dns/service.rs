//! The objects that stand for the name server in the API: service and endpoint slice `kube-system/kube-dns`.
//!
//! Name, labels and ports of the service are upstream's (kubeadm, CoreDNS). It selects no pods: the slice is
//! written here. A service of that name that does select pods is somebody's own name server and left alone; a slice
//! written here before is deleted then, or we would go on answering part of the queries.

use crate::proxy::Proxy;
use crate::proxy::observed::{Key, Observed};
use crate::rules::model::Protocol;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// Label that names who writes a slice, and its value for those written here.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "sagong";
/// How often it is looked whether both are there.
const LOOK: Duration = Duration::from_secs(3);
/// First pause after a failure; a start must not wait for long.
const AGAIN: Duration = Duration::from_millis(100);

/// Where the name server is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// ClusterIP of the service.
    pub(crate) cluster_ip: Ipv4Addr,
    /// Address it listens on.
    pub(crate) address: Ipv4Addr,
    /// Port for UDP and port for TCP.
    pub(crate) ports: (u16, u16),
}

/// What is missing in the API. Pure.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    Both,
    Slice,
    /// Nothing, and there is a slice that may be ours and must not be.
    OursIsTooMuch,
}

/// Makes the objects, and makes them again when somebody deletes them, without end.
pub(crate) async fn keep(client: kube::Client, proxy: &Proxy, place: Place) {
    let mut pause = AGAIN;
    loop {
        if !proxy.listed_within(LOOK).await {
            continue;
        }
        let missing = proxy.look(|observed, _| missing(observed, place));
        match ensure(&client, &missing, place).await {
            Ok(()) => pause = AGAIN,
            Err(error) => {
                let ip = place.cluster_ip;
                tracing::warn!(%error, %ip, "cannot make the service {NAMESPACE}/{NAME}: names do not resolve");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
                continue;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn missing(observed: &Observed, place: Place) -> Missing {
    let key = Key { namespace: NAMESPACE.into(), name: NAME.into() };
    let Some(service) = observed.services.get(&key) else { return Missing::Both };
    if service.selects {
        let left = observed.has_slice(&key, NAME);
        return if left { Missing::OursIsTooMuch } else { Missing::Nothing };
    }
    let listed = observed.slices_of(&key).any(|slice| {
        let (udp, tcp) = place.ports;
        let port = |name: &str, protocol, number| slice.ports.contains(&(name.to_owned(), protocol, number));
        port("dns", Protocol::Udp, udp)
            && port("dns-tcp", Protocol::Tcp, tcp)
            && slice.endpoints.iter().any(|endpoint| endpoint.address == place.address && endpoint.ready)
    });
    if listed { Missing::Nothing } else { Missing::Slice }
}

async fn ensure(client: &kube::Client, missing: &Missing, place: Place) -> Result<(), kube::Error> {
    if *missing == Missing::Nothing {
        return Ok(());
    }
    if *missing == Missing::Both {
        let api: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        let service = serde_json::from_value(service(place)).map_err(kube::Error::SerdeError)?;
        exists(api.create(&PostParams::default(), &service).await.map(drop))?;
    }
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    if *missing == Missing::OursIsTooMuch {
        return remove(&api).await;
    }
    let wanted = slice(place);
    let object = serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"endpoints": wanted["endpoints"], "ports": wanted["ports"],
                "metadata": {"labels": wanted["metadata"]["labels"]}});
            api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        }
        created => created.map(drop),
    }
}

/// Deletes the slice if it was written here.
async fn remove(api: &Api<EndpointSlice>) -> Result<(), kube::Error> {
    let Some(slice) = api.get_opt(NAME).await? else { return Ok(()) };
    let manager = slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    if manager.is_none_or(|manager| manager != MANAGER) {
        return Ok(());
    }
    let preconditions = Preconditions { uid: slice.metadata.uid, resource_version: None };
    let only_this = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(NAME, &only_this).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// That something of the name exists is no error.
fn exists(created: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match created {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other,
    }
}

fn service(place: Place) -> Value {
    let ip = place.cluster_ip;
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
        }},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
            {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
        ]},
    })
}

fn slice(place: Place) -> Value {
    let (udp, tcp) = place.ports;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "kubernetes.io/service-name": NAME, MANAGED_BY: MANAGER,
            "k8s-app": "kube-dns",
        }},
        "endpoints": [{"addresses": [place.address], "conditions": {"ready": true}}],
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": udp}, {"name": "dns-tcp", "protocol": "TCP", "port": tcp},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            cluster_ip: "10.96.0.10".parse().unwrap(),
            address: "10.244.0.1".parse().unwrap(),
            ports: (10053, 10053),
        }
    }

    fn observed(service: Option<Value>, slice: Option<Value>) -> Observed {
        let mut observed = Observed::default();
        if let Some(service) = service {
            observed.service(&serde_json::from_value(service).unwrap());
        }
        if let Some(slice) = slice {
            observed.slice(&serde_json::from_value(slice).unwrap());
        }
        observed
    }

    #[test]
    fn what_is_missing_is_made_and_nothing_else() {
        let all = observed(Some(service(place())), Some(slice(place())));
        assert_eq!(missing(&all, place()), Missing::Nothing);
        assert_eq!(missing(&observed(None, None), place()), Missing::Both);
        assert_eq!(missing(&observed(Some(service(place())), None), place()), Missing::Slice);
    }

    #[test]
    fn a_slice_that_tells_another_port_is_written_again() {
        let elsewhere = slice(Place { ports: (10053, 40000), ..place() });
        let stale = observed(Some(service(place())), Some(elsewhere));
        assert_eq!(missing(&stale, place()), Missing::Slice);
    }

    #[test]
    fn somebodys_own_name_server_is_left_alone() {
        let mut own = service(place());
        own["spec"]["selector"] = json!({"k8s-app": "kube-dns"});
        assert_eq!(missing(&observed(Some(own.clone()), None), place()), Missing::Nothing);
        let mut theirs = slice(place());
        theirs["metadata"]["name"] = json!("kube-dns-x7k2p");
        assert_eq!(missing(&observed(Some(own.clone()), Some(theirs)), place()), Missing::Nothing);
        let left = observed(Some(own), Some(slice(place())));
        assert_eq!(missing(&left, place()), Missing::OursIsTooMuch);
    }
}
