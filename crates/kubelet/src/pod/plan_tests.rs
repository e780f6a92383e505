//! The plan as tables, and as a property: whatever happens, it never panics, keeps its promises and comes to
//! rest.

use super::hash::container_hash;
use super::outcome::{self, Outcome};
use super::plan::{Action, PodPlan, plan};
use super::snapshot::{
    ImageFacts, ImageFailure, Instance, Operation, PodSnapshot, SandboxFacts, StartFailure,
};
use super::termination;
use crate::clock::{api_time, later, test_epoch};
use crate::fakes::merge_status;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use proptest::prelude::*;
use rstest::rstest;
use sagong_image::{Image, ImageConfig};
use sagong_runtime::ContainerState;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec}),
    )
    .unwrap()
}

fn kubia(policy: &str) -> PodSnapshot {
    let spec = json!({"restartPolicy": policy, "containers": [{"name": "nodejs", "image": "kubia:v1"}]});
    PodSnapshot::new(Arc::new(pod(spec)), vec!["192.168.0.1".parse().unwrap()], test_epoch())
}

fn sandbox(attempt: u32) -> SandboxFacts {
    SandboxFacts {
        id: format!("s{attempt}"),
        attempt,
        ready: true,
        address: Some("10.244.0.2".parse().unwrap()),
        netns: Some("/netns/s".into()),
    }
}

fn image() -> Arc<Image> {
    Arc::new(Image { id: "i".into(), tags: vec![], digests: vec![], size: 1, config: ImageConfig::default() })
}

fn exited(code: i32, at: Timestamp) -> ContainerState {
    let reason = if code == 0 { "Completed" } else { "Error" };
    ContainerState::Exited {
        started: Some(at),
        finished: at,
        exit_code: code,
        signal: 0,
        reason: reason.into(),
        message: String::new(),
    }
}

fn running(at: Timestamp) -> ContainerState {
    ContainerState::Running { started: at, pid: 1 }
}

fn instance(spec: &Container, sandbox: &str, attempt: u32, state: ContainerState) -> Instance {
    Instance {
        id: format!("{}-{attempt}", spec.name),
        sandbox_id: sandbox.into(),
        attempt,
        hash: container_hash(spec),
        image: spec.image.clone().unwrap_or_default(),
        image_id: "sha256:i".into(),
        stop_signal: 15,
        identity: None,
        state,
        message: None,
    }
}

/// Names of actions, without the status patch.
fn names(plan: &PodPlan) -> Vec<String> {
    let name = |action: &Action| match action {
        Action::BeginKill { kill, .. } => format!("BeginKill {:?}", kill.reason),
        Action::Announce { wait, .. } => format!("Announce {wait:?}"),
        Action::PatchStatus(_) => String::new(),
        Action::Signal { signal, .. } => format!("Signal {signal}"),
        other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
    };
    let mut names: Vec<String> = plan.actions.iter().map(name).filter(|name| !name.is_empty()).collect();
    names.sort();
    names
}

/// A pod whose container is in this state.
fn with_container(policy: &str, state: Option<ContainerState>) -> PodSnapshot {
    let mut snapshot = kubia(policy);
    snapshot.sandbox = Some(sandbox(0));
    if let Some(state) = state {
        let current = instance(&snapshot.main_containers()[0].clone(), "s0", 0, state);
        snapshot.containers.entry("nodejs".into()).or_default().current = Some(current);
    }
    snapshot
}

#[rstest]
#[case::always_none("Always", None, "EnsureImage", "Pending")]
#[case::always_running("Always", Some(running(test_epoch())), "", "Running")]
#[case::always_success("Always", Some(exited(0, test_epoch())), "EnsureImage", "Running")]
#[case::always_failure("Always", Some(exited(1, test_epoch())), "EnsureImage", "Running")]
#[case::on_failure_none("OnFailure", None, "EnsureImage", "Pending")]
#[case::on_failure_running("OnFailure", Some(running(test_epoch())), "", "Running")]
#[case::on_failure_success("OnFailure", Some(exited(0, test_epoch())), "StopSandbox", "Succeeded")]
#[case::on_failure_failure("OnFailure", Some(exited(1, test_epoch())), "EnsureImage", "Running")]
#[case::never_none("Never", None, "EnsureImage", "Pending")]
#[case::never_running("Never", Some(running(test_epoch())), "", "Running")]
#[case::never_success("Never", Some(exited(0, test_epoch())), "StopSandbox", "Succeeded")]
#[case::never_failure("Never", Some(exited(1, test_epoch())), "StopSandbox", "Failed")]
#[case::created_is_left_over("Always", Some(ContainerState::Created), "Remove", "Pending")]
fn every_policy_in_every_state(
    #[case] policy: &str,
    #[case] state: Option<ContainerState>,
    #[case] action: &str,
    #[case] phase: &str,
) {
    let snapshot = with_container(policy, state);
    let plan = plan(&snapshot, test_epoch());
    assert_eq!(names(&plan).join(","), action);
    assert_eq!(plan.status.phase.as_deref(), Some(phase));
}

#[test]
fn sandbox_and_image_are_got_at_the_same_time() {
    let plan = plan(&kubia("Always"), test_epoch());
    assert_eq!(names(&plan), ["EnsureImage", "MakeSandbox"]);
}

#[test]
fn what_goes_on_is_not_begun_again() {
    let mut snapshot = kubia("Always");
    snapshot.in_flight.extend([
        Operation::Sandbox,
        Operation::Image("nodejs".into()),
        Operation::PatchStatus,
    ]);
    assert!(plan(&snapshot, test_epoch()).actions.is_empty());
}

#[test]
fn a_container_waits_for_its_back_off_and_says_so() {
    let mut snapshot = with_container("Always", Some(exited(1, test_epoch())));
    let facts = snapshot.containers.get_mut("nodejs").unwrap();
    facts.restarts.note(test_epoch(), test_epoch());
    let plan = plan(&snapshot, later(test_epoch(), Duration::from_secs(9)));
    assert_eq!(names(&plan), ["Announce Restart"]);
    assert_eq!(plan.look_again, Some(later(test_epoch(), Duration::from_secs(10))));
    let status = &plan.status.container_statuses.unwrap()[0];
    let waiting = status.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("back-off 10s restarting failed container=nodejs pod=p_default(u)")
    );
}

#[rstest]
#[case::new(None, "Withdraw")]
#[case::withdrawn(Some((true, false)), "Drain")]
#[case::drained(Some((true, true)), "BeginKill PodEnds")]
fn a_deleted_pod_goes_step_by_step(#[case] progress: Option<(bool, bool)>, #[case] action: &str) {
    let mut snapshot = with_container("Always", Some(running(test_epoch())));
    delete(&mut snapshot, 30, test_epoch());
    snapshot.termination = termination::observe(&snapshot, test_epoch());
    if let (Some((withdrawn, drained)), Some(end)) = (progress, snapshot.termination.as_mut()) {
        (end.withdrawn, end.drained) = (withdrawn, drained);
    }
    assert_eq!(names(&plan(&snapshot, test_epoch())), [action]);
}

fn delete(snapshot: &mut PodSnapshot, grace: i64, now: Timestamp) {
    let mut pod = snapshot.pod.as_ref().clone();
    let ends = later(now, Duration::from_secs(grace.unsigned_abs()));
    pod.metadata.deletion_timestamp = Some(api_time(ends));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    snapshot.pod = Arc::new(pod);
}

#[test]
fn planning_twice_gives_the_same_plan() {
    let snapshot = with_container("Always", Some(exited(1, test_epoch())));
    let (first, second) = (plan(&snapshot, test_epoch()), plan(&snapshot, test_epoch()));
    assert_eq!(names(&first), names(&second));
    assert_eq!(first.status, second.status);
}

// --- the property ------------------------------------------------------------------------------------------

/// Something that happens to a pod.
#[derive(Clone, Debug)]
enum Happening {
    /// The operation that began first ends, well or not.
    Ends { well: bool, which: usize },
    /// A container's process ends.
    Exit { which: usize, code: i32 },
    /// A probe changes its mind.
    Probe { which: usize, verdict: bool },
    /// Time passes.
    Time { millis: u64 },
    /// The pod is deleted.
    Delete { grace: i64 },
    /// The object vanishes.
    Remove,
    /// Another image is wanted.
    Image { which: usize },
    /// The sandbox dies.
    SandboxDies,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => (prop::bool::weighted(0.8), 0..4_usize).prop_map(|(well, which)| Happening::Ends { well, which }),
        3 => (0..3_usize, prop_oneof![Just(0), Just(1), Just(137)])
            .prop_map(|(which, code)| Happening::Exit { which, code }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(which, verdict)| Happening::Probe { which, verdict }),
        4 => (1..40_000_u64).prop_map(|millis| Happening::Time { millis }),
        1 => (0..40_i64).prop_map(|grace| Happening::Delete { grace }),
        1 => Just(Happening::Remove),
        1 => (0..3_usize).prop_map(|which| Happening::Image { which }),
        1 => Just(Happening::SandboxDies),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (policy, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(policy, init, sidecar, probes, host)| {
            let mut inits = vec![];
            if init {
                inits.push(json!({"name": "init", "image": "i:1"}));
            }
            if sidecar {
                inits.push(json!({"name": "sidecar", "image": "i:1", "restartPolicy": "Always"}));
            }
            let mut main = json!({"name": "main", "image": "i:1"});
            if probes {
                for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
                    main[probe] = json!({"exec": {"command": ["check"]}});
                }
                main["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}});
            }
            json!({"restartPolicy": policy, "hostNetwork": host, "initContainers": inits, "containers": [main],
                "volumes": [{"name": "v", "emptyDir": {}}]})
        },
    )
}

/// A worker without a world: operations end when a happening says so.
struct Simulation {
    snapshot: PodSnapshot,
    now: Timestamp,
    begun: Vec<(Operation, Action)>,
    sandboxes: u32,
    finished: bool,
}

impl Simulation {
    fn new(spec: Value) -> Self {
        let pod = Arc::new(pod(spec));
        let snapshot = PodSnapshot::new(pod, vec!["192.168.0.1".parse().unwrap()], test_epoch());
        Simulation { snapshot, now: test_epoch(), begun: vec![], sandboxes: 0, finished: false }
    }

    /// Plans and applies until nothing that takes no time is left. Gives when to look again.
    fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..20 {
            self.snapshot.termination = termination::observe(&self.snapshot, self.now);
            let plan = plan(&self.snapshot, self.now);
            self.check(&plan);
            if plan.finished {
                self.finished = true;
                return None;
            }
            let mut changed = false;
            for action in plan.actions {
                match (action.operation(), action) {
                    (_, Action::BeginKill { container, kill }) => {
                        self.snapshot.containers.get_mut(&container).unwrap().kill = Some(kill);
                        changed = true;
                    }
                    (_, Action::Announce { container, .. }) => {
                        self.snapshot.containers.get_mut(&container).unwrap().announced = true;
                        changed = true;
                    }
                    (Some(operation), action) => {
                        if let Action::StartContainer { container, .. } = &action {
                            let now = self.now;
                            if let Some(facts) = self.snapshot.containers.get_mut(container) {
                                let ended = facts.current.as_ref().and_then(Instance::finished);
                                if let Some(at) = facts.failure.as_ref().map(|failure| failure.at).or(ended) {
                                    facts.restarts.note(at, now);
                                }
                            }
                        }
                        assert!(
                            !self.snapshot.in_flight.contains(&operation),
                            "{operation:?} is begun twice"
                        );
                        self.snapshot.begin(operation.clone());
                        self.begun.push((operation, action));
                    }
                    (None, _) => {}
                }
            }
            if !changed {
                return plan.look_again;
            }
        }
        panic!("instant actions never end: {:?}", plan(&self.snapshot, self.now).actions);
    }

    /// What must hold of every plan.
    fn check(&self, plan: &PodPlan) {
        for action in &plan.actions {
            let end = self.snapshot.termination.as_ref();
            match action {
                Action::MakeSandbox { .. } | Action::StartContainer { .. } | Action::EnsureImage { .. } => {
                    assert!(end.is_none(), "a pod that ends begins nothing");
                }
                Action::Signal { .. } | Action::RunPreStop { .. } => {
                    let polite = end.filter(|end| !end.at_once && self.now < end.deadline);
                    let reachable =
                        self.snapshot.ready_sandbox().is_some_and(|sandbox| sandbox.address.is_some());
                    let own_kill = self.snapshot.containers.values().any(|facts| {
                        facts
                            .kill
                            .as_ref()
                            .is_some_and(|kill| kill.reason != super::snapshot::KillReason::PodEnds)
                    });
                    assert!(
                        own_kill || !reachable || polite.is_none_or(|end| end.withdrawn),
                        "nobody is told to stop while requests arrive"
                    );
                }
                Action::Delete => {
                    let cleaned = end.is_some_and(|end| end.cleaned);
                    assert!(cleaned && !self.snapshot.is_anything_alive(), "{:?}", self.snapshot);
                }
                Action::Clean | Action::DropVolumes | Action::StopSandbox { .. } => {
                    assert!(!self.snapshot.is_anything_alive())
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, which: usize, well: bool) {
        if self.begun.is_empty() {
            return;
        }
        let (operation, action) = self.begun.remove(which % self.begun.len());
        let outcome = if well { self.success(&action) } else { self.failure(&operation) };
        outcome::absorb(&mut self.snapshot, &operation, outcome, self.now);
    }

    fn success(&mut self, action: &Action) -> Outcome {
        match action {
            Action::MakeSandbox { attempt, .. } => {
                self.sandboxes += 1;
                let mut facts = sandbox(*attempt);
                if self.snapshot.host_network() {
                    (facts.address, facts.netns) = (None, None);
                }
                Outcome::Sandbox(facts)
            }
            Action::PrepareVolumes => Outcome::Volumes { renew: None },
            Action::EnsureImage { .. } => Outcome::Image(Ok(image())),
            Action::StartContainer { container, attempt, .. } => {
                let spec = self.snapshot.container_spec(container).unwrap().clone();
                let sandbox = self.snapshot.sandbox.as_ref().unwrap().id.clone();
                let instance = instance(&spec, &sandbox, *attempt, running(self.now));
                Outcome::Started { instance: Some(instance), failure: None }
            }
            Action::RunPreStop { .. } => Outcome::HookDone,
            Action::Signal { container, signal, .. } => {
                let now = self.now;
                if let Some(current) =
                    self.snapshot.containers.get_mut(container).and_then(|f| f.current.as_mut())
                    && current.is_alive()
                {
                    current.state = exited(128 + signal, now);
                }
                Outcome::Signalled(*signal)
            }
            Action::Remove { .. } => Outcome::Removed,
            Action::Withdraw { .. } => Outcome::Withdrawn,
            Action::Readmit { .. } => Outcome::Readmitted,
            Action::Drain { .. } => Outcome::Drained,
            Action::StopSandbox { .. } => Outcome::SandboxStopped,
            Action::DropVolumes => Outcome::VolumesDropped,
            Action::Clean => Outcome::Cleaned,
            Action::PatchStatus(patch) => {
                let mut object = serde_json::to_value(self.snapshot.pod.as_ref()).unwrap();
                if object["status"].is_null() {
                    object["status"] = json!({});
                }
                merge_status(&mut object["status"], &patch["status"]);
                Outcome::Patched { patch: patch.clone(), pod: serde_json::from_value(object).unwrap() }
            }
            Action::Delete => Outcome::Deleted,
            Action::BeginKill { .. } | Action::Announce { .. } => unreachable!("takes no time"),
        }
    }

    fn failure(&self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Image(_) => {
                let (reason, message) = ("ErrImagePull", "no".to_owned());
                Outcome::Image(Err(ImageFailure { reason, message, at: self.now }))
            }
            Operation::Start(_) => {
                let (reason, message) = ("CreateContainerError", "no".to_owned());
                Outcome::Started {
                    instance: None,
                    failure: Some(StartFailure { reason, message, at: self.now }),
                }
            }
            Operation::PreStop(_) => Outcome::HookDone,
            _ => Outcome::Failed,
        }
    }

    fn happen(&mut self, happening: &Happening) {
        let names: Vec<String> = self.snapshot.containers.keys().cloned().collect();
        let name = |which: usize| names.get(which % names.len().max(1)).cloned().unwrap_or_default();
        match happening {
            Happening::Ends { well, which } => self.end(*which, *well),
            Happening::Exit { which, code } => {
                let now = self.now;
                if let Some(facts) = self.snapshot.containers.get_mut(&name(*which))
                    && facts.is_running()
                    && let Some(current) = facts.current.as_mut()
                {
                    current.state = exited(*code, now);
                }
            }
            Happening::Probe { which, verdict } => {
                if let Some(facts) = self.snapshot.containers.get_mut(&name(*which)) {
                    facts.probes.readiness = Some(*verdict);
                    facts.probes.liveness = Some(*verdict);
                    facts.probes.startup = facts.probes.startup.or(Some(*verdict));
                }
            }
            Happening::Time { millis } => self.now = later(self.now, Duration::from_millis(*millis)),
            Happening::Delete { grace } => {
                if self.snapshot.pod.metadata.deletion_timestamp.is_none() {
                    delete(&mut self.snapshot, *grace, self.now);
                }
            }
            Happening::Remove => self.snapshot.removed = true,
            Happening::Image { which } => {
                let mut pod = self.snapshot.pod.as_ref().clone();
                let spec = pod.spec.as_mut().unwrap();
                let mut all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
                if let Some(container) = all.nth(which % 2) {
                    container.image = Some("i:2".into());
                }
                outcome::observe_pod(&mut self.snapshot, Arc::new(pod));
            }
            Happening::SandboxDies => {
                if let Some(sandbox) = &mut self.snapshot.sandbox {
                    sandbox.ready = false;
                }
            }
        }
    }

    /// Lets everything end well until nothing is to be done for a long time.
    fn come_to_rest(&mut self) {
        for _ in 0..400 {
            let look_again = self.settle();
            if self.finished {
                return;
            }
            if !self.begun.is_empty() {
                self.end(0, true);
            } else if let Some(at) = look_again {
                self.now = at;
            } else if let Some(init) =
                self.snapshot.containers.get_mut("init").filter(|facts| facts.is_running())
            {
                init.current.as_mut().unwrap().state = exited(0, self.now);
            } else {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", plan(&self.snapshot, self.now).actions);
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_plan_keeps_its_promises_and_comes_to_rest(
        spec in spec(),
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut simulation = Simulation::new(spec);
        simulation.settle();
        for happening in &happenings {
            if simulation.finished {
                break;
            }
            simulation.happen(happening);
            simulation.settle();
        }
        simulation.come_to_rest();
        let snapshot = &simulation.snapshot;
        let deleted = snapshot.pod.metadata.deletion_timestamp.is_some() || snapshot.removed;
        prop_assert_eq!(simulation.finished, deleted);
        if !deleted {
            let status = snapshot.pod.status.clone().unwrap();
            let is_over = super::status::is_over(&status);
            prop_assert!(is_over || snapshot.is_running("main"), "{:?}", status);
        }
    }
}

#[test]
fn an_image_failure_is_forgotten_when_the_image_changes() {
    let mut snapshot = with_container("Always", None);
    let failure = ImageFailure { reason: "InvalidImageName", message: "no".into(), at: test_epoch() };
    snapshot.containers.entry("nodejs".into()).or_default().image = ImageFacts::Failed(failure);
    assert_eq!(names(&plan(&snapshot, test_epoch())), Vec::<String>::new());
    let mut pod = snapshot.pod.as_ref().clone();
    pod.spec.as_mut().unwrap().containers[0].image = Some("kubia:v2".into());
    outcome::observe_pod(&mut snapshot, Arc::new(pod));
    assert_eq!(names(&plan(&snapshot, test_epoch())), ["EnsureImage"]);
}

#[test]
fn an_evicted_pod_gets_a_second_and_gives_back_its_volumes() {
    let mut snapshot = with_container("Always", Some(running(test_epoch())));
    let mut pod = snapshot.pod.as_ref().clone();
    pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(3600);
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    pod.spec.as_mut().unwrap().volumes = serde_json::from_value(volume).unwrap();
    snapshot.pod = Arc::new(pod);
    snapshot.evicted = Some("why".into());
    let kills = plan(&snapshot, test_epoch()).actions.into_iter().find_map(|action| match action {
        Action::BeginKill { kill, .. } => Some(kill.deadline),
        _ => None,
    });
    assert_eq!(kills, Some(crate::clock::later(test_epoch(), Duration::from_secs(1))));
    let current = &mut snapshot.containers.get_mut("nodejs").unwrap().current;
    current.as_mut().unwrap().state = exited(137, test_epoch());
    assert_eq!(names(&plan(&snapshot, test_epoch())), ["StopSandbox"]);
    outcome::absorb(&mut snapshot, &Operation::StopSandbox, Outcome::SandboxStopped, test_epoch());
    assert_eq!(names(&plan(&snapshot, test_epoch())), ["DropVolumes"]);
    assert!(snapshot.holds_volumes());
    outcome::absorb(&mut snapshot, &Operation::Volumes, Outcome::VolumesDropped, test_epoch());
    assert_eq!(names(&plan(&snapshot, test_epoch())), Vec::<String>::new());
    assert!(!snapshot.holds_volumes());
}
