//! The scheduler: gives each pod a node.
//!
//! * [`cluster`]: what it knows: nodes, and what the pods on them take.
//! * [`filter`]: which nodes can take a pod, and why the others cannot.
//! * [`score`]: which of these is best.
//! * `events`: what is reported about pods. `watched`: what is read of them.
//! * `binding`: the loop that observes, picks and binds; [`State`] is what it decides from, without IO.

mod binding;
pub mod cluster;
mod events;
pub mod filter;
pub mod score;
mod watched;

pub use binding::{Decision, SchedulerError, State, run};

use cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;

/// `spec.schedulerName` of the pods this scheduler is for.
pub const NAME: &str = "default-scheduler";

/// Picks a node for a pod: of those that can take it, the one with the highest score, the first by name among
/// equals. Pure.
///
/// # Errors
/// Upstream's `FailedScheduling` message if no node can: `0/1 nodes are available: 1 Insufficient cpu. …`.
pub fn schedule(pod: &Pod, cluster: &Cluster) -> Result<String, String> {
    let wanted = cluster::Wanted::of(pod);
    let mut refusals = Vec::new();
    let mut best: Option<(i64, &str)> = None;
    for node in cluster.nodes() {
        let why_not = filter::refusals(pod, &wanted, node);
        if !why_not.is_empty() {
            refusals.extend(why_not);
            continue;
        }
        let score = score::score(&wanted, node);
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, node.name()));
        }
    }
    match best {
        Some((_, name)) => Ok(name.to_owned()),
        None => Err(filter::message(cluster.nodes().count(), refusals)),
    }
}
