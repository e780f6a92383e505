//! References to fields of the pod itself (the downward API), in variables and in files.

use super::{all_invalid, text};
use crate::field::{self, Errors, Path};
use crate::name;
use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceFieldSelector};

/// The fields an environment variable can show.
pub(super) const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields a file can show.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The fields of a pod that references know by name, whether or not they can be shown.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.host",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The resources a reference can show.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Everything wrong with a reference to a field.
pub(super) fn validate_field(selector: &ObjectFieldSelector, supported: &[&str], path: &Path) -> Errors {
    let version = text(&selector.api_version);
    let field = selector.field_path.as_str();
    let at = path.child("fieldPath");
    if version.is_empty() {
        return vec![field::required(&path.child("apiVersion"), "")];
    }
    if field.is_empty() {
        return vec![field::required(&at, "")];
    }
    if let Some((map, key)) = field.strip_suffix(']').and_then(|field| field.split_once('['))
        && let Some(key) = key.strip_prefix('\'').and_then(|key| key.strip_suffix('\''))
    {
        return validate_subscript(map, key, field, path);
    }
    if version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {version}");
        return vec![field::invalid(&at, field, &detail)];
    }
    if !KNOWN_FIELDS.contains(&field) {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        return vec![field::invalid(&at, field, &detail)];
    }
    let field = if field == "spec.host" { "spec.nodeName" } else { field };
    if supported.contains(&field) {
        return Errors::new();
    }
    vec![field::not_supported(&at, field, supported)]
}

/// One label or one annotation: `metadata.labels['app']`.
fn validate_subscript(map: &str, key: &str, field: &str, path: &Path) -> Errors {
    match map {
        "metadata.annotations" => {
            let key = key.to_lowercase();
            all_invalid(path, &key, &name::qualified_name(&key))
        }
        "metadata.labels" => all_invalid(path, key, &name::qualified_name(key)),
        _ => {
            let detail =
                format!("error converting fieldPath: field label does not support subscript: {field}");
            vec![field::invalid(&path.child("fieldPath"), field, &detail)]
        }
    }
}

/// Everything wrong with a reference to a container's requests or limits. In a file the container must be
/// named.
pub(super) fn validate_resource(selector: &ResourceFieldSelector, in_file: bool, path: &Path) -> Errors {
    let resource = selector.resource.as_str();
    let is_huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_file && text(&selector.container_name).is_empty() {
        return vec![field::required(&path.child("containerName"), "")];
    }
    if resource.is_empty() {
        return vec![field::required(&path.child("resource"), "")];
    }
    if !RESOURCES.contains(&resource) && !is_huge {
        return vec![field::not_supported(&path.child("resource"), resource, RESOURCES)];
    }
    validate_divisor(selector, path)
}

fn validate_divisor(selector: &ResourceFieldSelector, path: &Path) -> Errors {
    const BYTES: &[&str] =
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str()).unwrap_or_default();
    let resource = selector.resource.as_str();
    if matches!(divisor, "" | "0") {
        return Errors::new();
    }
    let (is_valid, detail) = if resource.ends_with(".cpu") {
        let detail = "only divisor's values 1m and 1 are supported with the cpu resource".to_owned();
        (matches!(divisor, "1m" | "1"), detail)
    } else {
        let kind = match resource.split_once('.').map(|(_, kind)| kind).unwrap_or_default() {
            "memory" => "memory",
            "ephemeral-storage" => "local ephemeral storage",
            _ => "hugepages",
        };
        let listed = BYTES.join(", ");
        let detail = format!("only divisor's values {listed} are supported with the {kind} resource");
        (BYTES.contains(&divisor), detail)
    };
    if is_valid {
        return Errors::new();
    }
    vec![field::invalid(&path.child("divisor"), resource, &detail)]
}
