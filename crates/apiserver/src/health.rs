//! `/livez`, `/readyz`, `/healthz` and `/version`: what anyone may ask.

use crate::answer;
use crate::body::Body;
use crate::query::Query;
use http::{Response, StatusCode};
use serde_json::json;

/// The Kubernetes version that is served.
pub const KUBERNETES_VERSION: (&str, &str) = ("1", "33");

/// The answer, if the path is one of these. A server that answers at all is healthy unless its store cannot be written:
/// `failure` says why.
pub(crate) fn answer(path: &str, query: &Query, failure: Option<&str>) -> Option<Response<Body>> {
    let name = match path {
        "/version" | "/version/" => return Some(answer::json_value(StatusCode::OK, &version())),
        "/livez" | "/livez/" => "livez",
        "/readyz" | "/readyz/" => "readyz",
        "/healthz" | "/healthz/" => "healthz",
        "/livez/ping" | "/readyz/ping" | "/healthz/ping" => return Some(text(StatusCode::OK, "ok")),
        _ => return None,
    };
    if let Some(reason) = failure {
        let body = format!("[+]ping ok\n[-]store failed: {reason}\n{name} check failed\n");
        return Some(text(StatusCode::INTERNAL_SERVER_ERROR, &body));
    }
    if query.has("verbose") {
        return Some(text(StatusCode::OK, &format!("[+]ping ok\n[+]store ok\n{name} check passed\n")));
    }
    Some(text(StatusCode::OK, "ok"))
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    answer::raw(status, "text/plain; charset=utf-8", body.to_owned())
}

fn version() -> serde_json::Value {
    let (major, minor) = KUBERNETES_VERSION;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+sagong{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none (Rust)",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

/// The architecture as Go and container images name it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
