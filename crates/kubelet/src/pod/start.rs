//! Bringing a wanted pod up and keeping it up: sandbox, volumes, images, init containers in order, then the
//! main containers, and restarts.

use super::plan::{Action, Planner, Wait};
use super::snapshot::{
    ContainerFacts, ImageFacts, ImageFailure, Kill, KillReason, Operation, PodSnapshot, RestartPolicy,
    is_sidecar,
};
use super::{kill, termination};
use crate::clock::later;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use std::time::Duration;

/// How long a failure is shown as `ErrImagePull` or `RunContainerError` before the wait it led to is shown.
pub(crate) const ERROR_SHOWN: Duration = Duration::from_secs(2);
/// How soon a container whose configuration cannot be resolved is tried again.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// Plans for a pod that is wanted and not over.
pub(crate) fn plan(planner: &mut Planner<'_>) {
    let snapshot = planner.snapshot;
    stop_what_must_restart(planner);
    kill::go_on(planner);
    remove_the_dead(planner);
    if snapshot.are_volumes_due(planner.now) {
        planner.act(Action::PrepareVolumes);
    }
    if let Some(renew) = snapshot.volumes_renew {
        planner.look(renew);
    }
    let next = next_to_start(snapshot);
    if next.is_empty() {
        return;
    }
    if snapshot.ready_sandbox().is_none() {
        let attempt = snapshot.sandbox.as_ref().map_or(0, |dead| dead.attempt + 1);
        let replaces = snapshot.sandbox.as_ref().map(|dead| (dead.id.clone(), dead.address));
        planner.act(Action::MakeSandbox { attempt, replaces });
    }
    if !snapshot.are_volumes_ready() {
        planner.act(Action::PrepareVolumes);
    }
    for spec in next {
        start(planner, spec);
    }
}

/// Begins to stop running containers that changed or are not well.
fn stop_what_must_restart(planner: &mut Planner<'_>) {
    let snapshot = planner.snapshot;
    for spec in snapshot.all_containers() {
        let Some(facts) = snapshot.facts(&spec.name) else { continue };
        let Some(instance) = facts.current.as_ref().filter(|_| facts.is_running() && facts.kill.is_none())
        else {
            continue;
        };
        let hook_failed =
            facts.failure.as_ref().is_some_and(|failure| failure.reason == "PostStartHookError");
        let (reason, probe) = if !instance.matches(spec) {
            (KillReason::Changed, None)
        } else if hook_failed {
            (KillReason::PostStart, None)
        } else if facts.probes.startup == Some(false) {
            (KillReason::Startup, spec.startup_probe.as_ref())
        } else if facts.probes.liveness == Some(false) {
            (KillReason::Liveness, spec.liveness_probe.as_ref())
        } else {
            continue;
        };
        let grace = probe
            .and_then(|probe| probe.termination_grace_period_seconds)
            .map_or_else(|| termination::grace_period(&snapshot.pod), termination::seconds);
        let kill = Kill::new(reason, Some(spec), planner.now, grace);
        planner.act(Action::BeginKill { container: spec.name.clone(), kill });
    }
}

fn remove_the_dead(planner: &mut Planner<'_>) {
    let snapshot = planner.snapshot;
    for (name, facts) in &snapshot.containers {
        let orphaned = facts.current.as_ref().filter(|current| {
            matches!(current.state, sagong_runtime::ContainerState::Created)
                && !snapshot.in_flight.contains(&Operation::Start(name.clone()))
        });
        for instance in facts.dead.iter().chain(orphaned) {
            planner.act(Action::Remove { container: name.clone(), instance: instance.clone() });
        }
    }
}

/// The containers that should be running by now and are not.
pub(crate) fn next_to_start(snapshot: &PodSnapshot) -> Vec<&Container> {
    let initialized = is_past_init(snapshot);
    let policy = snapshot.restart_policy().for_init();
    // Somebody wants to look into the pod, whatever state it is in.
    let mut next: Vec<&Container> =
        snapshot.ephemeral.iter().filter(|spec| never_ran(snapshot, spec)).collect();
    for spec in snapshot.init_containers() {
        let running = snapshot.is_running(&spec.name) && snapshot.instance(&spec.name).is_some();
        if is_sidecar(spec) {
            if !running {
                next.push(spec);
            }
            if !initialized && !is_started(snapshot, spec) {
                return next;
            }
        } else if !initialized {
            match snapshot.instance(&spec.name).and_then(|instance| instance.exit_code()) {
                Some(0) => {}
                Some(code) if !policy.restarts(code) => return next,
                _ if running => return next,
                _ => {
                    next.push(spec);
                    return next;
                }
            }
        }
    }
    next.extend(snapshot.main_containers().iter().filter(|spec| should_start(snapshot, spec)));
    next
}

/// Whether an ephemeral container is still to be started: that happens once.
fn never_ran(snapshot: &PodSnapshot, spec: &Container) -> bool {
    snapshot.facts(&spec.name).is_none_or(|facts| facts.current.is_none())
        && super::container_status::known_runs(snapshot, &spec.name) == 0
}

/// Whether a container runs and has passed its startup probe.
pub(crate) fn is_started(snapshot: &PodSnapshot, spec: &Container) -> bool {
    let passed = || snapshot.facts(&spec.name).is_some_and(|facts| facts.probes.startup == Some(true));
    snapshot.is_running(&spec.name) && (spec.startup_probe.is_none() || passed())
}

/// Whether the main containers' turn has come. Once one of them was started in this sandbox it has for good,
/// even if the init containers are forgotten.
fn is_past_init(snapshot: &PodSnapshot) -> bool {
    let never = snapshot.restart_policy() == RestartPolicy::Never;
    snapshot.main_containers().iter().any(|spec| {
        let ran = snapshot.facts(&spec.name).is_some_and(|facts| facts.current.is_some());
        snapshot.instance(&spec.name).is_some() || (never && ran)
    })
}

/// Whether a main container is not running and should be.
fn should_start(snapshot: &PodSnapshot, spec: &Container) -> bool {
    let policy = snapshot.restart_policy();
    let facts = snapshot.facts(&spec.name);
    match facts.and_then(|facts| facts.current.as_ref()) {
        Some(instance) => match instance.exit_code() {
            // That it was stopped because it was not well is a failure, whatever it exited with.
            Some(_) if facts.is_some_and(ContainerFacts::was_unwell) => policy != RestartPolicy::Never,
            Some(code) => policy.restarts(code) || !instance.matches(spec),
            // What lives in a dead sandbox dies with it.
            None => snapshot.ready_sandbox().is_none_or(|sandbox| sandbox.id != instance.sandbox_id),
        },
        None => {
            super::container_status::known_exit(snapshot, &spec.name).is_none_or(|code| policy.restarts(code))
        }
    }
}

/// The next step towards a running container.
fn start(planner: &mut Planner<'_>, spec: &Container) {
    let snapshot = planner.snapshot;
    let none = ContainerFacts::default();
    let facts = snapshot.facts(&spec.name).unwrap_or(&none);
    if facts.is_alive() || snapshot.is_starting(&spec.name) {
        return;
    }
    if let Some(until) = restart_wait(snapshot, spec, facts, planner.now) {
        if let Some(failure) = &facts.failure {
            planner.look(later(failure.at, ERROR_SHOWN));
        }
        announce(planner, spec, facts, Wait::Restart);
        return planner.look(until);
    }
    match &facts.image {
        ImageFacts::Unknown => planner.act(Action::EnsureImage { container: spec.name.clone() }),
        ImageFacts::Failed(failure) => wait_for_image(planner, spec, facts, failure),
        ImageFacts::Present(image) => {
            if snapshot.ready_sandbox().is_some() && snapshot.are_volumes_ready() {
                let attempt = next_attempt(snapshot, spec);
                let image = image.clone();
                planner.act(Action::StartContainer { container: spec.name.clone(), attempt, image });
            }
        }
    }
}

/// Until when a container that ended or did not start has to wait; None if it need not.
pub(crate) fn restart_wait(
    snapshot: &PodSnapshot,
    spec: &Container,
    facts: &ContainerFacts,
    now: Timestamp,
) -> Option<Timestamp> {
    if let Some(failure) = &facts.failure {
        let until = match failure.reason {
            "CreateContainerConfigError" => Some(later(failure.at, CONFIG_RETRY)),
            _ => facts.restarts.wait_until(failure.at, now),
        };
        return until.filter(|until| *until > now);
    }
    let ended = snapshot.instance(&spec.name).filter(|instance| instance.matches(spec))?.finished()?;
    facts.restarts.wait_until(ended, now)
}

fn wait_for_image(
    planner: &mut Planner<'_>,
    spec: &Container,
    facts: &ContainerFacts,
    failure: &ImageFailure,
) {
    if failure.reason == "InvalidImageName" {
        // Nothing but another name helps, and that resets the facts.
        return;
    }
    match facts.pulls.wait_until(failure.at, planner.now) {
        None => planner.act(Action::EnsureImage { container: spec.name.clone() }),
        Some(until) => {
            let shown = later(failure.at, ERROR_SHOWN);
            if shown <= planner.now && failure.reason == "ErrImagePull" {
                announce(planner, spec, facts, Wait::Pull);
            }
            planner.look(shown);
            planner.look(until);
        }
    }
}

fn announce(planner: &mut Planner<'_>, spec: &Container, facts: &ContainerFacts, wait: Wait) {
    // What could not even be created is not a crash loop; its failure was told already.
    let never_ran = wait == Wait::Restart && facts.current.is_none();
    if !facts.announced && !never_ran {
        planner.act(Action::Announce { container: spec.name.clone(), wait });
    }
}

/// The restart count of the next instance.
fn next_attempt(snapshot: &PodSnapshot, spec: &Container) -> u32 {
    match snapshot.facts(&spec.name).and_then(|facts| facts.current.as_ref()) {
        Some(instance) => instance.attempt + 1,
        None => super::container_status::known_runs(snapshot, &spec.name),
    }
}
