//! What Deployments, ReplicaSets and ReplicationControllers have in common: a selector, a template whose
//! labels match it, and counts of pods.

use super::{is_same, validate};
use crate::field::{self, Errors, FieldError, Path};
use crate::meta::IMMUTABLE;
use crate::selector::{Selector, validate_label_selector};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;
use std::collections::BTreeMap;

/// Upstream's words for a number that is negative.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Complains about a negative number; nothing given is fine.
pub(crate) fn not_negative<N: Into<i64> + Copy + Serialize>(
    number: Option<N>,
    path: &Path,
) -> Option<FieldError> {
    let number = number?;
    (number.into() < 0).then(|| field::invalid(path, number, NOT_NEGATIVE))
}

/// A selector as `/scale` and the SELECTOR cell of deployments show it; empty when it cannot be read.
pub(crate) fn selector_text(selector: &LabelSelector) -> String {
    Selector::from_label_selector(selector).map(|selector| selector.to_string()).unwrap_or_default()
}

/// `selector` and `template` below `path`, for kinds of apps/v1: the selector must be given, be readable
/// and match the labels of the template.
pub(crate) fn validate_selected_template(
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    path: &Path,
) -> Errors {
    let at = path.child("selector");
    let mut errors = validate_label_selector(selector, &at);
    let is_missing = selector.match_labels.is_none() && selector.match_expressions.is_none();
    if is_missing {
        errors.push(field::required(&at, ""));
    } else if is_empty(selector) {
        errors.push(field::invalid(&at, selector, "empty selector is invalid for deployment"));
    }
    let readable = Selector::from_label_selector(selector);
    if readable.is_err() {
        errors.push(field::invalid(&at, selector, "invalid label selector"));
        return errors;
    }
    let at = path.child("template");
    let Some(template) = template else {
        errors.push(field::required(&at, ""));
        return errors;
    };
    let no_labels = BTreeMap::new();
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref()).unwrap_or(&no_labels);
    if is_missing || readable.is_ok_and(|selector| !selector.matches(labels)) {
        errors.push(selector_mismatch(template, &at));
    }
    errors.extend(validate_template(template, "ReplicaSet", &at));
    errors
}

/// Complains about a selector that changed: the pods of the old one would be orphans.
pub(crate) fn validate_same_selector(
    new: &LabelSelector,
    old: &LabelSelector,
    path: &Path,
) -> Option<FieldError> {
    (!is_same(new, old)).then(|| field::invalid(path, new, IMMUTABLE))
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// The error for a template whose labels the selector does not match.
pub(crate) fn selector_mismatch(template: &PodTemplateSpec, path: &Path) -> FieldError {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let at = path.child("metadata").child("labels");
    field::invalid(&at, labels, "`selector` does not match template `labels`")
}

/// Everything wrong with a template whose pods are kept running by a controller named `kind` in messages.
pub(crate) fn validate_template(template: &PodTemplateSpec, kind: &str, path: &Path) -> Errors {
    let mut errors = validate::validate_template(template, path);
    let Some(spec) = &template.spec else { return errors };
    let at = path.child("spec");
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if policy != "Always" {
        errors.push(field::not_supported(&at.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(field::forbidden(&at.child("activeDeadlineSeconds"), &detail));
    }
    errors
}

/// Counts of pods in a status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// `replicas`.
    pub(crate) replicas: i32,
    /// `readyReplicas`.
    pub(crate) ready: i32,
    /// `availableReplicas`.
    pub(crate) available: i32,
}

const MORE_THAN_REPLICAS: &str = "cannot be greater than status.replicas";

/// Everything wrong with the counts of a status at `path`.
pub(crate) fn validate_counts(counts: Counts, observed: Option<i64>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (ready, available) = (path.child("readyReplicas"), path.child("availableReplicas"));
    errors.extend(not_negative(Some(counts.replicas), &path.child("replicas")));
    errors.extend(not_negative(Some(counts.ready), &ready));
    errors.extend(not_negative(Some(counts.available), &available));
    errors.extend(not_negative(observed, &path.child("observedGeneration")));
    if counts.ready > counts.replicas {
        errors.push(field::invalid(&ready, counts.ready, MORE_THAN_REPLICAS));
    }
    if counts.available > counts.replicas {
        errors.push(field::invalid(&available, counts.available, MORE_THAN_REPLICAS));
    }
    if counts.available > counts.ready {
        errors.push(field::invalid(&available, counts.available, "cannot be greater than readyReplicas"));
    }
    errors
}

/// Everything wrong with `fullyLabeledReplicas`.
pub(crate) fn validate_labeled(labeled: Option<i32>, counts: Counts, path: &Path) -> Errors {
    let at = path.child("fullyLabeledReplicas");
    let mut errors: Errors = not_negative(labeled, &at).into_iter().collect();
    if labeled.unwrap_or(0) > counts.replicas {
        errors.push(field::invalid(&at, labeled, MORE_THAN_REPLICAS));
    }
    errors
}
