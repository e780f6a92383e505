//! Containers, init containers and ephemeral containers.

use super::{all_invalid, env, list, mount, one_of, port, probe, resources, security, text, validate_image};
use crate::field::{self, Errors, Path};
use crate::name;
use crate::pod::{as_container, status::is_sidecar};
use k8s_openapi::api::core::v1::{Container, ContainerResizePolicy, EphemeralContainer, PodSpec};
use std::collections::BTreeSet;

/// Everything wrong with the containers of a pod, of all three sorts.
pub(super) fn validate_all(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = validate_containers(spec, &path.child("containers"));
    errors.extend(validate_init(spec, &path.child("initContainers")));
    errors.extend(validate_ephemeral(spec, &path.child("ephemeralContainers")));
    if let Some(resources) = &spec.resources {
        errors.extend(resources::validate_pod(resources, &path.child("resources")));
    }
    errors
}

/// The grace period hooks are measured by; none when it is wrong itself.
fn grace_period(spec: &PodSpec) -> Option<i64> {
    spec.termination_grace_period_seconds
}

fn validate_containers(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if spec.containers.is_empty() {
        return vec![field::required(path, "")];
    }
    let mut names = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_common(container, spec, &at));
        if !names.insert(&container.name) {
            errors.push(field::duplicate(&at.child("name"), &container.name));
        }
        errors.extend(probe::validate_all(container, grace_period(spec), &at));
        if container.restart_policy.is_some() {
            let detail = "may not be set for non-init containers";
            errors.push(field::forbidden(&at.child("restartPolicy"), detail));
        }
    }
    errors.extend(port::validate_host_ports(&spec.containers, path));
    errors
}

fn validate_init(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut names: BTreeSet<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    for (index, container) in list(&spec.init_containers).iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_common(container, spec, &at));
        if let Some(policy) = container.restart_policy.as_deref().filter(|policy| *policy != "Always") {
            errors.push(field::not_supported(&at.child("restartPolicy"), policy, &["Always"]));
        }
        if !container.name.is_empty() && !names.insert(&container.name) {
            errors.push(field::duplicate(&at.child("name"), &container.name));
        }
        // Init containers run one after the other, so each may have the host ports of another.
        errors.extend(port::validate_host_ports(std::slice::from_ref(container), path));
        if is_sidecar(container) {
            errors.extend(probe::validate_all(container, grace_period(spec), &at));
        } else {
            errors.extend(forbid_probes(container, &at));
        }
    }
    errors
}

/// What runs to its end has nothing to probe.
fn forbid_probes(container: &Container, path: &Path) -> Errors {
    let given = [
        (container.lifecycle.is_some(), "lifecycle"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
    ];
    let detail = "may not be set for init containers without restartPolicy=Always";
    let given = given.into_iter().filter(|(is_given, _)| *is_given);
    given.map(|(_, field)| field::forbidden(&path.child(field), detail)).collect()
}

fn validate_ephemeral(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let lasting = || spec.containers.iter().chain(list(&spec.init_containers));
    let mut names: BTreeSet<&str> = lasting().map(|container| container.name.as_str()).collect();
    for (index, container) in list(&spec.ephemeral_containers).iter().enumerate() {
        let at = path.index(index);
        let like = as_container(container);
        errors.extend(validate_common(&like, spec, &at));
        errors.extend(validate_image(&like, &at));
        if !names.insert(&container.name) {
            errors.push(field::duplicate(&at.child("name"), &container.name));
        }
        let target = text(&container.target_container_name);
        if !target.is_empty() && !lasting().any(|container| container.name == target) {
            errors.push(field::not_found(&at.child("targetContainerName"), target));
        }
        errors.extend(forbid_service(container, &at));
    }
    errors
}

/// Nobody is to rely on an ephemeral container, so it has nothing others could rely on.
fn forbid_service(container: &EphemeralContainer, path: &Path) -> Errors {
    let detail = "cannot be set for an Ephemeral Container";
    let has_resources = container.resources.as_ref().is_some_and(|resources| {
        resources.limits.is_some() || resources.requests.is_some() || resources.claims.is_some()
    });
    let given = [
        (!list(&container.ports).is_empty(), "ports"),
        (has_resources, "resources"),
        (!list(&container.resize_policy).is_empty(), "resizePolicy"),
        (container.restart_policy.is_some(), "restartPolicy"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
        (container.lifecycle.is_some(), "lifecycle"),
    ];
    let given = given.into_iter().filter(|(is_given, _)| *is_given);
    let mut errors: Errors = given.map(|(_, field)| field::forbidden(&path.child(field), detail)).collect();
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        let at = path.child("volumeMounts").index(index);
        for (value, field) in [(&mount.sub_path, "subPath"), (&mount.sub_path_expr, "subPathExpr")] {
            if !text(value).is_empty() {
                errors.push(field::forbidden(&at.child(field), detail));
            }
        }
    }
    errors
}

/// What must hold for a container of any sort.
fn validate_common(container: &Container, spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("name");
    if container.name.is_empty() {
        errors.push(field::required(&at, ""));
    } else {
        errors.extend(all_invalid(&at, &container.name, &name::dns1123_label(&container.name)));
    }
    if text(&container.image).is_empty() {
        errors.push(field::required(&path.child("image"), ""));
    }
    let policies = ["File", "FallbackToLogsOnError"];
    let at = path.child("terminationMessagePolicy");
    errors.extend(one_of(&container.termination_message_policy, &policies, &at));
    errors.extend(port::validate_container_ports(list(&container.ports), &path.child("ports")));
    errors.extend(env::validate(&container.env, &container.env_from, path));
    errors.extend(mount::validate(container, list(&spec.volumes), path));
    let policies = ["Always", "IfNotPresent", "Never"];
    errors.extend(one_of(&container.image_pull_policy, &policies, &path.child("imagePullPolicy")));
    if let Some(resources) = &container.resources {
        let claims = list(&spec.resource_claims);
        errors.extend(resources::validate_container(resources, claims, &path.child("resources")));
    }
    let at = path.child("resizePolicy");
    errors.extend(validate_resize(list(&container.resize_policy), text(&spec.restart_policy), &at));
    if let Some(context) = &container.security_context {
        let host_users = spec.host_users != Some(false);
        errors.extend(security::validate_container(context, host_users, &path.child("securityContext")));
    }
    errors
}

fn validate_resize(policies: &[ContainerResizePolicy], restart: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, policy) in policies.iter().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.push(field::duplicate(&path.index(index), &policy.resource_name));
        }
        errors.extend(one_of(&Some(policy.resource_name.clone()), &["cpu", "memory"], path));
        let supported = ["NotRequired", "RestartContainer"];
        errors.extend(one_of(&Some(policy.restart_policy.clone()), &supported, path));
        if restart == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(field::invalid(path, &policy.restart_policy, detail));
        }
    }
    errors
}
