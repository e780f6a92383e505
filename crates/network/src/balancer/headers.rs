//! Header fields that belong to a connection and not to the message (RFC 9110, 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Version};
use std::net::SocketAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The protocol the client wants to switch to, if it is one that a proxy can let pass. `h2c` is not: it would
/// turn the connection into something this balancer does not read; the client goes on with HTTP/1.1 then.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(header::UPGRADE)?;
    let h2c = wanted.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    (!h2c && connection_options(headers).any(|option| option == "upgrade")).then(|| wanted.clone())
}

/// What the `Connection` header names, in lower case.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = String> + '_ {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|option| option.trim().to_ascii_lowercase())
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = connection_options(headers).collect();
    for name in named {
        // Transfer-Encoding and friends are how the body is read; a client cannot make us forget them.
        if !["transfer-encoding", "content-length", "host", "te", ""].contains(&name.as_str()) {
            headers.remove(name.as_str());
        }
    }
    headers.remove(header::CONNECTION);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::UPGRADE);
}

/// Makes a client's request one of ours.
pub(crate) fn towards_pod<B>(request: &mut Request<B>, upgrade: Option<&HeaderValue>, peer: SocketAddr) {
    let headers = request.headers_mut();
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    });
    strip(headers);
    headers.remove(header::TE);
    // The client is told to continue as soon as a pod reads the body; the pod itself need not be asked.
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::UPGRADE, protocol.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let so_far: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    let chain = so_far.into_iter().map(str::to_owned).chain([peer.ip().to_string()]).collect::<Vec<_>>();
    if let Ok(value) = HeaderValue::from_str(&chain.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Makes a pod's response one of ours.
pub(crate) fn towards_client<B>(response: &mut Response<B>) {
    strip(response.headers_mut());
    // A pod that speaks HTTP/1.0 is no reason to close the client's connection.
    *response.version_mut() = Version::HTTP_11;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder();
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn passed(fields: &[(&str, &str)]) -> Vec<String> {
        let mut request = request(fields);
        let wanted = upgrade(request.headers());
        towards_pod(&mut request, wanted.as_ref(), "127.0.0.1:1".parse().unwrap());
        let mut out: Vec<_> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        out.sort();
        out
    }

    #[test]
    fn fields_of_the_connection_stay_behind() {
        let given =
            [("host", "kubia"), ("connection", "close, X-Mine"), ("x-mine", "1"), ("keep-alive", "5")];
        assert_eq!(passed(&given), ["host: kubia", "x-forwarded-for: 127.0.0.1"]);
    }

    #[test]
    fn the_framing_cannot_be_taken_away() {
        let given = [("connection", "transfer-encoding"), ("transfer-encoding", "chunked")];
        assert_eq!(passed(&given), ["transfer-encoding: chunked", "x-forwarded-for: 127.0.0.1"]);
    }

    #[test]
    fn a_websocket_upgrade_passes_and_h2c_does_not() {
        let websocket = passed(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(websocket, ["connection: upgrade", "upgrade: websocket", "x-forwarded-for: 127.0.0.1"]);
        let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAM")];
        assert_eq!(passed(&h2c), ["x-forwarded-for: 127.0.0.1"]);
    }

    #[test]
    fn the_client_is_appended_to_those_before_it() {
        assert_eq!(passed(&[("x-forwarded-for", "192.0.2.1")]), ["x-forwarded-for: 192.0.2.1, 127.0.0.1"]);
    }
}
