//! HTTP/1.x through the balancer: each request of a client's connection goes to a pod of its own choice.
//!
//! No request may be lost because a pod stops, and none may be executed twice. So
//!
//! * a connection used before, which the pod may be closing this very moment, carries only requests that can be
//!   sent again (idempotent by RFC 9110, 9.2.2, and without a body); everything else gets a fresh connection;
//! * a request that was not handed to a pod at all is handed to another one, whatever it is;
//! * one that may have reached a pod without an answer is repeated only if it can be sent again.

use super::backend::{Backend, Link, NoPod};
use super::body::{FromPod, Outgoing, Returning};
use super::endpoint::{Endpoint, InFlight, Sender};
use super::headers;
use super::prefixed::{Patient, Prefixed};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a request that can be repeated is sent at most.
const ATTEMPTS: usize = 3;

/// Serves a client's connection until the client closes it, or until `closing` and the request in work is done.
pub(crate) async fn serve(
    backend: Arc<Backend>,
    client: Prefixed,
    peer: SocketAddr,
    closing: CancellationToken,
) {
    let service = hyper::service::service_fn(move |request| {
        let backend = Arc::clone(&backend);
        async move { Ok::<_, Infallible>(forward(&backend, request, peer).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .auto_date_header(false)
        // Some clients end their half right after the request and still want the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended");
    }
}

/// One request, one response.
async fn forward(backend: &Backend, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Returning> {
    let upgrade = headers::upgrade(request.headers());
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    headers::towards_pod(&mut request, upgrade.as_ref(), peer);
    let answered = if client.is_none() && repeatable(&request) {
        send_repeatedly(backend, request, peer.ip()).await
    } else {
        send_once(backend, request, peer.ip()).await
    };
    match answered {
        Ok((response, sender, in_flight)) => respond(response, sender, in_flight, client),
        Err(failure) => failure.into_response(),
    }
}

/// Whether a request can be sent a second time without anybody noticing.
fn repeatable(request: &Request<Incoming>) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    );
    // HTTP/1.0 has no connections to reuse.
    idempotent && request.body().is_end_stream() && request.version() == Version::HTTP_11
}

type Answer = (Response<Incoming>, Sender, InFlight);

/// Why there is no answer from a pod.
enum Failure {
    NoPod(NoPod),
    /// The connection to this pod broke before it answered.
    Broken(SocketAddr, String),
}

impl Failure {
    fn into_response(self) -> Response<Returning> {
        let (status, message) = match self {
            Self::NoPod(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Broken(address, error) => (
                StatusCode::BAD_GATEWAY,
                format!("pod {address} closed the connection without an answer: {error}"),
            ),
        };
        tracing::debug!(%status, message, "answering for the pod");
        let mut response = Response::new(Returning::Own(Full::from(format!("{message}\n"))));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

async fn send_repeatedly(
    backend: &Backend,
    request: Request<Incoming>,
    client: IpAddr,
) -> Result<Answer, Failure> {
    let (parts, _) = request.into_parts();
    let (mut attempt, mut avoid) = (1, None);
    loop {
        let copy = Request::from_parts(parts.clone(), Either::Right(Empty::new()));
        let (link, in_flight) =
            backend.reach(client, attempt < ATTEMPTS, avoid).await.map_err(Failure::NoPod)?;
        // A connection used before may break without the pod being at fault.
        let blameless = matches!(link, Link::Used(_));
        match send(link, in_flight, copy).await {
            Ok(answer) => return Ok(answer),
            Err(Unanswered { request: Some(_), .. }) => {}
            Err(Unanswered { address, error, .. }) if attempt >= ATTEMPTS => {
                return Err(Failure::Broken(address, error));
            }
            Err(Unanswered { address, .. }) => {
                attempt += 1;
                avoid = avoid.or((!blameless).then_some(address));
            }
        }
    }
}

async fn send_once(backend: &Backend, request: Request<Incoming>, client: IpAddr) -> Result<Answer, Failure> {
    let mut request = request.map(Either::Left);
    loop {
        let (link, in_flight) = backend.reach(client, false, None).await.map_err(Failure::NoPod)?;
        match send(link, in_flight, request).await {
            Ok(answer) => return Ok(answer),
            // Nothing of it was sent.
            Err(Unanswered { request: Some(untouched), .. }) => request = *untouched,
            Err(Unanswered { address, error, .. }) => return Err(Failure::Broken(address, error)),
        }
    }
}

/// A request without answer, given back if nothing of it was sent.
struct Unanswered {
    request: Option<Box<Request<Outgoing>>>,
    address: SocketAddr,
    error: String,
}

async fn send(link: Link, in_flight: InFlight, mut request: Request<Outgoing>) -> Result<Answer, Unanswered> {
    let address = in_flight.0.address;
    let opened = match link {
        Link::Used(sender) => Ok(sender),
        Link::Fresh(stream) => {
            let last = request.version() == Version::HTTP_10 || in_flight.0.has_plenty();
            if last && !request.headers().contains_key(header::UPGRADE) {
                request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            handshake(Patient::new(stream, last), &in_flight.0).await
        }
    };
    let mut sender = match opened {
        Ok(sender) => sender,
        Err(error) => {
            return Err(Unanswered { request: Some(Box::new(request)), address, error: error.to_string() });
        }
    };
    match sender.requests.try_send_request(request).await {
        Ok(response) => Ok((response, sender, in_flight)),
        Err(mut failed) => {
            let request = failed.take_message().map(Box::new);
            Err(Unanswered { request, address, error: failed.into_error().to_string() })
        }
    }
}

/// Speaks HTTP on a new connection to a pod.
async fn handshake(stream: Patient, endpoint: &Arc<Endpoint>) -> hyper::Result<Sender> {
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await?;
    let sender = Sender { requests: sender, opened: Instant::now() };
    let gone = endpoint.gone.clone();
    let connection = connection.with_upgrades();
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::trace!(%error, "connection to pod ended");
            },
            () = gone.cancelled() => {}
        }
    });
    Ok(sender)
}

/// The pod's response as the client gets it.
fn respond(
    mut response: Response<Incoming>,
    sender: Sender,
    in_flight: InFlight,
    client: Option<OnUpgrade>,
) -> Response<Returning> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        let pod = hyper::upgrade::on(&mut response);
        tokio::spawn(splice(client, pod, in_flight));
        let (parts, _) = response.into_parts();
        return Response::from_parts(parts, Returning::Own(Full::new(Bytes::new())));
    }
    headers::towards_client(&mut response);
    response.map(|body| Returning::Pod(FromPod::new(body, sender, in_flight)))
}

/// Copies bytes both ways after the protocol was switched.
async fn splice(client: OnUpgrade, pod: OnUpgrade, in_flight: InFlight) {
    let (client, pod) = match tokio::try_join!(client, pod) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "upgrade failed"),
    };
    let (mut client, mut pod) = (TokioIo::new(client), TokioIo::new(pod));
    super::tcp::copy(&mut client, &mut pod, &in_flight.0.gone).await;
}
