//! The one word `kubectl get pods` shows for the state of a pod, with how many containers are ready and
//! how often they were restarted.

use crate::duration;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus,
};

/// What the table says about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// READY, left of the slash.
    pub ready: usize,
    /// READY, right of the slash.
    pub total: usize,
    /// STATUS.
    pub status: String,
    /// RESTARTS: how many.
    pub restarts: i32,
    /// RESTARTS: when the last one that ended did so.
    pub last_restart: Option<Timestamp>,
}

impl Summary {
    /// `0`, or `3 (5s ago)`.
    pub fn restarts_cell(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(time) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, duration::human_duration(time, now))
            }
            _ => self.restarts.to_string(),
        }
    }
}

/// Whether an init container is a sidecar: it runs on beside the others (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The state of a pod as the table shows it, following upstream's printer.
pub fn summarize(pod: &Pod) -> Summary {
    let (empty_spec, empty_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&empty_spec);
    let status = pod.status.as_ref().unwrap_or(&empty_status);
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container)).count();
    let mut summary = Summary {
        ready: 0,
        total: spec.containers.len() + sidecars,
        status: overall(status),
        restarts: 0,
        last_restart: None,
    };
    let init = Initialization::observe(spec, status);
    summary.ready = init.ready_sidecars;
    match init.stuck {
        Some(reason) if !has_condition(status, "Initialized") => {
            summary.status = reason;
            summary.restarts = init.all.count;
            summary.last_restart = init.all.last;
        }
        stuck => {
            if let Some(reason) = stuck {
                summary.status = reason;
            }
            observe_containers(&mut summary, init.sidecars, status);
        }
    }
    if let Some(reason) = leaving(pod, status) {
        summary.status = reason.to_owned();
    }
    summary
}

/// The phase, or what the kubelet says instead of it, or that scheduling gates hold the pod.
fn overall(status: &PodStatus) -> String {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let gated = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
    });
    if gated {
        return "SchedulingGated".to_owned();
    }
    given(&status.reason).or_else(|| given(&status.phase)).unwrap_or_default()
}

fn leaving(pod: &Pod, status: &PodStatus) -> Option<&'static str> {
    pod.metadata.deletion_timestamp.as_ref()?;
    if status.reason.as_deref() == Some("NodeLost") {
        Some("Unknown")
    } else if is_finished(status) {
        None
    } else {
        Some("Terminating")
    }
}

/// Whether no container of the pod will run again.
pub fn is_finished(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn has_condition(status: &PodStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// A count of restarts and the end of the latest run before one.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count = self.count.saturating_add(container.restart_count);
        let terminated = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        self.last = self.last.max(terminated.and_then(|run| run.finished_at.as_ref()).map(|time| time.0));
    }
}

/// What the init containers say.
struct Initialization {
    /// Why the pod is not initialized, when it is not.
    stuck: Option<String>,
    all: Restarts,
    sidecars: Restarts,
    ready_sidecars: usize,
}

impl Initialization {
    fn observe(spec: &PodSpec, status: &PodStatus) -> Self {
        let mut seen =
            Self { stuck: None, all: Restarts::default(), sidecars: Restarts::default(), ready_sidecars: 0 };
        let containers = spec.init_containers.as_deref().unwrap_or_default();
        for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
            let is_sidecar = containers.iter().any(|c| c.name == container.name && is_sidecar(c));
            seen.all.add(container);
            if is_sidecar {
                seen.sidecars.add(container);
            }
            let state = container.state.clone().unwrap_or_default();
            match &state {
                ContainerState { terminated: Some(run), .. } if run.exit_code == 0 => continue,
                _ if is_sidecar && container.started == Some(true) => {
                    seen.ready_sidecars += usize::from(container.ready);
                    continue;
                }
                state => seen.stuck = Some(format!("Init:{}", init_reason(state, index, containers.len()))),
            }
            break;
        }
        seen
    }
}

fn init_reason(state: &ContainerState, index: usize, total: usize) -> String {
    if let Some(run) = &state.terminated {
        return end_reason(run);
    }
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    match waiting {
        "" | "PodInitializing" => format!("{index}/{total}"),
        reason => reason.to_owned(),
    }
}

/// `Completed`, `Error`, `OOMKilled`…, or `Signal:9` or `ExitCode:1` where the runtime gave no reason.
fn end_reason(run: &ContainerStateTerminated) -> String {
    match (run.reason.as_deref().unwrap_or_default(), run.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", run.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Counts the containers proper. The first of them that has something to say gives the status.
fn observe_containers(summary: &mut Summary, sidecars: Restarts, status: &PodStatus) {
    let mut restarts = sidecars;
    let mut is_any_running = false;
    for container in status.container_statuses.iter().flatten().rev() {
        restarts.add(container);
        let state = container.state.clone().unwrap_or_default();
        let waiting = state.waiting.and_then(|waiting| waiting.reason).filter(|reason| !reason.is_empty());
        if let Some(reason) = waiting {
            summary.status = reason;
        } else if let Some(run) = &state.terminated {
            summary.status = end_reason(run);
        } else if container.ready && state.running.is_some() {
            is_any_running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && is_any_running {
        summary.status = if has_condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
    summary.restarts = restarts.count;
    summary.last_restart = restarts.last;
}
