//! What the node does when it runs short of memory or disk: says so, ends pods that use the most of what is short, and
//! removes images nobody uses. Ends pods, too, that write more to it than they may.
//!
//! * [`signals`]: reads what is left and who uses how much.
//! * [`pressure`]: whether that is too little; pure.
//! * [`choice`]: which pod has to go; pure.
//! * [`images`]: which images can go; pure.
//! * [`limits`]: what a pod may write to the disk; pure.

pub(crate) mod choice;
pub(crate) mod images;
pub(crate) mod limits;
pub(crate) mod pressure;
mod signals;

use crate::clock::later;
use crate::events::Severity::{Normal, Warning};
use crate::pod::view::PodView;
use crate::shared::Shared;
use choice::{Candidate, Short};
use images::Record;
use jiff::Timestamp;
use pressure::Pressures;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the node is looked at, as upstream's eviction manager does.
const LOOK: Duration = Duration::from_secs(10);
/// How often images are looked at, as upstream does.
const IMAGES: Duration = Duration::from_secs(300);

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// Its uid.
    pub(crate) uid: String,
    /// For people.
    pub(crate) message: String,
}

/// Looks after the node for ever. `pods` gives all pods it runs; whoever has to go is told to `evictions`.
pub(crate) async fn run(
    shared: &Shared,
    pods: impl Fn() -> Vec<PodView> + Send + Sync,
    evictions: mpsc::UnboundedSender<Eviction>,
) {
    let mut seen: BTreeMap<String, Record> = BTreeMap::new();
    let mut last: Option<Timestamp> = None;
    let mut next_images = later(shared.clock.now(), IMAGES);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = shared.clock.now();
        let mut node = signals::node(&shared.config.data_dir);
        let before = shared.pressures.borrow().clone();
        let pressures = before.observe(&node, now);
        tell(shared, &before, &pressures);
        if now >= next_images || pressure::is_short_of(node.disk) {
            next_images = later(now, IMAGES);
            collect_images(shared, &mut seen, now).await;
            // That may have been enough.
            node = signals::node(&shared.config.data_dir);
        }
        let pods = pods();
        let is_leaving = pods.iter().any(|pod| pod.budget.is_leaving);
        let short = Pressures::short(&node).filter(|_| choice::is_time(last, is_leaving, now));
        let evicted = evictees(shared, &pods, short, &node).await;
        if !evicted.is_empty() {
            last = Some(now);
        }
        for eviction in evicted {
            let _ = evictions.send(eviction);
        }
        shared.pressures.send_replace(pressures);
    }
}

/// Events of the node, worded as upstream words them.
fn tell(shared: &Shared, before: &Pressures, after: &Pressures) {
    let node = &shared.config.node_name;
    for (kind, was, is) in [
        ("NodeHasInsufficientMemory", before.memory.is_some(), after.memory.is_some()),
        ("NodeHasDiskPressure", before.disk.is_some(), after.disk.is_some()),
    ] {
        if !was && is {
            let message = format!("Node {node} status is now: {kind}");
            shared.recorder.node(node, Normal, kind, message);
        }
    }
}

/// Who has to go: whoever writes more to the disk than a limit allows, or else one because something is `short`.
async fn evictees(
    shared: &Shared,
    pods: &[PodView],
    short: Option<Short>,
    node: &signals::Node,
) -> Vec<Eviction> {
    let mut all = Vec::new();
    let (dir, instance) = (shared.config.data_dir.clone(), shared.config.instance.clone());
    let pods: Vec<PodView> = pods.iter().filter(|pod| !pod.budget.is_over).cloned().collect();
    let needed = short.is_some() || pods.iter().any(|pod| !pod.budget.storage_limits.is_empty());
    if !needed {
        return all;
    }
    // Directories may be large: counting them must hold up nobody.
    let measured = tokio::task::spawn_blocking(move || {
        let measure = |pod: &PodView| signals::usage(&dir, &instance, pod);
        pods.iter().map(|pod| (pod.clone(), measure(pod))).collect::<Vec<_>>()
    });
    let Ok(measured) = measured.await else { return all };
    for (pod, usage) in &measured {
        if let Some(message) = limits::exceeded(&pod.budget.storage_limits, &usage.limited) {
            all.push(Eviction { uid: pod.uid.clone(), message });
        }
    }
    let Some(short) = short.filter(|_| all.is_empty()) else { return all };
    let candidates = measured.iter().map(|(pod, usage)| Candidate {
        uid: pod.uid.clone(),
        priority: pod.budget.priority,
        is_critical: pod.budget.is_critical,
        used: if short == Short::Memory { usage.memory } else { usage.disk },
        requested: if short == Short::Memory { pod.budget.memory_request } else { 0 },
    });
    // One at a time: what it gives back may be enough.
    let chosen = choice::next(candidates.collect());
    all.extend(chosen.map(|uid| Eviction { uid, message: pressure::message(short, node) }));
    all
}

/// Removes images, if the disk is so full that some have to go.
async fn collect_images(shared: &Shared, seen: &mut BTreeMap<String, Record>, now: Timestamp) {
    let (images, containers) = (shared.images.list().await, shared.runtime.list_containers().await);
    let (Ok(present), Ok(containers)) = (images, containers) else { return };
    let in_use: BTreeSet<String> = containers.into_iter().map(|it| it.config.image_id).collect();
    images::observe(seen, &present, &in_use, now);
    let disk = signals::node(&shared.config.data_dir).disk;
    let plan = images::plan(seen, disk, now);
    let mut freed = 0;
    for id in &plan.remove {
        match shared.images.remove(id).await {
            Ok(()) => freed += seen.remove(id).map_or(0, |record| record.size),
            Err(error) => tracing::warn!(%error, id, "an unused image was not removed"),
        }
    }
    if freed < plan.wanted {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {freed} \
             bytes eligible to free.",
            plan.wanted
        );
        shared.recorder.node(&shared.config.node_name, Warning, "FreeDiskSpaceFailed", message);
    }
}
