//! The balancer with real sockets on loopback, in front of pods that behave as badly as real ones.

use super::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn key() -> Key {
    Key { namespace: "default".into(), name: "kubia".into() }
}

/// A loopback address nobody else uses.
fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % 120;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 100 + process as u8, 0, 0)) + number)
}

/// How a pod treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    /// Keeps them.
    Keeps,
    /// Closes them right after an answer without having said so.
    ClosesSilently,
    /// Closes them without an answer.
    NeverAnswers,
    /// Answers in HTTP/1.0, the end of the body being the end of the connection.
    Old,
}

/// An HTTP server that answers `name method length-of-body` and dies without a word.
struct Pod {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    alive: CancellationToken,
}

impl Pod {
    async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind((fresh_address(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (served, alive) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (count, dies) = (Arc::clone(&served), alive.clone());
        tokio::spawn(alive.clone().run_until_cancelled_owned(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let work = answer_all(client, address, manners, Arc::clone(&count));
                tokio::spawn(dies.clone().run_until_cancelled_owned(work));
            }
        }));
        Self { address, served, alive }
    }

    /// As SIGTERM does to a naive app: every socket closes at once.
    fn die(&self) {
        self.alive.cancel();
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

async fn answer_all(client: TcpStream, me: SocketAddr, manners: Manners, count: Arc<AtomicUsize>) {
    let mut client = BufReader::new(client);
    loop {
        let Some((method, length)) = read_request(&mut client).await else { return };
        count.fetch_add(1, Ordering::SeqCst);
        let text = format!("{} {method} {length}", me.ip());
        let response = match manners {
            Manners::NeverAnswers => return,
            Manners::Old => format!("HTTP/1.0 200 OK\r\n\r\n{text}"),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()),
        };
        if client.write_all(response.as_bytes()).await.is_err() || manners != Manners::Keeps {
            return;
        }
    }
}

/// Method and length of the body of one request, read to its end.
async fn read_request<R: tokio::io::AsyncBufRead + Unpin>(reader: &mut R) -> Option<(String, usize)> {
    let (mut method, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if method.is_empty() {
            method = line.split(' ').next()?.to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).await.ok()?;
    Some((method, length))
}

/// A balancer with one service on an address of its own.
struct World {
    balancer: Balancer,
    address: SocketAddr,
}

impl World {
    async fn new() -> Self {
        // A port that was free a moment ago, on an address nobody else uses.
        let probe = TcpListener::bind((fresh_address(), 0)).await.unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let world = Self { balancer: Balancer::default(), address };
        assert_eq!(world.balancer.sync(&[world.served()]), BTreeMap::new());
        world
    }

    fn served(&self) -> Served {
        let IpAddr::V4(address) = self.address.ip() else { unreachable!("bound to IPv4") };
        Served { service: key(), address, ports: vec![self.address.port()], udp_ports: vec![] }
    }

    fn pods<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) {
        let addresses = pods.into_iter().map(|pod| pod.address).collect();
        self.balancer.set(BTreeMap::from([((key(), self.address.port()), addresses)]), true);
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn client(&self) -> Client {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    /// What the service says to bytes sent on a connection of their own, up to its end.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A client with one connection that stays open.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn send(&mut self, method: &str, body: &'static str) -> Result<(u16, String), String> {
        self.0.ready().await.map_err(|error| error.to_string())?;
        let request = hyper::Request::builder().method(method).uri("/").header("host", "kubia");
        let request = request.body(Full::from(body)).unwrap();
        let response = self.0.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }

    async fn ok(&mut self, method: &str, body: &'static str) -> String {
        let (status, text) = self.send(method, body).await.unwrap();
        assert_eq!(status, 200, "{text}");
        text
    }
}

#[tokio::test]
async fn each_request_of_one_connection_goes_to_a_pod_of_its_own() {
    let world = World::new().await;
    let pods = [Pod::start(Manners::Keeps).await, Pod::start(Manners::Keeps).await];
    world.pods(&pods);
    let mut client = world.client().await;
    for _ in 0..60 {
        client.ok("GET", "").await;
    }
    assert_eq!(pods[0].served() + pods[1].served(), 60);
    assert!(pods.iter().all(|pod| pod.served() > 5), "{} and {}", pods[0].served(), pods[1].served());
}

/// The promise: pods come and go under load and no request fails, none is executed twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_pods_are_replaced_under_load() {
    let world = Arc::new(World::new().await);
    let mut pods = vec![Pod::start(Manners::Keeps).await, Pod::start(Manners::Keeps).await];
    world.pods(&pods);
    let stop = CancellationToken::new();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (world, stop) = (Arc::clone(&world), stop.clone());
        clients.spawn(async move {
            let mut client = world.client().await;
            let (mut sent, mut failed) = (0, Vec::new());
            while !stop.is_cancelled() {
                // A third keeps its connection for GETs, a third for POSTs, a third connects anew.
                let (method, body) = if number % 3 == 1 { ("POST", "order") } else { ("GET", "") };
                if number % 3 == 2 {
                    client = world.client().await;
                }
                sent += 1;
                match client.send(method, body).await {
                    Ok((200, _)) => {}
                    other => failed.push(format!("client {number}: {other:?}")),
                }
            }
            (sent, failed)
        });
    }
    let mut executed = 0;
    for round in 0..40 {
        let manners = if round % 2 == 0 { Manners::Keeps } else { Manners::ClosesSilently };
        let new = Pod::start(manners).await;
        pods.push(new);
        world.pods(&pods);
        let old = pods.remove(0);
        world.balancer.withdraw(old.address.ip());
        while world.balancer.in_flight(old.address.ip()) > 0 {
            tokio::task::yield_now().await;
        }
        old.die();
        world.balancer.restore(old.address.ip());
        executed += old.served();
        world.pods(&pods);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    let (mut sent, mut failed) = (0, Vec::new());
    while let Some(result) = clients.join_next().await {
        let (more, broken) = result.unwrap();
        sent += more;
        failed.extend(broken);
    }
    executed += pods.iter().map(Pod::served).sum::<usize>();
    println!("{sent} requests, 40 pods replaced");
    assert_eq!(failed.len(), 0, "{:?}", failed.first());
    // A GET that met a connection just closed may have been sent again before it was read: never less.
    assert!(executed >= sent, "{executed} executed of {sent}");
}

#[tokio::test]
async fn connections_closed_by_the_pod_cost_no_request_and_no_post_is_executed_twice() {
    let world = World::new().await;
    let pod = Pod::start(Manners::ClosesSilently).await;
    world.pods([&pod]);
    let mut client = world.client().await;
    for _ in 0..200 {
        client.ok("POST", "order").await;
    }
    assert_eq!(pod.served(), 200);
    for _ in 0..200 {
        client.ok("GET", "").await;
    }
    assert_eq!(pod.served(), 400);
}

#[tokio::test]
async fn a_get_without_answer_is_sent_to_another_pod_and_a_post_is_not() {
    let world = World::new().await;
    let (broken, good) = (Pod::start(Manners::NeverAnswers).await, Pod::start(Manners::Keeps).await);
    world.pods([&broken]);
    let mut client = world.client().await;
    let (status, text) = client.send("POST", "order").await.unwrap();
    assert_eq!(status, 502, "{text}");
    assert!(
        text.starts_with(&format!("pod {} closed the connection without an answer", broken.address)),
        "{text}"
    );
    assert_eq!(broken.served(), 1);
    world.pods([&broken, &good]);
    for _ in 0..40 {
        client.ok("GET", "").await;
    }
    assert!(broken.served() > 1);
}

#[tokio::test]
async fn a_pod_that_refuses_is_passed_over_whatever_the_request() {
    let world = World::new().await;
    let (dead, good) = (Pod::start(Manners::Keeps).await, Pod::start(Manners::Keeps).await);
    dead.die();
    while TcpStream::connect(dead.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    world.pods([&dead, &good]);
    let mut client = world.client().await;
    for method in ["GET", "POST", "DELETE", "PATCH"] {
        for _ in 0..10 {
            client.ok(method, "").await;
        }
    }
    assert_eq!(good.served(), 40);
}

#[tokio::test]
async fn a_pod_of_http_1_0_does_not_end_the_clients_connection() {
    let world = World::new().await;
    let pod = Pod::start(Manners::Old).await;
    world.pods([&pod]);
    let mut client = world.client().await;
    for _ in 0..5 {
        assert!(client.ok("GET", "").await.ends_with("GET 0"));
        assert!(client.ok("POST", "order").await.ends_with("POST 5"));
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_its_answer_and_the_end_of_the_connection() {
    let world = World::new().await;
    let pod = Pod::start(Manners::Keeps).await;
    world.pods([&pod]);
    let answer = world.raw("GET / HTTP/1.0\r\nHost: kubia\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("GET 0"), "{answer}");
    assert!(!answer.to_lowercase().contains("chunked"), "{answer}");
}

#[tokio::test]
async fn a_client_that_ends_its_half_after_the_request_gets_its_answer() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: k\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut pod = BufReader::new(listener.accept().await.unwrap().0);
    read_request(&mut pod).await.unwrap();
    pod.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("late"), "{answer}");
}

#[tokio::test]
async fn nothing_is_left_of_a_client_that_went_away_between_requests() {
    let world = World::new().await;
    let pod = Pod::start(Manners::Keeps).await;
    world.pods([&pod]);
    let users = || Arc::strong_count(&world.balancer.inner.lock().backends[&(key(), world.address.port())]);
    let before = users();
    let mut client = world.client().await;
    client.ok("GET", "").await;
    assert!(users() > before);
    drop(client);
    while users() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new().await;
    let pod = Pod::start(Manners::Keeps).await;
    world.pods([&pod]);
    let three = "POST / HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\n\r\nab\
                 GET / HTTP/1.1\r\nHost: k\r\n\r\nDELETE / HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n";
    let answer = world.raw(three).await;
    let bodies: Vec<usize> =
        ["POST 2", "GET 0", "DELETE 0"].iter().map(|text| answer.find(text).unwrap()).collect();
    assert!(bodies.is_sorted(), "{answer}");
}

#[tokio::test]
async fn withdrawing_closes_idle_connections_and_lets_work_be_finished() {
    let world = World::new().await;
    let listener = TcpListener::bind((fresh_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    world.balancer.set(BTreeMap::from([((key(), world.address.port()), vec![address])]), true);
    let mut client = world.client().await;
    let (first, accepted) = tokio::join!(client.send("GET", ""), async {
        let mut pod = BufReader::new(listener.accept().await.unwrap().0);
        read_request(&mut pod).await.unwrap();
        pod.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        pod
    });
    assert_eq!(first.unwrap().0, 204);
    let mut idle = accepted;
    let (answer, ()) = tokio::join!(client.send("POST", "x"), async {
        let mut busy = BufReader::new(listener.accept().await.unwrap().0);
        read_request(&mut busy).await.unwrap();
        assert_eq!(world.balancer.in_flight(address.ip()), 1);
        world.balancer.withdraw(address.ip());
        // The idle one ends now, the busy one when it is done.
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(world.balancer.in_flight(address.ip()), 1);
        busy.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
        assert_eq!(busy.read(&mut [0]).await.unwrap(), 0);
    });
    assert_eq!(answer.unwrap(), (200, "done".to_owned()));
    assert_eq!(world.balancer.in_flight(address.ip()), 0);
}

/// A server that does nothing else while a connection is open.
async fn one_at_a_time(listener: TcpListener) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let mut client = BufReader::new(client);
        while let Some(_request) = read_request(&mut client).await {
            let wrote = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            if wrote.is_err() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_one_connection_at_a_time_is_not_held_from_its_probes() {
    let world = World::new().await;
    let listener = TcpListener::bind((fresh_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(one_at_a_time(listener));
    world.balancer.set(BTreeMap::from([((key(), world.address.port()), vec![address])]), true);
    let mut client = world.client().await;
    client.ok("GET", "").await;
    let probe = async || {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
        begun.elapsed()
    };
    // While the balancer's connection is idle, and while it never is.
    assert!(probe().await < Duration::from_secs(1));
    let busy = tokio::spawn(async move {
        loop {
            client.ok("GET", "").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    for _ in 0..3 {
        let took = probe().await;
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
    assert!(!busy.is_finished());
    busy.abort();
    serving.abort();
}

#[tokio::test]
async fn a_client_is_sent_to_the_pod_it_was_sent_to_last_if_the_service_wants_that() {
    let world = World::new().await;
    let (one, two, three) = (
        Pod::start(Manners::Keeps).await,
        Pod::start(Manners::Keeps).await,
        Pod::start(Manners::Keeps).await,
    );
    world.pods([&one, &two, &three]);
    world.balancer.remember(&BTreeMap::from([((key(), world.address.port()), Duration::from_secs(60))]));
    for _ in 0..10 {
        world.client().await.ok("GET", "").await;
        world.client().await.ok("POST", "x").await;
    }
    let mut served = [one.served(), two.served(), three.served()];
    served.sort();
    assert_eq!(served, [0, 0, 20]);
}

#[tokio::test]
async fn a_client_is_told_when_no_pod_is_ready() {
    let world = World::new().await;
    let begun = Instant::now();
    let (status, text) = world.client().await.send("GET", "").await.unwrap();
    assert_eq!((status, text.as_str()), (503, "no ready pod behind service default/kubia\n"));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_client_that_comes_a_little_early_is_served() {
    let world = World::new().await;
    let mut client = world.client().await;
    let pod = Pod::start(Manners::Keeps).await;
    let (answer, ()) = tokio::join!(client.ok("POST", "order"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.pods([&pod]);
    });
    assert!(answer.ends_with("POST 5"));
}

#[tokio::test]
async fn a_connection_that_is_no_http_is_reset_when_no_pod_is_ready() {
    let world = World::new().await;
    let mut stream = world.connect().await;
    stream.write_all(b"\x16\x03\x01 hello").await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// A pod that hands out its connections.
async fn bare_pod(world: &World) -> TcpListener {
    let listener = TcpListener::bind((fresh_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    world.balancer.set(BTreeMap::from([((key(), world.address.port()), vec![address])]), true);
    listener
}

#[tokio::test]
async fn other_protocols_pass_untouched_and_each_side_can_end_its_half() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let mut client = world.connect().await;
    client.write_all(b"\x16\x03\x01").await.unwrap();
    let (mut pod, _) = listener.accept().await.unwrap();
    client.write_all(b" and more").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    pod.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x16\x03\x01 and more");
    pod.write_all(b"answer after the end").await.unwrap();
    drop(pod);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer after the end");
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let mut client = world.connect().await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.write_all(b"220 welcome\r\n").await.unwrap();
    let mut line = [0; 13];
    client.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"220 welcome\r\n");
    client.write_all(b"QUIT").await.unwrap();
    let mut quit = [0; 4];
    pod.read_exact(&mut quit).await.unwrap();
    assert_eq!(&quit, b"QUIT");
}

#[tokio::test]
async fn a_client_that_is_silent_at_first_can_still_speak_http() {
    let world = World::new().await;
    let pod = Pod::start(Manners::Keeps).await;
    world.pods([&pod]);
    let mut client = world.client().await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(client.ok("GET", "").await.ends_with("GET 0"));
    world.balancer.withdraw(pod.address.ip());
    assert_eq!(world.balancer.in_flight(pod.address.ip()), 0);
}

#[tokio::test]
async fn a_silent_client_holds_no_pod_back() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let address = listener.local_addr().unwrap().ip();
    let _client = world.connect().await;
    let (mut pod, _) = listener.accept().await.unwrap();
    world.balancer.withdraw(address);
    assert_eq!(pod.read(&mut [0]).await.unwrap(), 0);
    while world.balancer.in_flight(address) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_websocket_is_switched_and_spliced() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let mut client = world.connect().await;
    let hello = "GET /chat HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.write_all(hello.as_bytes()).await.unwrap();
    let mut pod = BufReader::new(listener.accept().await.unwrap().0);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        pod.read_line(&mut head).await.unwrap();
    }
    let lower = head.to_lowercase();
    assert!(
        lower.contains("\r\nupgrade: websocket\r\n") && lower.contains("\r\nconnection: upgrade\r\n"),
        "{head}"
    );
    assert!(head.contains("Sec-WebSocket-Key: dGhl"), "{head}");
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst frame";
    pod.write_all(switch.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"first frame") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    client.write_all(b"frame").await.unwrap();
    let mut frame = [0; 5];
    pod.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"frame");
    let address = listener.local_addr().unwrap().ip();
    assert_eq!(world.balancer.in_flight(address), 1);
    drop(client);
    assert_eq!(pod.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let mut client = world.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut pod = BufReader::new(listener.accept().await.unwrap().0);
    let mut asked = [0; 25];
    client.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"3\r\none\r\n").await.unwrap();
    let mut heard = String::new();
    while !heard.ends_with("one\r\n") {
        assert_ne!(pod.read_line(&mut heard).await.unwrap(), 0);
    }
    // The pod answers before the request is at its end, and the client hears it at once.
    pod.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntick\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"4\r\ntick\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
    client.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    while !heard.ends_with("two\r\n0\r\n\r\n") {
        assert_ne!(pod.read_line(&mut heard).await.unwrap(), 0);
    }
    pod.write_all(b"4\r\ntock\r\n0\r\n\r\n").await.unwrap();
    while !answer.ends_with(b"4\r\ntock\r\n0\r\n\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn heads_come_with_their_length_and_without_a_body() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let (answer, ()) =
        tokio::join!(world.raw("HEAD / HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n"), async {
            let mut pod = BufReader::new(listener.accept().await.unwrap().0);
            read_request(&mut pod).await.unwrap();
            pod.write_all(b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nContent-Length: 42\r\n\r\n")
                .await
                .unwrap();
        });
    let mut lines: Vec<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["Content-Length: 42", "HTTP/1.1 200 OK", "X-Powered-By: Express", "connection: close"]
    );
}

#[tokio::test]
async fn a_port_held_by_another_process_is_named_and_taken_once_it_is_free() {
    let taken = TcpListener::bind((fresh_address(), 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let world = World { balancer: Balancer::default(), address };
    let failed = world.balancer.sync(&[world.served()]);
    let message = format!("cannot listen on {address}: another process listens there");
    assert_eq!(failed, BTreeMap::from([(key(), message)]));
    drop(taken);
    assert_eq!(world.balancer.sync(&[world.served()]), BTreeMap::new());
    assert_eq!(world.balancer.sync(&[]), BTreeMap::new());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_never_comes_from_a_pod_that_is_gone_and_nobody_waits_for_it() {
    let world = World::new().await;
    let listener = bare_pod(&world).await;
    let address = listener.local_addr().unwrap().ip();
    let mut client = world.client().await;
    let (answer, _held) = tokio::join!(client.send("POST", "order"), async {
        let mut pod = BufReader::new(listener.accept().await.unwrap().0);
        read_request(&mut pod).await.unwrap();
        world.balancer.withdraw(address);
        world.balancer.restore(address);
        pod
    });
    assert_eq!(answer.unwrap().0, 502);
}
