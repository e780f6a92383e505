//! Makes the Node object and keeps its status up to date.

use super::facts::Facts;
use super::status;
use crate::events::Severity::{Normal, Warning};
use crate::shared::Shared;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the status is computed.
const LOOK: Duration = Duration::from_secs(10);
/// How old the API's status may get if nothing changes.
const REPORT: Duration = Duration::from_secs(300);
/// Waits between attempts to register.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Most images listed in the status, the largest first, as upstream limits it.
const MAX_IMAGES: usize = 50;

/// Registers the node and reports its status for ever. `uid` is told the object's uid.
pub(crate) async fn run(shared: &Shared, client: Client, facts: Facts, uid: watch::Sender<Option<String>>) {
    let api: Api<Node> = Api::all(client);
    let mut known = register(shared, &api, &facts, &uid).await;
    tell(shared);
    let mut written = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = shared.clock.now();
        // What the API has, not what was written last: the node controller may have said Unknown since.
        match api.get(&shared.config.node_name).await {
            Ok(node) => known = node.status.unwrap_or_default(),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                tracing::warn!("the node's object is gone; registering again");
                known = register(shared, &api, &facts, &uid).await;
            }
            Err(error) => tracing::warn!(%error, "node not read"),
        }
        let wanted = compute(shared, &facts, Some(&known), now).await;
        if !status::differs(&known, &wanted) && written.elapsed() < REPORT {
            continue;
        }
        match write(&api, &shared.config.node_name, &wanted).await {
            Ok(_) => written = Instant::now(),
            Err(error) => tracing::warn!(%error, "node status not written"),
        }
    }
}

/// The events of a kubelet's start, in upstream's order and words.
fn tell(shared: &Shared) {
    let node = &shared.config.node_name;
    shared.recorder.node(node, Normal, "Starting", "Starting kubelet.");
    for reason in ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"] {
        shared.recorder.node(node, Normal, reason, format!("Node {node} status is now: {reason}"));
    }
    let enforced = "Updated Node Allocatable limit across pods";
    shared.recorder.node(node, Normal, "NodeAllocatableEnforced", enforced);
    for lack in &shared.config.lacks {
        shared.recorder.node(node, Warning, "LimitsMissing", lack.clone());
    }
}

/// Makes the object, or takes over the one there is; tries until it works.
async fn register(
    shared: &Shared,
    api: &Api<Node>,
    facts: &Facts,
    uid: &watch::Sender<Option<String>>,
) -> NodeStatus {
    let (mut pause, longest) = RETRY;
    loop {
        match try_register(shared, api, facts).await {
            Ok(node) => {
                uid.send_replace(node.metadata.uid);
                return node.status.unwrap_or_default();
            }
            Err(error) => tracing::warn!(%error, "node not registered"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

async fn try_register(shared: &Shared, api: &Api<Node>, facts: &Facts) -> Result<Node, kube::Error> {
    let config = &shared.config;
    let now = shared.clock.now();
    let node = status::node(config, facts, &shared.runtime.version(), now);
    let known = match api.create(&PostParams::default(), &node).await {
        Ok(created) => created,
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = json!({ "metadata": { "labels": status::labels(config) } });
            let known = api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            if known.spec.as_ref().is_none_or(|spec| spec.pod_cidr.is_none()) && config.pod_cidr.is_some() {
                let patch = json!({ "spec": node.spec });
                api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            known
        }
        Err(error) => return Err(error),
    };
    let wanted = compute(shared, facts, known.status.as_ref(), now).await;
    write(api, &config.node_name, &wanted).await
}

async fn compute(shared: &Shared, facts: &Facts, known: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let observed =
        status::Observed { images: images(shared).await, pressures: shared.pressures.borrow().clone() };
    status::status(&shared.config, facts, &shared.runtime.version(), observed, known, now)
}

async fn images(shared: &Shared) -> Vec<ContainerImage> {
    let mut images = shared.images.list().await.unwrap_or_default();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let entry = |image: sagong_image::Image| ContainerImage {
        names: Some(image.digests.into_iter().chain(image.tags).take(5).collect()),
        size_bytes: i64::try_from(image.size).ok(),
    };
    images.into_iter().take(MAX_IMAGES).map(entry).collect()
}

async fn write(api: &Api<Node>, name: &str, status: &NodeStatus) -> Result<Node, kube::Error> {
    // Lists merged by key would keep addresses and images that went.
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(name, &PatchParams::default(), &patch).await
}
