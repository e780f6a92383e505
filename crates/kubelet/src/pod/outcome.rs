//! What the end of an operation changes in what is known. Pure.

use super::snapshot::{
    ImageFacts, ImageFailure, Instance, Operation, PodSnapshot, Retry, SandboxFacts, StartFailure,
};
use crate::volumes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sagong_image::Image;
use sagong_runtime::ContainerState;
use serde_json::Value;
use std::sync::Arc;

/// How an operation ended.
// One at a time, and moved once: boxing would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A sandbox was made.
    Sandbox(SandboxFacts),
    /// Volumes are in place.
    Volumes {
        /// When something in them wants to be renewed.
        renew: Option<Timestamp>,
    },
    /// No volume is left.
    VolumesDropped,
    /// An image was found or not.
    Image(Result<Arc<Image>, ImageFailure>),
    /// A container was started, or at least created, or not even that.
    Started {
        /// What there is now.
        instance: Option<Instance>,
        /// Why it did not start.
        failure: Option<StartFailure>,
    },
    /// A preStop hook ran, well or not.
    HookDone,
    /// A signal was sent.
    Signalled(i32),
    /// An instance is forgotten.
    Removed,
    /// The pod is out of all services, or as far out as it gets.
    Withdrawn,
    /// The pod is in its services again.
    Readmitted,
    /// No connection is left, or the wait is over.
    Drained,
    /// The sandbox is stopped.
    SandboxStopped,
    /// Nothing is left on the node.
    Cleaned,
    /// The status was written.
    Patched {
        /// The changes.
        patch: Value,
        /// The object as it is now.
        pod: Box<Pod>,
    },
    /// The object is deleted.
    Deleted,
    /// The object is gone. Only simulations say so; else the watch does.
    Gone,
    /// It failed; try again later.
    Failed,
}

/// Writes the outcome of `operation` into the snapshot.
pub(crate) fn absorb(snapshot: &mut PodSnapshot, operation: &Operation, outcome: Outcome, now: Timestamp) {
    snapshot.in_flight.remove(operation);
    if matches!(outcome, Outcome::Failed) {
        let retry = Retry::after(snapshot.retries.get(operation), now);
        snapshot.retries.insert(operation.clone(), retry);
        snapshot.volumes_stale |= *operation == Operation::Volumes;
        return;
    }
    snapshot.retries.remove(operation);
    match (operation, outcome) {
        (_, Outcome::Sandbox(sandbox)) => new_sandbox(snapshot, sandbox, now),
        (_, Outcome::Volumes { renew }) => {
            snapshot.volumes_made = true;
            snapshot.volumes_renew = renew;
        }
        (_, Outcome::VolumesDropped) => (snapshot.volumes_made, snapshot.volumes_gone) = (false, true),
        (Operation::Image(container), Outcome::Image(result)) => image(snapshot, container, result, now),
        (Operation::Start(container), Outcome::Started { instance, failure }) => {
            started(snapshot, container, instance, failure);
        }
        (Operation::PreStop(container), Outcome::HookDone) => {
            on_kill(snapshot, container, |kill| kill.hook_done = true);
        }
        (Operation::Signal(container), Outcome::Signalled(signal)) => on_kill(snapshot, container, |kill| {
            kill.signalled.get_or_insert(now);
            if signal == super::kill::SIGKILL {
                kill.killed = Some(now);
            }
        }),
        (Operation::Remove(id), Outcome::Removed) => removed(snapshot, id),
        (_, Outcome::Withdrawn) => {
            snapshot.set_aside = true;
            on_end(snapshot, |end| end.withdrawn = true);
        }
        (_, Outcome::Readmitted) => snapshot.set_aside = false,
        (_, Outcome::Drained) => {
            snapshot
                .containers
                .values_mut()
                .filter_map(|facts| facts.kill.as_mut())
                .for_each(|kill| kill.drained = true);
            on_end(snapshot, |end| end.drained = true);
        }
        (_, Outcome::SandboxStopped) => {
            if let Some(sandbox) = &mut snapshot.sandbox {
                sandbox.ready = false;
            }
            on_end(snapshot, |end| end.stopped = true);
        }
        (_, Outcome::Cleaned) => on_end(snapshot, |end| end.cleaned = true),
        (_, Outcome::Patched { patch, pod }) => {
            snapshot.last_patch = Some((patch, now));
            observe_pod(snapshot, Arc::from(pod));
        }
        (_, Outcome::Deleted) => snapshot.deleted = true,
        (_, Outcome::Gone) => snapshot.removed = true,
        (operation, outcome) => tracing::error!(?operation, ?outcome, "an operation ended as it cannot"),
    }
}

/// Takes over a newer view of the object. Older ones, which a watch delivers late, are ignored.
pub(crate) fn observe_pod(snapshot: &mut PodSnapshot, pod: Arc<Pod>) {
    let version =
        |pod: &Pod| pod.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
    if let (Some(known), Some(seen)) = (version(&snapshot.pod), version(&pod))
        && seen < known
    {
        return;
    }
    let before = std::mem::replace(&mut snapshot.pod, pod);
    snapshot.ephemeral = super::snapshot::ephemeral_of(&snapshot.pod);
    let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
    if volumes::shows_the_pod(&snapshot.pod) && shown(&before) != shown(&snapshot.pod) {
        snapshot.volumes_stale = true;
    }
    let image = |pod: &Pod, name: &str| {
        let spec = pod.spec.as_ref()?;
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        all.find(|container| container.name == name)?.image.clone()
    };
    for (name, facts) in &mut snapshot.containers {
        if image(&before, name) != image(&snapshot.pod, name) {
            facts.image = ImageFacts::Unknown;
            facts.failure = None;
            facts.announced = false;
            facts.pulls.reset();
            facts.restarts.reset();
        }
    }
}

fn new_sandbox(snapshot: &mut PodSnapshot, sandbox: SandboxFacts, now: Timestamp) {
    for facts in snapshot.containers.values_mut() {
        // What lived in the sandbox before this one died with it.
        if let Some(current) =
            facts.current.as_mut().filter(|it| it.sandbox_id != sandbox.id && it.is_alive())
        {
            current.state = lost(&current.state, now);
        }
        facts.kill = None;
        facts.probes = Default::default();
    }
    // The address of the one before was given back.
    snapshot.set_aside = false;
    snapshot.sandbox = Some(sandbox);
}

/// The state of a container whose end nobody saw.
fn lost(state: &ContainerState, now: Timestamp) -> ContainerState {
    let started = match state {
        ContainerState::Running { started, .. } => Some(*started),
        _ => None,
    };
    ContainerState::Exited {
        started,
        finished: now,
        exit_code: 137,
        signal: 9,
        reason: "ContainerStatusUnknown".into(),
        message: super::messages::LOST.into(),
    }
}

fn image(
    snapshot: &mut PodSnapshot,
    container: &str,
    result: Result<Arc<Image>, ImageFailure>,
    now: Timestamp,
) {
    let facts = snapshot.containers.entry(container.to_owned()).or_default();
    facts.announced = false;
    facts.image = match result {
        Ok(image) => {
            facts.pulls.reset();
            ImageFacts::Present(image)
        }
        Err(failure) => {
            facts.pulls.note(failure.at, now);
            ImageFacts::Failed(failure)
        }
    };
}

fn started(
    snapshot: &mut PodSnapshot,
    container: &str,
    instance: Option<Instance>,
    failure: Option<StartFailure>,
) {
    let facts = snapshot.containers.entry(container.to_owned()).or_default();
    if let Some(instance) = instance {
        // Its exit may have been seen before the end of its start.
        facts.observe(instance);
    }
    facts.image = ImageFacts::Unknown;
    facts.announced = false;
    facts.failure = failure;
}

fn removed(snapshot: &mut PodSnapshot, id: &str) {
    for facts in snapshot.containers.values_mut() {
        facts.dead.retain(|instance| instance.id != id);
        facts.current.take_if(|instance| instance.id == id);
        facts.previous.take_if(|instance| instance.id == id);
    }
}

fn on_kill(snapshot: &mut PodSnapshot, container: &str, change: impl FnOnce(&mut super::snapshot::Kill)) {
    if let Some(kill) = snapshot.containers.get_mut(container).and_then(|facts| facts.kill.as_mut()) {
        change(kill);
    }
}

fn on_end(snapshot: &mut PodSnapshot, change: impl FnOnce(&mut super::snapshot::Termination)) {
    if let Some(termination) = &mut snapshot.termination {
        change(termination);
    }
}
