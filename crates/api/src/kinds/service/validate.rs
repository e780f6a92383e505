//! Everything that can be wrong with a service.

use crate::field::Errors;
use k8s_openapi::api::core::v1::Service;

/// Everything wrong with a service beyond its metadata.
pub(super) fn validate_service(_service: &Service) -> Errors {
    Errors::new()
}

/// Everything wrong with a change of a service.
pub(super) fn validate_update(new: &Service, _old: &Service) -> Errors {
    validate_service(new)
}

/// Everything wrong with the status of a service.
pub(super) fn validate_status(_service: &Service) -> Errors {
    Errors::new()
}

/// What is valid yet dubious.
pub(super) fn warnings(_service: &Service) -> Vec<String> {
    Vec::new()
}
