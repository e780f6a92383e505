//! The kubelet's conditions of a pod: PodReadyToStartContainers, Initialized, Ready, ContainersReady. Pure.

use super::snapshot::{PodSnapshot, is_sidecar};
use crate::clock::api_time;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodCondition, PodStatus};

/// A condition without its times.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

/// Puts the kubelet's conditions into `status`, whose phase and container statuses are done; those of others
/// stay. The time of transition changes only when the condition's status does.
pub(crate) fn apply(snapshot: &PodSnapshot, status: &mut PodStatus, now: Timestamp) {
    let containers = containers_ready(snapshot, status);
    let verdicts = [
        ready_to_start(snapshot),
        initialized(snapshot, status),
        ready(snapshot, status, &containers),
        containers,
    ];
    let known = status.conditions.take().unwrap_or_default();
    let mut conditions: Vec<PodCondition> =
        verdicts.into_iter().map(|verdict| condition(verdict, &known, now)).collect();
    let foreign = known.into_iter().filter(|other| conditions.iter().all(|own| own.type_ != other.type_));
    let foreign: Vec<_> = foreign.collect();
    conditions.extend(foreign);
    if conditions.iter().all(|other| other.type_ != "PodScheduled") {
        let scheduled = Verdict { kind: "PodScheduled", holds: true, reason: None, message: None };
        conditions.push(condition(scheduled, &[], now));
    }
    status.conditions = Some(conditions);
}

fn condition(verdict: Verdict, known: &[PodCondition], now: Timestamp) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = known.iter().find(|other| other.type_ == verdict.kind && other.status == status);
    PodCondition {
        type_: verdict.kind.into(),
        status: status.into(),
        reason: verdict.reason.map(Into::into),
        message: verdict.message,
        last_transition_time: before
            .and_then(|before| before.last_transition_time.clone())
            .or_else(|| Some(api_time(now))),
        last_probe_time: None,
        observed_generation: before.and_then(|before| before.observed_generation),
    }
}

fn ready_to_start(snapshot: &PodSnapshot) -> Verdict {
    let holds =
        snapshot.ready_sandbox().is_some_and(|sandbox| snapshot.host_network() || sandbox.address.is_some());
    Verdict { kind: "PodReadyToStartContainers", holds, reason: None, message: None }
}

fn initialized(snapshot: &PodSnapshot, status: &PodStatus) -> Verdict {
    let kind = "Initialized";
    if status.phase.as_deref() == Some("Succeeded") {
        return Verdict { kind, holds: true, reason: Some("PodCompleted"), message: None };
    }
    let is_done = |spec: &Container| {
        find(&status.init_container_statuses, &spec.name).is_some_and(|status| match is_sidecar(spec) {
            true => status.started == Some(true),
            false => status.ready,
        })
    };
    let started = snapshot
        .main_containers()
        .iter()
        .any(|main| snapshot.facts(&main.name).is_some_and(|f| f.current.is_some()));
    let incomplete: Vec<&str> = snapshot
        .init_containers()
        .iter()
        .filter(|spec| !started && !is_done(spec))
        .map(|spec| spec.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Verdict { kind, holds: true, reason: None, message: None };
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict { kind, holds: false, reason: Some("ContainersNotInitialized"), message: Some(message) }
}

fn containers_ready(snapshot: &PodSnapshot, status: &PodStatus) -> Verdict {
    let kind = "ContainersReady";
    match status.phase.as_deref() {
        Some("Succeeded") => {
            return Verdict { kind, holds: false, reason: Some("PodCompleted"), message: None };
        }
        Some("Failed") => return Verdict { kind, holds: false, reason: Some("PodFailed"), message: None },
        _ => {}
    }
    let sidecars = snapshot.init_containers().iter().filter(|spec| is_sidecar(spec));
    let is_ready = |spec: &&Container| {
        let main = find(&status.container_statuses, &spec.name);
        main.or_else(|| find(&status.init_container_statuses, &spec.name)).is_some_and(|status| status.ready)
    };
    let unready: Vec<&str> = sidecars
        .chain(snapshot.main_containers())
        .filter(|spec| !is_ready(spec))
        .map(|spec| spec.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict { kind, holds: true, reason: None, message: None };
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict { kind, holds: false, reason: Some("ContainersNotReady"), message: Some(message) }
}

fn ready(snapshot: &PodSnapshot, status: &PodStatus, containers: &Verdict) -> Verdict {
    let kind = "Ready";
    if !containers.holds {
        return Verdict {
            kind,
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    let gates = snapshot.spec().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let missing: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            let condition = status.conditions.iter().flatten().find(|other| other.type_ == *name);
            match condition {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if missing.is_empty() {
        return Verdict { kind, holds: true, reason: None, message: None };
    }
    Verdict { kind, holds: false, reason: Some("ReadinessGatesNotReady"), message: Some(missing.join(", ")) }
}

fn find<'a>(statuses: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().flatten().find(|status| status.name == name)
}
