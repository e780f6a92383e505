//! Defaults of pod specifications and their containers (upstream's `SetDefaults_PodSpec` and its kin).
//!
//! Some defaults belong to pods alone and not to templates; [`default_pod`] adds those to
//! [`default_spec`].

use super::volume_defaults::default_volume;
use crate::quantity;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EphemeralContainer, GRPCAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, Pod, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Seconds between SIGTERM and SIGKILL when a pod does not say (`terminationGracePeriodSeconds`).
pub const GRACE_PERIOD: i64 = 30;
/// The scheduler of pods that do not name one.
pub const SCHEDULER: &str = "default-scheduler";

/// Sets `field` unless it is there and not empty.
pub(crate) fn fill(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Sets a number unless it is there and not zero.
pub(crate) fn fill_number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(value);
    }
}

/// The defaults of a pod: those of its specification and those templates do not get.
pub fn default_pod(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    default_spec(spec);
    spec.enable_service_links.get_or_insert(true);
    let on_host = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        request_limits(container);
        if on_host {
            container.ports.iter_mut().flatten().for_each(claim_host_port);
        }
    }
}

/// What is not requested but limited is requested as much as it is limited.
fn request_limits(container: &mut Container) {
    let Some(resources) = container.resources.as_mut() else { return };
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for (resource, limit) in limits {
        requests.entry(resource.clone()).or_insert_with(|| limit.clone());
    }
}

/// On the host's network every container port is a host port.
fn claim_host_port(port: &mut ContainerPort) {
    if port.host_port.unwrap_or(0) == 0 {
        port.host_port = Some(port.container_port);
    }
}

/// The defaults of a pod template.
pub fn default_template(template: &mut PodTemplateSpec) {
    if let Some(spec) = template.spec.as_mut() {
        default_spec(spec);
    }
}

/// The defaults of a pod specification, in a pod or in a template.
pub fn default_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, SCHEDULER);
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(GRACE_PERIOD);
    same_service_account(spec);
    spec.volumes.iter_mut().flatten().for_each(default_volume);
    spec.init_containers.iter_mut().flatten().for_each(default_container);
    spec.containers.iter_mut().for_each(default_container);
    spec.ephemeral_containers.iter_mut().flatten().for_each(default_ephemeral);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both always say the same.
fn same_service_account(spec: &mut PodSpec) {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let name = given(&spec.service_account_name).or_else(|| given(&spec.service_account));
    spec.service_account.clone_from(&name);
    spec.service_account_name = name;
}

fn default_container(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    fill(&mut container.image_pull_policy, pull_policy(image));
    fill(&mut container.termination_message_path, "/dev/termination-log");
    fill(&mut container.termination_message_policy, "File");
    canonical_amounts(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(default_env);
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]
    {
        probe.iter_mut().for_each(default_probe);
    }
    container.lifecycle.iter_mut().for_each(default_lifecycle);
}

/// Quantities are stored as upstream writes them; what is none stays for validation to name.
fn canonical_amounts(resources: &mut ResourceRequirements) {
    let lists = resources.limits.iter_mut().chain(resources.requests.iter_mut());
    for quantity in lists.flat_map(|list| list.values_mut()) {
        if let Ok(canonical) = quantity::canonical(quantity) {
            *quantity = canonical;
        }
    }
}

/// Ephemeral containers have the fields of containers and get the same defaults.
fn default_ephemeral(container: &mut EphemeralContainer) {
    let mut like = super::as_container(container);
    default_container(&mut like);
    container.image_pull_policy = like.image_pull_policy;
    container.termination_message_path = like.termination_message_path;
    container.termination_message_policy = like.termination_message_policy;
    container.resources = like.resources;
    container.ports = like.ports;
    container.env = like.env;
    container.liveness_probe = like.liveness_probe;
    container.readiness_probe = like.readiness_probe;
    container.startup_probe = like.startup_probe;
    container.lifecycle = like.lifecycle;
}

fn default_env(variable: &mut EnvVar) {
    if let Some(field) = variable.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
        fill(&mut field.api_version, "v1");
    }
}

fn default_probe(probe: &mut Probe) {
    fill_number(&mut probe.timeout_seconds, 1);
    fill_number(&mut probe.period_seconds, 10);
    fill_number(&mut probe.success_threshold, 1);
    fill_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(default_http_get);
    probe.grpc.iter_mut().for_each(default_grpc);
}

fn default_grpc(action: &mut GRPCAction) {
    action.service.get_or_insert_default();
}

fn default_http_get(action: &mut HTTPGetAction) {
    fill(&mut action.path, "/");
    fill(&mut action.scheme, "HTTP");
    if action.port == IntOrString::String(String::new()) {
        action.port = IntOrString::default();
    }
}

fn default_lifecycle(lifecycle: &mut Lifecycle) {
    let handlers: [&mut Option<LifecycleHandler>; 2] = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
    for handler in handlers {
        handler.iter_mut().filter_map(|handler| handler.http_get.as_mut()).for_each(default_http_get);
    }
}

/// `Always` for the tag `latest`, said or implied; `IfNotPresent` for any other and for a digest.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        _ if name.is_empty() => "IfNotPresent",
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("luksa/kubia", "Always")]
    #[case("luksa/kubia:latest", "Always")]
    #[case("luksa/kubia:v1", "IfNotPresent")]
    #[case("registry:5000/kubia", "Always")]
    #[case("registry:5000/kubia:v2", "IfNotPresent")]
    #[case("kubia@sha256:aa", "IfNotPresent")]
    #[case("kubia:latest@sha256:aa", "Always")]
    #[case("", "IfNotPresent")]
    fn the_tag_latest_is_always_pulled(#[case] image: &str, #[case] policy: &str) {
        assert_eq!(pull_policy(image), policy);
    }
}
