//! Pods.

use super::{Writer, containers, date, events};
use crate::context::Context;
use crate::failure::Outcome;
use crate::object::{self, list, number, text};
use crate::printers::table::age;
use serde_json::Value;

/// Describes a pod.
pub(super) async fn describe(context: &Context, pod: &Value, writer: &mut Writer) -> Outcome {
    writer.field(0, "Name", object::name(pod));
    writer.field(0, "Namespace", object::namespace(pod));
    if let Some(priority) = pod["spec"]["priority"].as_i64() {
        writer.field(0, "Priority", priority);
    }
    for (label, field) in [
        ("Priority Class Name", "/spec/priorityClassName"),
        ("Runtime Class Name", "/spec/runtimeClassName"),
        ("Service Account", "/spec/serviceAccountName"),
    ] {
        if !text(pod, field).is_empty() {
            writer.field(0, label, text(pod, field));
        }
    }
    match text(pod, "/spec/nodeName") {
        "" => writer.field(0, "Node", "<none>"),
        node => writer.field(0, "Node", format!("{node}/{}", text(pod, "/status/hostIP"))),
    }
    if !text(pod, "/status/startTime").is_empty() {
        writer.field(0, "Start Time", date(text(pod, "/status/startTime")));
    }
    writer.labels("Labels", &object::labels(pod));
    writer.annotations("Annotations", &object::strings(pod, "/metadata/annotations"));
    let deleted = text(pod, "/metadata/deletionTimestamp");
    let phase = text(pod, "/status/phase");
    if !deleted.is_empty() && !matches!(phase, "Failed" | "Succeeded") {
        writer.field(0, "Status", format!("Terminating (lasts {})", age(deleted)));
        let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
        writer.field(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        writer.field(0, "Status", phase);
    }
    for (label, field) in [
        ("Reason", "/status/reason"),
        ("Message", "/status/message"),
        ("SeccompProfile", "/spec/securityContext/seccompProfile/type"),
    ] {
        if !text(pod, field).is_empty() {
            writer.field(0, label, text(pod, field));
        }
    }
    addresses(writer, pod);
    if let Some(owner) = object::controller(pod) {
        writer.field(0, "Controlled By", format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    if !text(pod, "/status/nominatedNodeName").is_empty() {
        writer.field(0, "NominatedNodeName", text(pod, "/status/nominatedNodeName"));
    }
    for (label, kind, status) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
        ("Ephemeral Containers", "/spec/ephemeralContainers", "/status/ephemeralContainerStatuses"),
    ] {
        let all = list(pod, kind);
        if label == "Containers" || !all.is_empty() {
            containers::containers(writer, label, all, list(pod, status), Some(pod), "");
        }
    }
    let conditions = list(pod, "/status/conditions");
    if !conditions.is_empty() {
        writer.line(0, "Conditions:\n  Type\tStatus");
        for condition in conditions {
            writer.line(1, &format!("{} \t{} ", text(condition, "/type"), text(condition, "/status")));
        }
    }
    containers::volumes(writer, list(pod, "/spec/volumes"), "");
    writer.field(0, "QoS Class", text(pod, "/status/qosClass"));
    writer.labels("Node-Selectors", &object::strings(pod, "/spec/nodeSelector"));
    containers::tolerations(writer, "Tolerations", list(pod, "/spec/tolerations"));
    writer.events(events(context, pod, false).await?.as_deref());
    Ok(())
}

fn addresses(writer: &mut Writer, pod: &Value) {
    writer.field(0, "IP", text(pod, "/status/podIP"));
    let all = list(pod, "/status/podIPs");
    if all.is_empty() {
        writer.field(0, "IPs", "<none>");
        return;
    }
    writer.line(0, "IPs:");
    all.iter().for_each(|ip| writer.field(1, "IP", text(ip, "/ip")));
}
