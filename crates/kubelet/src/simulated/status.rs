//! The situation of a simulated pod as the API is told it, in the shape upstream's kubelet gives it. Pure.

use super::situation::{Run, Situation, State};
use super::view::{Condition, Container};
use super::world::Pod;
use crate::clock::api_time;
use crate::pod::backoff::go_duration;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;

/// What stays the same through all situations of a pod.
pub(crate) struct Frame<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// Its uid.
    pub(crate) uid: &'a str,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Its node's address.
    pub(crate) host: Ipv4Addr,
    /// Since when the pod has been as ready as it is.
    pub(crate) ready_since: Timestamp,
}

/// A strategic merge patch that tells the situation, guarded by the pod's uid.
pub(crate) fn patch(frame: &Frame<'_>, situation: &Situation) -> Value {
    let Frame { pod, uid, address, host, .. } = frame;
    let mut status = json!({
        "phase": situation.phase(),
        "conditions": conditions(frame, situation),
        "hostIP": host,
        "hostIPs": [{ "ip": host }],
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "startTime": api_time(pod.seen),
        "containerStatuses": pod.template.containers.iter().map(|it| container(frame, it, situation)).collect::<Vec<_>>(),
    });
    if !pod.template.inits.is_empty() {
        let inits: Vec<Value> =
            pod.template.inits.iter().map(|it| init_container(frame, it, situation)).collect();
        status["initContainerStatuses"] = Value::Array(inits);
    }
    json!({ "metadata": { "uid": uid }, "status": status })
}

/// Why the pod is not ready though its containers are: `reason: message` of the gate; None if nothing is missing.
pub(crate) fn missing_gates(gates: &[String], conditions: &[Condition]) -> Option<String> {
    let missing =
        gates.iter().filter_map(|name| match conditions.iter().find(|condition| condition.r#type == *name) {
            None => Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => None,
        });
    let missing: Vec<String> = missing.collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn conditions(frame: &Frame<'_>, situation: &Situation) -> Value {
    let seen = frame.pod.seen;
    let names: Vec<&str> =
        frame.pod.template.containers.iter().map(|container| container.name.as_str()).collect();
    let unready = format!("containers with unready status: [{}]", names.join(" "));
    let over = match situation.phase() {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let containers = match (over, situation.ready) {
        (Some(reason), _) => Some((reason, None)),
        (None, false) => Some(("ContainersNotReady", Some(unready))),
        (None, true) => None,
    };
    let gates = frame.pod.missing_gates.clone().map(|message| ("ReadinessGatesNotReady", Some(message)));
    let completed = situation.phase() == "Succeeded";
    let sandbox = !matches!(situation.state, State::Ended(_));
    let condition = |kind: &str, since: Timestamp, failed: Option<(&str, Option<String>)>| {
        let mut condition = json!({
            "type": kind,
            "status": if failed.is_none() { "True" } else { "False" },
            "lastTransitionTime": api_time(since),
        });
        let (reason, message) = failed.unwrap_or_default();
        // Null takes away what an earlier situation left.
        condition["reason"] = json!(Some(reason).filter(|reason| !reason.is_empty()));
        condition["message"] = json!(message);
        condition
    };
    let mut initialized = condition("Initialized", seen, None);
    if completed {
        initialized["reason"] = json!("PodCompleted");
    }
    let started = (!sandbox).then_some(("", None));
    json!([
        condition("PodReadyToStartContainers", if sandbox { seen } else { frame.ready_since }, started),
        initialized,
        condition("Ready", frame.ready_since, containers.clone().or(gates)),
        condition("ContainersReady", frame.ready_since, containers),
    ])
}

fn container(frame: &Frame<'_>, spec: &Container, situation: &Situation) -> Value {
    let id = container_id(frame, spec, situation.restarts);
    let mut last = situation
        .last
        .as_ref()
        .map(|run| terminated(run, &container_id(frame, spec, situation.restarts.saturating_sub(1))));
    let state = match &situation.state {
        State::Refused(message) => {
            waiting("InvalidSimulation", format!("annotation {}: {message}", super::ANNOTATION))
        }
        State::ImageMissing { backing_off } => pull_failed(&spec.image, *backing_off),
        State::Running { since } => json!({ "running": { "startedAt": api_time(*since) } }),
        State::Waiting { last: run, wait } => {
            last = Some(terminated(run, &id));
            let Frame { pod, uid, .. } = frame;
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({uid})",
                go_duration(*wait),
                spec.name,
                pod.name,
                pod.namespace
            );
            waiting("CrashLoopBackOff", message)
        }
        State::Ended(run) => terminated(run, &id),
    };
    let started = situation.has_started();
    entry(
        spec,
        state,
        last,
        situation.ready,
        situation.restarts,
        started.then_some(id),
        matches!(situation.state, State::Running { .. }),
    )
}

/// Init containers have done their work, or, as sidecars, run on.
fn init_container(frame: &Frame<'_>, spec: &Container, situation: &Situation) -> Value {
    let seen = frame.pod.seen;
    let id = container_id(frame, spec, 0);
    let sidecar = spec.restart_policy.as_deref() == Some("Always");
    let ended = matches!(situation.state, State::Ended(_));
    let state = match sidecar && !ended {
        true => json!({ "running": { "startedAt": api_time(seen) } }),
        false => terminated(&Run { began: seen, ended: seen, code: 0 }, &id),
    };
    entry(spec, state, None, !sidecar || !ended, 0, Some(id), sidecar && !ended)
}

fn entry(
    spec: &Container,
    state: Value,
    last: Option<Value>,
    ready: bool,
    restarts: u32,
    id: Option<String>,
    started: bool,
) -> Value {
    let mut status = json!({
        "name": spec.name,
        "state": state,
        "lastState": last.unwrap_or_else(|| Value::Object(Map::new())),
        "ready": ready,
        "restartCount": restarts,
        "image": spec.image,
        "imageID": if id.is_some() { spec.image.as_str() } else { "" },
        "started": started,
    });
    if let Some(id) = id {
        status["containerID"] = Value::String(id);
    }
    status
}

fn container_id(frame: &Frame<'_>, spec: &Container, run: u32) -> String {
    format!("simulated://{}-{}-{run}", frame.uid, spec.name)
}

fn waiting(reason: &str, message: String) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn pull_failed(image: &str, backing_off: bool) -> Value {
    let missing = format!("failed to pull and unpack image \"{image}\": not found");
    if backing_off {
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {missing}");
        return waiting("ImagePullBackOff", message);
    }
    waiting("ErrImagePull", missing)
}

fn terminated(run: &Run, id: &str) -> Value {
    json!({ "terminated": {
        "exitCode": run.code,
        "reason": if run.code == 0 { "Completed" } else { "Error" },
        "startedAt": api_time(run.began),
        "finishedAt": api_time(run.ended),
        "containerID": id,
    } })
}
