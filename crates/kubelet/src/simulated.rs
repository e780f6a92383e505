//! Simulated nodes: their pods exist only as state transitions, so that thousands fit on a laptop.
//!
//! One loop serves all of them. Nothing is started, mounted or connected; what the API is told is what
//! upstream's kubelet would tell it.
//!
//! * [`behaviour`]: how a pod is asked to behave, by annotation; pure.
//! * [`situation`]: what a pod is at one moment, a function of time; pure.
//! * [`status`]: the situation as the API is told it; pure.
//! * [`world`]: all pods, what is to be written about them and when; pure.
//! * [`addresses`]: which address goes to whom; pure.
//! * [`node`]: the Node objects and their leases. [`view`]: the part of a Pod that is read.

mod addresses;
mod behaviour;
mod node;
mod situation;
mod status;
mod view;
mod world;

pub use behaviour::duration;

use crate::clock::Clock;
use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::Resource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::Deserialize;
use std::pin::pin;
use std::time::Duration;
use tokio::task::JoinSet;
use view::View;
use world::{Order, World, Write, Written};

/// Annotation by which a pod asks for trouble; a list of behaviours, see `docs/simulated-nodes.md`.
pub const ANNOTATION: &str = "sagong.dev/simulate";

/// Writes under way at once.
const IN_FLIGHT: usize = 64;

/// How simulated nodes are set up.
#[derive(Clone, Debug)]
pub struct SimulatedNodes {
    /// How many; they are called `simulated-0` and so on.
    pub count: u32,
    /// How long containers take to become ready, unless a pod's annotation says otherwise.
    pub ready_delay: Duration,
    /// Addresses of nodes and pods. Nothing answers there.
    pub addresses: Ipv4Net,
}

impl SimulatedNodes {
    /// Registers the nodes and plays their pods for ever. Trouble with the API is waited out. When this future
    /// is dropped the nodes stay, and become NotReady as any node that stops renewing its lease.
    pub async fn run(self, client: Client) {
        let clock = Clock::System;
        tokio::join!(node::run(&self, client.clone(), &clock), play(&self, client, &clock));
    }

    /// Name of the node with this number.
    fn node_name(number: u32) -> String {
        format!("simulated-{number}")
    }
}

/// The loop: observes pods, asks the world what to write, writes.
async fn play(options: &SimulatedNodes, client: Client, clock: &Clock) {
    let mut world = World::new(options);
    // Not assigned yet: of no interest. Pods of other nodes are left out by the world.
    let config = watcher::Config::default().fields("spec.nodeName!=");
    let mut changes = pin!(watcher(Api::<View>::all(client.clone()), config).default_backoff());
    let mut writes: JoinSet<(String, Result<Written, kube::Error>)> = JoinSet::new();
    loop {
        while writes.len() < IN_FLIGHT
            && let Some(order) = world.next(clock.now())
        {
            let client = client.clone();
            // Tasks of their own: the API server may be in this process and its work is worth a second core.
            writes.spawn(async move {
                let uid = order.uid.clone();
                (uid, carry_out(client, order).await)
            });
        }
        let pause = world.wake_at().map(|at| crate::clock::between(clock.now(), at));
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(change)) => world.observe(change, clock.now()),
                Some(Err(error)) => tracing::debug!(%error, "watching pods of simulated nodes"),
                None => return,
            },
            Some(Ok((uid, result))) = writes.join_next(), if !writes.is_empty() => {
                if let Err(error) = &result {
                    tracing::debug!(%error, uid, "status of a simulated pod");
                }
                world.written(&uid, result.map_err(|error| is_gone(&error)), clock.now());
            }
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// Whether the pod the write was meant for is no more, so that trying again is of no use.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// Of an answer, only what is looked at.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    metadata: AnswerMeta,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    #[serde(default)]
    resource_version: String,
}

async fn carry_out(client: Client, order: Order) -> Result<Written, kube::Error> {
    let Order { uid, namespace, name, write } = order;
    let api = kube::core::Request::new(Pod::url_path(&(), Some(&namespace)));
    let invalid = |error| kube::Error::BuildRequest(error);
    match write {
        Write::Status(patch) => {
            let params = PatchParams::default();
            let request =
                api.patch_subresource("status", &name, &params, &Patch::Strategic(patch)).map_err(invalid)?;
            let answer: Answer = client.request(request.map(Into::into)).await?;
            Ok(Written { revision: answer.metadata.resource_version.parse().unwrap_or(0) })
        }
        Write::Delete => {
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                ..DeleteParams::default()
            };
            let request = api.delete(&name, &params).map_err(invalid)?;
            client.request_text(request.map(Into::into)).await?;
            Ok(Written { revision: 0 })
        }
    }
}
