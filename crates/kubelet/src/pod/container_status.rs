//! `status.containerStatuses[]`: what the API is told about one container. Pure.

use super::messages;
use super::snapshot::{ContainerFacts, ImageFacts, Instance, PodSnapshot, is_sidecar};
use super::start::{self, ERROR_SHOWN};
use crate::clock::{api_time, later};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus, VolumeMount, VolumeMountStatus,
};
use sagong_runtime::ContainerState as RuntimeState;

/// Scheme of container ids in the API.
pub(crate) const SCHEME: &str = "sagong://";

/// The status of one container at `now`.
pub(crate) fn compute(snapshot: &PodSnapshot, spec: &Container, now: Timestamp) -> ContainerStatus {
    let none = ContainerFacts::default();
    let facts = snapshot.facts(&spec.name).unwrap_or(&none);
    let known = known(snapshot, &spec.name);
    let Some(current) = &facts.current else { return without_instance(snapshot, spec, facts, known, now) };
    let running = facts.is_running();
    let started = start::is_started(snapshot, spec);
    let waiting = waiting(snapshot, spec, facts, now).filter(|_| !running);
    let last = match waiting {
        // A container that waits shows how its last run ended; else that is the state itself.
        Some(_) if current.finished().is_some() => Some(current),
        _ => facts.previous.as_ref(),
    };
    let last_state = last.and_then(terminated).or_else(|| {
        // Instances of before a clean-up are known only from the API.
        known
            .filter(|known| known.container_id.as_deref() == Some(&container_id(current)))?
            .last_state
            .clone()
    });
    ContainerStatus {
        name: spec.name.clone(),
        state: Some(waiting.map_or_else(|| state(current), waiting_state)),
        last_state: Some(last_state.unwrap_or_default()),
        ready: is_ready(snapshot, spec, facts),
        restart_count: i32::try_from(current.attempt).unwrap_or(i32::MAX),
        image: current.image.clone(),
        image_id: current.image_id.clone(),
        container_id: Some(container_id(current)),
        started: Some(started),
        ..configured(spec, Some(current), known)
    }
}

/// What a container was given: resources, mounts, and who it runs as.
fn configured(
    spec: &Container,
    instance: Option<&Instance>,
    known: Option<&ContainerStatus>,
) -> ContainerStatus {
    let resources = instance.map(|_| spec.resources.clone().unwrap_or_default());
    let requests = resources.as_ref().and_then(|resources| resources.requests.clone());
    let identity = instance.and_then(|instance| instance.identity.as_ref());
    let user = identity.map(|identity| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: identity.uid.into(),
            gid: identity.gid.into(),
            supplemental_groups: Some(identity.groups.iter().map(|group| i64::from(*group)).collect()),
        }),
    });
    let mounts: Vec<VolumeMountStatus> = spec.volume_mounts.iter().flatten().map(mounted).collect();
    ContainerStatus {
        allocated_resources: requests.filter(|requests| !requests.is_empty()),
        resources,
        user,
        volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        ..untouched(known)
    }
}

fn mounted(mount: &VolumeMount) -> VolumeMountStatus {
    let recursive = match mount.recursive_read_only.as_deref() {
        // Where Sagong runs at all the kernel can do it.
        Some("Enabled" | "IfPossible") => "Enabled",
        _ => "Disabled",
    };
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: (mount.read_only == Some(true)).then(|| recursive.to_owned()),
    }
}

/// The status of a container the runtime knows nothing of: not started yet, or its remains are gone and only
/// the API remembers.
fn without_instance(
    snapshot: &PodSnapshot,
    spec: &Container,
    facts: &ContainerFacts,
    known: Option<&ContainerStatus>,
    now: Timestamp,
) -> ContainerStatus {
    let ended = known_exit(snapshot, &spec.name);
    let known_terminated = known.and_then(last_terminated);
    let restarts = match snapshot.restart_policy() {
        _ if snapshot.is_ephemeral(&spec.name) => false,
        _ if is_sidecar(spec) => true,
        policy if snapshot.init_containers().iter().any(|init| init.name == spec.name) => {
            ended.is_none_or(|code| policy.for_init().restarts(code))
        }
        policy => ended.is_none_or(|code| policy.restarts(code)),
    };
    let done = snapshot.termination.is_some() || !restarts;
    if let (Some(known), Some(terminated), true) = (known, &known_terminated, done) {
        let state = ContainerState { terminated: Some(terminated.clone()), ..Default::default() };
        return ContainerStatus { state: Some(state), ready: false, started: Some(false), ..known.clone() };
    }
    let waiting = waiting(snapshot, spec, facts, now).unwrap_or_else(|| default_waiting(snapshot));
    let last_state = known_terminated
        .map(|terminated| ContainerState { terminated: Some(terminated), ..Default::default() })
        .unwrap_or_default();
    ContainerStatus {
        name: spec.name.clone(),
        state: Some(waiting_state(waiting)),
        last_state: Some(last_state),
        ready: false,
        restart_count: known.map_or(0, |known| known.restart_count),
        image: spec.image.clone().unwrap_or_default(),
        image_id: known.map(|known| known.image_id.clone()).unwrap_or_default(),
        container_id: known.and_then(|known| known.container_id.clone()),
        started: Some(false),
        ..configured(spec, None, known)
    }
}

/// Fields other writers may have set.
fn untouched(known: Option<&ContainerStatus>) -> ContainerStatus {
    known.cloned().unwrap_or_default()
}

/// The last status of a container in the API.
fn known<'a>(snapshot: &'a PodSnapshot, name: &str) -> Option<&'a ContainerStatus> {
    let status: &PodStatus = snapshot.known_status()?;
    let mains = status.container_statuses.iter().flatten();
    let others = status.init_container_statuses.iter().flatten();
    let all = mains.chain(others).chain(status.ephemeral_container_statuses.iter().flatten());
    { all }.find(|known| known.name == name)
}

fn last_terminated(known: &ContainerStatus) -> Option<ContainerStateTerminated> {
    let now = known.state.as_ref().and_then(|state| state.terminated.clone());
    if now.is_some() {
        return now;
    }
    if known.state.as_ref().is_some_and(|state| state.running.is_some()) {
        // It ran when we last looked, and nothing is left of it.
        return Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(messages::LOST.into()),
            container_id: known.container_id.clone(),
            ..Default::default()
        });
    }
    known.last_state.as_ref().and_then(|state| state.terminated.clone())
}

/// The exit code of a container according to the API, for when the runtime has forgotten it.
pub(crate) fn known_exit(snapshot: &PodSnapshot, name: &str) -> Option<i32> {
    last_terminated(known(snapshot, name)?).map(|terminated| terminated.exit_code)
}

/// How many runs of a container the API knows of.
pub(crate) fn known_runs(snapshot: &PodSnapshot, name: &str) -> u32 {
    let Some(known) = known(snapshot, name) else { return 0 };
    let ran = u32::from(known.container_id.is_some() || last_terminated(known).is_some());
    u32::try_from(known.restart_count).unwrap_or_default() + ran
}

/// Why a container that should run does not; None if it runs, is done, or is about to start again.
fn waiting(
    snapshot: &PodSnapshot,
    spec: &Container,
    facts: &ContainerFacts,
    now: Timestamp,
) -> Option<ContainerStateWaiting> {
    let next =
        snapshot.termination.is_none() && start::next_to_start(snapshot).iter().any(|c| c.name == spec.name);
    if !next || snapshot.is_starting(&spec.name) {
        return None;
    }
    let because = |reason: &str, message: String| {
        Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message: Some(message).filter(|m| !m.is_empty()),
        })
    };
    let is_crash = |failure: &&super::snapshot::StartFailure| {
        failure.reason == "RunContainerError" && now >= later(failure.at, ERROR_SHOWN)
    };
    if let Some(failure) = facts.failure.as_ref().filter(|failure| !is_crash(failure)) {
        return because(failure.reason, failure.message.clone());
    }
    if start::restart_wait(snapshot, spec, facts, now).is_some() {
        return because("CrashLoopBackOff", messages::crash_loop(&snapshot.pod, &spec.name, &facts.restarts));
    }
    match &facts.image {
        ImageFacts::Failed(failure) => {
            let shown = failure.reason != "ErrImagePull" || now < later(failure.at, ERROR_SHOWN);
            if shown {
                return because(failure.reason, failure.message.clone());
            }
            let image = spec.image.as_deref().unwrap_or_default();
            because(
                "ImagePullBackOff",
                messages::pull_back_off_because(image, failure.reason, &failure.message),
            )
        }
        _ => None,
    }
}

fn default_waiting(snapshot: &PodSnapshot) -> ContainerStateWaiting {
    let reason = if snapshot.init_containers().is_empty() { "ContainerCreating" } else { "PodInitializing" };
    ContainerStateWaiting { reason: Some(reason.into()), message: None }
}

/// Whether a container counts as ready: a main container or sidecar that started and passed its readiness
/// probe; an init container that succeeded.
fn is_ready(snapshot: &PodSnapshot, spec: &Container, facts: &ContainerFacts) -> bool {
    let init = snapshot.init_containers().iter().any(|init| init.name == spec.name);
    if snapshot.is_ephemeral(&spec.name) {
        return false;
    }
    if init && !is_sidecar(spec) {
        return facts.current.as_ref().and_then(Instance::exit_code) == Some(0);
    }
    let passed = spec.readiness_probe.is_none() || facts.probes.readiness == Some(true);
    start::is_started(snapshot, spec) && passed
}

/// `sagong://<id>`.
pub(crate) fn container_id(instance: &Instance) -> String {
    format!("{SCHEME}{}", instance.id)
}

fn waiting_state(waiting: ContainerStateWaiting) -> ContainerState {
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn state(instance: &Instance) -> ContainerState {
    match &instance.state {
        RuntimeState::Created => {
            waiting_state(ContainerStateWaiting { reason: Some("ContainerCreating".into()), message: None })
        }
        RuntimeState::Running { started, .. } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(api_time(*started)) }),
            ..Default::default()
        },
        RuntimeState::Exited { .. } => terminated(instance).unwrap_or_default(),
    }
}

fn terminated(instance: &Instance) -> Option<ContainerState> {
    let RuntimeState::Exited { started, finished, exit_code, signal, reason, message } = &instance.state
    else {
        return None;
    };
    let message = instance.message.clone().unwrap_or_else(|| message.clone());
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(instance)),
        exit_code: *exit_code,
        finished_at: Some(api_time(*finished)),
        message: Some(message).filter(|message| !message.is_empty()),
        reason: Some(reason.clone()),
        signal: Some(*signal).filter(|signal| *signal != 0 && *exit_code != 128 + *signal),
        // What never ran began, as containerd tells it, with the epoch.
        started_at: Some(api_time(started.unwrap_or(Timestamp::UNIX_EPOCH))),
    };
    Some(ContainerState { terminated: Some(terminated), ..Default::default() })
}
