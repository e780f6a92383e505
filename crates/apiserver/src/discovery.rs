//! What is served, in every form clients ask for it: `/api`, `/apis`, group and version lists, aggregated
//! discovery, OpenAPI.

mod aggregated;
mod openapi;
mod plain;

use crate::answer;
use crate::body::{Body, full};
use crate::failure::Outcome;
use crate::negotiate;
use crate::resources::{Resource, Resources};
use crate::reviews;
use crate::state::Core;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use http::request::Parts;
use http::{Response, StatusCode};
use ring::digest::{SHA256, digest};
use sagong_api::error::ApiError;
use std::collections::BTreeMap;

/// The documents, made once.
pub(crate) struct Cache {
    groups: Vec<Group>,
    openapi: openapi::Documents,
}

/// An API group with its one version.
pub(crate) struct Group {
    name: String,
    version: String,
    resources: Vec<Listed>,
}

impl Group {
    /// `v1` or `apps/v1`.
    fn group_version(&self) -> String {
        if self.name.is_empty() { self.version.clone() } else { format!("{}/{}", self.name, self.version) }
    }
}

/// A resource as discovery shows it.
pub(crate) struct Listed {
    plural: String,
    singular: String,
    kind: String,
    namespaced: bool,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static [&'static str],
    subresources: Vec<Sub>,
}

/// A subresource; the group and version are of what it carries, when that is another kind.
pub(crate) struct Sub {
    name: &'static str,
    foreign: Option<(&'static str, &'static str)>,
    kind: String,
    verbs: &'static [&'static str],
}

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const STREAM: &[&str] = &["create", "get"];

fn listed(resource: &Resource) -> Listed {
    let has = resource.kind().subresources();
    let mut subresources = Vec::new();
    let mut add = |name, foreign, kind: &str, verbs| {
        subresources.push(Sub { name, foreign, kind: kind.to_owned(), verbs });
    };
    match resource.qualified.as_str() {
        "pods" => {
            add("attach", None, "PodAttachOptions", STREAM);
            add("binding", None, "Binding", &["create"][..]);
            add("ephemeralcontainers", None, "Pod", CHANGE);
            add("eviction", Some(("policy", "v1")), "Eviction", &["create"][..]);
            add("exec", None, "PodExecOptions", STREAM);
            add("log", None, "Pod", &["get"][..]);
            add("portforward", None, "PodPortForwardOptions", STREAM);
            add("proxy", None, "PodProxyOptions", PROXY);
        }
        "services" => add("proxy", None, "ServiceProxyOptions", PROXY),
        "namespaces" => add("finalize", None, "Namespace", &["update"][..]),
        "serviceaccounts" => {
            add("token", Some(("authentication.k8s.io", "v1")), "TokenRequest", &["create"][..]);
        }
        _ => {}
    }
    if has.scale {
        add("scale", Some(("autoscaling", "v1")), "Scale", CHANGE);
    }
    if has.status {
        add("status", None, resource.id.kind, CHANGE);
    }
    Listed {
        plural: resource.id.plural.into(),
        singular: resource.id.singular.into(),
        kind: resource.id.kind.into(),
        namespaced: resource.id.namespaced,
        short_names: resource.id.short_names,
        categories: resource.id.categories,
        verbs: ALL_VERBS,
        subresources,
    }
}

/// A resource one can only create.
fn create_only(plural: &str, kind: &str, namespaced: bool) -> Listed {
    Listed {
        plural: plural.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        namespaced,
        short_names: &[],
        categories: &[],
        verbs: &["create"],
        subresources: Vec::new(),
    }
}

fn groups(resources: &Resources) -> Vec<Group> {
    let mut by_group: BTreeMap<(String, String), Vec<Listed>> = BTreeMap::new();
    for resource in resources.iter() {
        let key = (resource.id.group.to_owned(), resource.id.version.to_owned());
        by_group.entry(key).or_default().push(listed(resource));
    }
    by_group.entry((String::new(), "v1".into())).or_default().push(create_only("bindings", "Binding", true));
    for (_, group, plural, kind) in reviews::ALL {
        by_group.entry((group.into(), "v1".into())).or_default().push(create_only(plural, kind, false));
    }
    let group = |((name, version), mut resources): ((String, String), Vec<Listed>)| {
        resources.sort_by(|a, b| a.plural.cmp(&b.plural));
        Group { name, version, resources }
    };
    by_group.into_iter().map(group).collect()
}

impl Cache {
    pub(crate) fn new(resources: &Resources) -> Self {
        Self { groups: groups(resources), openapi: openapi::Documents::default() }
    }
}

/// A document with an entity tag; 304 when the client has it already.
fn tagged(headers: &HeaderMap, media_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let tag = format!("\"{}\"", hash(&bytes));
    let mut response = if headers.get(IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes()) {
        let mut response = Response::new(full(Vec::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response
    } else {
        answer::raw(StatusCode::OK, media_type, bytes)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// A short name for bytes.
fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

/// Answers a request for discovery.
pub(crate) fn answer(core: &Core, parts: &Parts) -> Outcome<Response<Body>> {
    let segments: Vec<&str> = parts.uri.path().split('/').filter(|s| !s.is_empty()).collect();
    let headers = &parts.headers;
    let cache = &core.discovery;
    let aggregated = || aggregated::wanted(&negotiate::clauses(headers));
    let value = match segments.as_slice() {
        [] => plain::root(&cache.groups),
        ["api"] => match aggregated() {
            Some(form) => return Ok(aggregated::answer(headers, form, &cache.groups, true)),
            None => plain::api_versions(),
        },
        ["apis"] => match aggregated() {
            Some(form) => return Ok(aggregated::answer(headers, form, &cache.groups, false)),
            None => plain::group_list(&cache.groups),
        },
        ["api", version] => find(&cache.groups, "", Some(version)).map(plain::resource_list)?,
        ["apis", group] => find(&cache.groups, group, None).map(plain::api_group)?,
        ["apis", group, version] => find(&cache.groups, group, Some(version)).map(plain::resource_list)?,
        ["openapi", rest @ ..] => return openapi::answer(core, parts, rest),
        _ => return Err(ApiError::UnknownResource.into()),
    };
    negotiate::negotiate(headers)?;
    Ok(answer::json_value(StatusCode::OK, &value))
}

fn find<'a>(groups: &'a [Group], name: &str, version: Option<&str>) -> Outcome<&'a Group> {
    let found = groups.iter().find(|g| g.name == name && version.is_none_or(|v| v == g.version));
    Ok(found.filter(|g| version.is_some() || !g.name.is_empty()).ok_or(ApiError::UnknownResource)?)
}
