//! Everything that can be wrong with a pod or a pod template.
//!
//! One file per subject; this one has the entry points and the fields of the specification that belong to
//! no subject of their own.

mod container;
mod downward;
mod env;
mod mount;
mod network;
pub(crate) mod port;
mod probe;
mod projection;
mod resources;
mod scheduling;
mod security;
mod update;
mod volume;

pub use update::{validate_ephemeral_update, validate_pod_status_update, validate_pod_update};

use crate::field::{self, Errors, FieldError, Path};
use crate::meta;
use crate::name;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use std::collections::BTreeMap;

/// Everything wrong with a new pod beyond its metadata.
pub fn validate_pod_create(pod: &Pod) -> Errors {
    let path = Path::new("spec");
    let mut errors = validate_pod(pod);
    let Some(spec) = &pod.spec else { return errors };
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.push(field::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(field::forbidden(&path.child("nodeName"), detail));
    }
    errors
}

/// What must hold for a pod at any time.
fn validate_pod(pod: &Pod) -> Errors {
    let path = Path::new("spec");
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let annotations = pod.metadata.annotations.as_ref();
    let mut errors = validate_annotations(annotations, spec, &Path::new("metadata").child("annotations"));
    errors.extend(validate_spec(spec, true, &path));
    errors.extend(validate_images(&spec.containers, &path.child("containers")));
    errors.extend(validate_images(list(&spec.init_containers), &path.child("initContainers")));
    errors
}

/// Templates may have images with space around them, for old clients that fill them in later.
fn validate_images(containers: &[Container], path: &Path) -> Errors {
    containers
        .iter()
        .enumerate()
        .filter_map(|(index, container)| validate_image(container, &path.index(index)))
        .collect()
}

fn validate_image(container: &Container, path: &Path) -> Option<FieldError> {
    let image = text(&container.image);
    let detail = "must not have leading or trailing whitespace";
    (image.trim() != image).then(|| field::invalid(&path.child("image"), image, detail))
}

/// Everything wrong with a template at `path`.
pub fn validate_template(template: &PodTemplateSpec, path: &Path) -> Errors {
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let annotations = template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
    let mut errors = meta::validate_labels(labels, &path.child("labels"));
    errors.extend(meta::validate_annotations(annotations, &path.child("annotations")));
    errors.extend(validate_annotations(annotations, spec, &path.child("annotations")));
    errors.extend(validate_spec(spec, false, &path.child("spec")));
    if !list(&spec.ephemeral_containers).is_empty() {
        let at = path.child("spec").child("ephemeralContainers");
        errors.push(field::forbidden(&at, "ephemeral containers not allowed in pod template"));
    }
    errors
}

/// The annotation of pods that a kubelet made from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation that says which pod of a replica set goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotations with a meaning for pods.
fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    spec: &PodSpec,
    path: &Path,
) -> Errors {
    let mut errors = Errors::new();
    let Some(annotations) = annotations else { return errors };
    if let Some(value) = annotations.get(MIRROR)
        && text(&spec.node_name).is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(field::invalid(&path.key(MIRROR), value, detail));
    }
    if let Some(cost) = annotations.get(DELETION_COST) {
        let is_plain = cost == "0" || !cost.trim_start_matches('-').starts_with(['0', '+']);
        if cost.parse::<i32>().is_err() || !is_plain || cost.starts_with('+') {
            errors.push(field::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
        }
    }
    errors
}

/// Everything wrong with a pod specification; `in_pod` is false in templates.
fn validate_spec(spec: &PodSpec, in_pod: bool, path: &Path) -> Errors {
    let mut errors = volume::validate_volumes(list(&spec.volumes), &path.child("volumes"));
    errors.extend(container::validate_all(spec, path));
    errors.extend(port::validate_host_network(spec, in_pod, &path.child("containers")));
    let at = path.child("restartPolicy");
    errors.extend(one_of(&spec.restart_policy, &["Always", "OnFailure", "Never"], &at));
    errors.extend(network::validate_dns(spec, path));
    errors.extend(meta::validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector")));
    errors.extend(security::validate_pod(spec, path));
    errors.extend(scheduling::validate(spec, path));
    errors.extend(validate_names(spec, path));
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let at = path.child("activeDeadlineSeconds");
        errors.push(field::invalid(&at, seconds, "must be between 1 and 2147483647, inclusive"));
    }
    errors.extend(network::validate_host_aliases(list(&spec.host_aliases), &path.child("hostAliases")));
    if spec.preemption_policy.is_some() {
        let at = path.child("preemptionPolicy");
        errors.extend(one_of(&spec.preemption_policy, &["PreemptLowerPriority", "Never"], &at));
    }
    if let Some(os) = &spec.os {
        let at = path.child("os").child("name");
        errors.extend(one_of(&Some(os.name.clone()), &["linux", "windows"], &at));
    }
    errors
}

/// Names of other objects, and the pod's own in DNS.
fn validate_names(spec: &PodSpec, path: &Path) -> Errors {
    type Rule = fn(&str) -> Vec<String>;
    let checks: [(&Option<String>, &str, Rule); 6] = [
        (&spec.service_account_name, "serviceAccountName", name::dns1123_subdomain),
        (&spec.node_name, "nodeName", name::dns1123_subdomain),
        (&spec.hostname, "hostname", name::dns1123_label),
        (&spec.subdomain, "subdomain", name::dns1123_label),
        (&spec.priority_class_name, "priorityClassName", name::dns1123_subdomain),
        (&spec.runtime_class_name, "runtimeClassName", name::dns1123_subdomain),
    ];
    let mut errors = Errors::new();
    for (value, field, rule) in checks {
        let value = text(value);
        if !value.is_empty() {
            errors.extend(all_invalid(&path.child(field), value, &rule(value)));
        }
    }
    errors
}

/// The text, empty when there is none.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// The items, none when there is no list.
pub(crate) fn list<T>(items: &Option<Vec<T>>) -> &[T] {
    items.as_deref().unwrap_or_default()
}

/// One error for each thing wrong with a value.
pub(crate) fn all_invalid(path: &Path, value: &str, wrong: &[String]) -> Errors {
    wrong.iter().map(|detail| field::invalid(path, value, detail)).collect()
}

/// Complains about a value that is not given or not among the supported ones.
pub(crate) fn one_of(value: &Option<String>, supported: &[&str], path: &Path) -> Option<FieldError> {
    match text(value) {
        "" => Some(field::required(path, "")),
        known if supported.contains(&known) => None,
        other => Some(field::not_supported(path, other, supported)),
    }
}

/// The same for a value that need not be given.
pub(crate) fn one_of_if_given(value: &Option<String>, supported: &[&str], path: &Path) -> Option<FieldError> {
    let value = value.as_deref()?;
    (!supported.contains(&value)).then(|| field::not_supported(path, value, supported))
}

#[cfg(test)]
mod tests;
