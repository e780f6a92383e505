//! HTTP to a pod or a service through the API server: `/pods/NAME/proxy/PATH`, `/services/NAME/proxy/PATH`.
//!
//! * `location`: which address is meant. Pure.
//! * `forward`: the request to it and the answer back.
//!
//! Links in pages are not rewritten, unlike upstream's; redirects are.

mod forward;
mod location;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::wire::Stored;
use forward::Destination;
use http::header::{HeaderValue, LOCATION};
use http::{Method, Response, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use location::Named;
use rand::seq::SliceRandom;
use sagong_api::error::ApiError;

/// What of the request the proxy passes on.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// The path after `proxy`, as it was written: empty, or with a slash in front.
    pub(crate) tail: String,
    /// The connection itself, if it can be had.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// Whether a subresource of this resource is a proxy.
pub(crate) fn is_proxy(group: &str, resource: &str, subresource: Option<&str>) -> bool {
    group.is_empty() && matches!(resource, "pods" | "services") && subresource == Some("proxy")
}

/// Answers with what the pod, or one of the service's pods, answers.
pub(crate) async fn answer(context: &Context, call: Call) -> Outcome<Response<Body>> {
    let kind = context.resource.id.singular;
    let named = Named::parse(context.name());
    let named =
        named.ok_or_else(|| Failure::bad_request(format!("invalid {kind} request {:?}", context.name())))?;
    let destination = match context.resource.id.plural {
        "services" => of_service(context, &named).await?,
        _ => of_pod(context, &named).await?,
    };
    if call.tail.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        // Relative links of the page at `/` must lead below `proxy/`.
        return Ok(with_slash(&call.uri));
    }
    forward::forward(destination, call, &context.headers, context.body.clone()).await
}

fn with_slash(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = answer::raw(StatusCode::MOVED_PERMANENTLY, "text/plain", Vec::new());
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn of_pod(context: &Context, named: &Named<'_>) -> Outcome<Destination> {
    let pod: Pod = read(context, &context.resource, named.name).await?;
    let address = location::of_pod(&pod, named)?;
    Ok(Destination { https: named.https, address })
}

async fn of_service(context: &Context, named: &Named<'_>) -> Outcome<Destination> {
    let service: Service = read(context, &context.resource, named.name).await?;
    let endpoints: Endpoints = read(context, context.core.resources.core("endpoints")?, named.name).await?;
    let mut candidates = location::of_service(&service, &endpoints, named)?;
    candidates.shuffle(&mut rand::rng());
    let pods = context.core.resources.core("pods")?;
    for candidate in candidates {
        // Endpoints can be written by hand; only what is a pod's address is asked.
        match read::<Pod>(context, pods, &candidate.pod).await {
            Ok(pod) if location::has_address(&pod, candidate.address.ip()) => {
                return Ok(Destination { https: named.https, address: candidate.address });
            }
            Ok(_) => {}
            Err(failure) if failure.code() == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(location::no_endpoints(context.name()).into())
}

/// The object of this name in the request's namespace.
async fn read<K: Clone + 'static>(context: &Context, resource: &Resource, name: &str) -> Outcome<K> {
    let entry = context.core.store.get(&resource.key(context.namespace.as_deref(), name)).await?;
    let entry = entry
        .ok_or_else(|| ApiError::NotFound { resource: resource.qualified.clone(), name: name.to_owned() })?;
    let object = resource.decode_stored(&Stored::from(&entry))?;
    let typed = object.as_any().downcast_ref::<K>();
    typed.cloned().ok_or_else(|| Failure::internal(format!("a stored {} is not one", resource.id.kind)))
}
