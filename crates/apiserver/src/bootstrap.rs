//! What every cluster has from the start: its namespaces and the `kubernetes` service.

use crate::allocator::Reservation;
use crate::failure::{Failure, Outcome};
use crate::rest::create::new_object;
use crate::rest::modify::{Next, raw};
use crate::state::Core;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// The namespaces upstream's server makes.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// How often what every cluster has is looked after (upstream's interval).
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// Makes again what users delete (`kubectl delete all --all`), until the server stops.
pub(crate) async fn keep(core: Arc<Core>, service_ip: Ipv4Addr, address: IpAddr, port: u16) {
    let mut tick = tokio::time::interval(KEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = core.stopping.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(Failure(status)) = bootstrap(&core, service_ip, address, port).await {
            tracing::warn!(message = status.message, "keeping what every cluster has failed");
        }
    }
}

/// Makes what is missing, and points the `kubernetes` service at this server.
pub(crate) async fn bootstrap(core: &Core, service_ip: Ipv4Addr, address: IpAddr, port: u16) -> Outcome<()> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(core, "", "namespaces", &namespace).await?;
    }
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": service_ip, "clusterIPs": [service_ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    });
    ensure(core, "", "services", &service).await?;
    if address.is_loopback() {
        // Nothing but this machine reaches it there; endpoints may not say so.
        return Ok(());
    }
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    replace(core, "", "endpoints", &endpoints).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    replace(core, "discovery.k8s.io", "endpointslices", &slice).await
}

/// Creates the object unless one of its name exists. False: it does.
async fn ensure(core: &Core, group: &str, plural: &str, value: &Value) -> Outcome<bool> {
    let Some(resource) = core.resources.find(group, "v1", plural) else { return Ok(true) };
    let (object, _) = resource
        .kind()
        .decode(value.to_string().as_bytes())
        .map_err(|error| Failure::internal(format!("the first {plural}: {error}")))?;
    let meta = object.metadata();
    let key = resource.key(meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default());
    if core.store.get(&key).await?.is_some() {
        return Ok(false);
    }
    match new_object(core, resource, object, false).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == 409 => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Creates the object, or makes the existing one like it.
async fn replace(core: &Core, group: &str, plural: &str, value: &Value) -> Outcome<()> {
    if ensure(core, group, plural, value).await? {
        return Ok(());
    }
    let Some(resource) = core.resources.find(group, "v1", plural) else { return Ok(()) };
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    raw(core, resource, value["metadata"]["namespace"].as_str(), name, false, |_, old| {
        let mut merged = old.to_value();
        for member in ["subsets", "endpoints", "ports", "addressType"] {
            if let Some(given) = value.get(member) {
                merged[member] = given.clone();
            }
        }
        let decoded = resource.kind().decode(merged.to_string().as_bytes());
        let (mut object, _) = decoded.map_err(|error| Failure::internal(error.to_string()))?;
        resource.kind().default(object.as_mut());
        Ok(Next::Put(object, Reservation::default()))
    })
    .await?;
    Ok(())
}
