//! One request passed on to an address, and its answer passed back.

use super::Call;
use crate::body::Body;
use crate::failure::{Failure, Outcome};
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sagong_api::error::ApiError;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long connecting may take, TLS included (as upstream's proxy waits).
const CONNECT: Duration = Duration::from_secs(30);

/// What a proxy must not pass on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// TLS that trusts any certificate, as upstream's proxy does: pods have none that anybody here could check.
static ANYONE: LazyLock<kube::Result<Arc<ClientConfig>>> = LazyLock::new(|| {
    let mut config = kube::Config::new(Uri::from_static("https://pod"));
    config.accept_invalid_certs = true;
    // Else those of the machine would be loaded, for nothing.
    config.root_cert = Some(Vec::new());
    config.rustls_client_config().map(Arc::new)
});

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination {
    pub(super) https: bool,
    pub(super) address: SocketAddr,
}

/// Passes the request on. The answer's body is a stream; an answer that switches protocols makes both connections one.
pub(super) async fn forward(
    destination: Destination,
    call: Call,
    headers: &HeaderMap,
    body: Bytes,
) -> Outcome<Response<Body>> {
    let upgraded = call.upgrade.filter(|_| headers.contains_key(UPGRADE));
    let prefix = call.uri.path().strip_suffix(&call.tail).unwrap_or_default().to_owned();
    let target = match call.uri.query() {
        Some(query) => format!("{}?{query}", call.tail),
        None => call.tail.clone(),
    };
    let mut request = Request::builder().method(call.method).uri(if target.starts_with('/') {
        target
    } else {
        format!("/{target}")
    });
    if let Some(given) = request.headers_mut() {
        *given = passed_on(headers, &call.uri, destination, upgraded.is_some());
    }
    let request = request.body(Full::new(body)).map_err(|error| Failure::bad_request(error.to_string()))?;
    let unreachable = |error: String| -> Failure {
        ApiError::Unavailable(format!("error trying to reach service: {error}")).into()
    };
    let mut sender = tokio::time::timeout(CONNECT, connect(destination))
        .await
        .map_err(|_| unreachable(format!("dial tcp {}: i/o timeout", destination.address)))?
        .map_err(|error| unreachable(format!("dial tcp {}: {error}", destination.address)))?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
    Ok(passed_back(response, upgraded, &prefix, destination))
}

async fn connect(destination: Destination) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(destination.address).await?;
    stream.set_nodelay(true)?;
    if !destination.https {
        return converse(stream).await;
    }
    let config = ANYONE.as_ref().map_err(std::io::Error::other)?;
    let name = ServerName::IpAddress(destination.address.ip().into());
    converse(TlsConnector::from(config.clone()).connect(name, stream).await?).await
}

/// HTTP/1.1 on this connection, which is closed once nobody holds the sender or reads the answer.
async fn converse(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    Ok(sender)
}

/// The client's headers, without what is between it and the API server, and with where the request came in.
fn passed_on(headers: &HeaderMap, uri: &Uri, destination: Destination, upgrades: bool) -> HeaderMap {
    let mut passed = headers.clone();
    let upgrade = headers.get(UPGRADE).cloned();
    strip(&mut passed);
    passed.remove(AUTHORIZATION);
    passed.remove(CONTENT_LENGTH);
    if let Some(upgrade) = upgrade.filter(|_| upgrades) {
        passed.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        passed.insert(UPGRADE, upgrade);
    }
    // HTTP/2 says it in the URI.
    let authority = uri.authority().map_or_else(|| destination.address.to_string(), ToString::to_string);
    if !passed.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&authority)
    {
        passed.insert(HOST, host);
    }
    if let Some(host) = passed.get(HOST).cloned() {
        passed.insert("x-forwarded-host", host);
    }
    passed.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Ok(path) = HeaderValue::from_str(uri.path()) {
        passed.insert("x-forwarded-uri", path);
    }
    passed
}

fn passed_back(
    mut response: Response<hyper::body::Incoming>,
    upgraded: Option<OnUpgrade>,
    prefix: &str,
    destination: Destination,
) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = upgraded
    {
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = (client.await, server.await) else { return };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                tracing::debug!(%error, "a proxied stream ended");
            }
        });
    } else {
        strip(response.headers_mut());
        redirect(response.headers_mut(), prefix, destination);
    }
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Removes what concerns one connection only.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Leads a redirect within the pod through the proxy again.
fn redirect(headers: &mut HeaderMap, prefix: &str, destination: Destination) {
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let own = format!("http{}://{}", if destination.https { "s" } else { "" }, destination.address);
    let path = location.strip_prefix(&own).unwrap_or(location);
    if !path.starts_with('/') || path.starts_with("//") {
        return;
    }
    if let Ok(rewritten) = HeaderValue::from_str(&format!("{prefix}{path}")) {
        headers.insert(LOCATION, rewritten);
    }
}

#[cfg(test)]
mod tests;
