//! Requests per second through the balancer and straight to a pod, in the same run, in a namespace of its own.
//!
//! `cargo bench -p sagong-network --bench balancer`; needs root. One line per way and kind of client.

#[path = "../tests/fake_api/mod.rs"]
mod fake_api;

use fake_api::{FakeApi, load_balancer, slice};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, unshare};
use sagong_network::{Network, Options};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 32;
const SPAN: Duration = Duration::from_secs(2);

fn main() {
    // Before any other thread exists, so that all of them are in the namespace.
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(bench());
}

async fn bench() {
    let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
    tokio::spawn(connection);
    handle
        .link()
        .change(rtnetlink::LinkUnspec::new_with_index(1).up().build())
        .execute()
        .await
        .expect("lo up");
    let pods = ["127.50.0.1", "127.50.0.2", "127.50.0.3"];
    for pod in pods {
        let listener = TcpListener::bind((pod, 8080)).await.expect("bind");
        tokio::spawn(serve(listener));
    }
    let api = FakeApi::default();
    api.put(load_balancer("kubia", "10.96.0.20", 8080));
    api.put(slice("kubia", &pods.map(str::to_owned), 8080));
    let options = Options {
        instance: "be7c40".into(),
        node_cidr: "10.244.0.0/24".parse().expect("a CIDR"),
        pod_cidr: "10.244.0.0/16".parse().expect("a CIDR"),
        service_cidr: "10.96.0.0/12".parse().expect("a CIDR"),
        load_balancer: true,
    };
    let network = Network::start(options, api.client()).await.expect("network");
    let shutdown = CancellationToken::new();
    tokio::spawn(Arc::clone(&network).run(shutdown.clone()));
    while api.ingress("kubia").is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for keep in [true, false] {
        for (way, address) in [("direct", "127.50.0.1:8080"), ("balancer", "127.0.0.1:8080")] {
            measure(way, address.parse().expect("an address"), keep).await;
        }
    }
    shutdown.cancel();
}

async fn serve(listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let _ = client.set_nodelay(true);
        let answer = |_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from_static(
                b"This is v1 running in pod kubia",
            ))))
        };
        let service = hyper::service::service_fn(answer);
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service),
        );
    }
}

async fn measure(way: &str, address: SocketAddr, keep: bool) {
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(address, keep, begun + SPAN))).collect();
    let mut latencies = Vec::new();
    let mut failed = 0;
    for client in clients {
        let (more, lost) = client.await.expect("client");
        latencies.extend(more);
        failed += lost;
    }
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or_default();
    let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    let kind = if keep { "keep-alive" } else { "new connections" };
    println!(
        "{way:9} {kind:16} {rate:9.0} requests/s, p50 {:?}, p99 {:?}, {failed} failed",
        at(0.5),
        at(0.99)
    );
}

async fn client(address: SocketAddr, keep: bool, until: Instant) -> (Vec<Duration>, usize) {
    let (mut latencies, mut failed, mut open) = (Vec::new(), 0, None);
    while Instant::now() < until {
        let begun = Instant::now();
        match request(address, keep, open.take()).await {
            Some(sender) => {
                latencies.push(begun.elapsed());
                open = keep.then_some(sender);
            }
            None => failed += 1,
        }
    }
    (latencies, failed)
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<bytes::Bytes>>;

async fn request(address: SocketAddr, keep: bool, open: Option<Sender>) -> Option<Sender> {
    let mut sender = match open {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(address).await.ok()?;
            let _ = stream.set_nodelay(true);
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await.ok()?;
    let request = Request::get("/").header("host", "kubia");
    let request = if keep { request } else { request.header("connection", "close") };
    let response = sender.send_request(request.body(Empty::new()).ok()?).await.ok()?;
    let fine = response.status().is_success();
    response.into_body().collect().await.ok()?;
    fine.then_some(sender)
}
