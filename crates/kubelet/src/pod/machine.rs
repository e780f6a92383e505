//! The state machine of one pod without a runtime, an image store, a network or a clock: whoever drives it gives every
//! answer. For simulations; the kubelet itself drives the same plans from [`super::worker`].

use super::hash;
use super::outcome::{self, Outcome};
use super::plan::{Action, plan};
use super::snapshot::{ImageFailure, Instance, Kill, Operation, PodSnapshot, SandboxFacts};
use super::termination;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sagong_image::{Image, ImageConfig};
use sagong_runtime::ContainerState;
use serde_json::Value;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// SIGTERM, which stops containers that name no other signal.
const SIGTERM: i32 = 15;

/// One pod on its node.
pub struct PodMachine {
    snapshot: PodSnapshot,
}

/// Something the machine wants done. It stays in flight until [`PodMachine::answer`] is called with it.
#[derive(Debug)]
pub struct Task {
    operation: Operation,
    action: Action,
}

/// What a [`Task`] is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Make a sandbox; answered with an [`Answer::Address`].
    Sandbox,
    /// Find or pull an image.
    Image(String),
    /// Start a container.
    Start(String),
    /// Send a signal to a container.
    Signal(String, i32),
    /// Take the address out of every service.
    Withdraw(IpAddr),
    /// Wait until no connection is left.
    Drain,
    /// Stop the sandbox and free its address.
    StopSandbox(Option<IpAddr>),
    /// Write the status; answered with an [`Answer::Written`].
    Patch(Value),
    /// Delete the object, for good.
    Delete,
    /// Something on the node that a simulation has nothing to add to.
    Other,
}

/// How a [`Task`] ended.
#[derive(Debug)]
pub enum Answer {
    /// Well.
    Done,
    /// With a sandbox that has this address.
    Address(IpAddr),
    /// With the object as it is now.
    Written(Box<Pod>),
    /// There is no such image, or no such object any more.
    Missing,
    /// Not at all; it may be tried again.
    Failed,
}

/// One round of planning.
#[derive(Debug)]
pub struct Round {
    /// To be begun now.
    pub tasks: Vec<Task>,
    /// When to plan again even if nothing happens.
    pub look_again: Option<Timestamp>,
    /// Nothing is left to do, ever.
    pub finished: bool,
}

impl PodMachine {
    /// A pod of which only the object is known, on a node with this address.
    pub fn new(pod: Arc<Pod>, host: IpAddr, now: Timestamp) -> Self {
        Self { snapshot: PodSnapshot::new(pod, vec![host], now) }
    }

    /// Takes over a newer view of the object.
    pub fn observe(&mut self, pod: Arc<Pod>) {
        outcome::observe_pod(&mut self.snapshot, pod);
    }

    /// The object is gone.
    pub fn removed(&mut self) {
        self.snapshot.removed = true;
    }

    /// When the grace period of the pod ends, if it ends at all.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.snapshot.termination.as_ref().map(|termination| termination.deadline)
    }

    /// Whether this container runs and nobody stops it.
    pub fn is_up(&self, container: &str) -> bool {
        self.snapshot.facts(container).is_some_and(|facts| facts.is_running() && facts.kill.is_none())
    }

    /// What to do at `now`.
    pub fn plan(&mut self, now: Timestamp) -> Round {
        loop {
            self.snapshot.termination = termination::observe(&self.snapshot, now);
            let plan = plan(&self.snapshot, now);
            let mut tasks = Vec::new();
            let mut changed = false;
            for action in plan.actions {
                match (action.operation(), action) {
                    (_, Action::BeginKill { container, kill }) => {
                        changed |= self.begin_kill(&container, kill);
                    }
                    (_, Action::Announce { container, .. }) => {
                        if let Some(facts) = self.snapshot.containers.get_mut(&container) {
                            facts.announced = true;
                            changed = true;
                        }
                    }
                    (Some(operation), action) => tasks.push(Task { operation, action }),
                    (None, _) => {}
                }
            }
            for task in &tasks {
                self.begin(task, now);
            }
            if !changed || !tasks.is_empty() {
                let look_again = if changed { Some(now) } else { plan.look_again };
                return Round { tasks, look_again, finished: plan.finished };
            }
        }
    }

    /// A task ended at `now`.
    pub fn answer(&mut self, task: Task, answer: Answer, now: Timestamp) {
        let result = self.outcome(&task, answer, now);
        outcome::absorb(&mut self.snapshot, &task.operation, result, now);
    }

    /// The process of a container ended at `now`.
    pub fn exited(&mut self, container: &str, exit_code: i32, now: Timestamp) {
        let facts = self.snapshot.containers.get_mut(container);
        let Some(instance) = facts.and_then(|facts| facts.current.as_mut()) else { return };
        let ContainerState::Running { started, .. } = instance.state else { return };
        instance.state = ContainerState::Exited {
            started: Some(started),
            finished: now,
            exit_code,
            signal: 0,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
        };
    }

    /// The readiness probe of a running container said this.
    pub fn probed(&mut self, container: &str, ready: bool) {
        if let Some(facts) = self.snapshot.containers.get_mut(container).filter(|facts| facts.is_running()) {
            facts.probes.readiness = Some(ready);
        }
    }

    fn begin_kill(&mut self, container: &str, kill: Kill) -> bool {
        let Some(facts) = self.snapshot.containers.get_mut(container) else { return false };
        facts.kill = Some(kill);
        true
    }

    fn begin(&mut self, task: &Task, now: Timestamp) {
        if let Action::StartContainer { container, .. } = &task.action
            && let Some(facts) = self.snapshot.containers.get_mut(container)
        {
            let ended = facts.current.as_ref().and_then(Instance::finished);
            if let Some(ended) = facts.failure.as_ref().map(|failure| failure.at).or(ended) {
                facts.restarts.note(ended, now);
            }
        }
        self.snapshot.begin(task.operation.clone());
    }

    fn outcome(&self, task: &Task, answer: Answer, now: Timestamp) -> Outcome {
        match (&task.action, answer) {
            (_, Answer::Failed) => Outcome::Failed,
            (Action::MakeSandbox { attempt, .. }, Answer::Address(address)) => {
                Outcome::Sandbox(SandboxFacts {
                    id: format!("{}-{attempt}", self.uid()),
                    attempt: *attempt,
                    ready: true,
                    address: Some(address),
                    netns: Some(PathBuf::from("/simulated")),
                })
            }
            (Action::MakeSandbox { .. }, _) => Outcome::Failed,
            (Action::PrepareVolumes, _) => Outcome::Volumes { renew: None },
            (Action::EnsureImage { .. }, Answer::Missing) => Outcome::Image(Err(ImageFailure {
                reason: "ErrImagePull",
                message: "not found".into(),
                at: now,
            })),
            (Action::EnsureImage { container }, _) => Outcome::Image(Ok(Arc::new(self.image(container)))),
            (Action::StartContainer { container, attempt, .. }, _) => {
                Outcome::Started { instance: self.instance(container, *attempt, now), failure: None }
            }
            (Action::RunPreStop { .. }, _) => Outcome::HookDone,
            (Action::Signal { signal, .. }, _) => Outcome::Signalled(*signal),
            (Action::Remove { .. }, _) => Outcome::Removed,
            (Action::Withdraw { .. }, _) => Outcome::Withdrawn,
            (Action::Readmit { .. }, _) => Outcome::Readmitted,
            (Action::Drain { .. }, _) => Outcome::Drained,
            (Action::StopSandbox { .. }, _) => Outcome::SandboxStopped,
            (Action::DropVolumes, _) => Outcome::VolumesDropped,
            (Action::Clean, _) => Outcome::Cleaned,
            (Action::PatchStatus(patch), Answer::Written(pod)) => {
                Outcome::Patched { patch: patch.clone(), pod }
            }
            (Action::PatchStatus(_), Answer::Missing) => Outcome::Gone,
            (Action::Delete, Answer::Missing) => Outcome::Gone,
            (Action::Delete, _) => Outcome::Deleted,
            (Action::PatchStatus(_) | Action::BeginKill { .. } | Action::Announce { .. }, _) => {
                Outcome::Failed
            }
        }
    }

    fn uid(&self) -> &str {
        self.snapshot.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn image(&self, container: &str) -> Image {
        let name = self.snapshot.container_spec(container).and_then(|spec| spec.image.clone());
        let name = name.unwrap_or_default();
        Image {
            id: format!("sha256:{name}"),
            tags: vec![name],
            digests: Vec::new(),
            size: 0,
            config: ImageConfig::default(),
        }
    }

    fn instance(&self, container: &str, attempt: u32, now: Timestamp) -> Option<Instance> {
        let spec = self.snapshot.container_spec(container)?;
        Some(Instance {
            id: format!("{}-{container}-{attempt}", self.uid()),
            sandbox_id: self.snapshot.ready_sandbox()?.id.clone(),
            attempt,
            hash: hash::container_hash(spec),
            image: spec.image.clone().unwrap_or_default(),
            image_id: format!("sha256:{}", spec.image.as_deref().unwrap_or_default()),
            stop_signal: SIGTERM,
            identity: None,
            state: ContainerState::Running { started: now, pid: 1 },
            message: None,
        })
    }
}

impl Task {
    /// What it is about.
    pub fn wish(&self) -> Wish {
        match &self.action {
            Action::MakeSandbox { .. } => Wish::Sandbox,
            Action::EnsureImage { container } => Wish::Image(container.clone()),
            Action::StartContainer { container, .. } => Wish::Start(container.clone()),
            Action::Signal { container, signal, .. } => Wish::Signal(container.clone(), *signal),
            Action::Withdraw { address } => Wish::Withdraw(*address),
            Action::Drain { .. } => Wish::Drain,
            Action::StopSandbox { address, .. } => Wish::StopSandbox(*address),
            Action::PatchStatus(patch) => Wish::Patch(patch.clone()),
            Action::Delete => Wish::Delete,
            Action::PrepareVolumes
            | Action::RunPreStop { .. }
            | Action::Readmit { .. }
            | Action::Remove { .. }
            | Action::DropVolumes
            | Action::Clean
            | Action::BeginKill { .. }
            | Action::Announce { .. } => Wish::Other,
        }
    }
}
