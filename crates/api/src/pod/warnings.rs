//! Warnings about pods and templates that are valid yet dubious.

use crate::field::Path;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

/// Warnings about a pod.
pub fn of_pod(_pod: &Pod) -> Vec<String> {
    Vec::new()
}

/// Warnings about a template at `path`.
pub fn of_template(_template: Option<&PodTemplateSpec>, _path: &Path) -> Vec<String> {
    Vec::new()
}
