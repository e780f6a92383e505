//! Answers: objects, lists and failures as HTTP responses.

use crate::body::{Body, full};
use crate::failure::{Failure, Outcome};
use crate::negotiate::{Encoding, Shape, Wanted};
use crate::resources::Resource;
use crate::table::{self, Include};
use crate::wire::{self, Stored};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A response with a body of this media type.
pub(crate) fn raw(
    code: StatusCode,
    media_type: &'static str,
    bytes: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON bytes in the encoding that is wanted.
pub(crate) fn encoded(code: StatusCode, encoding: Encoding, json: Vec<u8>) -> Outcome<Response<Body>> {
    match encoding {
        Encoding::Json => Ok(raw(code, "application/json", json)),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json)
                .map_err(|e| Failure::internal(format!("encoding YAML: {e}")))?;
            let yaml = serde_saphyr::to_string(&value)
                .map_err(|e| Failure::internal(format!("encoding YAML: {e}")))?;
            Ok(raw(code, "application/yaml", yaml))
        }
    }
}

/// A JSON value.
pub(crate) fn json_value(code: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    raw(code, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// A failure as a response.
pub(crate) fn failure(failure: &Failure) -> Response<Body> {
    let code = StatusCode::from_u16(failure.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_value(code, &failure.0);
    if let Some(seconds) = failure.0.details.as_ref().and_then(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The members of a list's metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl ListMeta {
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            value["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining {
            value["remainingItemCount"] = json!(remaining);
        }
        value
    }
}

/// One object, as the client wants to see it.
pub(crate) fn object(
    code: StatusCode,
    wanted: Wanted,
    include: Include,
    resource: &Resource,
    stored: &Stored,
) -> Outcome<Response<Body>> {
    let json = match wanted.shape {
        Shape::Object => stored.to_wire(),
        Shape::PartialMetadata(version) => {
            table::partial(resource.decode_stored(stored)?.metadata(), stored, version)
        }
        Shape::Table(version) => {
            let row = table::row(resource, stored, include, version, Timestamp::now())?;
            let meta = ListMeta { revision: stored.revision, ..ListMeta::default() }.to_value();
            table::table(version, &meta, &table::definitions(resource), &[row])
        }
    };
    encoded(code, wanted.encoding, json)
}

/// A list, as the client wants to see it. `size` is about how many bytes its objects have together.
pub(crate) fn list(
    wanted: Wanted,
    include: Include,
    resource: &Resource,
    meta: &ListMeta,
    size: usize,
    items: impl Iterator<Item = Stored>,
) -> Outcome<Response<Body>> {
    let json = match wanted.shape {
        Shape::Object => plain_list(resource, meta, size, items),
        Shape::PartialMetadata(version) => {
            let mut partials = Vec::new();
            for item in items {
                partials.push(table::partial(resource.decode_stored(&item)?.metadata(), &item, version));
            }
            let head = format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/{version}","metadata":{},"items":["#,
                meta.to_value()
            );
            [head.as_bytes(), &partials.join(&b','), b"]}"].concat()
        }
        Shape::Table(version) => {
            let now = Timestamp::now();
            let rows: Result<Vec<_>, _> =
                items.map(|item| table::row(resource, &item, include, version, now)).collect();
            table::table(version, &meta.to_value(), &table::definitions(resource), &rows?)
        }
    };
    encoded(StatusCode::OK, wanted.encoding, json)
}

fn plain_list(
    resource: &Resource,
    meta: &ListMeta,
    size: usize,
    items: impl Iterator<Item = Stored>,
) -> Vec<u8> {
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{},"items":["#,
        resource.id.kind,
        resource.api_version,
        meta.to_value()
    );
    let mut out = Vec::with_capacity(head.len() + size + 2);
    out.extend_from_slice(head.as_bytes());
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        wire::splice(&mut out, &item.bytes, item.revision);
    }
    out.extend_from_slice(b"]}");
    out
}

/// Adds `Warning: 299 - "text"` headers.
pub(crate) fn with_warnings(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        // A header value holds no line breaks, and quotes inside the quoted text are escaped (RFC 7234 5.5).
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}
