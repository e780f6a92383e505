//! The node's Lease in `kube-node-lease`: renewed every 10 s, so that others see that we live.

use crate::shared::Shared;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

/// Namespace of all node leases.
const NAMESPACE: &str = "kube-node-lease";
/// Seconds after which a node that does not renew counts as lost, as upstream has it.
const DURATION: i32 = 40;
/// A quarter of it.
const RENEW: Duration = Duration::from_secs(10);
/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the lease for ever. Begins when `uid`, the Node object's, is known: the lease goes with the node.
pub(crate) async fn run(shared: &Shared, client: Client, mut uid: watch::Receiver<Option<String>>) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    loop {
        let Ok(uid) = uid.wait_for(Option::is_some).await.map(|uid| uid.clone().unwrap_or_default()) else {
            return;
        };
        let pause = match renew(shared, &api, &uid).await {
            Ok(()) => RENEW,
            Err(error) => {
                tracing::warn!(%error, "node lease not renewed");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(shared: &Shared, api: &Api<Lease>, uid: &str) -> Result<(), kube::Error> {
    let name = &shared.config.node_name;
    let now = MicroTime(shared.clock.now());
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(DURATION),
        renew_time: Some(now),
        ..Default::default()
    };
    let patch = Patch::Merge(json!({ "spec": spec }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: uid.to_owned(),
        ..Default::default()
    };
    let metadata =
        ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..Default::default() };
    let lease = Lease { metadata, spec: Some(spec) };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
