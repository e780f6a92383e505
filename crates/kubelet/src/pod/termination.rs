//! The end of a pod, in the order that loses no request (DESIGN.md, decision 8): out of every service first,
//! then connections finish, only then preStop and the stop signal, SIGKILL at the end of the grace period,
//! and nothing of it left behind.

use super::kill;
use super::plan::{Action, Planner};
use super::snapshot::{PodSnapshot, Termination};
use crate::clock::{between, later};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

/// What is left to the containers themselves at the least, whatever connections are open.
const LEFT_FOR_CONTAINERS: Duration = Duration::from_secs(2);
/// Grace period of a pod that names none, as upstream's default has it.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

impl PodSnapshot {
    /// Whether it was evicted, by this kubelet or by an earlier run of it.
    pub(crate) fn is_evicted(&self) -> bool {
        let known = || self.known_status().is_some_and(|status| status.reason.as_deref() == Some("Evicted"));
        self.evicted.is_some() || known()
    }

    /// Whether there may be volumes of it on the node.
    pub(crate) fn holds_volumes(&self) -> bool {
        let has_any = self.spec().and_then(|spec| spec.volumes.as_ref()).is_some_and(|all| !all.is_empty());
        has_any && !self.volumes_gone
    }
}

/// How long connections may take to finish: half of the grace period, and at most all but 2 s of it. The
/// rest is the containers' own. Examples: grace 30 s: 15 s; 3 s: 1 s; 2 s: none.
pub(crate) fn drain_limit(grace: Duration) -> Duration {
    (grace / 2).min(grace.saturating_sub(LEFT_FOR_CONTAINERS))
}

/// The grace period of a deletion, or of the pod.
pub(crate) fn grace_period(pod: &Pod) -> Duration {
    let deletion = pod.metadata.deletion_grace_period_seconds;
    let own = || pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    deletion.or_else(own).map_or(DEFAULT_GRACE, seconds)
}

/// Seconds of the API, never negative.
pub(crate) fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// Takes over what the API says about the end of the pod: begins it, or brings it forward.
pub(crate) fn observe(snapshot: &PodSnapshot, now: Timestamp) -> Option<Termination> {
    let deleted = snapshot.pod.metadata.deletion_timestamp.as_ref();
    let grace = if snapshot.removed { Duration::ZERO } else { grace_period(&snapshot.pod) };
    match &snapshot.termination {
        None if snapshot.removed => Some(begin(now, Duration::ZERO)),
        None => deleted.map(|deleted| begin(now, remaining(grace, deleted.0, now))),
        Some(running) => {
            let mut sooner = running.clone();
            sooner.deadline = sooner.deadline.min(later(now, grace));
            sooner.drain_until = sooner.drain_until.min(later(now, drain_limit(grace)));
            sooner.at_once |= grace.is_zero() && !running.cleaned;
            let changed = between(sooner.deadline, running.deadline) > Duration::ZERO || grace.is_zero();
            Some(if changed { sooner } else { running.clone() })
        }
    }
}

fn begin(now: Timestamp, grace: Duration) -> Termination {
    Termination {
        begun: now,
        deadline: later(now, grace),
        drain_until: later(now, drain_limit(grace)),
        at_once: grace.is_zero(),
        withdrawn: false,
        drained: false,
        stopped: false,
        cleaned: false,
    }
}

/// What is left of the grace period of a deletion that ends at `ends`. `ends` is in whole seconds, so that a
/// kubelet that was there from the beginning gives the whole period; one that was away does not begin anew,
/// but leaves the containers their minimum.
fn remaining(grace: Duration, ends: Timestamp, now: Timestamp) -> Duration {
    let left = between(now, ends);
    if left + LEFT_FOR_CONTAINERS >= grace { grace } else { left.max(LEFT_FOR_CONTAINERS.min(grace)) }
}

/// Plans the next steps of the end. `told`: the API shows all that we know.
pub(crate) fn plan(planner: &mut Planner<'_>, termination: &Termination, told: bool) {
    let snapshot = planner.snapshot;
    if snapshot.is_anything_alive() {
        planner.look(termination.deadline);
        if may_stop(planner, termination) {
            let grace = match termination.at_once {
                true => Duration::ZERO,
                // Zero would skip the stop signal; at the deadline SIGKILL follows it at once.
                false => between(planner.now, termination.deadline).max(Duration::from_millis(1)),
            };
            kill::stop_all(planner, grace);
        } else {
            kill::go_on(planner);
        }
    } else if !termination.stopped {
        let sandbox = snapshot.sandbox.as_ref();
        let id = sandbox.map(|sandbox| sandbox.id.clone()).unwrap_or_default();
        planner.act(Action::StopSandbox { id, address: sandbox.and_then(|sandbox| sandbox.address) });
    } else if !termination.cleaned {
        planner.act(Action::Clean);
    } else if !snapshot.removed && !snapshot.deleted && told {
        planner.act(Action::Delete);
    }
}

/// Whether containers may be told to stop: the pod is out of every service and its connections are done.
fn may_stop(planner: &mut Planner<'_>, termination: &Termination) -> bool {
    let snapshot = planner.snapshot;
    let sandbox = snapshot.ready_sandbox().filter(|_| !snapshot.host_network());
    let Some((sandbox, address)) = sandbox.and_then(|sandbox| Some((sandbox, sandbox.address?))) else {
        // Without an address of its own nothing can be sent to it.
        return true;
    };
    let over = planner.now >= termination.deadline || termination.at_once;
    if !termination.withdrawn {
        planner.act(Action::Withdraw { address });
        return over;
    }
    if termination.drained || over || planner.now >= termination.drain_until {
        return true;
    }
    match &sandbox.netns {
        None => true,
        Some(netns) => {
            let until = termination.drain_until;
            planner.act(Action::Drain { address, netns: netns.clone(), until });
            planner.look(until);
            false
        }
    }
}
