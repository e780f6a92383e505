//! What may change in a pod once it exists.

use super::scheduling::validate_tolerations;
use super::{MIRROR, all_invalid, list, text, validate_pod};
use crate::address;
use crate::field::{self, Errors, FieldError, Path};
use crate::meta;
use crate::name;
use crate::pod::is_same;
use crate::pod::status::is_sidecar;
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerStatus, NodeAffinity, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec,
    PodStatus, Toleration,
};
use serde_json::Value;
use std::collections::BTreeMap;

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Everything wrong with a change of a pod.
pub fn validate_pod_update(new: &Pod, old: &Pod) -> Errors {
    let mut errors = validate_pod(new);
    errors.extend(validate_mirror(new, old));
    let (empty, path) = (PodSpec::default(), Path::new("spec"));
    let (new, old) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let lists = [
        (new.containers.as_slice(), old.containers.as_slice(), "containers"),
        (list(&new.init_containers), list(&old.init_containers), "initContainers"),
    ];
    for (new, old, field) in lists {
        if new.len() != old.len() {
            errors.push(field::forbidden(&path.child(field), "pod updates may not add or remove containers"));
            return errors;
        }
    }
    match validate_deadline(new.active_deadline_seconds, old.active_deadline_seconds, &path) {
        Err(fatal) => {
            errors.push(fatal);
            return errors;
        }
        Ok(error) => errors.extend(error),
    }
    let tolerations = (list(&new.tolerations), list(&old.tolerations));
    errors.extend(validate_added_tolerations(tolerations.0, tolerations.1, &path.child("tolerations")));
    let gates = (list(&new.scheduling_gates), list(&old.scheduling_gates));
    errors.extend(validate_removed_gates(gates.0, gates.1, &path.child("schedulingGates")));
    if !is_same(new, old) {
        errors.extend(validate_rest(new, old, &path));
    }
    errors
}

fn validate_mirror(new: &Pod, old: &Pod) -> Option<FieldError> {
    let of = |pod: &Pod| pod.metadata.annotations.as_ref().and_then(|all| all.get(MIRROR).cloned());
    let at = Path::new("metadata").child("annotations").key(MIRROR);
    match (of(new), of(old)) {
        (new, Some(old)) if new.as_ref() != Some(&old) => {
            Some(field::forbidden(&at, "may not remove or update mirror pod annotation"))
        }
        (Some(_), None) => Some(field::forbidden(&at, "may not add mirror pod annotation")),
        _ => None,
    }
}

/// A deadline may be set, or come closer. An error ends the checks where upstream ends them.
fn validate_deadline(
    new: Option<i64>,
    old: Option<i64>,
    path: &Path,
) -> Result<Option<FieldError>, FieldError> {
    let at = path.child("activeDeadlineSeconds");
    match (new, old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            Err(field::invalid(&at, new, "must be between 0 and 2147483647, inclusive"))
        }
        (Some(new), Some(old)) if old < new => {
            Err(field::invalid(&at, new, "must be less than or equal to previous value"))
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            Ok(Some(field::invalid(&at, Value::Null, detail)))
        }
        _ => Ok(None),
    }
}

fn validate_added_tolerations(new: &[Toleration], old: &[Toleration], path: &Path) -> Errors {
    let is_kept = |old: &Toleration| {
        let like = |new: &Toleration| {
            Toleration { toleration_seconds: new.toleration_seconds, ..old.clone() } == *new
        };
        new.iter().any(like)
    };
    if !old.iter().all(is_kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return vec![field::forbidden(path, detail)];
    }
    validate_tolerations(new, path)
}

fn validate_removed_gates(new: &[PodSchedulingGate], old: &[PodSchedulingGate], path: &Path) -> Errors {
    let is_new = |gate: &PodSchedulingGate| !old.contains(gate);
    let added = new.iter().enumerate().filter(|(_, gate)| is_new(gate));
    added
        .map(|(index, gate)| {
            let name = &gate.name;
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            field::forbidden(&path.index(index).child("name"), &detail)
        })
        .collect()
}

/// Puts back what may change and was checked, then compares.
fn validate_rest(new: &PodSpec, old: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut rest = new.clone();
    restore_images(&mut rest.containers, &old.containers);
    if let (Some(containers), Some(old)) = (&mut rest.init_containers, &old.init_containers) {
        restore_images(containers, old);
    }
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if was_negative && rest.termination_grace_period_seconds == Some(1) {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if !list(&old.scheduling_gates).is_empty() {
        errors.extend(validate_gated(&mut rest, old, path));
    }
    if !is_same(&rest, old) {
        let differences = differences(&rest, old).join("\n");
        errors.push(field::forbidden(path, &format!("{MAY_CHANGE}\n{differences}\n")));
    }
    errors
}

fn restore_images(containers: &mut [Container], old: &[Container]) {
    for (container, old) in containers.iter_mut().zip(old) {
        container.image.clone_from(&old.image);
    }
}

/// While gates hold a pod, where it may run can be narrowed.
fn validate_gated(rest: &mut PodSpec, old: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let nothing = BTreeMap::new();
    let selector = rest.node_selector.as_ref().unwrap_or(&nothing);
    let mut kept = old.node_selector.iter().flatten();
    if !kept.all(|(key, value)| selector.get(key) == Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(field::invalid(&path.child("nodeSelector"), selector, detail));
    }
    rest.node_selector.clone_from(&old.node_selector);
    let of = |affinity: &Option<Affinity>| affinity.as_ref().and_then(|all| all.node_affinity.clone());
    let at = path.child("affinity").child("nodeAffinity");
    errors.extend(validate_narrowed(of(&rest.affinity).as_ref(), of(&old.affinity).as_ref(), &at));
    if let Some(affinity) = &mut rest.affinity {
        affinity.node_affinity = of(&old.affinity);
        if old.affinity.is_none() && *affinity == Affinity::default() {
            rest.affinity = None;
        }
    } else if let Some(node_affinity) = of(&old.affinity) {
        rest.affinity = Some(Affinity { node_affinity: Some(node_affinity), ..Affinity::default() });
    }
    errors
}

fn validate_narrowed(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, path: &Path) -> Errors {
    let terms = |affinity: Option<&NodeAffinity>| -> Vec<NodeSelectorTerm> {
        let required =
            affinity.and_then(|all| all.required_during_scheduling_ignored_during_execution.clone());
        required.map(|required| required.node_selector_terms).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if old.is_empty() {
        return Errors::new();
    }
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![field::invalid(&at, new, detail)];
    }
    let changed = new.iter().zip(&old).enumerate().filter(|(_, (new, old))| !is_narrower(new, old));
    let detail = "only additions are allowed (no mutations or deletions)";
    changed.map(|(index, (new, _))| field::invalid(&at.index(index), new, detail)).collect()
}

fn is_narrower(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let (labels, fields) = (list(&old.match_expressions), list(&old.match_fields));
    if labels.is_empty() && fields.is_empty() {
        // A term without requirements matches nothing; with some it would match something.
        return list(&new.match_expressions).is_empty() && list(&new.match_fields).is_empty();
    }
    list(&new.match_expressions).starts_with(labels) && list(&new.match_fields).starts_with(fields)
}

/// The fields that differ, as `-` and `+` lines.
fn differences(new: &PodSpec, old: &PodSpec) -> Vec<String> {
    let tree = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut lines = Vec::new();
    compare(&tree(old), &tree(new), "spec", &mut lines);
    lines
}

fn compare(old: &Value, new: &Value, path: &str, lines: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&of(old), &of(new), &format!("{path}.{key}"), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(old, new, &format!("{path}[{index}]"), lines);
            }
        }
        _ => {
            let sides = [("-", old), ("+", new)].into_iter().filter(|(_, value)| !value.is_null());
            lines.extend(sides.map(|(sign, value)| format!("{sign} {path}: {value}")));
        }
    }
}

/// Everything wrong with a change of a pod's ephemeral containers: they can be added, and nothing else.
pub fn validate_ephemeral_update(new: &Pod, old: &Pod) -> Errors {
    let mut errors = validate_pod(new);
    let at = Path::new("spec").child("ephemeralContainers");
    let of =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let after = of(new);
    for before in of(old) {
        let detail = match after.iter().find(|after| after.name == before.name) {
            None => format!("existing ephemeral containers {:?} may not be removed\n", before.name),
            Some(after) if !is_same(after, &before) => {
                format!("existing ephemeral containers {:?} may not be changed\n", before.name)
            }
            Some(_) => continue,
        };
        errors.push(field::forbidden(&at, &detail));
    }
    errors
}

/// Everything wrong with a change of a pod's status.
pub fn validate_pod_status_update(new: &Pod, old: &Pod) -> Errors {
    let empty = (PodSpec::default(), PodStatus::default());
    let spec = old.spec.as_ref().unwrap_or(&empty.0);
    let (new, old) = (new.status.as_ref().unwrap_or(&empty.1), old.status.as_ref().unwrap_or(&empty.1));
    let path = Path::new("status");
    let mut errors = validate_conditions(new);
    let nominated = text(&new.nominated_node_name);
    if new.nominated_node_name != old.nominated_node_name && !nominated.is_empty() {
        let at = path.child("nominatedNodeName");
        errors.extend(all_invalid(&at, nominated, &name::dns1123_subdomain(nominated)));
    }
    errors.extend(meta::immutable(&new.qos_class, &old.qos_class, &path.child("qosClass")));
    errors.extend(validate_containers_stay_ended(new, old, spec, &path));
    for (index, address) in list(&new.pod_ips).iter().enumerate() {
        errors.extend(address::validate_ip(&address.ip, &path.child("podIPs").index(index)));
    }
    errors.extend(validate_host_ips(new, &path));
    errors
}

fn validate_conditions(status: &PodStatus) -> Errors {
    let mut errors = Errors::new();
    for (index, condition) in list(&status.conditions).iter().enumerate() {
        // Upstream names the metadata here.
        let at = Path::new("metadata").child("conditions").index(index).child("Type");
        errors.extend(all_invalid(&at, &condition.type_, &name::qualified_name(&condition.type_)));
    }
    errors
}

fn validate_host_ips(status: &PodStatus, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("hostIPs");
    let addresses = list(&status.host_ips);
    if let Some(first) = addresses.first()
        && first.ip != text(&status.host_ip)
    {
        errors.push(field::invalid(&at.index(0).child("ip"), &first.ip, "must be equal to `hostIP`"));
    }
    for (index, address) in addresses.iter().enumerate() {
        errors.extend(address::validate_ip(&address.ip, &at.index(index)));
    }
    errors
}

/// A container that ended and is not to be restarted does not run again.
fn validate_containers_stay_ended(new: &PodStatus, old: &PodStatus, spec: &PodSpec, path: &Path) -> Errors {
    let policy = text(&spec.restart_policy);
    let mut errors = Errors::new();
    let at = path.child("containerStatuses");
    errors.extend(stay_ended(list(&new.container_statuses), list(&old.container_statuses), policy, &at));
    let is_restarted = |status: &&ContainerStatus| {
        list(&spec.init_containers).iter().any(|c| c.name == status.name && is_sidecar(c))
    };
    let old_init: Vec<ContainerStatus> = list(&old.init_container_statuses)
        .iter()
        .map(|status| match is_restarted(&status) {
            true => ContainerStatus { state: None, ..status.clone() },
            false => status.clone(),
        })
        .collect();
    let at = path.child("initContainerStatuses");
    errors.extend(stay_ended(list(&new.init_container_statuses), &old_init, policy, &at));
    let at = path.child("ephemeralContainerStatuses");
    let ephemeral = (list(&new.ephemeral_container_statuses), list(&old.ephemeral_container_statuses));
    errors.extend(stay_ended(ephemeral.0, ephemeral.1, "Never", &at));
    errors
}

fn stay_ended(new: &[ContainerStatus], old: &[ContainerStatus], policy: &str, path: &Path) -> Errors {
    let end = |status: &ContainerStatus| status.state.as_ref().and_then(|state| state.terminated.clone());
    let mut errors = Errors::new();
    if policy == "Always" {
        return errors;
    }
    for (index, before) in old.iter().enumerate() {
        let Some(run) = end(before) else { continue };
        let may_restart = run.exit_code != 0 && policy == "OnFailure";
        let runs_again = new.iter().any(|after| after.name == before.name && end(after).is_none());
        if runs_again && !may_restart {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(field::forbidden(&path.index(index).child("state"), detail));
        }
    }
    errors
}
