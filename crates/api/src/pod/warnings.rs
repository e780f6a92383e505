//! Warnings about pods and templates that are valid yet dubious.

use super::validate::{list, text};
use crate::field::Path;
use crate::name;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, Pod, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;

/// Node labels that were renamed, with the version that did and the new name.
const RENAMED_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Warnings about a pod.
pub fn of_pod(pod: &Pod) -> Vec<String> {
    let name = text(&pod.metadata.name);
    let mut warnings = of_name(name, "the Pod's hostname");
    if let Some(spec) = &pod.spec {
        warnings.extend(of_spec(spec, &Path::new("spec")));
    }
    warnings
}

/// Warnings about an object named by `meta` that makes pods from a template at `path`.
pub fn of_template(meta: &ObjectMeta, template: Option<&PodTemplateSpec>, path: &Path) -> Vec<String> {
    let mut warnings = of_name(text(&meta.name), "Pod names and hostnames");
    if let Some(spec) = template.and_then(|template| template.spec.as_ref()) {
        warnings.extend(of_spec(spec, &path.child("spec")));
    }
    warnings
}

fn of_name(name: &str, used_in: &str) -> Vec<String> {
    let wrong = name::dns1123_label(name);
    if wrong.is_empty() || name.is_empty() {
        return Vec::new();
    }
    let wrong = wrong.join(" ");
    vec![format!(
        "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
         recommended: [{wrong}]"
    )]
}

fn of_spec(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(of_node_selector(spec, &path.child("nodeSelector")));
    let at = path.child("hostAliases");
    warnings.extend(repeats(list(&spec.host_aliases).iter().map(|alias| alias.ip.as_str()), |index, ip| {
        format!("{}: duplicate ip \"{ip}\"", at.index(index).child("ip"))
    }));
    let at = path.child("imagePullSecrets");
    let secrets = list(&spec.image_pull_secrets);
    for (index, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.name.is_empty()) {
        warnings.push(format!("{}: invalid empty name \"\"", at.index(index).child("name")));
    }
    warnings.extend(repeats(secrets.iter().map(|secret| secret.name.as_str()), |index, name| {
        format!("{}: duplicate name \"{name}\"", at.index(index).child("name"))
    }));
    for (index, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        if constraint.label_selector.is_none() {
            let at = path.child("topologySpreadConstraints").index(index).child("labelSelector");
            warnings.push(format!("{at}: a null labelSelector results in matching no pod"));
        }
    }
    for (index, volume) in list(&spec.volumes).iter().enumerate() {
        warnings.extend(of_volume(volume, &path.child("volumes").index(index)));
    }
    warnings.extend(of_containers(list(&spec.init_containers), &path.child("initContainers")));
    warnings.extend(of_containers(&spec.containers, &path.child("containers")));
    warnings.extend(of_ports(spec, path));
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn of_node_selector(spec: &PodSpec, path: &Path) -> Vec<String> {
    let selector = spec.node_selector.clone().unwrap_or_default();
    let renamed = RENAMED_LABELS.iter().filter(|(old, _, _)| selector.contains_key(*old));
    renamed
        .map(|(old, version, new)| {
            format!("{}: deprecated since {version}; use \"{new}\" instead", path.key(old))
        })
        .collect()
}

fn of_volume(volume: &Volume, path: &Path) -> Vec<String> {
    let old = [
        (
            volume.photon_persistent_disk.is_some(),
            "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
        ),
        (volume.git_repo.is_some(), "gitRepo: deprecated in v1.11, and disabled by default in v1.33+"),
        (volume.scale_io.is_some(), "scaleIO: deprecated in v1.16, non-functional in v1.22+"),
        (volume.flocker.is_some(), "flocker: deprecated in v1.22, non-functional in v1.25+"),
        (volume.storageos.is_some(), "storageOS: deprecated in v1.22, non-functional in v1.25+"),
        (volume.quobyte.is_some(), "quobyte: deprecated in v1.22, non-functional in v1.25+"),
        (volume.glusterfs.is_some(), "glusterfs: deprecated in v1.25, non-functional in v1.26+"),
        (volume.cephfs.is_some(), "cephfs: deprecated in v1.28, non-functional in v1.31+"),
        (volume.rbd.is_some(), "rbd: deprecated in v1.28, non-functional in v1.31+"),
    ];
    old.into_iter().filter(|(is_used, _)| *is_used).map(|(_, text)| format!("{path}.{text}")).collect()
}

fn of_containers(containers: &[Container], path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index);
        warnings.extend(of_resources(container, &at.child("resources")));
        warnings.extend(of_env(list(&container.env), &at.child("env")));
    }
    warnings
}

fn of_resources(container: &Container, path: &Path) -> Vec<String> {
    let Some(resources) = &container.resources else { return Vec::new() };
    let mut warnings = Vec::new();
    for (amounts, list) in [(&resources.limits, "limits"), (&resources.requests, "requests")] {
        for name in ["memory", "ephemeral-storage"] {
            let Some(quantity) = amounts.as_ref().and_then(|amounts| amounts.get(name)) else { continue };
            if Amount::try_from(quantity).is_ok_and(|amount| !amount.is_whole()) {
                let at = path.child(list).key(name);
                let shown = &quantity.0;
                warnings
                    .push(format!("{at}: fractional byte value \"{shown}\" is invalid, must be an integer"));
            }
        }
    }
    warnings
}

/// A variable that is set twice has the last value, but `kubectl apply` may drop one of the two. A value
/// that adds to the one before is meant so.
fn of_env(variables: &[EnvVar], path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, variable) in variables.iter().enumerate() {
        let name = variable.name.as_str();
        let (reference, value) = (format!("$({name})"), text(&variable.value));
        let is_addition = value.contains(&reference) && value != reference;
        if !seen.insert(name) && !is_addition {
            warnings.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                path.index(index)
            ));
        }
    }
    warnings
}

/// A port of a container, and where it is.
type Place<'a> = (&'a ContainerPort, Path);

fn of_ports(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    let lists = [
        (list(&spec.init_containers), path.child("initContainers")),
        (spec.containers.as_slice(), path.child("containers")),
    ];
    for (containers, at) in &lists {
        for (index, container) in containers.iter().enumerate() {
            let at = at.index(index).child("ports");
            for (index, port) in list(&container.ports).iter().enumerate() {
                let place = (port, at.index(index));
                warnings.extend(places.iter().filter_map(|other| of_two_ports(&place, other)));
                warnings.extend(of_port_name(&place, &places));
                places.push(place);
            }
        }
    }
    warnings
}

fn of_two_ports((port, at): &Place, (other, other_at): &Place) -> Option<String> {
    if (port.container_port, &port.protocol) != (other.container_port, &other.protocol) {
        return None;
    }
    let (number, other_number) = (port.host_port.unwrap_or(0), other.host_port.unwrap_or(0));
    let (address, other_address) = (text(&port.host_ip), text(&other.host_ip));
    let how = if (number, address) == (other_number, other_address) {
        "duplicate"
    } else if number == 0 || other_number == 0 {
        "overlapping"
    } else if number == other_number && address.is_empty() != other_address.is_empty() {
        "dangerously ambiguous"
    } else {
        return None;
    };
    Some(format!("{at}: {how} port definition with {other_at}"))
}

fn of_port_name((port, at): &Place, places: &[Place]) -> Option<String> {
    let name = text(&port.name);
    let (_, first) = places.iter().find(|(other, _)| !name.is_empty() && text(&other.name) == name)?;
    Some(format!(
        "{at}: duplicate port name \"{name}\" with {first}, services and probes that select ports by name will \
         use {first}"
    ))
}

/// What `warn` says about each value that was there before.
fn repeats<'a>(
    values: impl Iterator<Item = &'a str>,
    mut warn: impl FnMut(usize, &'a str) -> String,
) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut warnings = Vec::new();
    for (index, value) in values.enumerate() {
        if !value.is_empty() && !seen.insert(value) {
            warnings.push(warn(index, value));
        }
    }
    warnings
}
