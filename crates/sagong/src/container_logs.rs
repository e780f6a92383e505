//! `kubectl logs`: the API server's question, put to the kubelet in the same process.

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sagong_api::error::ApiError;
use sagong_apiserver::body::BoxError;
use sagong_apiserver::pods::log::{LogOptions, LogSource, LogStream};
use sagong_kubelet::Kubelet;
use std::sync::Arc;

/// The logs of this machine's kubelet.
pub(crate) struct Logs(pub(crate) Arc<Kubelet>);

#[async_trait]
impl LogSource for Logs {
    async fn open(&self, pod: &Pod, container: &str, options: LogOptions) -> Result<LogStream, ApiError> {
        let options = sagong_kubelet::LogOptions {
            follow: options.follow,
            previous: options.previous,
            timestamps: options.timestamps,
            since_time: options.since,
            since_seconds: None,
            tail_lines: options.tail_lines,
            limit_bytes: options.limit_bytes,
        };
        let (namespace, uid) = (pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default());
        let stream = self.0.logs(&namespace, &pod.name_any(), &uid, container, options).await;
        let stream = stream.map_err(|error| ApiError::BadRequest(error.to_string()))?;
        Ok(stream.map(|piece| piece.map_err(BoxError::from)).boxed())
    }
}
