//! `status` of a pod, as upstream computes it, and the patch that brings the API up to date. Pure.

use super::snapshot::{ContainerFacts, PodSnapshot, RestartPolicy, is_sidecar};
use super::{conditions, container_status, qos};
use crate::clock::{api_time, later};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use serde_json::{Map, Value, json};

/// The status the API should show at `now`. Begins from what it shows, so that fields of others stay.
pub(crate) fn compute(snapshot: &PodSnapshot, now: Timestamp) -> PodStatus {
    let mut status = snapshot.known_status().cloned().unwrap_or_default();
    if snapshot.spec().is_none() || snapshot.removed {
        return status;
    }
    if let Some(refusal) = &snapshot.refused {
        status.phase = Some("Failed".into());
        status.reason = Some(refusal.reason.into());
        status.message = Some(refusal.status_message());
        status.start_time.get_or_insert_with(|| api_time(snapshot.seen));
        status.qos_class.get_or_insert_with(|| qos::class(&snapshot.pod).as_str().into());
        return status;
    }
    let mut mains: Vec<ContainerStatus> = snapshot
        .main_containers()
        .iter()
        .map(|spec| container_status::compute(snapshot, spec, now))
        .collect();
    let mut inits: Vec<ContainerStatus> = snapshot
        .init_containers()
        .iter()
        .map(|spec| container_status::compute(snapshot, spec, now))
        .collect();
    let mut ephemeral: Vec<ContainerStatus> =
        snapshot.ephemeral.iter().map(|spec| ephemeral_status(snapshot, spec, now)).collect();
    mains.sort_by(|a, b| a.name.cmp(&b.name));
    if !is_over(&status) {
        status.phase = Some(phase(snapshot, &inits, &mains).into());
        if is_past_deadline(snapshot, now) && status.phase.as_deref() != Some("Succeeded") {
            status.phase = Some("Failed".into());
            let (reason, message) = super::messages::DEADLINE;
            status.reason = Some(reason.into());
            status.message = Some(message.into());
        }
        if let Some(message) = &snapshot.evicted {
            status.phase = Some("Failed".into());
            status.reason = Some("Evicted".into());
            status.message = Some(message.clone());
        }
    }
    let mut all: Vec<&mut ContainerStatus> = mains.iter_mut().chain(&mut inits).collect();
    all.extend(&mut ephemeral);
    shorten_messages(&mut all);
    status.container_statuses = Some(mains);
    status.init_container_statuses = Some(inits).filter(|inits| !inits.is_empty());
    status.ephemeral_container_statuses = Some(ephemeral).filter(|ephemeral| !ephemeral.is_empty());
    addresses(snapshot, &mut status);
    status.start_time.get_or_insert_with(|| api_time(snapshot.seen));
    status.qos_class.get_or_insert_with(|| qos::class(&snapshot.pod).as_str().into());
    conditions::apply(snapshot, &mut status, now);
    status
}

/// Gives each container its share of what the termination messages of a pod may have in all.
///
/// Example: of 12 KiB each of four containers may use 3 KiB; a message of 4 KiB loses the last one.
fn shorten_messages(all: &mut [&mut ContainerStatus]) {
    const MOST: usize = 12 * 1024;
    let share = MOST / all.len().max(1);
    for status in all {
        let states = [&mut status.state, &mut status.last_state];
        let ended = states.into_iter().flatten().filter_map(|state| state.terminated.as_mut());
        for message in
            ended.filter_map(|ended| ended.message.as_mut()).filter(|message| message.len() > share)
        {
            let cut = (0..=share).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
        }
    }
}

/// Nobody waits for an ephemeral container, so it never counts as started.
fn ephemeral_status(snapshot: &PodSnapshot, spec: &Container, now: Timestamp) -> ContainerStatus {
    ContainerStatus { started: None, ..container_status::compute(snapshot, spec, now) }
}

/// Whether the phase is one that no pod leaves.
pub(crate) fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// When `spec.activeDeadlineSeconds` ends the pod.
pub(crate) fn active_deadline(snapshot: &PodSnapshot) -> Option<Timestamp> {
    let seconds = snapshot.spec()?.active_deadline_seconds?;
    let began = snapshot.known_status().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    Some(later(began.unwrap_or(snapshot.seen), super::termination::seconds(seconds)))
}

fn is_past_deadline(snapshot: &PodSnapshot, now: Timestamp) -> bool {
    active_deadline(snapshot).is_some_and(|deadline| deadline <= now)
}

fn addresses(snapshot: &PodSnapshot, status: &mut PodStatus) {
    if let Some(first) = snapshot.host_ips.first() {
        status.host_ip = Some(first.to_string());
        status.host_ips = Some(snapshot.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    }
    let own = snapshot.ready_sandbox().and_then(|sandbox| {
        let host = snapshot.host_network().then(|| snapshot.host_ips.first().copied()).flatten();
        sandbox.address.or(host)
    });
    if let Some(own) = own {
        status.pod_ip = Some(own.to_string());
        status.pod_ips = Some(vec![PodIP { ip: own.to_string() }]);
    }
}

/// How many containers are where.
#[derive(Default)]
struct Counts {
    waiting: usize,
    running: usize,
    succeeded: usize,
    failed: usize,
}

impl Counts {
    fn add(&mut self, status: &ContainerStatus) {
        let exit = |state: &Option<ContainerState>| {
            state.as_ref().and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code)
        };
        let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        // A container that waits for its restart counts by how its last run ended.
        match exit(&status.state).or_else(|| exit(&status.last_state)) {
            _ if is_running => self.running += 1,
            Some(0) => self.succeeded += 1,
            Some(_) => self.failed += 1,
            None => self.waiting += 1,
        }
    }
}

/// `status.phase` by the rules of upstream's `getPhase`.
fn phase(snapshot: &PodSnapshot, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> &'static str {
    let policy = snapshot.restart_policy();
    let is_main_begun = mains.iter().any(|main| main.container_id.is_some());
    let mut pending_init = false;
    for (status, spec) in inits.iter().zip(snapshot.init_containers()) {
        let exit = status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|it| it.exit_code);
        match exit {
            _ if is_sidecar(spec) => pending_init |= status.started != Some(true) && !is_main_begun,
            Some(0) => {}
            Some(_) if policy == RestartPolicy::Never => return "Failed",
            _ => pending_init |= !is_main_begun,
        }
    }
    let mut counts = Counts::default();
    mains.iter().for_each(|main| counts.add(main));
    let ends = snapshot.termination.is_some() && !snapshot.is_anything_alive();
    // What a probe had stopped is about to start again, even if it exited as if all was well.
    let is_unwell = |main: &Container| snapshot.facts(&main.name).is_some_and(ContainerFacts::was_unwell);
    let restarts = policy != RestartPolicy::Never && snapshot.main_containers().iter().any(is_unwell);
    match counts {
        Counts { running: 0, failed: 0, succeeded, waiting: 0 } if succeeded > 0 && ends => "Succeeded",
        Counts { running: 0, .. } if ends && (counts.failed > 0 || is_main_begun) => "Failed",
        _ if pending_init => "Pending",
        Counts { waiting: 1.., .. } => "Pending",
        Counts { running: 1.., .. } => "Running",
        _ if restarts || policy == RestartPolicy::Always => "Running",
        Counts { failed: 0, succeeded: 1.., .. } => "Succeeded",
        _ if policy == RestartPolicy::Never => "Failed",
        _ => "Running",
    }
}

/// A strategic merge patch with what `wanted` has different from the object, guarded by its uid; None if
/// nothing is.
pub(crate) fn patch(pod: &Pod, wanted: &PodStatus) -> Option<Value> {
    let known = object(serde_json::to_value(pod.status.clone().unwrap_or_default()).ok()?);
    let wanted = object(serde_json::to_value(wanted).ok()?);
    let mut changes = Map::new();
    for (key, value) in &wanted {
        let before = known.get(key);
        if before == Some(value) {
            continue;
        }
        let change = match key.as_str() {
            "conditions" => changed_items(before, value, "type"),
            "podIPs" | "hostIPs" if before.is_some() => replacing(value),
            _ => value.clone(),
        };
        // Order is the server's: the same conditions in another order are no change.
        if !matches!(&change, Value::Array(items) if items.is_empty() && before.is_some()) {
            changes.insert(key.clone(), change);
        }
    }
    for key in known.keys().filter(|key| !wanted.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Items of a list merged by `key` that are new or changed, with null for fields that went.
fn changed_items(before: Option<&Value>, after: &Value, key: &str) -> Value {
    let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
    let after = after.as_array().cloned().unwrap_or_default();
    let changed = after.into_iter().filter_map(|mut item| {
        let old = before.iter().find(|old| old.get(key) == item.get(key));
        if old == Some(&item) {
            return None;
        }
        let gone: Vec<String> = old
            .and_then(Value::as_object)
            .map(|old| old.keys().filter(|name| item.get(name.as_str()).is_none()).cloned().collect())
            .unwrap_or_default();
        for name in gone {
            item[name] = Value::Null;
        }
        Some(item)
    });
    Value::Array(changed.collect())
}

/// A list that takes the place of the old one instead of being merged into it.
fn replacing(value: &Value) -> Value {
    let mut items = vec![json!({ "$patch": "replace" })];
    items.extend(value.as_array().cloned().unwrap_or_default());
    Value::Array(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ContainerStateTerminated;

    #[test]
    fn messages_of_many_containers_share_twelve_kilobytes() {
        let ended = ContainerStateTerminated { message: Some("é".repeat(2048)), ..Default::default() };
        let state = ContainerState { terminated: Some(ended), ..Default::default() };
        let mut all = vec![ContainerStatus { state: Some(state), ..Default::default() }; 4];
        shorten_messages(&mut all.iter_mut().collect::<Vec<_>>());
        let length = |status: &ContainerStatus| {
            status.state.as_ref()?.terminated.as_ref()?.message.as_ref().map(String::len)
        };
        assert!(all.iter().all(|status| length(status) == Some(3072)));
        let mut one = [all[0].clone()];
        shorten_messages(&mut one.iter_mut().collect::<Vec<_>>());
        assert_eq!(length(&one[0]), Some(3072));
    }
}
