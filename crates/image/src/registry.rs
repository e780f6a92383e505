//! A repository of a registry (OCI distribution spec): its manifests and blobs, asked for politely.
//!
//! * [`auth`]: who we are: basic authentication and tokens.
//! * [`retry`]: whether to ask once more, and when; pure.
//!
//! Bodies are bounded and nothing that comes is trusted: who asks checks the digest.

mod auth;
mod retry;

use crate::Credentials;
use crate::reference::is_loopback;
use auth::Authorizer;
use oci_spec::distribution::Reference;
use reqwest::header::{ACCEPT, CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use std::error::Error;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Manifests and configs are small; a larger one is an attack on our memory.
pub(crate) const DOCUMENT_LIMIT: u64 = 8 << 20;
/// How much of an answer that says no is read.
const REFUSAL_LIMIT: u64 = 64 << 10;
/// Hub's registry does not live under the name that its images bear.
const HUB: &str = "registry-1.docker.io";
/// Manifests that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     */*;q=0.1";

/// Why a registry did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// No connection, or it broke.
    #[error("{}", chain(.0))]
    Connection(#[from] reqwest::Error),
    /// Nobody is let in without, or with these, credentials.
    #[error("pull access denied, repository does not exist or may require authorization: {given}: {said}")]
    Denied {
        /// What was tried.
        given: &'static str,
        /// What the registry said.
        said: String,
    },
    /// It has no such thing.
    #[error("not found: {0}")]
    NotFound(String),
    /// It answered with something else.
    #[error("the registry answered {status}{}: {said}", later(.retry_after))]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
        /// What it said.
        said: String,
    },
    /// Its answer makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

fn later(retry_after: &Option<Duration>) -> String {
    retry_after.map(|wait| format!(" (try again in {} s)", wait.as_secs())).unwrap_or_default()
}

/// Where a blob's bytes begin that are coming.
pub(crate) enum Bytes {
    /// Where it was asked for.
    Continued(Response),
    /// At the beginning of the blob, whatever was asked for.
    FromStart(Response),
}

/// What speaks HTTP for all registries: it keeps connections, and takes its time to make.
#[derive(Default)]
pub(crate) struct Clients {
    /// To this machine.
    direct: OnceLock<Client>,
    /// To others, through a proxy if the environment names one.
    outside: OnceLock<Client>,
}

impl Clients {
    fn get(&self, is_here: bool) -> Result<Client, RegistryError> {
        let place = if is_here { &self.direct } else { &self.outside };
        if let Some(client) = place.get() {
            return Ok(client.clone());
        }
        // Fails only if one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("sagong/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60));
        if is_here {
            builder = builder.no_proxy(); // a proxy's loopback is another one
        }
        let client = builder.build()?;
        Ok(place.get_or_init(|| client).clone())
    }
}

/// One repository.
pub(crate) struct Registry {
    http: Client,
    /// `https://host/v2/repository`.
    base: String,
    auth: Authorizer,
}

impl Registry {
    /// An image's repository. Asks nothing yet. Only with a registry on this machine it speaks plain HTTP.
    ///
    /// # Errors
    /// If the machine's certificates or proxy settings cannot be used.
    pub(crate) fn new(
        clients: &Clients,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        let host = match reference.registry() {
            "docker.io" => HUB,
            other => other,
        };
        let is_here = is_loopback(host);
        let scheme = if is_here { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}", reference.repository());
        let auth = Authorizer::new(reference.repository(), !is_here, credentials);
        Ok(Self { http: clients.get(is_here)?, base, auth })
    }

    /// A manifest or index by tag or digest: the bytes as they came, unchecked.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Vec<u8>, RegistryError> {
        let url = format!("{}/manifests/{name}", self.base);
        let response = self.ask(|| self.http.get(&url).header(ACCEPT, MANIFESTS)).await?;
        limited(response, DOCUMENT_LIMIT).await
    }

    /// A small blob, such as a config: the bytes as they came, unchecked.
    pub(crate) async fn document(&self, digest: &str) -> Result<Vec<u8>, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        let response = self.ask(|| self.http.get(&url)).await?;
        limited(response, DOCUMENT_LIMIT).await
    }

    /// A blob's bytes from `offset` on, unchecked; from the start if the registry cannot do otherwise.
    pub(crate) async fn blob(&self, digest: &str, offset: u64) -> Result<Bytes, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        let request = || match offset {
            0 => self.http.get(&url),
            _ => self.http.get(&url).header(RANGE, format!("bytes={offset}-")),
        };
        let response = match self.ask(request).await {
            Err(RegistryError::Refused { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) if offset > 0 => {
                self.ask(|| self.http.get(&url)).await?
            }
            other => other?,
        };
        match (response.status(), begin(response.headers())) {
            (StatusCode::PARTIAL_CONTENT, Some(begin)) if begin == offset => Ok(Bytes::Continued(response)),
            (StatusCode::PARTIAL_CONTENT, begin) => Err(RegistryError::Nonsense(format!(
                "the registry sent bytes from {begin:?} on where those from {offset} on were asked for"
            ))),
            _ => Ok(Bytes::FromStart(response)),
        }
    }

    /// Sends a request, with authorization if the registry asks for it.
    async fn ask(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, RegistryError> {
        let used = self.auth.current().await;
        let refusal = match patiently(|| used.apply(request())).await? {
            Ok(response) => return Ok(response),
            Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED => refusal,
            Err(refusal) => return Err(self.refused(refusal)),
        };
        let granted = self.auth.answer(&self.http, &refusal, &used).await?;
        patiently(|| granted.apply(request())).await?.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> RegistryError {
        match refusal.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.auth.denied(refusal.said),
            StatusCode::NOT_FOUND => RegistryError::NotFound(refusal.said),
            _ => refusal.into(),
        }
    }
}

/// An answer that is not success.
struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    retry_after: Option<Duration>,
    said: String,
}

impl From<Refusal> for RegistryError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { status: refusal.status, retry_after: refusal.retry_after, said: refusal.said }
    }
}

/// Sends a request, again if the other side is only busy for the moment.
async fn patiently(request: impl Fn() -> RequestBuilder) -> Result<Result<Response, Refusal>, RegistryError> {
    let mut tries = 0;
    loop {
        let response = request().send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(Ok(response));
        }
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = after.and_then(|after| retry::after(after, SystemTime::now()));
        let said = said(response).await;
        match retry::wait(status, retry_after, tries) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Ok(Err(Refusal { status, headers, retry_after, said })),
        }
        tries += 1;
    }
}

/// A whole body of at most `limit` bytes.
async fn limited(mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit {
            return Err(RegistryError::Nonsense(format!("the registry sent a document over {limit} bytes")));
        }
    }
    Ok(body)
}

/// What an answer says went wrong: the messages of the spec's error body, or the beginning of another one.
async fn said(response: Response) -> String {
    let (status, body) = (response.status(), limited(response, REFUSAL_LIMIT).await.unwrap_or_default());
    let parsed: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let errors = parsed.as_ref().and_then(|body| body.get("errors")?.as_array());
    let text = |error: &serde_json::Value, key: &str| {
        error.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let told: Vec<String> =
        errors.into_iter().flatten().filter_map(|e| text(e, "message").or_else(|| text(e, "code"))).collect();
    if !told.is_empty() {
        return told.join(", ");
    }
    let plain: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
    if plain.is_empty() { status.to_string() } else { plain }
}

/// The first byte of a partial answer.
fn begin(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

/// An error with all its causes, each told once. Addresses are left out: those that registries redirect to let
/// whoever reads them in.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut text = match error.url() {
        Some(url) => error.to_string().replace(url.as_str(), url.host_str().unwrap_or_default()),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
