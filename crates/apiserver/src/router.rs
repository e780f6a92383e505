//! From an HTTP request to an answer: who, what, may they, do it.

use crate::absent::Absent;
use crate::answer;
use crate::authn::{self, User};
use crate::authz::{self, Attributes};
use crate::body::{Body, BoxError};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::pods::{binding, ephemeral, eviction, log};
use crate::query::Query;
use crate::resources::Resource;
use crate::rest::{create, delete, get, list, patch, scale, update, watch};
use crate::state::Core;
use crate::target::{Path, Target};
use crate::{compress, discovery, health, impersonation, namespaces, proxy, reviews, streams, tokens};
use bytes::Bytes;
use futures::FutureExt;
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use sagong_api::error::ApiError;
use sagong_api::kind::Part;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

/// The largest body that is read (`--max-request-bytes` of upstream's server), in bytes.
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A component in this process.
    InProcess(Arc<User>),
    /// A client over TLS, with the user of its certificate if it showed one.
    Tls(Option<Arc<User>>),
}

/// Answers a request. Never fails: failures are answers too, and a panic is a 500.
pub(crate) async fn handle<B>(core: Arc<Core>, peer: Peer, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let over_network = matches!(peer, Peer::Tls(_));
    let (parts, body) = request.into_parts();
    let accepts_gzip = over_network && compress::accepts_gzip(&parts.headers);
    let answered = AssertUnwindSafe(answer_to(core, peer, parts, body)).catch_unwind().await;
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => answer::failure(&failure),
        Err(_) => {
            tracing::error!(%method, %uri, "a handler panicked");
            answer::failure(&Failure::internal("the server could not handle the request"))
        }
    };
    tracing::debug!(%method, %uri, code = response.status().as_u16(), took = ?started.elapsed(), "request");
    if accepts_gzip { compress::compress(response).await } else { response }
}

async fn answer_to<B>(core: Arc<Core>, peer: Peer, mut parts: Parts, body: B) -> Outcome<Response<Body>>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let query = Query::parse(parts.uri.query());
    let path = parts.uri.path();
    let target = Target::parse(path);
    check_timeout(&target, &query)?;
    let user = authenticate(&core, peer, &parts).await;
    // Strangers are answered; who shows a wrong token is told so, as everywhere.
    let stranger = authn::bearer(&parts.headers).is_none();
    if parts.method == Method::GET
        && (user.is_ok() || stranger)
        && let Some(response) = health::answer(path, &query, failure(&core, user.is_ok()).as_deref())
    {
        return Ok(response);
    }
    let user = user?;
    match target {
        Target::Other => other(&core, &user, &parts, path),
        Target::Resource(target) => {
            let verb = verb(&parts.method, &target, &query)?;
            authz::authorize(&user, &attributes(verb, &target))?;
            let body = read(body).await?;
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let Parts { method, uri, headers, .. } = parts;
            let request = Pending { core, user, method, uri, target, query, headers, body, upgrade };
            request.dispatch(verb).await
        }
    }
}

/// Why the store cannot be written, if so; strangers are not told why.
fn failure(core: &Core, is_known: bool) -> Option<String> {
    let reason = core.store.failure()?;
    Some(if is_known { reason } else { "reason withheld".to_owned() })
}

/// Whether `timeout`, with which clients say how long they wait, is a duration. (It does not end a request: answers
/// that are no streams take milliseconds.)
fn check_timeout(target: &Target, query: &Query) -> Outcome<()> {
    let stream = match target {
        Target::Other => false,
        Target::Resource(path) => {
            let streams = ["attach", "exec", "log", "portforward", "proxy"];
            query.flag("watch") || path.subresource.as_deref().is_some_and(|sub| streams.contains(&sub))
        }
    };
    match query.get("timeout") {
        Some(given) if !stream && given != "0" && given.parse::<jiff::SignedDuration>().is_err() => {
            let what = format!("time: invalid duration {given:?}");
            Err(Failure::bad_request(format!("invalid timeout specified in the request URL - {what}")))
        }
        _ => Ok(()),
    }
}

/// Who asks, or as whom.
async fn authenticate(core: &Core, peer: Peer, parts: &Parts) -> Outcome<Arc<User>> {
    let user = identify(core, peer, parts).await?;
    impersonation::impersonate(user, &parts.headers)
}

async fn identify(core: &Core, peer: Peer, parts: &Parts) -> Outcome<Arc<User>> {
    match peer {
        Peer::InProcess(user) | Peer::Tls(Some(user)) => Ok(user),
        Peer::Tls(None) => {
            let Some(token) = authn::bearer(&parts.headers) else {
                return Err(ApiError::Unauthorized.into());
            };
            match tokens::authenticate(core, token, &[]).await {
                Ok(found) => Ok(found.user),
                Err(error) => {
                    tracing::debug!(%error, "a token is refused");
                    Err(ApiError::Unauthorized.into())
                }
            }
        }
    }
}

/// Discovery, OpenAPI and version.
fn other(core: &Core, user: &User, parts: &Parts, path: &str) -> Outcome<Response<Body>> {
    let verb = parts.method.as_str().to_lowercase();
    let attributes = Attributes { verb, path: Some(path.to_owned()), ..Attributes::default() };
    authz::authorize(user, &attributes)?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(ApiError::MethodNotAllowed.into());
    }
    discovery::answer(core, parts)
}

/// The whole body, up to the limit.
async fn read<B>(body: B) -> Outcome<Bytes>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(ApiError::TooLarge { limit: BODY_LIMIT }.into())
        }
        Err(error) => Err(Failure::bad_request(format!("reading the request body: {error}"))),
    }
}

/// The verb as authorisation knows it.
fn verb(method: &Method, target: &Path, query: &Query) -> Outcome<&'static str> {
    let one = target.name.is_some();
    Ok(match method.as_str() {
        "GET" | "HEAD" if query.flag("watch") && target.subresource.is_none() => "watch",
        // Asked for with POST in one protocol and with GET in the other; the right to it is the same.
        "GET" | "POST"
            if streams::is_stream(&target.group, &target.resource, target.subresource.as_deref()) =>
        {
            "create"
        }
        "OPTIONS" if proxy::is_proxy(&target.group, &target.resource, target.subresource.as_deref()) => "get",
        "GET" | "HEAD" if one => "get",
        "GET" | "HEAD" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if one => "delete",
        "DELETE" => "deletecollection",
        _ => return Err(ApiError::MethodNotAllowed.into()),
    })
}

fn attributes(verb: &str, target: &Path) -> Attributes {
    // A namespace's own path names it as namespace too, as upstream's request info does.
    let own = (target.resource == "namespaces").then(|| target.name.clone()).flatten();
    Attributes {
        verb: verb.to_owned(),
        group: target.group.clone(),
        resource: target.resource.clone(),
        subresource: target.subresource.clone().unwrap_or_default(),
        namespace: target.namespace.clone().or(own).unwrap_or_default(),
        name: target.name.clone().unwrap_or_default(),
        path: None,
    }
}

/// A request that is allowed and not yet carried out.
struct Pending {
    core: Arc<Core>,
    user: Arc<User>,
    method: Method,
    uri: Uri,
    target: Path,
    query: Query,
    headers: http::HeaderMap,
    body: Bytes,
    /// The connection itself, if it can be had.
    upgrade: Option<OnUpgrade>,
}

impl Pending {
    async fn dispatch(self, verb: &'static str) -> Outcome<Response<Body>> {
        let Path { group, version, resource, .. } = &self.target;
        if let Some(review) = reviews::Review::find(group, version, resource) {
            return if verb == "create" && self.target.name.is_none() {
                review.answer(&self.core, &self.user, &self.headers, &self.body).await
            } else {
                Err(ApiError::MethodNotAllowed.into())
            };
        }
        if let Some(absent) = Absent::find(group, version, resource) {
            return absent.answer(self.core, verb, self.target.name, &self.query);
        }
        // `/bindings` is the one collection that holds nothing.
        let bindings = (group.as_str(), resource.as_str()) == ("", "bindings");
        let plural = if bindings { "pods" } else { resource };
        let found = self.core.resources.find(group, version, plural).cloned();
        let found = found.ok_or(ApiError::UnknownResource)?;
        check_scope(&found, &self.target, verb)?;
        let subresource = if bindings { Some("binding".to_owned()) } else { self.target.subresource.clone() };
        let is_proxy = proxy::is_proxy(group, resource, subresource.as_deref());
        if !is_proxy && !self.target.rest.trim_matches('/').is_empty() {
            return Err(ApiError::UnknownResource.into());
        }
        let is_stream = streams::is_stream(group, resource, subresource.as_deref());
        let context = Context {
            core: self.core,
            resource: found,
            namespace: self.target.namespace,
            name: self.target.name,
            query: self.query,
            headers: self.headers,
            body: self.body,
        };
        if is_proxy {
            let Self { method, uri, upgrade, .. } = self;
            let call = proxy::Call { method, uri, tail: self.target.rest, upgrade };
            return proxy::answer(&context, call).await;
        }
        match subresource {
            None => object(&context, verb).await,
            Some(subresource) if is_stream => match verb {
                "create" => streams::answer(&context, &subresource, self.upgrade).await,
                _ => Err(ApiError::MethodNotAllowed.into()),
            },
            Some(subresource) => sub(&context, &subresource, verb).await,
        }
    }
}

/// Whether the path has a namespace exactly when the kind has one.
fn check_scope(resource: &Resource, target: &Path, verb: &str) -> Outcome<()> {
    match (&target.namespace, resource.id.namespaced) {
        (Some(_), false) => Err(ApiError::UnknownResource.into()),
        (None, true) if target.name.is_some() => Err(ApiError::UnknownResource.into()),
        (None, true) if !matches!(verb, "list" | "watch") => Err(ApiError::MethodNotAllowed.into()),
        _ => Ok(()),
    }
}

/// The verbs on objects and collections.
async fn object(context: &Context, verb: &str) -> Outcome<Response<Body>> {
    match (verb, context.name.is_some()) {
        ("get", true) => get::get(context).await,
        ("list", false) => list::list(context).await,
        ("watch", _) => watch::watch(context).await,
        ("create", false) => create::create(context).await,
        ("update", true) => update::update(context, Part::Main).await,
        ("patch", true) => patch::patch(context, Part::Main).await,
        ("delete", true) => delete::delete(context).await,
        ("deletecollection", false) => delete::delete_collection(context).await,
        _ => Err(ApiError::MethodNotAllowed.into()),
    }
}

/// The verbs on subresources, but for streams and proxies.
async fn sub(context: &Context, subresource: &str, verb: &str) -> Outcome<Response<Body>> {
    let has = context.resource.kind().subresources();
    match (context.resource.qualified.as_str(), subresource, verb) {
        (_, "status", "get") if has.status => get::get(context).await,
        (_, "status", "update") if has.status => update::update(context, Part::Status).await,
        (_, "status", "patch") if has.status => patch::patch(context, Part::Status).await,
        (_, "scale", "get") if has.scale => scale::get(context).await,
        (_, "scale", "update") if has.scale => scale::update(context).await,
        (_, "scale", "patch") if has.scale => scale::patch(context).await,
        ("pods", "binding", "create") => binding::bind(context).await,
        ("pods", "ephemeralcontainers", "get") => get::get(context).await,
        ("pods", "ephemeralcontainers", "update") => ephemeral::update(context).await,
        ("pods", "ephemeralcontainers", "patch") => ephemeral::patch(context).await,
        ("pods", "eviction", "create") => eviction::evict(context).await,
        ("pods", "log", "get") => log::log(context).await,
        ("namespaces", "finalize", "update") => namespaces::finalize(context).await,
        ("serviceaccounts", "token", "create") => tokens::request(context).await,
        (_, "status", _) if has.status => Err(ApiError::MethodNotAllowed.into()),
        (_, "scale", _) if has.scale => Err(ApiError::MethodNotAllowed.into()),
        ("pods", "binding" | "eviction" | "log", _) => Err(ApiError::MethodNotAllowed.into()),
        _ => Err(ApiError::UnknownResource.into()),
    }
}
