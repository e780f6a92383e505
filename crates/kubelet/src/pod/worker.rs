//! The task of one pod: observes, plans, applies, until nothing of the pod is left.

use super::messages;
use super::operations::{Context, message_file};
use super::outcome::{self, Outcome};
use super::plan::{Action, PodPlan, Wait, plan};
use super::snapshot::{Instance, Kill, Operation, PodSnapshot, RestartPolicy, is_sidecar};
use super::termination;
use super::view::PodView;
use crate::clock::{Steps, between};
use crate::events::Severity::{Normal, Warning};
use crate::probe::prober::{self, Subject};
use crate::probe::{Kind, ProbeKey, ProbeReport};
use crate::shared::Shared;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use sagong_runtime::{Container, ContainerState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The object changed.
    Pod(Arc<Pod>),
    /// The object is gone.
    Removed,
    /// Containers of the pod changed.
    Containers(Vec<Container>),
    /// The pod's sandbox is dead.
    SandboxDead(String),
    /// What its volumes show has changed.
    Outdated,
    /// The pod has to go, and why.
    Evict(String),
}

/// The task of one pod.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    snapshot: PodSnapshot,
    inbox: mpsc::UnboundedReceiver<Message>,
    view: watch::Sender<PodView>,
    operations: JoinSet<(Operation, Outcome)>,
    running: BTreeMap<Operation, AbortHandle>,
    probes: BTreeMap<ProbeKey, AbortHandle>,
    /// Views of containers whose start has not reported them yet.
    early: Vec<Container>,
    told_deadline: bool,
    reports: (mpsc::UnboundedSender<ProbeReport>, mpsc::UnboundedReceiver<ProbeReport>),
}

impl Worker {
    /// A worker for what is known so far.
    pub(crate) fn new(
        shared: Arc<Shared>,
        snapshot: PodSnapshot,
        inbox: mpsc::UnboundedReceiver<Message>,
        view: watch::Sender<PodView>,
    ) -> Self {
        Worker {
            shared,
            snapshot,
            inbox,
            view,
            operations: JoinSet::new(),
            running: BTreeMap::new(),
            probes: BTreeMap::new(),
            early: Vec::new(),
            told_deadline: false,
            reports: mpsc::unbounded_channel(),
        }
    }

    /// Goes on until nothing of the pod is left. Dropping the future leaves the containers as they are.
    pub(crate) async fn run(mut self) {
        self.tell_refusal();
        let mut steps = Steps::new(&self.shared.clock);
        loop {
            let step = steps.since_last(&self.shared.clock);
            let now = self.shared.clock.now();
            if let Some(by) = step {
                self.snapshot.step(by, now);
            }
            self.snapshot.termination = termination::observe(&self.snapshot, now);
            let plan = plan(&self.snapshot, now);
            if plan.finished {
                return;
            }
            self.show(&plan);
            self.tell_deadline(&plan);
            let look_again = plan.look_again;
            if self.apply(plan) {
                // Something that takes no time changed what is known.
                continue;
            }
            let pause = look_again.map(|at| between(now, at).max(Duration::from_millis(1)));
            if !self.wait(pause).await {
                return;
            }
        }
    }

    /// Lets others see what changed.
    fn show(&self, plan: &PodPlan) {
        let view = PodView::of(&self.snapshot, &plan.status);
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
    }

    /// Says why the pod is not taken, unless the API knows already.
    fn tell_refusal(&self) {
        let known = self.snapshot.known_status().and_then(|status| status.reason.as_deref());
        if let Some(refusal) = self.snapshot.refused.as_ref().filter(|it| known != Some(it.reason)) {
            self.shared.recorder.pod(&self.snapshot.pod, Warning, refusal.reason, refusal.message.clone());
        }
    }

    /// Says that the pod's time is over, when it is for the first time.
    fn tell_deadline(&mut self, plan: &PodPlan) {
        let reason = |status: Option<&PodStatus>| status.and_then(|status| status.reason.clone());
        let over = reason(Some(&plan.status)).as_deref() == Some(messages::DEADLINE.0);
        if over && !self.told_deadline {
            self.told_deadline = true;
            // After a restart of this process the API knows, and so does the user.
            if reason(self.snapshot.known_status()).as_deref() != Some(messages::DEADLINE.0) {
                let (reason, message) = messages::DEADLINE;
                self.shared.recorder.pod(&self.snapshot.pod, Normal, reason, message);
            }
        }
    }

    /// Begins what is planned; true if it changed what is known.
    fn apply(&mut self, plan: PodPlan) -> bool {
        self.apply_probes(&plan);
        if self.snapshot.termination.is_some() {
            // A pod that ends needs no images any more, and a pull can take long.
            self.abandon(|operation| matches!(operation, Operation::Image(_)));
        }
        if !self.snapshot.is_anything_alive() {
            self.abandon(|operation| *operation == Operation::Drain);
        }
        let mut changed = false;
        for action in plan.actions {
            match (action.operation(), action) {
                (_, Action::BeginKill { container, kill }) => {
                    self.begin_kill(&container, kill);
                    changed = true;
                }
                (_, Action::Announce { container, wait }) => {
                    self.announce(&container, wait);
                    changed = true;
                }
                (Some(operation), action) => self.begin(operation, action),
                (None, _) => {}
            }
        }
        changed
    }

    fn begin(&mut self, operation: Operation, action: Action) {
        if let Action::StartContainer { container, .. } = &action {
            self.note_restart(container);
        }
        self.snapshot.begin(operation.clone());
        let context = Context::new(&self.shared, &self.snapshot);
        let key = operation.clone();
        let handle = self.operations.spawn(async move {
            let began = tokio::time::Instant::now();
            let pod = context.pod_name();
            let outcome = context.run(action).await;
            tracing::debug!(pod, operation = ?key, took = ?began.elapsed(), "operation done");
            (key, outcome)
        });
        self.running.insert(operation, handle);
    }

    /// Counts the restart that begins, so that the next one has to wait longer.
    fn note_restart(&mut self, container: &str) {
        let now = self.shared.clock.now();
        let Some(facts) = self.snapshot.containers.get_mut(container) else { return };
        let ended = facts.current.as_ref().and_then(Instance::finished);
        if let Some(ended) = facts.failure.as_ref().map(|failure| failure.at).or(ended) {
            facts.restarts.note(ended, now);
        }
    }

    /// Gives up operations whose result nobody needs any more.
    fn abandon(&mut self, is_useless: impl Fn(&Operation) -> bool) {
        for (_, handle) in self.running.iter().filter(|(operation, _)| is_useless(operation)) {
            handle.abort();
        }
        self.running.retain(|operation, _| !is_useless(operation));
        self.snapshot.in_flight.retain(|operation| !is_useless(operation));
    }

    fn begin_kill(&mut self, name: &str, kill: Kill) {
        let own = self.snapshot.container_spec(name).is_some_and(is_sidecar);
        let policy = if own { RestartPolicy::Always } else { self.snapshot.restart_policy() };
        let message = messages::killing(name, kill.reason, policy);
        let Some(facts) = self.snapshot.containers.get_mut(name) else { return };
        if facts.kill.is_none() {
            self.shared.recorder.container(&self.snapshot.pod, name, Normal, "Killing", message);
        }
        facts.kill = Some(kill);
    }

    fn announce(&mut self, name: &str, wait: Wait) {
        let pod = self.snapshot.pod.clone();
        let image =
            self.snapshot.container_spec(name).and_then(|spec| spec.image.clone()).unwrap_or_default();
        let Some(facts) = self.snapshot.containers.get_mut(name) else { return };
        facts.announced = true;
        let recorder = &self.shared.recorder;
        match wait {
            Wait::Restart => {
                recorder.container(&pod, name, Warning, "BackOff", messages::restart_back_off(&pod, name));
            }
            Wait::Pull => {
                recorder.container(&pod, name, Normal, "BackOff", messages::pull_back_off(&image));
                recorder.container(&pod, name, Warning, "Failed", "Error: ImagePullBackOff");
            }
        }
    }

    /// Waits for something to happen and takes it over, with all else that happened at the same time. False
    /// if nobody can tell us anything any more.
    async fn wait(&mut self, pause: Option<Duration>) -> bool {
        let timer = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = self.inbox.recv() => match message {
                Some(message) => self.observe(message),
                None => return false,
            },
            Some(done) = self.operations.join_next() => self.finish(done),
            Some(report) = self.reports.1.recv() => self.observe_probe(report),
            () = timer => {}
        }
        while let Ok(message) = self.inbox.try_recv() {
            self.observe(message);
        }
        while let Some(done) = self.operations.try_join_next() {
            self.finish(done);
        }
        while let Ok(report) = self.reports.1.try_recv() {
            self.observe_probe(report);
        }
        true
    }

    fn finish(&mut self, done: Result<(Operation, Outcome), tokio::task::JoinError>) {
        let (operation, outcome) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                let task = error.id();
                tracing::error!(%error, "operation of a pod failed unexpectedly");
                let Some(operation) = self.running.iter().find(|(_, handle)| handle.id() == task) else {
                    return;
                };
                (operation.0.clone(), Outcome::Failed)
            }
        };
        self.running.remove(&operation);
        let now = self.shared.clock.now();
        outcome::absorb(&mut self.snapshot, &operation, outcome, now);
        if let Operation::Start(container) = &operation {
            for early in std::mem::take(&mut self.early) {
                self.observe_container(early);
            }
            self.read_last_words(container);
        }
    }

    fn observe(&mut self, message: Message) {
        match message {
            Message::Pod(pod) => outcome::observe_pod(&mut self.snapshot, pod),
            Message::Removed => self.snapshot.removed = true,
            Message::Evict(message) => {
                if self.snapshot.evicted.is_none() {
                    self.shared.recorder.pod(&self.snapshot.pod, Warning, "Evicted", message.clone());
                    self.snapshot.evicted = Some(message);
                }
            }
            Message::Outdated => {
                self.snapshot.volumes_stale = true;
                // What was missing may be there now.
                self.snapshot.retries.remove(&Operation::Volumes);
            }
            Message::SandboxDead(id) => {
                if let Some(sandbox) = self.snapshot.sandbox.as_mut().filter(|sandbox| sandbox.id == id) {
                    sandbox.ready = false;
                }
            }
            Message::Containers(containers) => {
                containers.into_iter().for_each(|container| self.observe_container(container));
            }
        }
    }

    fn observe_container(&mut self, container: Container) {
        let name = container.config.name.clone();
        let known = self.snapshot.facts(&name).is_some_and(|facts| facts.knows(&container.id));
        if known {
            let facts = self.snapshot.containers.entry(name.clone()).or_default();
            facts.observe(Instance::from_runtime(&container));
            self.read_last_words(&name);
        } else if self.snapshot.in_flight.contains(&Operation::Start(name)) {
            // It may have ended before its start is told.
            self.early.push(container);
        }
    }

    fn observe_probe(&mut self, report: ProbeReport) {
        let name = &report.key.container;
        if !self.probes.contains_key(&report.key) {
            return;
        }
        if let Some((reason, message)) = report.event() {
            self.shared.recorder.container(&self.snapshot.pod, name, Warning, reason, message);
        }
        if let Some(facts) = self.snapshot.containers.get_mut(name) {
            report.apply(&mut facts.probes);
        }
    }

    /// Starts and stops probes, so that those run which should.
    fn apply_probes(&mut self, plan: &PodPlan) {
        let obsolete: Vec<ProbeKey> =
            self.probes.keys().filter(|key| !plan.probes.contains(*key)).cloned().collect();
        for key in obsolete {
            if let Some(handle) = self.probes.remove(&key) {
                handle.abort();
            }
        }
        for key in &plan.probes {
            if self.probes.contains_key(key) {
                continue;
            }
            let Some(subject) = self.subject(key) else { continue };
            let task = prober::run(
                subject,
                self.shared.clock.steady(),
                self.shared.runtime.clone(),
                self.reports.0.clone(),
            );
            self.probes.insert(key.clone(), tokio::spawn(task).abort_handle());
        }
    }

    fn subject(&self, key: &ProbeKey) -> Option<Subject> {
        let facts = self.snapshot.facts(&key.container)?;
        let ContainerState::Running { started, .. } = facts.current.as_ref()?.state else { return None };
        let verdict = match key.kind {
            Kind::Startup => facts.probes.startup,
            Kind::Liveness => facts.probes.liveness,
            Kind::Readiness => facts.probes.readiness,
        };
        Some(Subject {
            key: key.clone(),
            spec: self.snapshot.container_spec(&key.container)?.clone(),
            address: super::environment::pod_ip(&self.snapshot),
            started,
            verdict,
        })
    }

    /// Reads the termination message of a container that ended.
    fn read_last_words(&mut self, name: &str) {
        let Some(spec) = self.snapshot.container_spec(name).cloned() else { return };
        let uid = self.snapshot.pod.metadata.uid.clone().unwrap_or_default();
        let meta = &self.snapshot.pod.metadata;
        let log_dir = self.shared.config.log_dir(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            &uid,
        );
        let pod_dir = self.shared.config.pod_dir(&uid);
        let Some(instance) = self.snapshot.containers.get_mut(name).and_then(|facts| facts.current.as_mut())
        else {
            return;
        };
        if instance.message.is_none()
            && let Some(exit_code) = instance.exit_code()
        {
            let file = message_file(&pod_dir, name, instance.attempt);
            let log = log_dir.join(super::container_config::log_path(name, instance.attempt));
            instance.message = super::last_words::read(&spec, exit_code, &file, &log);
        }
    }

    fn stop_probes(&mut self) {
        for handle in std::mem::take(&mut self.probes).into_values() {
            handle.abort();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop_probes();
    }
}
