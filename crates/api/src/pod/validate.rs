//! Everything that can be wrong with a pod or a pod template.

use crate::field::{Errors, Path};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

/// Everything wrong with a new pod beyond its metadata.
pub fn validate_pod_create(_pod: &Pod) -> Errors {
    Errors::new()
}

/// Everything wrong with a change of a pod.
pub fn validate_pod_update(_new: &Pod, _old: &Pod) -> Errors {
    Errors::new()
}

/// Everything wrong with a change of a pod's status.
pub fn validate_pod_status_update(_new: &Pod, _old: &Pod) -> Errors {
    Errors::new()
}

/// Everything wrong with a template at `path`.
pub fn validate_template(_template: &PodTemplateSpec, _path: &Path) -> Errors {
    Errors::new()
}
