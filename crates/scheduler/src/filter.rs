//! Which nodes can take a pod, and upstream's words for why the others cannot.

use crate::cluster::{NodeState, Wanted};
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use std::collections::BTreeMap;

/// Every reason why this node cannot take the pod; empty if it can.
pub fn refusals(pod: &Pod, wanted: &Wanted, node: &NodeState) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let node_spec = node.node.spec.as_ref();
    let unschedulable = node_spec.is_some_and(|spec| spec.unschedulable == Some(true));
    if unschedulable && !tolerates_unschedulable(tolerations) {
        return vec!["node(s) were unschedulable".into()];
    }
    let taints = node_spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    if let Some(taint) = untolerated(taints, tolerations) {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
    }
    if !matches_node_affinity(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".into()];
    }
    if wanted.host_ports.iter().any(|port| is_port_taken(port, node)) {
        return vec!["node(s) didn't have free ports for the requested pod ports".into()];
    }
    insufficient(wanted, node)
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. …`
pub fn message(nodes: usize, refusals: Vec<String>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for reason in refusals {
        *counts.entry(reason).or_default() += 1;
    }
    // As upstream does: sorted as text, the count first.
    let mut parts: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!(
        "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling.",
        parts.join(", ")
    )
}

/// `kubectl cordon`'s taint, which upstream checks also when only `spec.unschedulable` is set.
fn tolerates_unschedulable(tolerations: &[Toleration]) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    };
    tolerations.iter().any(|toleration| tolerates(toleration, &taint))
}

fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// As `v1.Toleration` documents it: an empty effect or key matches all.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn given(field: &Option<String>) -> Option<&str> {
        field.as_deref().filter(|text| !text.is_empty())
    }
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if given(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    match given(&toleration.operator) {
        Some("Exists") => true,
        None | Some("Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

fn matches_node_affinity(spec: &PodSpec, node: &NodeState) -> bool {
    let none = BTreeMap::new();
    let labels = node.node.metadata.labels.as_ref().unwrap_or(&none);
    if !spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| matches_term(term, labels, node.name()))
    })
}

/// A term without requirements matches nothing.
fn matches_term(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions
        .iter()
        .all(|expression| matches_requirement(expression, labels.get(&expression.key).map(String::as_str)))
        && fields.iter().all(|field| field.key == "metadata.name" && matches_requirement(field, Some(name)))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(|value| number(value));
        found.and_then(number).zip(bound).is_some_and(|(found, bound)| holds(found, bound))
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|found| values.iter().any(|value| value == found)),
        "NotIn" => found.is_none_or(|found| values.iter().all(|value| value != found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|found, bound| found > bound),
        "Lt" => compare(|found, bound| found < bound),
        _ => false,
    }
}

/// The same protocol and port, on an address that is the same or all.
fn is_port_taken((protocol, address, port): &(String, String, i32), node: &NodeState) -> bool {
    node.host_ports.keys().any(|(other_protocol, other_address, other_port)| {
        other_protocol == protocol
            && other_port == port
            && (address.is_empty() || other_address.is_empty() || address == other_address)
    })
}

fn insufficient(wanted: &Wanted, node: &NodeState) -> Vec<String> {
    let free = |name: &String| {
        node.allocatable.get(name).copied().unwrap_or(0) - node.taken.get(name).copied().unwrap_or(0)
    };
    let lacking = wanted.resources.iter().filter(|(name, amount)| **amount > 0 && **amount > free(name));
    lacking
        .map(|(name, _)| if name == "pods" { "Too many pods".into() } else { format!("Insufficient {name}") })
        .collect()
}
