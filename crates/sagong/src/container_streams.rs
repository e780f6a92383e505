//! `kubectl exec`, `attach` and `port-forward`: the API server's requests, put to the kubelet in the same process.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sagong_apiserver::streams::{
    Connection, Session, StreamError, StreamOptions, StreamSource, TerminalSize,
};
use sagong_kubelet::Kubelet;
use sagong_runtime::SessionOptions;
use std::sync::Arc;

/// The streams of this machine's kubelet.
pub(crate) struct Streams(pub(crate) Arc<Kubelet>);

#[async_trait]
impl StreamSource for Streams {
    async fn runs(&self, pod: &Pod, container: &str) -> Result<bool, StreamError> {
        self.0.runs(&uid(pod), container).await.map_err(told)
    }

    async fn exec(
        &self,
        pod: &Pod,
        container: &str,
        command: &[String],
        options: StreamOptions,
    ) -> Result<Session, StreamError> {
        let begun = self.0.exec(&uid(pod), container, command, asked(options)).await;
        begun.map(given).map_err(told)
    }

    async fn attach(
        &self,
        pod: &Pod,
        container: &str,
        options: StreamOptions,
    ) -> Result<Session, StreamError> {
        self.0.attach(&uid(pod), container, asked(options)).await.map(given).map_err(told)
    }

    async fn find_pod(&self, pod: &Pod) -> Result<(), StreamError> {
        self.0.find_pod(&uid(pod), &full_name(pod)).await.map_err(told)
    }

    async fn connect(&self, pod: &Pod, port: u16) -> Result<Box<dyn Connection>, StreamError> {
        let connected = self.0.connect(&uid(pod), &full_name(pod), port).await;
        connected.map(|connection| Box::new(connection) as _).map_err(told)
    }
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

/// As upstream's kubelet names pods.
fn full_name(pod: &Pod) -> String {
    format!("{}_{}", pod.name_any(), pod.namespace().unwrap_or_default())
}

fn told(error: sagong_kubelet::StreamError) -> StreamError {
    StreamError(error.to_string())
}

fn asked(options: StreamOptions) -> SessionOptions {
    let StreamOptions { stdin, stdout, stderr, tty } = options;
    SessionOptions { stdin, stdout, stderr, tty }
}

fn given(session: sagong_runtime::Session) -> Session {
    let sagong_runtime::Session { stdin, stdout, stderr, resize, end } = session;
    let resize = resize.map(|resize| {
        let resize = move |size: TerminalSize| {
            resize(sagong_runtime::TerminalSize { columns: size.width, rows: size.height });
        };
        Arc::new(resize) as sagong_apiserver::streams::Resize
    });
    let end = Box::pin(async move { end.await.map_err(|error| StreamError(error.to_string())) });
    Session { stdin, stdout, stderr, resize, end }
}
