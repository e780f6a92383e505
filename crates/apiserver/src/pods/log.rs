//! GET of `/pods/NAME/log`, handed to whoever holds the logs.

use super::container;
use crate::answer;
use crate::body::{Body, BoxError, streaming};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::wire::Stored;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sagong_api::error::ApiError;
use sagong_api::field;

/// What part of a log is asked for (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Go on with lines as they are written.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time (`sinceSeconds` or `sinceTime`).
    pub since: Option<Timestamp>,
    /// Begin every line with its RFC 3339 time.
    pub timestamps: bool,
    /// End after this many bytes.
    pub limit_bytes: Option<u64>,
}

/// The pieces of a log, as the client receives them.
pub type LogStream = BoxStream<'static, Result<Bytes, BoxError>>;

/// Where the logs are: the kubelet in the same process, or one that is asked over the network.
#[async_trait]
pub trait LogSource: Send + Sync {
    /// The log of a container of a pod that is bound to a node. Fails with [`ApiError::BadRequest`] when the
    /// container has not started (`container "c" in pod "p" is waiting to start: ContainerCreating`).
    async fn open(&self, pod: &Pod, container: &str, options: LogOptions) -> Result<LogStream, ApiError>;
}

/// Answers with the log as plain text.
pub(crate) async fn log(context: &Context) -> Outcome<Response<Body>> {
    let options = options(context)?;
    let entry = context.core.store.get(&context.key()).await?;
    let entry = entry.ok_or_else(|| context.resource.not_found(context.name()))?;
    let object = context.resource.decode_stored(&Stored::from(&entry))?;
    let pod: &Pod =
        object.as_any().downcast_ref().ok_or_else(|| Failure::internal("a stored pod is not one"))?;
    let container = container::choose(pod, context.query.get("container"))?;
    if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default().is_empty() {
        // Not on a node yet: nothing was written, which is no error.
        return Ok(answer::raw(StatusCode::OK, "text/plain", Bytes::new()));
    }
    let source = context.core.logs.get();
    let source = source.ok_or_else(|| ApiError::Unavailable("no node serves logs yet".into()))?;
    let pieces = source.open(pod, &container, options).await?;
    let stopping = context.core.stopping.clone();
    let pieces = pieces.take_until(async move { stopping.cancelled().await });
    let mut response = Response::new(streaming(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn options(context: &Context) -> Outcome<LogOptions> {
    let invalid = |name: &str, value: i64, detail: &str| -> Failure {
        let errors = vec![field::invalid(&field::Path::new(name), value, detail)];
        ApiError::Invalid { kind: "PodLogOptions".into(), name: context.name().into(), errors }.into()
    };
    let at_least = |name: &str, least: i64, detail: &str| -> Outcome<Option<u64>> {
        match context.number(name)? {
            Some(value) if value < least => Err(invalid(name, value, detail)),
            value => Ok(value.and_then(|v| u64::try_from(v).ok())),
        }
    };
    let seconds = at_least("sinceSeconds", 1, "must be greater than 0")?;
    let since = match (seconds, context.query.get("sinceTime")) {
        (Some(seconds), _) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Some(
                Timestamp::now()
                    .saturating_sub(jiff::SignedDuration::from_secs(seconds))
                    .unwrap_or(Timestamp::MIN),
            )
        }
        (None, Some(text)) => {
            Some(text.parse().map_err(|error| Failure::bad_request(format!("sinceTime: {error}")))?)
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: context.query.flag("follow"),
        previous: context.query.flag("previous"),
        tail_lines: at_least("tailLines", 0, "must be greater than or equal to 0")?,
        since,
        timestamps: context.query.flag("timestamps"),
        limit_bytes: at_least("limitBytes", 1, "must be greater than 0")?,
    })
}
