//! gzip of large answers.

use crate::body::{Body, full};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::io::Write;

/// Answers smaller than this, in bytes, are not worth it (upstream's threshold).
const THRESHOLD: u64 = 128 * 1024;

/// Whether the client says it can read gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|v| v.split(';').next().unwrap_or("").trim() == "gzip")
}

/// Compresses an answer of known size that is large; streams are left alone.
pub(crate) async fn compress(response: Response<Body>) -> Response<Body> {
    let large = response.body().size_hint().exact().is_some_and(|size| size >= THRESHOLD);
    if !large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A body of known size is in memory: collecting it does not wait and cannot fail.
    let plain = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let input = plain.clone();
    let zipped = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&input)?;
        encoder.finish()
    });
    match zipped.await {
        Ok(Ok(zipped)) => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            parts.headers.remove(CONTENT_LENGTH);
            Response::from_parts(parts, full(zipped))
        }
        _ => Response::from_parts(parts, full(plain)),
    }
}
