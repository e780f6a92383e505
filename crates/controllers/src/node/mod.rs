//! Nodes: which ones answer, and what becomes of the pods on those that do not.
//!
//! * [`heartbeat`]: when each node was last heard of.
//! * [`lifecycle`]: a silent node's conditions, and its pods' readiness.
//! * [`taints`]: the taints that follow from the conditions.
//! * [`eviction`]: pods that do not tolerate a node's `NoExecute` taints.
//! * [`pod_gc`]: pods nobody will ever look after again.

pub mod eviction;
pub mod heartbeat;
pub mod lifecycle;
pub mod pod_gc;
pub mod taints;

use crate::pod::Sketch;
use k8s_openapi::api::core::v1::{Node, NodeCondition, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Its condition of this type.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether its `Ready` condition is true.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// `spec.taints`.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// `namespace/name`.
fn full_name(pod: &Sketch) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The condition that says that the pod does not end by itself.
fn disruption(reason: &str, message: &str, now: jiff::Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}
