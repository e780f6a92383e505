//! The decision about a pod: what to do now, what to tell the API, when to look again. Pure.

use super::kill;
use super::snapshot::{Instance, Kill, Operation, PodSnapshot};
use super::{start, status, termination};
use crate::probe::{self, ProbeKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use sagong_image::Image;
use sagong_runtime::ContainerState;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What containers of an evicted pod get at most: the node cannot wait. Upstream's `immediateEvictionGracePeriodSeconds`.
const EVICTED_GRACE: Duration = Duration::from_secs(1);
/// How long the first status of a running container waits for its first readiness, so that a program that
/// answers at once costs one write and not two.
const SETTLE: Duration = Duration::from_millis(15);
/// How long a status patch that changed nothing is not sent again.
const PATCH_REPEAT: Duration = Duration::from_secs(10);

/// What to do about a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodPlan {
    /// To be begun now, all at once.
    pub(crate) actions: Vec<Action>,
    /// The status the API should show.
    pub(crate) status: PodStatus,
    /// The probes that should be running.
    pub(crate) probes: BTreeSet<ProbeKey>,
    /// When to plan again even if nothing happens.
    pub(crate) look_again: Option<Timestamp>,
    /// Nothing is left to do, ever.
    pub(crate) finished: bool,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Make a sandbox and attach it to the network, after doing away with the one it replaces.
    MakeSandbox {
        /// Its number.
        attempt: u32,
        /// Id and address of the dead one before it.
        replaces: Option<(String, Option<IpAddr>)>,
    },
    /// Make volumes and `/etc` files.
    PrepareVolumes,
    /// Find or pull the image of a container.
    EnsureImage {
        /// Its name.
        container: String,
    },
    /// Create and start a container.
    StartContainer {
        /// Its name.
        container: String,
        /// Its restart count.
        attempt: u32,
        /// What it is made from.
        image: Arc<Image>,
    },
    /// Run the preStop hook of a container.
    RunPreStop {
        /// Its name.
        container: String,
        /// The running instance.
        id: String,
        /// When the hook is given up.
        deadline: Timestamp,
    },
    /// Send a signal to a container.
    Signal {
        /// Its name.
        container: String,
        /// The running instance.
        id: String,
        /// Which.
        signal: i32,
    },
    /// Forget an instance, its file system and its log.
    Remove {
        /// Name of its container.
        container: String,
        /// Which.
        instance: Instance,
    },
    /// Take the address out of every service.
    Withdraw {
        /// The pod's.
        address: IpAddr,
    },
    /// Let services send to the address again.
    Readmit {
        /// The pod's.
        address: IpAddr,
    },
    /// Wait until no connection is left.
    Drain {
        /// The pod's address.
        address: IpAddr,
        /// Its network namespace.
        netns: PathBuf,
        /// How long at most.
        until: Timestamp,
    },
    /// Stop the sandbox and free its address.
    StopSandbox {
        /// Which.
        id: String,
        /// The pod's address.
        address: Option<IpAddr>,
    },
    /// Remove the volumes of a pod that is over.
    DropVolumes,
    /// Remove all that is left of the pod on the node.
    Clean,
    /// Write these changes of the status.
    PatchStatus(Value),
    /// Delete the object.
    Delete,
    /// Begin to stop a container. Takes no time.
    BeginKill {
        /// Its name.
        container: String,
        /// How.
        kill: Kill,
    },
    /// Tell that a wait has begun. Takes no time.
    Announce {
        /// The container.
        container: String,
        /// What for.
        wait: Wait,
    },
}

/// What a container waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Its next restart.
    Restart,
    /// The next pull of its image.
    Pull,
}

impl Action {
    /// What this occupies while it goes on; None if it takes no time.
    pub(crate) fn operation(&self) -> Option<Operation> {
        Some(match self {
            Action::MakeSandbox { .. } => Operation::Sandbox,
            Action::PrepareVolumes => Operation::Volumes,
            Action::EnsureImage { container } => Operation::Image(container.clone()),
            Action::StartContainer { container, .. } => Operation::Start(container.clone()),
            Action::RunPreStop { container, .. } => Operation::PreStop(container.clone()),
            Action::Signal { container, .. } => Operation::Signal(container.clone()),
            Action::Remove { instance, .. } => Operation::Remove(instance.id.clone()),
            Action::Withdraw { .. } | Action::Readmit { .. } => Operation::Withdraw,
            Action::Drain { .. } => Operation::Drain,
            Action::StopSandbox { .. } => Operation::StopSandbox,
            Action::DropVolumes => Operation::Volumes,
            Action::Clean => Operation::Clean,
            Action::PatchStatus(_) => Operation::PatchStatus,
            Action::Delete => Operation::Delete,
            Action::BeginKill { .. } | Action::Announce { .. } => return None,
        })
    }
}

/// Decides about a pod at `now`. Calling it again with the same arguments gives the same plan.
pub(crate) fn plan(snapshot: &PodSnapshot, now: Timestamp) -> PodPlan {
    let status = status::compute(snapshot, now);
    let mut planner = Planner { snapshot, now, actions: Vec::new(), look_again: None };
    let patch = planner.patch(&status);
    match &snapshot.termination {
        Some(termination) => termination::plan(&mut planner, termination, patch.is_none()),
        None if status::is_over(&status) => finish(&mut planner),
        None => {
            start::plan(&mut planner);
            kill::readmit(&mut planner, &status);
        }
    }
    if let Some(patch) = patch {
        planner.act(Action::PatchStatus(patch));
    }
    if let Some(deadline) = status::active_deadline(snapshot) {
        planner.look(deadline);
    }
    PodPlan {
        probes: probe::wanted(snapshot),
        finished: is_finished(snapshot),
        actions: planner.actions,
        look_again: planner.look_again,
        status,
    }
}

/// A pod that is over but still in the API: nothing runs, nothing is held but what logs need.
fn finish(planner: &mut Planner<'_>) {
    let snapshot = planner.snapshot;
    if snapshot.is_anything_alive() {
        let own = termination::grace_period(&snapshot.pod);
        let grace = if snapshot.is_evicted() { own.min(EVICTED_GRACE) } else { own };
        return kill::stop_all(planner, grace);
    }
    if let Some(sandbox) = snapshot.ready_sandbox() {
        planner.act(Action::StopSandbox { id: sandbox.id.clone(), address: sandbox.address });
    } else if snapshot.holds_volumes() {
        // A pod that ended may stay in the API for long; what it wrote, on disk or in memory, is of no use any more.
        planner.act(Action::DropVolumes);
    }
}

fn is_finished(snapshot: &PodSnapshot) -> bool {
    let cleaned = snapshot.termination.as_ref().is_some_and(|termination| termination.cleaned);
    cleaned && (snapshot.removed || snapshot.deleted)
}

/// Collects actions, leaving out those that go on already or have to wait.
pub(crate) struct Planner<'a> {
    /// What is known.
    pub(crate) snapshot: &'a PodSnapshot,
    /// The time.
    pub(crate) now: Timestamp,
    actions: Vec<Action>,
    look_again: Option<Timestamp>,
}

impl Planner<'_> {
    /// Does this, unless it goes on already or failed a moment ago.
    pub(crate) fn act(&mut self, action: Action) {
        if let Some(operation) = action.operation() {
            let planned = self.actions.iter().any(|other| other.operation().as_ref() == Some(&operation));
            if planned || self.snapshot.in_flight.contains(&operation) {
                return;
            }
            if let Some(retry) = self.snapshot.retries.get(&operation).filter(|retry| retry.at > self.now) {
                return self.look(retry.at);
            }
        }
        self.actions.push(action);
    }

    /// Looks again at `at`, if that is still to come.
    pub(crate) fn look(&mut self, at: Timestamp) {
        if at > self.now {
            self.look_again = Some(self.look_again.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Whether the sandbox of a pod that ended is being stopped: its last status follows in a moment, in one
    /// write. If stopping fails, the API is told how far it came.
    fn is_about_to_stop(&self) -> bool {
        let snapshot = self.snapshot;
        let stops = snapshot.termination.as_ref().is_some_and(|end| !end.stopped);
        stops && !snapshot.is_anything_alive() && !snapshot.retries.contains_key(&Operation::StopSandbox)
    }

    /// When the containers that just started have had their first chance to be ready; None if that is past.
    fn settles(&self) -> Option<Timestamp> {
        let snapshot = self.snapshot;
        if snapshot.termination.is_some() {
            return None;
        }
        let starts = snapshot.main_containers().iter().filter_map(|spec| {
            let probe = spec.readiness_probe.as_ref()?;
            let facts = snapshot.facts(&spec.name)?;
            let at_once = spec.startup_probe.is_none() && probe.initial_delay_seconds.unwrap_or(0) == 0;
            match facts.current.as_ref()?.state {
                ContainerState::Running { started, .. } if at_once && facts.probes.readiness.is_none() => {
                    Some(crate::clock::later(started, SETTLE))
                }
                _ => None,
            }
        });
        starts.max().filter(|settled| *settled > self.now)
    }

    /// The status changes to write; None if the API shows them already.
    fn patch(&mut self, status: &PodStatus) -> Option<Value> {
        if self.snapshot.removed || self.snapshot.deleted {
            return None;
        }
        let patch = status::patch(&self.snapshot.pod, status)?;
        if self.is_about_to_stop() {
            return None;
        }
        if let Some(settled) = self.settles() {
            self.look(settled);
            return None;
        }
        match &self.snapshot.last_patch {
            Some((last, sent)) if *last == patch => {
                let again = crate::clock::later(*sent, PATCH_REPEAT);
                self.look(again);
                (again <= self.now).then_some(patch)
            }
            _ => Some(patch),
        }
    }
}
