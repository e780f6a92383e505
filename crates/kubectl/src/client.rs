//! Requests to the API server: raw bodies in and out, warnings shown, failures worded.

mod unreachable;

use crate::failure::{Failure, Outcome, fail};
use crate::flags::Parsed;
use crate::kubeconfig::Kubeconfig;
use crate::trace::Trace;
use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig as KubeKubeconfig};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Plain JSON.
pub(crate) const JSON: &str = "application/json";

/// A connection to one API server.
#[derive(Clone)]
pub(crate) struct Client {
    inner: kube::Client,
    trace: Trace,
    /// `--request-timeout`: how long an answer may take.
    patience: Option<Duration>,
    /// `--as-uid`: whom to act as, besides the name.
    uid: String,
    /// How many warnings the server gave.
    warnings: Arc<AtomicUsize>,
    /// `127.0.0.1:6443`, for messages.
    pub(crate) host: String,
    /// `https://127.0.0.1:6443`.
    pub(crate) server: String,
}

/// Who asks.
const AGENT: &str = concat!("sagong/", env!("CARGO_PKG_VERSION"), " (linux) kubectl");

/// The API server and the files of credentials that every container of a pod has.
fn in_cluster() -> Option<(String, PathBuf)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let files = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    files.join("token").exists().then(|| (format!("https://{host}:{port}"), files))
}

/// The span behind `--request-timeout`; a bare number is in seconds, 0 is for ever.
///
/// # Errors
/// It is no span of time.
fn patience(flags: &Parsed) -> Outcome<Option<Duration>> {
    let text = flags.text("request-timeout");
    if text.is_empty() {
        return Ok(None);
    }
    let seconds = || text.parse::<i128>().ok().map(|seconds| seconds * 1_000_000_000);
    let Some(nanos) = crate::flags::parse_duration(text).or_else(seconds) else {
        return fail(
            "Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)",
        );
    };
    Ok(u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos))
}

/// The parts of a request's query.
pub(crate) type Query<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// A client as files and flags say. Does not connect yet.
    ///
    /// # Errors
    /// The kubeconfig is broken.
    pub(crate) async fn new(config: &Kubeconfig, flags: &Parsed) -> Outcome<Self> {
        let (cluster, user) = config.chosen(flags)?;
        let nothing = cluster["server"].as_str().is_none_or(str::is_empty);
        let mut cluster = cluster;
        let mut user = user;
        if nothing {
            match in_cluster().filter(|_| config.clusters.is_empty()) {
                Some((server, files)) => {
                    cluster["server"] = server.into();
                    let ca = files.join("ca.crt");
                    if ca.exists() && cluster["insecure-skip-tls-verify"] != true {
                        cluster["certificate-authority"] = ca.to_string_lossy().into_owned().into();
                    }
                    if user["token"].is_null() {
                        user["tokenFile"] = files.join("token").to_string_lossy().into_owned().into();
                    }
                }
                None => cluster["server"] = "http://localhost:8080".into(),
            }
        }
        check_files(&cluster, &user)?;
        let value = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "c", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        let config: KubeKubeconfig = serde_json::from_value(value)
            .map_err(|error| Failure::Message(format!("invalid configuration: {error}")))?;
        let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .map_err(|error| Failure::Message(format!("invalid configuration: {}", chain(&error))))?;
        config.read_timeout = None;
        Self::finish(config, flags)
    }

    fn finish(config: kube::Config, flags: &Parsed) -> Outcome<Self> {
        let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let inner = kube::Client::try_from(config)
            .map_err(|error| Failure::Message(format!("invalid configuration: {}", chain(&error))))?;
        let trace = Trace::new(flags.number("v"));
        let uid = flags.text("as-uid").to_owned();
        Ok(Self { inner, uid, trace, patience: patience(flags)?, warnings: Arc::default(), host, server })
    }

    /// Sends a request; the body of the answer is still to come.
    ///
    /// # Errors
    /// The server cannot be reached, or answers with a failure.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<(&str, Vec<u8>)>,
        accept: &str,
    ) -> Outcome<Response<Body>> {
        let target = target(path, query);
        let url = format!("{}{target}", self.server);
        let mut request = Request::builder()
            .method(method.clone())
            .uri(target)
            .header("accept", accept)
            .header("user-agent", AGENT);
        if !self.uid.is_empty() {
            request = request.header("impersonate-uid", &self.uid);
        }
        let bytes = match body {
            Some((kind, bytes)) => {
                request = request.header("content-type", kind);
                bytes
            }
            None => Vec::new(),
        };
        if self.trace.on()
            && let Some(headers) = request.headers_ref()
        {
            self.trace.request(&method, &url, headers, &bytes);
        }
        let began = Instant::now();
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| Failure::Message(format!("bad request path {path:?}: {error}")))?;
        let sending = async { self.inner.send(request).await.map_err(|error| self.unreachable(&error)) };
        let response = self.in_time(sending).await?;
        self.trace.response(&method, &url, response.status(), response.headers(), began.elapsed());
        for warning in response.headers().get_all("warning") {
            self.warnings.fetch_add(1, Ordering::Relaxed);
            show_warning(warning.to_str().unwrap_or_default());
        }
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = collect(response).await?;
        self.trace.body("Response Body", &bytes);
        Err(refusal(code, &bytes))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn bytes(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<(&str, Vec<u8>)>,
        accept: &str,
    ) -> Outcome<Bytes> {
        let response = self.send(method, path, query, body, accept).await?;
        let bytes = self.in_time(collect(response)).await?;
        self.trace.body("Response Body", &bytes);
        Ok(bytes)
    }

    /// The same for JSON.
    ///
    /// # Errors
    /// As [`Self::send`], or the answer is no JSON.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<(&str, &Value)>,
    ) -> Outcome<Value> {
        let body = body.map(|(kind, value)| (kind, value.to_string().into_bytes()));
        let bytes = self.bytes(method, path, query, body, JSON).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Message(format!("the server's answer is no JSON: {error}")))
    }

    /// `GET` of JSON.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn get(&self, path: &str, query: Query<'_>) -> Outcome<Value> {
        self.call(Method::GET, path, query, None).await
    }

    /// What comes before patience is at an end.
    async fn in_time<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let Some(patience) = self.patience else { return work.await };
        tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
            Err(Failure::Verbatim("Unable to connect to the server: context deadline exceeded".into()))
        })
    }

    /// `--request-timeout`, for answers that come bit by bit.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// How many warnings the server gave so far.
    pub(crate) fn warnings(&self) -> usize {
        self.warnings.load(Ordering::Relaxed)
    }

    /// The client below, for streams.
    pub(crate) fn kube(&self) -> kube::Client {
        self.inner.clone()
    }

    /// The words for a server that did not answer.
    pub(crate) fn unreachable(&self, error: &kube::Error) -> Failure {
        Self::unreached(&self.host, error)
    }

    /// The same for any host, `NAME:PORT`.
    pub(crate) fn unreached(host: &str, error: &kube::Error) -> Failure {
        let text = chain(error);
        if text.contains("onnection refused") {
            return Failure::Verbatim(format!(
                "The connection to the server {} was refused - did you specify the right host or port?",
                host
            ));
        }
        Failure::Verbatim(format!("Unable to connect to the server: {}", unreachable::reworded(&text, host)))
    }
}

fn check_files(cluster: &Value, user: &Value) -> Outcome {
    let checks = [(cluster, "certificate-authority"), (user, "client-certificate"), (user, "client-key")];
    for (from, field) in checks {
        if let Some(path) = from[field].as_str()
            && !path.is_empty()
            && let Err(error) = std::fs::File::open(path)
        {
            return fail(format!(
                "unable to read {field} {path}: open {path}: {}",
                crate::failure::io_text(&error)
            ));
        }
    }
    for (from, field) in [
        (cluster, "certificate-authority-data"),
        (user, "client-certificate-data"),
        (user, "client-key-data"),
    ] {
        if let Some(data) = from[field].as_str()
            && base64::engine::general_purpose::STANDARD.decode(data).is_err()
        {
            return fail(format!("{field} of the kubeconfig is no base64"));
        }
    }
    Ok(())
}

/// An error with everything below it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// The whole body.
///
/// # Errors
/// The connection breaks off.
pub(crate) async fn collect(response: Response<Body>) -> Outcome<Bytes> {
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| Failure::Message(format!("the server's answer breaks off: {error}")))
}

/// The failure an answer with an error code is.
fn refusal(code: u16, bytes: &[u8]) -> Failure {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(status) if status["kind"] == "Status" => Failure::Status(Box::new(status)),
        _ => {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim();
            let (reason, message) = match code {
                401 => ("Unauthorized", "Unauthorized".to_owned()),
                403 => ("Forbidden", format!("forbidden: {text}")),
                404 => ("NotFound", "the server could not find the requested resource".to_owned()),
                405 => (
                    "MethodNotAllowed",
                    "the server does not allow this method on the requested resource".into(),
                ),
                503 => ("ServiceUnavailable", "the server is currently unable to handle the request".into()),
                _ => ("", text.to_owned()),
            };
            Failure::Status(Box::new(
                json!({"kind": "Status", "reason": reason, "message": message, "code": code}),
            ))
        }
    }
}

/// `299 - "text"` as `Warning: text`.
fn show_warning(header: &str) {
    let text = header.split_once('"').map_or(header, |(_, text)| text.strip_suffix('"').unwrap_or(text));
    eprintln!("Warning: {}", text.replace("\\\"", "\"").replace("\\\\", "\\"));
}

/// Path and query, escaped.
fn target(path: &str, query: Query<'_>) -> String {
    let mut uri = path.to_owned();
    for (index, (key, value)) in query.iter().enumerate() {
        uri.push(if index == 0 && !path.contains('?') { '?' } else { '&' });
        uri.push_str(key);
        uri.push('=');
        uri.extend(percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC));
    }
    uri
}
