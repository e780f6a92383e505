//! The whole network as the binary runs it, in a network namespace of its own, with an API in memory.

#![allow(clippy::unwrap_used)] // Helpers outside #[test] functions belong to the tests, too.

mod fake_api;

use fake_api::{FakeApi, load_balancer, slice};
use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, SocketType};
use sagong_network::{DataPlane, Network, Options, PodNetwork, tunnel};
use serde_json::json;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

const INSTANCE: &str = "7e57b1";

fn options(load_balancer: bool) -> Options {
    Options {
        instance: INSTANCE.into(),
        node_cidr: "10.244.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        load_balancer,
    }
}

fn on_a_fresh_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
                handle.link().change(up).execute().await.unwrap();
                test().await;
            });
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Awaits something that is told in no other way.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A container in a namespace of its own: an HTTP server on port 8080 that answers with a name and stops as a
/// naive app does on SIGTERM: at once.
struct Pod {
    netns: PathBuf,
    alive: CancellationToken,
}

impl Pod {
    fn new(name: String) -> Self {
        let (told, path) = std::sync::mpsc::channel();
        let alive = CancellationToken::new();
        let dies = alive.clone();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            told.send(PathBuf::from(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid()))).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(dies.run_until_cancelled(serve(name)));
        });
        Self { netns: path.recv().unwrap(), alive }
    }
}

async fn serve(name: String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("0.0.0.0:8080".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let name = name.clone();
        tokio::spawn(async move {
            let mut read = Vec::new();
            while client.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
                if read.ends_with(b"\r\n\r\n") {
                    read.clear();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if client.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// One request on a connection of its own.
async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: kubia\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    // A naive server waits for more after its answer: read just one.
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") || !complete(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::Error::other(format!("cut off: {}", String::from_utf8_lossy(&answer))));
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    if !text.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(text));
    }
    Ok(text.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

fn complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

/// What a node says about a service's health: the status and the number of pods; None if nobody answers.
async fn health(port: u16) -> Option<(u16, u64)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let told: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["service"], json!({"namespace": "default", "name": "kubia"}));
    Some((head.split(' ').nth(1)?.parse().ok()?, told["localEndpoints"].as_u64()?))
}

#[test]
fn a_node_tells_whether_pods_of_a_service_that_stays_on_its_node_are_here() {
    on_a_fresh_host(|| async {
        let api = FakeApi::default();
        let network = Network::start(options(false), api.client()).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&network).run(shutdown.clone()));
        let mut service = load_balancer("kubia", "10.96.0.20", 8080);
        service["spec"]["externalTrafficPolicy"] = json!("Local");
        service["spec"]["healthCheckNodePort"] = json!(30100);
        api.put(service);
        let told = async |expected| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while health(30100).await != expected {
                assert!(Instant::now() < deadline, "{expected:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        told(Some((503, 0))).await;
        let [here, also_here, elsewhere] = ["10.244.0.5", "10.244.0.6", "10.244.9.5"].map(str::to_owned);
        api.put(slice("kubia", std::slice::from_ref(&elsewhere), 8080));
        told(Some((503, 0))).await;
        api.put(slice("kubia", &[here.clone(), also_here, elsewhere], 8080));
        told(Some((200, 2))).await;
        network.withdraw(here.parse().unwrap()).await.unwrap();
        told(Some((200, 1))).await;
        api.delete("Service", "kubia");
        told(None).await;
        shutdown.cancel();
        running.await.unwrap();
    });
}

#[test]
fn a_load_balancer_service_is_served_and_its_address_written_at_once() {
    on_a_fresh_host(|| async {
        let api = FakeApi::default();
        let network = Network::start(options(true), api.client()).await.unwrap();
        let pod = Pod::new("v1".into());
        let ip = network.attach("a", &pod.netns).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&network).run(shutdown.clone()));

        let begun = Instant::now();
        api.put(load_balancer("kubia", "10.96.0.20", 8080));
        api.put(slice("kubia", &[ip.to_string()], 8080));
        eventually("an address", || api.ingress("kubia") == json!([{"ip": "127.0.0.1", "ipMode": "VIP"}]))
            .await;
        println!("address after {:?}", begun.elapsed());
        assert_eq!(get("127.0.0.1:8080".parse().unwrap()).await.unwrap(), "v1");
        // The rules are applied beside; a ClusterIP is refused until then.
        while get("10.96.0.20:8080".parse().unwrap()).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(api.events(), [("EnsuredLoadBalancer".to_owned(), "Ensured load balancer".to_owned())]);

        let mut changed = load_balancer("kubia", "10.96.0.20", 8080);
        changed["spec"]["type"] = json!("ClusterIP");
        changed["status"] = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1", "ipMode": "VIP"}]}});
        api.put(changed);
        eventually("no address", || api.ingress("kubia").is_null()).await;
        get("127.0.0.1:8080".parse().unwrap()).await.unwrap_err();
        shutdown.cancel();
        running.await.unwrap();
    });
}

/// A UDP socket of a pod that sends from any address, its own or not.
fn datagrams(netns: &Path, from: SocketAddr) -> UdpSocket {
    let namespace = std::fs::File::open(netns).unwrap();
    let open = move || {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpTransparent, &true).unwrap();
        rustix::net::bind(&socket, &from).unwrap();
        UdpSocket::from(socket)
    };
    std::thread::spawn(open).join().unwrap()
}

#[test]
fn a_pod_cannot_send_in_the_name_of_another() {
    on_a_fresh_host(|| async {
        let network = Network::start(options(false), FakeApi::default().client()).await.unwrap();
        let [thief, victim, target] = ["thief", "victim", "target"].map(|name| Pod::new(name.into()));
        let own = network.attach("thief", &thief.netns).await.unwrap();
        let others = network.attach("victim", &victim.netns).await.unwrap();
        let to = SocketAddr::from((network.attach("target", &target.netns).await.unwrap(), 4000));
        let received = datagrams(&target.netns, to);
        received.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        datagrams(&thief.netns, (others, 4001).into()).send_to(b"forged", to).unwrap();
        datagrams(&thief.netns, (own, 4001).into()).send_to(b"honest", to).unwrap();
        let mut buffer = [0; 16];
        let (count, from) = received.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from.ip()), (&b"honest"[..], own));
    });
}

/// CVE-2020-10749: whoever sends router advertisements would become the host's way to the world.
#[test]
fn a_pod_cannot_make_routes_on_the_host() {
    on_a_fresh_host(|| async {
        let parameters = Path::new("/proc/sys/net/ipv6/conf");
        if !parameters.exists() {
            eprintln!("SKIPPED: this kernel has no IPv6");
            return;
        }
        let network = Network::start(options(false), FakeApi::default().client()).await.unwrap();
        let pod = Pod::new("thief".into());
        network.attach("thief", &pod.netns).await.unwrap();
        let links = std::fs::read_dir(parameters).unwrap().map(|entry| entry.unwrap().path());
        let prefix = format!("sg{INSTANCE}");
        let cable = { links }.find(|link| link.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
        let disabled = std::fs::read_to_string(cable.unwrap().join("disable_ipv6")).unwrap();
        assert_eq!(disabled.trim(), "1");
    });
}

#[test]
fn a_port_taken_on_the_host_leaves_the_service_pending_with_an_event() {
    on_a_fresh_host(|| async {
        let api = FakeApi::default();
        let foreign = TcpListener::bind("0.0.0.0:8080").await.unwrap();
        let network = Network::start(options(true), api.client()).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(network.run(shutdown.clone()));
        api.put(load_balancer("kubia", "10.96.0.20", 8080));
        eventually("an event", || !api.events().is_empty()).await;
        let (reason, message) = api.events().remove(0);
        assert_eq!(reason, "SyncLoadBalancerFailed");
        let why = "cannot listen on 127.0.0.1:8080: another process listens there";
        assert_eq!(message, format!("Error syncing load balancer: failed to ensure load balancer: {why}"));
        assert!(api.ingress("kubia").is_null());
        drop(foreign);
        eventually("an address", || !api.ingress("kubia").is_null()).await;
        shutdown.cancel();
        running.await.unwrap();
    });
}

#[test]
fn without_load_balancer_a_tunnel_serves_while_it_runs() {
    on_a_fresh_host(|| async {
        let api = FakeApi::default();
        let network = Network::start(options(false), api.client()).await.unwrap();
        let pod = Pod::new("v1".into());
        let ip = network.attach("a", &pod.netns).await.unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(Arc::clone(&network).run(shutdown.clone()));
        api.put(load_balancer("kubia", "10.96.0.20", 8080));
        api.put(slice("kubia", &[ip.to_string()], 8080));
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        get(address).await.unwrap_err();
        assert!(api.ingress("kubia").is_null());

        let end = CancellationToken::new();
        let tunnelling = tokio::spawn(tunnel(api.client(), end.clone()));
        eventually("an address", || !api.ingress("kubia").is_null()).await;
        for _ in 0..20 {
            assert_eq!(get(address).await.unwrap(), "v1");
        }
        end.cancel();
        tunnelling.await.unwrap();
        assert!(api.ingress("kubia").is_null());
        get(address).await.unwrap_err();
        shutdown.cancel();
    });
}

/// The kubelet's part of a rollout, over and over, with naive pods: under load on every way into the service.
#[test]
fn no_request_is_lost_while_naive_pods_are_replaced() {
    on_a_fresh_host(|| async {
        let api = FakeApi::default();
        let network = Network::start(options(true), api.client()).await.unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(Arc::clone(&network).run(shutdown.clone()));
        let mut pods: Vec<(String, Pod, IpAddr)> = Vec::new();
        for number in 0..2 {
            pods.push(start(&network, number).await);
        }
        api.put(load_balancer("kubia", "10.96.0.20", 8080));
        publish(&api, &pods);
        eventually("an address", || !api.ingress("kubia").is_null()).await;
        while get("10.96.0.20:8080".parse().unwrap()).await.is_err() {
            tokio::task::yield_now().await;
        }

        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        for address in ["127.0.0.1:8080", "127.0.0.1:8080", "10.96.0.20:8080", "10.96.0.20:8080"] {
            let (address, stop) = (address.parse().unwrap(), Arc::clone(&stop));
            clients.spawn(async move {
                let (mut sent, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    sent += 1;
                    if let Err(error) = get(address).await {
                        failed.push(format!("{address}: {error}"));
                    }
                }
                (sent, failed)
            });
        }
        for number in 2..22 {
            pods.push(start(&network, number).await);
            publish(&api, &pods);
            let (id, old, ip) = pods.remove(0);
            // The slices lag behind the kubelet here: only the withdrawal protects the pod's clients.
            network.withdraw(ip).await.unwrap();
            while network.connections(ip, &old.netns).await.unwrap() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            old.alive.cancel();
            network.detach(&id).await.unwrap();
            network.restore(ip);
            tokio::time::sleep(Duration::from_millis(5)).await;
            publish(&api, &pods);
        }
        stop.store(true, Ordering::Relaxed);
        let (mut sent, mut failed) = (0, Vec::new());
        while let Some(result) = clients.join_next().await {
            let (more, broken) = result.unwrap();
            sent += more;
            failed.extend(broken);
        }
        println!("{sent} requests over 20 replaced pods");
        assert_eq!(failed.len(), 0, "{:?}", failed.first());
        shutdown.cancel();
    });
}

async fn start(network: &Network, number: usize) -> (String, Pod, IpAddr) {
    let id = format!("pod-{number}");
    let pod = Pod::new(id.clone());
    let ip = network.attach(&id, &pod.netns).await.unwrap();
    // Readiness: the first answer.
    while get(SocketAddr::from((ip, 8080))).await.is_err() {
        tokio::task::yield_now().await;
    }
    (id, pod, ip)
}

fn publish(api: &FakeApi, pods: &[(String, Pod, IpAddr)]) {
    let addresses: Vec<String> = pods.iter().map(|(_, _, ip)| ip.to_string()).collect();
    api.put(slice("kubia", &addresses, 8080));
}
