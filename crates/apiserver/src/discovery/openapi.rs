//! `/openapi/v2` and `/openapi/v3`, made from the types when first asked for.

use super::{hash, tagged};
use crate::answer;
use crate::body::Body;
use crate::failure::Outcome;
use crate::negotiate;
use crate::query::Query;
use crate::state::Core;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use sagong_api::error::ApiError;
use sagong_api::openapi;
use serde_json::Value;
use std::collections::BTreeMap;

/// Documents that were made, by path.
#[derive(Default)]
pub(super) struct Documents(Mutex<BTreeMap<String, Bytes>>);

impl Documents {
    fn get_or_make(&self, path: &str, make: impl FnOnce() -> Option<Value>) -> Option<Bytes> {
        if let Some(made) = self.0.lock().get(path) {
            return Some(made.clone());
        }
        let made = Bytes::from(make()?.to_string());
        self.0.lock().insert(path.to_owned(), made.clone());
        Some(made)
    }
}

/// The beginning of the media types of OpenAPI 2 in protobuf.
const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2";

/// An OpenAPI 2 document without paths and definitions, in protobuf (`openapi.v2.Document`: swagger, info with
/// title and version, paths). kubectl asks for it in this form only when version 3 does not tell it enough:
/// about kinds that are not served, of which it would not tell either.
const V2_PROTOBUF: &[u8] = b"\x0a\x032.0\x12\x13\x0a\x0aKubernetes\x12\x05v1.33\x42\x00";

fn wants_protobuf(headers: &HeaderMap) -> bool {
    negotiate::clauses(headers).first().is_some_and(|clause| clause.media_type.starts_with(V2_PROTOBUF_TYPE))
}

/// Answers below `/openapi`.
pub(super) fn answer(core: &Core, parts: &Parts, rest: &[&str]) -> Outcome<Response<Body>> {
    let documents = &core.discovery.openapi;
    let kinds = &core.resources.kinds;
    match rest {
        ["v2"] if wants_protobuf(&parts.headers) => {
            Ok(answer::raw(StatusCode::OK, "application/octet-stream", V2_PROTOBUF))
        }
        ["v2"] => {
            let made = documents.get_or_make("v2", || Some(openapi::v2(kinds)));
            Ok(document(parts, made.ok_or(ApiError::UnknownResource)?))
        }
        ["v3"] => {
            let made = documents.get_or_make("v3", || Some(openapi::v3_index(kinds)));
            Ok(document(parts, made.ok_or(ApiError::UnknownResource)?))
        }
        ["v3", "api", version] => version_document(core, parts, version),
        ["v3", "apis", group, version] => version_document(core, parts, &format!("{group}/{version}")),
        _ => Err(ApiError::UnknownResource.into()),
    }
}

fn document(parts: &Parts, bytes: Bytes) -> Response<Body> {
    tagged(&parts.headers, "application/json", bytes.to_vec())
}

/// The document of a group-version. With the hash the index tells, it may be cached for ever; with another
/// one, the client is sent to the right one.
fn version_document(core: &Core, parts: &Parts, group_version: &str) -> Outcome<Response<Body>> {
    let kinds = &core.resources.kinds;
    let made = core.discovery.openapi.get_or_make(group_version, || openapi::v3(group_version, kinds));
    let bytes = made.ok_or(ApiError::UnknownResource)?;
    let mut response = document(parts, bytes.clone());
    if let Some(given) = Query::parse(parts.uri.query()).get("hash") {
        let index = core.discovery.openapi.get_or_make("v3", || Some(openapi::v3_index(kinds)));
        let told = index.is_some_and(|index| memchr::memmem::find(&index, given.as_bytes()).is_some());
        if told || given == hash(&bytes) {
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            headers.insert(EXPIRES, HeaderValue::from_static("Thu, 31 Dec 2099 23:59:59 GMT"));
        } else if let Ok(location) = HeaderValue::from_str(parts.uri.path()) {
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            response.headers_mut().insert(LOCATION, location);
        }
    }
    Ok(response)
}
