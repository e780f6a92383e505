//! Which protocol a client wants to go on in, and the answer that says so. Pure.

use crate::body::{Body, full};
use crate::failure::{Failure, Outcome};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const SPDY: &str = "SPDY/3.1";
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What a client wants to speak: each with the protocols within that it knows, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// RFC 6455.
    WebSocket {
        /// `Sec-WebSocket-Key`.
        key: String,
        /// `Sec-WebSocket-Protocol`.
        protocols: Vec<String>,
    },
    /// SPDY/3.1.
    Spdy {
        /// `X-Stream-Protocol-Version`.
        protocols: Vec<String>,
    },
}

/// What was agreed on.
pub(super) struct Agreed {
    /// The name of the protocol within; empty if none was asked for.
    pub(super) protocol: String,
    /// The answer to the client.
    pub(super) response: Response<Body>,
}

impl Asked {
    /// Reads what a client wants.
    pub(super) fn of(headers: &HeaderMap) -> Outcome<Self> {
        let required = || Failure::bad_request("Upgrade request required");
        if !list(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade")) {
            return Err(required());
        }
        let wanted = list(headers, &UPGRADE);
        let wants = |protocol: &str| wanted.iter().any(|word| word.eq_ignore_ascii_case(protocol));
        if wants(SPDY) {
            return Ok(Self::Spdy { protocols: list(headers, &VERSION) });
        }
        if !wants("websocket") {
            return Err(required());
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(Failure::bad_request("only version 13 of WebSocket is supported"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        let key = key.ok_or_else(|| Failure::bad_request("Sec-WebSocket-Key is missing"))?.to_owned();
        Ok(Self::WebSocket { key, protocols: list(headers, &SEC_WEBSOCKET_PROTOCOL) })
    }

    /// Agrees on the first of the client's protocols that the server knows.
    ///
    /// # Errors
    /// The answer to a client that knows none of them.
    pub(super) fn agree(&self, known: &[&str]) -> Result<Agreed, Box<Response<Body>>> {
        let (Self::WebSocket { protocols, .. } | Self::Spdy { protocols }) = self;
        let protocol = match protocols.iter().find(|asked| known.contains(&asked.as_str())) {
            Some(found) => found.clone(),
            // Clients from before there was a choice.
            None if protocols.is_empty() && known.contains(&"") => String::new(),
            None => return Err(Box::new(refusal(protocols, known))),
        };
        let mut response = Response::new(full(Vec::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let name = match self {
            Self::WebSocket { key, .. } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                }
                SEC_WEBSOCKET_PROTOCOL
            }
            Self::Spdy { .. } => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                VERSION
            }
        };
        if let Some(value) = HeaderValue::from_str(&protocol).ok().filter(|value| !value.is_empty()) {
            headers.insert(name, value);
        }
        Ok(Agreed { protocol, response })
    }
}

fn refusal(asked: &[String], known: &[&str]) -> Response<Body> {
    let known: Vec<&str> = known.iter().copied().filter(|name| !name.is_empty()).collect();
    let text = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        asked.join(" "),
        known.join(" ")
    );
    let mut response = Response::new(full(text));
    *response.status_mut() = StatusCode::FORBIDDEN;
    for name in known {
        if let Ok(value) = HeaderValue::from_str(name) {
            response.headers_mut().append(ACCEPTED, value);
        }
    }
    response
}

/// The words of a header, from all its lines.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let words = lines.flat_map(|line| line.split(',')).map(str::trim);
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn spdy(versions: &[&str]) -> HeaderMap {
        let mut lines = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        lines.extend(versions.iter().map(|version| ("x-stream-protocol-version", *version)));
        headers(&lines)
    }

    #[rstest]
    #[case(&["v4.channel.k8s.io", "v3.channel.k8s.io"], Some("v4.channel.k8s.io"))]
    #[case(&["v9.channel.k8s.io", "v3.channel.k8s.io"], Some("v3.channel.k8s.io"))]
    #[case(&["v9.channel.k8s.io, v3.channel.k8s.io"], Some("v3.channel.k8s.io"))]
    #[case(&[], Some(""))]
    #[case(&["v9.channel.k8s.io"], None)]
    fn the_first_protocol_both_know_is_taken(#[case] versions: &[&str], #[case] expected: Option<&str>) {
        let known = ["v4.channel.k8s.io", "v3.channel.k8s.io", ""];
        let agreed = Asked::of(&spdy(versions)).ok().unwrap().agree(&known);
        assert_eq!(agreed.as_ref().ok().map(|agreed| agreed.protocol.as_str()), expected);
        match agreed {
            Ok(agreed) => {
                assert_eq!(agreed.response.status(), 101);
                let version = agreed.response.headers().get("x-stream-protocol-version");
                assert_eq!(version.map_or("", |value| value.to_str().unwrap()), agreed.protocol);
            }
            Err(refusal) => {
                assert_eq!(refusal.status(), 403);
                let accepted = refusal.headers().get_all("x-accepted-stream-protocol-versions");
                assert_eq!(accepted.iter().count(), 2);
            }
        }
    }

    #[test]
    fn a_websocket_is_accepted_with_the_key_of_the_rfc() {
        let asked = Asked::of(&headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
        ]));
        let agreed = asked.ok().unwrap().agree(&["v4.channel.k8s.io"]).ok().unwrap();
        assert_eq!(agreed.response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(agreed.response.headers()["sec-websocket-protocol"], "v4.channel.k8s.io");
    }

    #[rstest]
    #[case(&[])]
    #[case(&[("connection", "Upgrade")])]
    #[case(&[("connection", "Upgrade"), ("upgrade", "h2c")])]
    #[case(&[("connection", "close"), ("upgrade", "websocket")])]
    fn anything_else_is_told_to_upgrade(#[case] lines: &[(&'static str, &str)]) {
        let failure = Asked::of(&headers(lines)).err().unwrap();
        assert_eq!(failure.0.message.as_deref(), Some("Upgrade request required"));
        assert_eq!(failure.code(), 400);
    }
}
