//! Everything one decision about a pod is made from. Plain data: no handles, no IO.

use super::admission::{self, Refusal};
use super::backoff::Backoff;
use super::hash;
pub(crate) use super::policy::{RestartPolicy, is_sidecar};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod, PodSpec, PodStatus};
use sagong_image::Image;
use sagong_runtime::{ContainerState, Identity};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is known of one pod: the wish (the API's object) and the facts (runtime, images, probes, waits).
#[derive(Clone, Debug)]
pub(crate) struct PodSnapshot {
    /// The object as last seen in the API, our own writes included.
    pub(crate) pod: Arc<Pod>,
    /// `spec.ephemeralContainers`, as the containers they are like.
    pub(crate) ephemeral: Arc<[ContainerSpec]>,
    /// Why the node does not take it; None: it does.
    pub(crate) refused: Option<Refusal>,
    /// The object is gone from the API, or its name belongs to another pod now.
    pub(crate) removed: bool,
    /// `status.hostIPs`.
    pub(crate) host_ips: Vec<IpAddr>,
    /// When the kubelet first saw the pod: `status.startTime`, unless the API has one already.
    pub(crate) seen: Timestamp,
    /// The newest sandbox.
    pub(crate) sandbox: Option<SandboxFacts>,
    /// Volumes are in place.
    pub(crate) volumes_made: bool,
    /// They were removed, as the pod is over.
    pub(crate) volumes_gone: bool,
    /// What they show has changed since.
    pub(crate) volumes_stale: bool,
    /// When something in them wants to be renewed.
    pub(crate) volumes_renew: Option<Timestamp>,
    /// By container name, init containers included.
    pub(crate) containers: BTreeMap<String, ContainerFacts>,
    /// What is being done right now.
    pub(crate) in_flight: BTreeSet<Operation>,
    /// What failed and when it may be tried again.
    pub(crate) retries: BTreeMap<Operation, Retry>,
    /// It is out of every service, to stop a container that is to be restarted.
    pub(crate) set_aside: bool,
    /// How far the end of the pod has come; None while it is wanted.
    pub(crate) termination: Option<Termination>,
    /// Why the node could not keep it; None: it could.
    pub(crate) evicted: Option<String>,
    /// The last status patch that was accepted, so that one the server does not take over is not sent in a loop.
    pub(crate) last_patch: Option<(Value, Timestamp)>,
    /// The pod's object was deleted by us.
    pub(crate) deleted: bool,
}

/// A sandbox of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxFacts {
    /// As the runtime knows it.
    pub(crate) id: String,
    /// Counts the pod's sandboxes.
    pub(crate) attempt: u32,
    /// Its namespaces exist and its network is attached.
    pub(crate) ready: bool,
    /// The pod's address; None on the host's network.
    pub(crate) address: Option<IpAddr>,
    /// Where its network namespace is pinned.
    pub(crate) netns: Option<PathBuf>,
}

/// What is known of one container of the pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerFacts {
    /// The newest instance.
    pub(crate) current: Option<Instance>,
    /// The finished instance before it, kept for its logs.
    pub(crate) previous: Option<Instance>,
    /// Instances nobody needs any more.
    pub(crate) dead: Vec<Instance>,
    /// Whether the image for the next start is there.
    pub(crate) image: ImageFacts,
    /// Waits between pulls.
    pub(crate) pulls: Backoff,
    /// Why the last start failed.
    pub(crate) failure: Option<StartFailure>,
    /// Waits between restarts.
    pub(crate) restarts: Backoff,
    /// The present wait was told as an event.
    pub(crate) announced: bool,
    /// It is being stopped.
    pub(crate) kill: Option<Kill>,
    /// What the probes of the current instance say.
    pub(crate) probes: Verdicts,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// As the runtime knows it.
    pub(crate) id: String,
    /// The sandbox it is in.
    pub(crate) sandbox_id: String,
    /// Its restart count.
    pub(crate) attempt: u32,
    /// [`hash::container_hash`] of the container it was made from.
    pub(crate) hash: String,
    /// Name of its image, normalised.
    pub(crate) image: String,
    /// `status.containerStatuses[].imageID`.
    pub(crate) image_id: String,
    /// What stops it.
    pub(crate) stop_signal: i32,
    /// Who it runs as.
    pub(crate) identity: Option<Identity>,
    /// Where it is in its life.
    pub(crate) state: ContainerState,
    /// What it left in its termination message file.
    pub(crate) message: Option<String>,
}

/// Whether a container's image is there.
#[derive(Clone, Debug, Default)]
pub(crate) enum ImageFacts {
    /// Not looked for since the last start.
    #[default]
    Unknown,
    /// There.
    Present(Arc<Image>),
    /// Not there.
    Failed(ImageFailure),
}

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageFailure {
    /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// When it was found out.
    pub(crate) at: Timestamp,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartFailure {
    /// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`, `PostStartHookError`.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// When.
    pub(crate) at: Timestamp,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// The pod is deleted or done.
    PodEnds,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its definition changed.
    Changed,
    /// Its postStart hook failed.
    PostStart,
}

/// How far the stop of a container has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// Why.
    pub(crate) reason: KillReason,
    /// When it gets SIGKILL.
    pub(crate) deadline: Timestamp,
    /// Until when connections to a pod that lives on may finish before.
    pub(crate) drain_until: Timestamp,
    /// No connection is left, or we no longer wait for them.
    pub(crate) drained: bool,
    /// No preStop hook and no polite signal: SIGKILL at once.
    pub(crate) at_once: bool,
    /// The preStop hook ran, or there is none.
    pub(crate) hook_done: bool,
    /// When the stop signal was sent.
    pub(crate) signalled: Option<Timestamp>,
    /// When SIGKILL was sent last.
    pub(crate) killed: Option<Timestamp>,
}

/// What probes say; None before they have said anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// Ready to serve.
    pub(crate) readiness: Option<bool>,
    /// Alive.
    pub(crate) liveness: Option<bool>,
    /// Started up.
    pub(crate) startup: Option<bool>,
}

/// How far the end of the pod has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Termination {
    /// When the kubelet learned of it.
    pub(crate) begun: Timestamp,
    /// When everything is killed.
    pub(crate) deadline: Timestamp,
    /// Until when connections may finish by themselves.
    pub(crate) drain_until: Timestamp,
    /// Skip everything polite.
    pub(crate) at_once: bool,
    /// No new connection reaches the pod.
    pub(crate) withdrawn: bool,
    /// No connection is left, or we no longer wait for them.
    pub(crate) drained: bool,
    /// The sandbox is stopped and its address free.
    pub(crate) stopped: bool,
    /// Nothing of the pod is left on the node.
    pub(crate) cleaned: bool,
}

/// Something that takes time and is done at most once at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// Making a sandbox with its network.
    Sandbox,
    /// Volumes and `/etc` files.
    Volumes,
    /// Finding or pulling the image of a container.
    Image(String),
    /// Creating and starting a container.
    Start(String),
    /// Running a preStop hook.
    PreStop(String),
    /// Sending a signal to a container.
    Signal(String),
    /// Forgetting an instance.
    Remove(String),
    /// Taking the address out of all services.
    Withdraw,
    /// Waiting for connections.
    Drain,
    /// Stopping the sandbox, freeing its address.
    StopSandbox,
    /// Removing all that is left.
    Clean,
    /// Writing the status.
    PatchStatus,
    /// Deleting the object.
    Delete,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// How often in a row.
    pub(crate) failures: u32,
    /// When it may be tried again.
    pub(crate) at: Timestamp,
}

impl Retry {
    /// First wait after a failed operation that has no rule of its own.
    const INITIAL: Duration = Duration::from_millis(250);
    /// Longest.
    const MAXIMUM: Duration = Duration::from_secs(15);

    /// The state after one more failure.
    pub(crate) fn after(previous: Option<&Retry>, now: Timestamp) -> Retry {
        let failures = previous.map_or(0, |retry| retry.failures).saturating_add(1);
        let wait = Self::INITIAL.saturating_mul(1 << (failures - 1).min(10)).min(Self::MAXIMUM);
        Retry { failures, at: crate::clock::later(now, wait) }
    }
}

impl PodSnapshot {
    /// A pod of which only the object is known.
    pub(crate) fn new(pod: Arc<Pod>, host_ips: Vec<IpAddr>, now: Timestamp) -> Self {
        PodSnapshot {
            ephemeral: ephemeral_of(&pod),
            refused: admission::refusal(&pod),
            pod,
            removed: false,
            host_ips,
            seen: now,
            sandbox: None,
            volumes_made: false,
            volumes_gone: false,
            volumes_stale: false,
            volumes_renew: None,
            containers: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            retries: BTreeMap::new(),
            set_aside: false,
            termination: None,
            evicted: None,
            last_patch: None,
            deleted: false,
        }
    }

    /// `spec`, if the object has one: that of an orphan has not.
    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Main containers in the order of the spec.
    pub(crate) fn main_containers(&self) -> &[ContainerSpec] {
        self.spec().map_or(&[], |spec| &spec.containers)
    }

    /// Init containers in the order of the spec.
    pub(crate) fn init_containers(&self) -> &[ContainerSpec] {
        self.spec().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
    }

    /// All containers, init containers first, ephemeral ones last.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.init_containers().iter().chain(self.main_containers()).chain(self.ephemeral.iter())
    }

    /// Whether a container was added to the pod while it ran (`kubectl debug`).
    pub(crate) fn is_ephemeral(&self, name: &str) -> bool {
        self.ephemeral.iter().any(|spec| spec.name == name)
    }

    /// The spec of a container by name.
    pub(crate) fn container_spec(&self, name: &str) -> Option<&ContainerSpec> {
        self.all_containers().find(|spec| spec.name == name)
    }

    /// The API's status as last seen.
    pub(crate) fn known_status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }

    /// `spec.restartPolicy`.
    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().and_then(|spec| spec.restart_policy.as_deref()))
    }

    /// Whether containers find their volumes.
    pub(crate) fn are_volumes_ready(&self) -> bool {
        self.volumes_made || self.spec().and_then(|spec| spec.volumes.as_ref()).is_none_or(Vec::is_empty)
    }

    /// An operation begins.
    pub(crate) fn begin(&mut self, operation: Operation) {
        if operation == Operation::Volumes {
            // What changes from now on makes them out of date anew.
            self.volumes_stale = false;
            self.volumes_renew = None;
        }
        self.in_flight.insert(operation);
    }

    /// Whether volumes that are in use are out of date.
    pub(crate) fn are_volumes_due(&self, now: Timestamp) -> bool {
        self.volumes_stale || self.volumes_renew.is_some_and(|renew| renew <= now)
    }

    /// `spec.hostNetwork`.
    pub(crate) fn host_network(&self) -> bool {
        self.spec().and_then(|spec| spec.host_network).unwrap_or(false)
    }

    /// The facts of a container, if there are any.
    pub(crate) fn facts(&self, name: &str) -> Option<&ContainerFacts> {
        self.containers.get(name)
    }

    /// The newest instance of a container, if it is in the present sandbox.
    pub(crate) fn instance(&self, name: &str) -> Option<&Instance> {
        let sandbox = self.sandbox.as_ref()?;
        self.facts(name)?.current.as_ref().filter(|instance| instance.sandbox_id == sandbox.id)
    }

    /// Ids of the containers that run, by name.
    pub(crate) fn running(&self) -> BTreeMap<String, String> {
        let running = self.containers.iter().filter(|(_, facts)| facts.is_running());
        running.filter_map(|(name, facts)| Some((name.clone(), facts.current.as_ref()?.id.clone()))).collect()
    }

    /// Whether the process of a container runs.
    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.facts(name).is_some_and(ContainerFacts::is_running)
    }

    /// Whether anything runs or is about to.
    pub(crate) fn is_anything_alive(&self) -> bool {
        self.containers.values().any(ContainerFacts::is_alive) || self.is_anything_starting()
    }

    /// Whether a container is being created and started.
    pub(crate) fn is_starting(&self, name: &str) -> bool {
        self.in_flight.contains(&Operation::Start(name.to_owned()))
    }

    /// Whether a container or the sandbox is being made.
    pub(crate) fn is_anything_starting(&self) -> bool {
        self.in_flight.iter().any(|op| matches!(op, Operation::Sandbox | Operation::Start(_)))
    }

    /// The sandbox, if it can take containers.
    pub(crate) fn ready_sandbox(&self) -> Option<&SandboxFacts> {
        self.sandbox.as_ref().filter(|sandbox| sandbox.ready)
    }
}

impl ContainerFacts {
    /// Whether its process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.current.as_ref().is_some_and(|it| matches!(it.state, ContainerState::Running { .. }))
    }

    /// Whether a probe had its newest instance stopped.
    pub(crate) fn was_unwell(&self) -> bool {
        let reason = self.kill.as_ref().map(|kill| kill.reason);
        matches!(reason, Some(KillReason::Liveness | KillReason::Startup))
    }

    /// Whether its process runs or may still be started.
    pub(crate) fn is_alive(&self) -> bool {
        self.current.as_ref().is_some_and(Instance::is_alive)
    }

    /// Whether an instance is one of this container's.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.current.iter().chain(&self.previous).chain(&self.dead).any(|instance| instance.id == id)
    }

    /// Takes over a newer view of an instance.
    pub(crate) fn observe(&mut self, seen: Instance) {
        match &mut self.current {
            Some(current) if current.id == seen.id => current.advance(seen),
            Some(current) if current.attempt > seen.attempt => {
                if let Some(previous) = self.previous.as_mut().filter(|previous| previous.id == seen.id) {
                    previous.advance(seen);
                }
            }
            _ => self.replace(seen),
        }
    }

    /// Makes `next` the newest instance, keeping the one before it.
    pub(crate) fn replace(&mut self, next: Instance) {
        if let Some(old) = self.current.replace(next)
            && let Some(older) = self.previous.replace(old)
        {
            self.dead.push(older);
        }
        self.kill = None;
        self.probes = Verdicts::default();
        self.failure = None;
        self.announced = false;
        self.image = ImageFacts::Unknown;
    }
}

impl Instance {
    /// Whether its process runs or may still be started.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, ContainerState::Exited { .. })
    }

    /// Whether it was made from this spec, as far as a change means a restart.
    pub(crate) fn matches(&self, spec: &ContainerSpec) -> bool {
        self.hash == hash::container_hash(spec)
    }

    /// When it ended, if it did.
    pub(crate) fn finished(&self) -> Option<Timestamp> {
        match &self.state {
            ContainerState::Exited { finished, .. } => Some(*finished),
            _ => None,
        }
    }

    /// Its exit code, if it ended.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match &self.state {
            ContainerState::Exited { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }

    /// A container's life never goes back, but views of it may arrive out of order.
    fn advance(&mut self, seen: Instance) {
        let rank = |state: &ContainerState| match state {
            ContainerState::Created => 0,
            ContainerState::Running { .. } => 1,
            ContainerState::Exited { .. } => 2,
        };
        if rank(&seen.state) > rank(&self.state) {
            self.state = seen.state;
        }
        if seen.message.is_some() {
            self.message = seen.message;
        }
    }
}

/// The ephemeral containers of a pod, as the containers they are like.
pub(crate) fn ephemeral_of(pod: &Pod) -> Arc<[ContainerSpec]> {
    let all = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    all.map(sagong_api::pod::as_container).collect()
}
