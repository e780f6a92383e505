//! What can go wrong with a request, and the `Status` upstream answers with.

use crate::field::Errors;

/// An answer other than success. [`ApiError::code`] and the wording are upstream's
/// (`k8s.io/apimachinery/pkg/api/errors`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// 401 Unauthorized.
    #[error("Unauthorized")]
    Unauthorized,
    /// 403 Forbidden: `pods "x" is forbidden: DETAIL`.
    #[error("{}forbidden: {detail}", forbidden_subject(resource, name))]
    Forbidden {
        /// Plural resource, with `.group` unless core.
        resource: String,
        /// Object name.
        name: String,
        /// Why.
        detail: String,
    },
    /// 404 NotFound: `deployments.apps "x" not found`.
    #[error("{resource} \"{name}\" not found")]
    NotFound {
        /// Plural resource, with `.group` unless core.
        resource: String,
        /// Object name.
        name: String,
    },
    /// 404 for a path or kind that is not served.
    #[error("the server could not find the requested resource")]
    UnknownResource,
    /// 405 MethodNotAllowed.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 406 NotAcceptable.
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(String),
    /// 409 AlreadyExists.
    #[error("{resource} \"{name}\" already exists")]
    AlreadyExists {
        /// Plural resource, with `.group` unless core.
        resource: String,
        /// Object name.
        name: String,
    },
    /// 409 Conflict: `Operation cannot be fulfilled on deployments.apps "x": DETAIL`.
    #[error("Operation cannot be fulfilled on {resource} \"{name}\": {detail}")]
    Conflict {
        /// Plural resource, with `.group` unless core.
        resource: String,
        /// Object name.
        name: String,
        /// Why.
        detail: String,
    },
    /// 410 Expired: the resource version is older than the watch history, or a continue token is.
    #[error("{0}")]
    Expired(String),
    /// 413 RequestEntityTooLarge.
    #[error("Request entity too large: limit is {limit}")]
    TooLarge {
        /// Bytes.
        limit: usize,
    },
    /// 415 UnsupportedMediaType.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(String),
    /// 422 Invalid, with every field error: `Deployment.apps "x" is invalid: [..]`.
    #[error("{kind} \"{name}\" is invalid{}", aggregate(errors))]
    Invalid {
        /// Kind, with `.group` unless core.
        kind: String,
        /// Object name.
        name: String,
        /// What is wrong, field by field.
        errors: Errors,
    },
    /// 422 Invalid, without field errors: a patch that cannot be applied.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unprocessable(String),
    /// 429 TooManyRequests, with seconds to wait.
    #[error("{message}")]
    TooManyRequests {
        /// Why.
        message: String,
        /// `Retry-After`, in seconds.
        retry_after: u32,
    },
    /// 500 InternalError.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// 503 ServiceUnavailable.
    #[error("{0}")]
    Unavailable(String),
    /// 504 Timeout: whether the write happened is not known.
    #[error("{0}")]
    Timeout(String),
}

/// What is forbidden; the name may be empty (a list), and the resource too (a path).
fn forbidden_subject(resource: &str, name: &str) -> String {
    match (resource.is_empty(), name.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("{resource} is "),
        (false, false) => format!("{resource} \"{name}\" is "),
    }
}

/// As upstream's `ToAggregate`: one error bare, several in brackets, repeats dropped.
fn aggregate(errors: &Errors) -> String {
    let mut seen: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    match seen.as_slice() {
        [] => String::new(),
        [one] => format!(": {one}"),
        several => format!(": [{}]", several.join(", ")),
    }
}
