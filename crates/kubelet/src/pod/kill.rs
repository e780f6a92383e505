//! Stopping a container: preStop hook, stop signal, SIGKILL at the deadline. If the pod lives on it leaves every service
//! before, and comes back when it is ready again: a restart of one replica loses no request.

use super::plan::{Action, Planner};
use super::snapshot::{ContainerFacts, Kill, KillReason, PodSnapshot, is_sidecar};
use super::termination;
use crate::clock::later;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodStatus};
use sagong_runtime::ContainerState;
use std::time::Duration;

/// What a container gets after its preStop hook even if that used up the grace period, as upstream gives it.
const AFTER_HOOK: Duration = Duration::from_secs(2);
/// How long connections may take to finish in a container that is to be restarted. It is not well: most that do not
/// finish by then never will.
const RESTART_DRAIN: Duration = Duration::from_secs(1);
/// How long to wait for a killed container before it is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// SIGKILL.
pub(crate) const SIGKILL: i32 = 9;

impl Kill {
    /// A stop that begins at `now` and may take `grace`.
    pub(crate) fn new(reason: KillReason, spec: Option<&Container>, now: Timestamp, grace: Duration) -> Kill {
        let hook = spec.and_then(|spec| spec.lifecycle.as_ref()?.pre_stop.as_ref());
        Kill {
            reason,
            deadline: later(now, grace),
            drain_until: later(now, termination::drain_limit(grace).min(RESTART_DRAIN)),
            drained: false,
            at_once: grace.is_zero(),
            hook_done: hook.is_none(),
            signalled: None,
            killed: None,
        }
    }

    fn kill_at(&self, has_hook: bool) -> Timestamp {
        match self.signalled {
            Some(at) if has_hook => self.deadline.max(later(at, AFTER_HOOK)),
            _ => self.deadline,
        }
    }
}

/// Goes on with all stops that have begun.
pub(crate) fn go_on(planner: &mut Planner<'_>) {
    let snapshot = planner.snapshot;
    for (name, facts) in &snapshot.containers {
        step(planner, name, facts);
    }
}

/// Begins to stop everything that lives and goes on with it. Hooks of all run at once; of the signals, sidecars get
/// theirs in [`is_turn_of`] them.
pub(crate) fn stop_all(planner: &mut Planner<'_>, grace: Duration) {
    let snapshot = planner.snapshot;
    let alive = snapshot.containers.iter().filter(|(_, facts)| facts.is_alive());
    for name in alive.map(|(name, _)| name.as_str()) {
        let kill = snapshot.facts(name).and_then(|facts| facts.kill.as_ref());
        let sooner = kill.is_some_and(|kill| grace.is_zero() && !kill.at_once);
        if kill.is_none() || sooner {
            let spec = snapshot.container_spec(name);
            let kill = Kill::new(KillReason::PodEnds, spec, planner.now, grace);
            planner.act(Action::BeginKill { container: name.to_owned(), kill });
        }
    }
    go_on(planner);
}

/// Whether a container of a pod that ends may get its signal: main containers at once, sidecars once all of those
/// have ended, one after the other in the reverse of the order they started in.
fn is_turn_of(snapshot: &PodSnapshot, name: &str) -> bool {
    let mut sidecars = snapshot.init_containers().iter().filter(|spec| is_sidecar(spec));
    if sidecars.all(|spec| spec.name != name) {
        return true;
    }
    let own = snapshot.init_containers().iter().position(|spec| spec.name == name);
    let later = snapshot.init_containers().iter().skip(own.map_or(0, |own| own + 1));
    // Ephemeral ones are looking into the pod until its end, and hold up nobody.
    let mut before = later.chain(snapshot.main_containers());
    !before.any(|spec| snapshot.facts(&spec.name).is_some_and(ContainerFacts::is_alive))
}

/// Whether nothing arrives any more at a pod that lives on. (That of a pod that ends is in its termination.)
fn is_left_alone(planner: &mut Planner<'_>, kill: &Kill) -> bool {
    let snapshot = planner.snapshot;
    let lives_on = snapshot.termination.is_none()
        && !snapshot.is_evicted()
        && matches!(kill.reason, KillReason::Liveness | KillReason::Changed);
    let sandbox = snapshot.ready_sandbox().filter(|_| lives_on && !snapshot.host_network());
    let Some((sandbox, address)) = sandbox.and_then(|sandbox| Some((sandbox, sandbox.address?))) else {
        return true;
    };
    if !snapshot.set_aside {
        planner.act(Action::Withdraw { address });
        return false;
    }
    match &sandbox.netns {
        Some(netns) if !kill.drained && planner.now < kill.drain_until => {
            planner.act(Action::Drain { address, netns: netns.clone(), until: kill.drain_until });
            planner.look(kill.drain_until);
            false
        }
        _ => true,
    }
}

/// Lets services send to a pod again whose container was restarted, once it is ready. Before, slices may still list it
/// as it was.
pub(crate) fn readmit(planner: &mut Planner<'_>, status: &PodStatus) {
    let snapshot = planner.snapshot;
    let stops = snapshot.containers.values().any(|facts| facts.is_alive() && facts.kill.is_some());
    let mut conditions = status.conditions.iter().flatten();
    let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !snapshot.set_aside || stops || !is_ready {
        return;
    }
    if let Some(address) = snapshot.ready_sandbox().and_then(|sandbox| sandbox.address) {
        planner.act(Action::Readmit { address });
    }
}

/// The next step in stopping one container.
fn step(planner: &mut Planner<'_>, name: &str, facts: &ContainerFacts) {
    let (Some(kill), Some(instance)) = (&facts.kill, &facts.current) else { return };
    match instance.state {
        ContainerState::Exited { .. } => return,
        // There is no process yet, so there is nobody to be polite to.
        ContainerState::Created => {
            return planner.act(Action::Remove { container: name.to_owned(), instance: instance.clone() });
        }
        ContainerState::Running { .. } => {}
    }
    let has_hook = planner
        .snapshot
        .container_spec(name)
        .is_some_and(|spec| spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some()));
    let ends =
        planner.snapshot.termination.as_ref().map_or(Timestamp::MAX, |termination| termination.deadline);
    let kill_at = kill.kill_at(has_hook).min(if has_hook { later(ends, AFTER_HOOK) } else { ends });
    let signal = |planner: &mut Planner<'_>, signal| {
        planner.act(Action::Signal { container: name.to_owned(), id: instance.id.clone(), signal });
    };
    if let Some(killed) = kill.killed {
        let again = later(killed, KILL_AGAIN);
        if again <= planner.now {
            signal(planner, SIGKILL);
        }
        return planner.look(again);
    }
    let politely = !kill.at_once && kill.signalled.is_none() && planner.now < kill_at;
    if politely && !is_left_alone(planner, kill) {
        return planner.look(kill_at);
    }
    let hook_runs = !kill.hook_done && !kill.at_once;
    if kill.at_once || (planner.now >= kill_at && !hook_runs) {
        return signal(planner, SIGKILL);
    }
    if hook_runs {
        let deadline = kill.deadline.min(ends);
        planner.act(Action::RunPreStop { container: name.to_owned(), id: instance.id.clone(), deadline });
    } else if kill.signalled.is_none()
        && (kill.reason != KillReason::PodEnds || is_turn_of(planner.snapshot, name))
    {
        signal(planner, instance.stop_signal);
    }
    planner.look(kill_at);
}
