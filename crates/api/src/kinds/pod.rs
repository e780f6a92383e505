//! `Pod` of core::v1.

use crate::field::Errors;
use crate::kind::{Column, Identity, Kind, Part, Subresources};
use crate::pod::print::NONE;
use crate::pod::{defaults, is_same, qos, status, validate, warnings};
use crate::table::{self, AGE, NAME, string, wide};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};
use serde_json::{Value, json};

/// What is particular to `Pod`.
pub struct PodKind;

impl Kind for PodKind {
    type Object = Pod;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Pod",
            plural: "pods",
            singular: "pod",
            short_names: &["po"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: false }
    }

    fn default(&self, pod: &mut Pod) {
        defaults::default_pod(pod);
    }

    fn prepare_create(&self, pod: &mut Pod) {
        let Some(spec) = pod.spec.as_mut() else { return };
        pod.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos::qos_class(spec).to_owned()),
            conditions: gated_condition(spec).map(|condition| vec![condition]),
            ..PodStatus::default()
        });
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod, part: Part) {
        match part {
            Part::Main => new.status.clone_from(&old.status),
            Part::Status => {
                new.spec.clone_from(&old.spec);
                // Kubelets send the whole pod back; who owns it is not theirs to say.
                new.metadata.owner_references.clone_from(&old.metadata.owner_references);
                new.metadata.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
                keep_qos_class(new, old);
            }
        }
    }

    fn spec_changed(&self, new: &Pod, old: &Pod) -> bool {
        !is_same(&new.spec, &old.spec)
    }

    fn validate_create(&self, pod: &Pod) -> Errors {
        validate::validate_pod_create(pod)
    }

    fn validate_update(&self, new: &Pod, old: &Pod, part: Part) -> Errors {
        match part {
            Part::Main => validate::validate_pod_update(new, old),
            Part::Status => validate::validate_pod_status_update(new, old),
        }
    }

    fn warnings(&self, pod: &Pod) -> Vec<String> {
        warnings::of_pod(pod)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        let summary = status::summarize(pod);
        let status = pod.status.as_ref();
        let address = status.and_then(|status| {
            let first = status.pod_ips.iter().flatten().next().map(|address| &address.ip);
            first.or(status.pod_ip.as_ref())
        });
        vec![
            table::name(&pod.metadata),
            json!(format!("{}/{}", summary.ready, summary.total)),
            json!(summary.status),
            json!(summary.restarts_cell(now)),
            table::age(&pod.metadata, now),
            json!(or_none(address)),
            json!(or_none(pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()))),
            json!(or_none(status.and_then(|status| status.nominated_node_name.as_ref()))),
            json!(readiness_gates(pod)),
        ]
    }

    fn selectable_fields(&self, pod: &Pod) -> Vec<(&'static str, String)> {
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let of_spec = |field: fn(&PodSpec) -> &Option<String>| {
            spec.and_then(|spec| field(spec).clone()).unwrap_or_default()
        };
        let of_status = |field: fn(&PodStatus) -> &Option<String>| {
            status.and_then(|status| field(status).clone()).unwrap_or_default()
        };
        let on_host = spec.and_then(|spec| spec.host_network).unwrap_or(false);
        vec![
            ("spec.nodeName", of_spec(|spec| &spec.node_name)),
            ("spec.restartPolicy", of_spec(|spec| &spec.restart_policy)),
            ("spec.schedulerName", of_spec(|spec| &spec.scheduler_name)),
            ("spec.serviceAccountName", of_spec(|spec| &spec.service_account_name)),
            ("spec.hostNetwork", on_host.to_string()),
            ("status.phase", of_status(|status| &status.phase)),
            ("status.podIP", of_status(|status| &status.pod_ip)),
            ("status.nominatedNodeName", of_status(|status| &status.nominated_node_name)),
        ]
    }

    /// What was asked for, else what the pod says; nobody waits for a pod that no node runs (0), and a
    /// negative period means the shortest one (1).
    fn deletion_grace_period(&self, pod: &Pod, requested: Option<i64>) -> Option<i64> {
        let spec = pod.spec.as_ref();
        let of_spec = || spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(0);
        let is_scheduled =
            spec.and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
        let is_finished = pod.status.as_ref().is_some_and(status::is_finished);
        Some(match requested.unwrap_or_else(of_spec) {
            _ if !is_scheduled || is_finished => 0,
            negative if negative < 0 => 1,
            period => period,
        })
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    string("Ready", "How many of the containers are ready for traffic."),
    string("Status", "The state of the pod, summed up over its containers."),
    string("Restarts", "How often containers were restarted, and when the last one was."),
    AGE,
    wide(string("IP", "The address of the pod (status.podIPs).")),
    wide(string("Node", "The node the pod is bound to (spec.nodeName).")),
    wide(string("Nominated Node", "The node where others make room for the pod (status.nominatedNodeName).")),
    wide(string(
        "Readiness Gates",
        "How many of the extra conditions for readiness hold (spec.readinessGates).",
    )),
];

fn or_none(text: Option<&String>) -> &str {
    text.map(String::as_str).filter(|text| !text.is_empty()).unwrap_or(NONE)
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let holds = |type_: &str| {
        conditions.iter().find(|condition| condition.type_ == type_).is_some_and(|c| c.status == "True")
    };
    format!("{}/{}", gates.iter().filter(|gate| holds(&gate.condition_type)).count(), gates.len())
}

/// A pod with scheduling gates says from the start why it is not scheduled.
fn gated_condition(spec: &PodSpec) -> Option<PodCondition> {
    spec.scheduling_gates.as_ref().filter(|gates| !gates.is_empty())?;
    Some(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    })
}

fn keep_qos_class(new: &mut Pod, old: &Pod) {
    let old_class = old.status.as_ref().and_then(|status| status.qos_class.clone());
    if let Some(status) = &mut new.status
        && status.qos_class.as_deref().unwrap_or_default().is_empty()
    {
        status.qos_class = old_class;
    }
}

#[cfg(test)]
mod tests;
