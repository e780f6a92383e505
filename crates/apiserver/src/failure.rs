//! A request that failed, as the `Status` it is answered with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use sagong_api::error::ApiError;
use sagong_store::StoreError;

/// The answer to a request that failed. Boxed, as it is the rare side of every result.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) Box<Status>);

impl Failure {
    /// The HTTP status code.
    pub(crate) fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    /// The same with a further machine-readable cause.
    pub(crate) fn with_cause(mut self, reason: &str, field: &str, message: &str) -> Self {
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let details = self.0.details.get_or_insert_with(StatusDetails::default);
        details.causes.get_or_insert_with(Vec::new).push(StatusCause {
            reason: optional(reason),
            field: optional(field),
            message: optional(message),
        });
        self
    }

    /// The same telling the client to wait this many seconds.
    pub(crate) fn with_retry_after(mut self, seconds: i32) -> Self {
        self.0.details.get_or_insert_with(StatusDetails::default).retry_after_seconds = Some(seconds);
        self
    }

    /// A 400 with this message.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        ApiError::BadRequest(message.into()).into()
    }

    /// A 500 with this message.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        ApiError::Internal(message.into()).into()
    }

    /// A 504 for a resource version that has not happened yet.
    pub(crate) fn future_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self::from(ApiError::Timeout(message))
            .with_cause("ResourceVersionTooLarge", "", "Too large resource version")
            .with_retry_after(1)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(Box::new(error.status()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { asked, oldest } => {
                ApiError::Expired(format!("too old resource version: {asked} ({oldest})")).into()
            }
            StoreError::Future { asked, current } => Self::future_version(asked, current),
            StoreError::Closed => ApiError::Unavailable("the server is shutting down".into()).into(),
            error @ (StoreError::Open { .. } | StoreError::Write { .. }) => {
                tracing::error!(%error, "the store failed");
                Self::internal(error.to_string())
            }
        }
    }
}

/// The result of handling a request.
pub(crate) type Outcome<T> = Result<T, Failure>;
