//! `Status` objects: what every request that does not return another object is answered with
//! (`k8s.io/apimachinery/pkg/api/errors`).

use crate::error::ApiError;
use crate::field::Errors;
use crate::kind::Identity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

impl ApiError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.code_and_reason().0
    }

    /// The machine-readable reason, `NotFound` say.
    pub fn reason(&self) -> &'static str {
        self.code_and_reason().1
    }

    /// The `Status` to answer with.
    pub fn status(&self) -> Status {
        let (code, reason) = self.code_and_reason();
        Status {
            code: Some(code.into()),
            details: self.details(),
            message: Some(self.to_string()),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }
    }

    fn code_and_reason(&self) -> (u16, &'static str) {
        match self {
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden { .. } => (403, "Forbidden"),
            Self::NotFound { .. } | Self::UnknownResource => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::NotAcceptable(_) => (406, "NotAcceptable"),
            Self::AlreadyExists { .. } => (409, "AlreadyExists"),
            Self::Conflict { .. } => (409, "Conflict"),
            Self::Expired(_) => (410, "Expired"),
            Self::TooLarge { .. } => (413, "RequestEntityTooLarge"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::Invalid { .. } | Self::Unprocessable(_) => (422, "Invalid"),
            Self::TooManyRequests { .. } => (429, "TooManyRequests"),
            Self::Internal(_) => (500, "InternalError"),
            Self::Unavailable(_) => (503, "ServiceUnavailable"),
            Self::Timeout(_) => (504, "Timeout"),
        }
    }

    fn details(&self) -> Option<StatusDetails> {
        match self {
            Self::Forbidden { resource, name, .. }
            | Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. } => Some(details_of(resource, name)),
            Self::Invalid { kind, name, errors } => {
                Some(StatusDetails { causes: causes_of(errors), ..details_of(kind, name) })
            }
            Self::TooManyRequests { retry_after, .. } => Some(StatusDetails {
                retry_after_seconds: Some(i32::try_from(*retry_after).unwrap_or(i32::MAX)),
                ..StatusDetails::default()
            }),
            Self::Internal(cause) => Some(StatusDetails {
                causes: Some(vec![StatusCause { message: Some(cause.clone()), ..StatusCause::default() }]),
                ..StatusDetails::default()
            }),
            Self::Unprocessable(_) | Self::UnknownResource | Self::MethodNotAllowed | Self::Timeout(_) => {
                Some(StatusDetails::default())
            }
            Self::BadRequest(_)
            | Self::Unauthorized
            | Self::NotAcceptable(_)
            | Self::Expired(_)
            | Self::TooLarge { .. }
            | Self::UnsupportedMediaType(_)
            | Self::Unavailable(_) => None,
        }
    }
}

/// Details that name an object. `qualified` is `deployments.apps` or `Deployment.apps`, as the variant has it.
fn details_of(qualified: &str, name: &str) -> StatusDetails {
    let (kind, group) = qualified.split_once('.').unwrap_or((qualified, ""));
    StatusDetails {
        group: non_empty(group),
        kind: non_empty(kind),
        name: non_empty(name),
        ..StatusDetails::default()
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn causes_of(errors: &Errors) -> Option<Vec<StatusCause>> {
    let cause = |error: &crate::field::FieldError| StatusCause {
        reason: Some(error.cause.reason().to_owned()),
        message: Some(error.message.clone()),
        field: Some(error.path.to_string()),
    };
    (!errors.is_empty()).then(|| errors.iter().map(cause).collect())
}

/// The `Success` a delete answers with once the object is gone.
pub fn deleted(identity: &Identity, name: &str, uid: &str) -> Status {
    Status {
        status: Some("Success".to_owned()),
        details: Some(StatusDetails {
            uid: non_empty(uid),
            ..details_of(&identity.qualified_resource(), name)
        }),
        ..Status::default()
    }
}

/// The bare `Success` a deletecollection of nothing, or a binding, answers with.
pub fn success(code: u16) -> Status {
    Status { status: Some("Success".to_owned()), code: Some(code.into()), ..Status::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{self, Path};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn kubia() -> (String, String) {
        ("deployments.apps".to_owned(), "kubia".to_owned())
    }

    fn not_found() -> ApiError {
        let (resource, name) = kubia();
        ApiError::NotFound { resource, name }
    }

    #[rstest]
    #[case(
        not_found(),
        json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "deployments.apps \"kubia\" not found", "reason": "NotFound",
            "details": {"group": "apps", "kind": "deployments", "name": "kubia"}, "code": 404,
        })
    )]
    #[case(
        ApiError::Invalid {
            kind: "Deployment.apps".into(),
            name: "kubia".into(),
            errors: vec![field::required(&Path::new("spec.selector"), "")],
        },
        json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "Deployment.apps \"kubia\" is invalid: spec.selector: Required value", "reason": "Invalid",
            "details": {
                "group": "apps", "kind": "Deployment", "name": "kubia",
                "causes": [{
                    "reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector",
                }],
            },
            "code": 422,
        })
    )]
    #[case(
        ApiError::TooManyRequests { message: "wait".into(), retry_after: 2 },
        json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "wait", "reason": "TooManyRequests", "details": {"retryAfterSeconds": 2}, "code": 429,
        })
    )]
    fn a_failure_reads_as_upstreams(#[case] error: ApiError, #[case] expected: Value) {
        assert_eq!(serde_json::to_value(error.status()).unwrap(), expected);
    }

    #[rstest]
    #[case("pods", "x", "pods \"x\" is forbidden: no")]
    #[case("pods", "", "pods is forbidden: no")]
    #[case("", "", "forbidden: no")]
    fn what_is_forbidden_is_named_as_far_as_known(
        #[case] resource: &str,
        #[case] name: &str,
        #[case] text: &str,
    ) {
        let error = ApiError::Forbidden { resource: resource.into(), name: name.into(), detail: "no".into() };
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn several_errors_are_bracketed_and_repeats_told_once() {
        let (a, b) = (field::required(&Path::new("a"), ""), field::required(&Path::new("b"), ""));
        let error = ApiError::Invalid { kind: "Pod".into(), name: "x".into(), errors: vec![a.clone(), b, a] };
        assert_eq!(error.to_string(), "Pod \"x\" is invalid: [a: Required value, b: Required value]");
    }
}
