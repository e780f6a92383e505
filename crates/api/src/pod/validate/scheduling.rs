//! Where a pod may run: tolerations, affinity, spreading, gates.

use super::{all_invalid, list, one_of_if_given, text};
use crate::field::{self, Errors, Path};
use crate::name;
use crate::selector::validate_label_selector;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSchedulingGate,
    PodSpec, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use std::collections::BTreeSet;

const NOT_AN_OPERATOR: &str = "not a valid selector operator";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Everything wrong with the scheduling constraints of a pod.
pub(super) fn validate(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(affinity) = &spec.affinity {
        errors.extend(validate_affinity(affinity, &path.child("affinity")));
    }
    let at = path.child("readinessGates");
    for (index, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let at = at.index(index).child("conditionType");
        errors.extend(all_invalid(&at, &gate.condition_type, &name::qualified_name(&gate.condition_type)));
    }
    errors.extend(validate_gates(list(&spec.scheduling_gates), &path.child("schedulingGates")));
    let constraints = list(&spec.topology_spread_constraints);
    errors.extend(validate_spread(constraints, &path.child("topologySpreadConstraints")));
    errors.extend(validate_tolerations(list(&spec.tolerations), &path.child("tolerations")));
    errors
}

fn validate_gates(gates: &[PodSchedulingGate], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, gate) in gates.iter().enumerate() {
        let at = path.index(index);
        errors.extend(all_invalid(&at, &gate.name, &name::qualified_name(&gate.name)));
        if !seen.insert(&gate.name) {
            errors.push(field::duplicate(&at, &gate.name));
        }
    }
    errors
}

/// Everything wrong with tolerations.
pub(super) fn validate_tolerations(tolerations: &[Toleration], path: &Path) -> Errors {
    tolerations
        .iter()
        .enumerate()
        .flat_map(|(index, toleration)| validate_toleration(toleration, &path.index(index)))
        .collect()
}

fn validate_toleration(toleration: &Toleration, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
    let (operator_at, effect_at) = (path.child("operator"), path.child("effect"));
    if !key.is_empty() {
        errors.extend(all_invalid(&path.child("key"), key, &name::qualified_name(key)));
    } else if operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(field::invalid(&operator_at, operator, detail));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(field::invalid(&effect_at, effect, detail));
    }
    match operator {
        "" | "Equal" => {
            let wrong = name::label_value(value);
            if !wrong.is_empty() {
                errors.push(field::invalid(&operator_at, value, &wrong.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(field::invalid(&operator_at, value, detail));
        }
        "Exists" => {}
        other => errors.push(field::not_supported(&operator_at, other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.extend(one_of_if_given(&toleration.effect, &effects, &effect_at));
    }
    errors
}

fn validate_affinity(affinity: &Affinity, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(nodes) = &affinity.node_affinity {
        errors.extend(validate_node_affinity(nodes, &path.child("nodeAffinity")));
    }
    if let Some(pods) = &affinity.pod_affinity {
        let at = path.child("podAffinity");
        let required = list(&pods.required_during_scheduling_ignored_during_execution);
        errors.extend(validate_terms(required, &at.child(REQUIRED)));
        let preferred = list(&pods.preferred_during_scheduling_ignored_during_execution);
        errors.extend(validate_weighted(preferred, &at.child(PREFERRED)));
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let at = path.child("podAntiAffinity");
        let required = list(&pods.required_during_scheduling_ignored_during_execution);
        errors.extend(validate_terms(required, &at.child(REQUIRED)));
        let preferred = list(&pods.preferred_during_scheduling_ignored_during_execution);
        errors.extend(validate_weighted(preferred, &at.child(PREFERRED)));
    }
    errors
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let at = path.child(REQUIRED).child("nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            errors.push(field::required(&at, "must have at least one node selector term"));
        }
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            errors.extend(validate_node_term(term, true, &at.index(index)));
        }
    }
    let preferred = list(&affinity.preferred_during_scheduling_ignored_during_execution);
    for (index, term) in preferred.iter().enumerate() {
        let at = path.child(PREFERRED).index(index);
        errors.extend(validate_weight(term.weight, &at));
        errors.extend(validate_node_term(&term.preference, false, &at.child("preference")));
    }
    errors
}

fn validate_weight(weight: i32, path: &Path) -> Errors {
    if (1..=100).contains(&weight) {
        return Errors::new();
    }
    vec![field::invalid(&path.child("weight"), weight, "must be in the range 1-100")]
}

/// Values are checked where the term is required only; a preference that no node meets does no harm.
fn validate_node_term(term: &NodeSelectorTerm, is_required: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("matchExpressions");
    for (index, requirement) in list(&term.match_expressions).iter().enumerate() {
        errors.extend(validate_node_labels(requirement, is_required, &at.index(index)));
    }
    let at = path.child("matchFields");
    for (index, requirement) in list(&term.match_fields).iter().enumerate() {
        errors.extend(validate_node_fields(requirement, &at.index(index)));
    }
    errors
}

fn validate_node_labels(requirement: &NodeSelectorRequirement, is_required: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let values = list(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(field::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(field::forbidden(&at, detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(field::required(&at, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(field::invalid(&path.child("operator"), other, NOT_AN_OPERATOR)),
    }
    let key = &requirement.key;
    errors.extend(all_invalid(&path.child("key"), key, &name::qualified_name(key)));
    if is_required {
        for (index, value) in values.iter().enumerate() {
            errors.extend(all_invalid(&at.index(index), value, &name::label_value(value)));
        }
    }
    errors
}

/// The only field of a node to select by is its name.
fn validate_node_fields(requirement: &NodeSelectorRequirement, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let values = list(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(field::required(&at, detail));
        }
        other => errors.push(field::invalid(&path.child("operator"), other, NOT_AN_OPERATOR)),
    }
    if requirement.key != "metadata.name" {
        let detail = "not a valid field selector key";
        errors.push(field::invalid(&path.child("key"), &requirement.key, detail));
        return errors;
    }
    for (index, value) in values.iter().enumerate() {
        errors.extend(all_invalid(&at.index(index), value, &name::dns1123_subdomain(value)));
    }
    errors
}

fn validate_weighted(terms: &[WeightedPodAffinityTerm], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (index, term) in terms.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_weight(term.weight, &at));
        errors.extend(validate_term(&term.pod_affinity_term, &at.child("podAffinityTerm")));
    }
    errors
}

fn validate_terms(terms: &[PodAffinityTerm], path: &Path) -> Errors {
    terms.iter().enumerate().flat_map(|(index, term)| validate_term(term, &path.index(index))).collect()
}

fn validate_term(term: &PodAffinityTerm, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let selectors =
        [(&term.label_selector, "labelSelector"), (&term.namespace_selector, "namespaceSelector")];
    for (selector, field) in selectors {
        if let Some(selector) = selector {
            errors.extend(validate_label_selector(selector, &path.child(field)));
        }
    }
    for namespace in list(&term.namespaces) {
        errors.extend(all_invalid(&path.child("namespace"), namespace, &name::dns1123_label(namespace)));
    }
    errors.extend(validate_topology_key(&term.topology_key, path));
    errors
}

fn validate_topology_key(key: &str, path: &Path) -> Errors {
    let at = path.child("topologyKey");
    let mut errors = Errors::new();
    if key.is_empty() {
        errors.push(field::required(&at, "can not be empty"));
    }
    errors.extend(all_invalid(&at, key, &name::qualified_name(key)));
    errors
}

fn validate_spread(constraints: &[TopologySpreadConstraint], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_constraint(constraint, &at));
        let key = (&constraint.topology_key, &constraint.when_unsatisfiable);
        if !seen.insert(key) {
            let at = at.child("{topologyKey, whenUnsatisfiable}");
            errors.push(field::duplicate(&at, format!("{{{}, {}}}", key.0, key.1)));
        }
    }
    errors
}

fn validate_constraint(constraint: &TopologySpreadConstraint, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if constraint.max_skew <= 0 {
        let detail = "must be greater than zero";
        errors.push(field::invalid(&path.child("maxSkew"), constraint.max_skew, detail));
    }
    errors.extend(validate_topology_key(&constraint.topology_key, path));
    let action = constraint.when_unsatisfiable.as_str();
    if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
        let at = path.child("whenUnsatisfiable");
        errors.push(field::not_supported(&at, action, &["DoNotSchedule", "ScheduleAnyway"]));
    }
    if let Some(domains) = constraint.min_domains {
        let at = path.child("minDomains");
        if domains <= 0 {
            errors.push(field::invalid(&at, domains, "must be greater than zero"));
        }
        if action != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.push(field::invalid(&at, domains, &detail));
        }
    }
    let policies = [
        (&constraint.node_affinity_policy, "nodeAffinityPolicy"),
        (&constraint.node_taints_policy, "nodeTaintsPolicy"),
    ];
    for (policy, field) in policies {
        errors.extend(one_of_if_given(policy, &["Honor", "Ignore"], &path.child(field)));
    }
    if let Some(selector) = &constraint.label_selector {
        errors.extend(validate_label_selector(selector, &path.child("labelSelector")));
    }
    errors
}
