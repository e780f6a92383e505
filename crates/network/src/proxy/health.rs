//! What an external load balancer asks a node before it sends it a service's connections: whether pods of the service
//! are here (`spec.healthCheckNodePort`, of services with `externalTrafficPolicy: Local`). Answers as upstream's proxy.

use super::Proxy;
use super::observed::Key;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// How often it is looked which services want to be asked; where a port was taken it is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at a time, for each port: anybody can ask.
const MOST_QUESTIONS: usize = 20;

/// Answers on the ports of all services without end.
pub(crate) async fn answer(proxy: Arc<Proxy>) {
    let (mut servers, mut known) = (JoinSet::new(), BTreeMap::<u16, (Key, AbortHandle)>::new());
    let mut taken = BTreeSet::new();
    loop {
        if let Some(wanted) = proxy.health_check_ports() {
            known.retain(|port, (service, server)| {
                let stays = wanted.get(port) == Some(service);
                if !stays {
                    server.abort();
                }
                stays
            });
            for (port, service) in wanted {
                if known.contains_key(&port) {
                    continue;
                }
                match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
                    Ok(listener) => {
                        taken.remove(&port);
                        let server = servers.spawn(serve(listener, proxy.clone(), service.clone()));
                        known.insert(port, (service, server));
                    }
                    // Told once.
                    Err(error) if taken.insert(port) => {
                        tracing::warn!(%service, port, %error, "nobody can ask for the service's health");
                    }
                    Err(_) => {}
                }
            }
        }
        while servers.try_join_next().is_some() {}
        tokio::time::sleep(LOOK).await;
    }
}

async fn serve(listener: TcpListener, proxy: Arc<Proxy>, service: Key) {
    let places = Arc::new(Semaphore::new(MOST_QUESTIONS));
    let mut clients = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                let (proxy, service) = (proxy.clone(), service.clone());
                clients.spawn(async move {
                    // Who asks too slowly, or hangs up, is not answered.
                    let _ = tokio::time::timeout(PATIENCE, serve_client(client, &proxy, &service)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%service, %error, "cannot accept questions for a service's health");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn serve_client(client: TcpStream, proxy: &Proxy, service: &Key) -> Result<(), hyper::Error> {
    let told = service_fn(|_| async { Ok::<_, Infallible>(told(service, proxy.ready_here(service))) });
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(client), told)
        .await
}

/// The answer for so many ready pods on this node.
fn told(service: &Key, pods: usize) -> Response<Full<Bytes>> {
    let status = if pods > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": pods,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", header::HeaderValue::from(pods));
    response
}
