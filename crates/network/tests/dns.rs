//! The name server as the binary runs it, asked by a pod over the service's address; in a network namespace of
//! its own, with an API in memory.

#![allow(clippy::unwrap_used)] // Helpers outside #[test] functions belong to the tests, too.

mod fake_api;

use fake_api::{FakeApi, slice};
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use nix::sched::{CloneFlags, unshare};
use sagong_network::{DataPlane, Network, Options, PodNetwork};
use serde_json::{Value, json};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "10.96.0.10:53";
/// Longer than the server takes to give up.
const PATIENCE: Duration = Duration::from_secs(6);
/// For a server that may not be reachable yet: the kernel tells that only so often.
const SOON: Duration = Duration::from_millis(300);

fn options() -> Options {
    Options {
        instance: "7e57d5".into(),
        node_cidr: "10.244.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        load_balancer: false,
    }
}

/// Runs a test in fresh network and mount namespaces, in which `/etc/resolv.conf` names these servers.
fn on_a_fresh_host<F: Future<Output = ()>>(resolvers: &str, test: impl FnOnce() -> F + Send) {
    let resolv = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(resolv.path(), resolvers).unwrap();
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
            let mount = |from: Option<&std::path::Path>, to: &str, flags| {
                nix::mount::mount(from, to, None::<&str>, flags, None::<&str>).unwrap();
            };
            mount(None, "/", nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE);
            mount(Some(resolv.path()), "/etc/resolv.conf", nix::mount::MsFlags::MS_BIND);
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

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own that does as it is told.
struct Pod {
    jobs: mpsc::Sender<Job>,
    netns: PathBuf,
}

impl Pod {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (path, told) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            path.send(PathBuf::from(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid()))).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        Self { jobs, netns: told.recv().unwrap() }
    }

    /// Runs something inside.
    async fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = tokio::sync::oneshot::channel();
        self.jobs.send(Box::new(move || drop(done.send(work())))).unwrap();
        result.await.unwrap()
    }

    async fn ask(&self, name: &'static str, kind: RecordType) -> Message {
        self.inside(move || ask(name, kind)).await
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn ask(name: &str, kind: RecordType) -> Message {
    over_udp(&query(name, kind), PATIENCE).unwrap()
}

fn over_udp(query: &Message, patience: Duration) -> std::io::Result<Message> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(SERVER)?;
    socket.send(&query.to_vec().unwrap())?;
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer)?;
    let answer = Message::from_vec(&buffer[..count]).unwrap();
    assert_eq!(
        (answer.metadata.id, answer.metadata.message_type),
        (query.metadata.id, MessageType::Response)
    );
    Ok(answer)
}

fn over_tcp(queries: &[Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(SERVER).unwrap();
    let mut exchange = |query: &Message| {
        let bytes = query.to_vec().unwrap();
        stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        Message::from_vec(&answer).unwrap()
    };
    queries.iter().map(&mut exchange).collect()
}

fn texts(answer: &Message) -> Vec<String> {
    let mut texts: Vec<String> =
        answer.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
    texts.sort();
    texts
}

/// A resolver of the host: knows one name, counts what it is asked, and answers long ones only over TCP.
struct Resolver {
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    async fn start(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&Message::from_vec(&buffer[..length]).unwrap(), 20);
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut bytes).await.unwrap();
                let answer = answer(&Message::from_vec(&bytes).unwrap(), 300).to_vec().unwrap();
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(query: &Message, most: u32) -> Message {
    let mut answer = query.clone().into_response();
    let name = query.queries[0].name().clone();
    let addresses = match name.to_lowercase().to_ascii().as_str() {
        "www.example.com." => 1,
        "many.example.com." => 300,
        _ => 0,
    };
    answer.metadata.truncation = addresses > most;
    for number in 0..addresses.min(most) {
        let data = RData::A(A((0xc000_0201 + number).into()));
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    if addresses == 0 {
        answer.metadata.response_code = ResponseCode::NXDomain;
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 60);
        answer.add_authority(Record::from_rdata(root, 60, RData::SOA(soa)));
    }
    answer
}

fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "default", "name": name}, "spec": spec})
}

/// A running network with a pod, and the name server answering.
async fn stage(api: &FakeApi) -> (Arc<Network>, Pod, CancellationToken) {
    let network = Network::start(options(), api.client()).await.unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(Arc::clone(&network).run(shutdown.clone()));
    let pod = Pod::new();
    network.attach("client", &pod.netns).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let version = query("dns-version.cluster.local.", RecordType::TXT);
    loop {
        let version = version.clone();
        if pod.inside(move || over_udp(&version, SOON).is_ok()).await {
            return (network, pod, shutdown);
        }
        assert!(Instant::now() < deadline, "the name server does not answer");
    }
}

#[test]
fn a_pod_resolves_services_and_a_pod_that_is_withdrawn_is_named_no_more() {
    on_a_fresh_host("", || async {
        let api = FakeApi::default();
        let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        api.put(service("kubia", json!({"clusterIP": "10.96.0.20", "ports": ports})));
        api.put(service("db", json!({"clusterIP": "None"})));
        api.put(slice("db", &["10.244.0.50".into(), "10.244.0.51".into()], 5432));
        let (network, pod, shutdown) = stage(&api).await;

        let answer = pod.ask("kubia.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(texts(&answer), ["A 10.96.0.20"]);
        let answer = pod.ask("_http._tcp.kubia.default.svc.cluster.local.", RecordType::SRV).await;
        assert_eq!(texts(&answer), ["SRV 0 100 80 kubia.default.svc.cluster.local."]);
        let answer = pod.ask("db.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(texts(&answer), ["A 10.244.0.50", "A 10.244.0.51"]);
        let answer = pod.ask("20.0.96.10.in-addr.arpa.", RecordType::PTR).await;
        assert_eq!(texts(&answer), ["PTR kubia.default.svc.cluster.local."]);
        // A process of the host resolves them, too.
        let on_host =
            tokio::task::spawn_blocking(|| ask("kubia.default.svc.cluster.local.", RecordType::A)).await;
        assert_eq!(texts(&on_host.unwrap()), ["A 10.96.0.20"]);

        network.withdraw("10.244.0.50".parse().unwrap()).await.unwrap();
        let answer = pod.ask("db.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(texts(&answer), ["A 10.244.0.51"]);
        // Nobody to ask about others.
        let answer = pod.ask("www.example.com.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        shutdown.cancel();
    });
}

#[test]
fn the_service_is_made_and_made_again_when_somebody_deletes_it() {
    on_a_fresh_host("", || async {
        let api = FakeApi::default();
        let (_network, pod, shutdown) = stage(&api).await;
        assert!(api.has("Service", "kube-dns") && api.has("EndpointSlice", "kube-dns"));
        api.delete("EndpointSlice", "kube-dns");
        api.delete("Service", "kube-dns");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !api.has("Service", "kube-dns") || !api.has("EndpointSlice", "kube-dns") {
            assert!(Instant::now() < deadline, "the service does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let version = query("dns-version.cluster.local.", RecordType::TXT);
        while pod
            .inside({
                let version = version.clone();
                move || over_udp(&version, SOON).is_err()
            })
            .await
        {
            assert!(Instant::now() < deadline, "the name server does not answer any more");
        }
        shutdown.cancel();
    });
}

#[test]
fn other_names_are_asked_of_the_hosts_resolver_once() {
    on_a_fresh_host("nameserver 127.0.0.53\n", || async {
        let resolver = Resolver::start("127.0.0.53:53").await;
        let api = FakeApi::default();
        api.put(service("out", json!({"type": "ExternalName", "externalName": "www.example.com"})));
        let (_network, pod, shutdown) = stage(&api).await;

        for name in ["www.example.com.", "WWW.example.com.", "www.example.com."] {
            let answer = pod.ask(name, RecordType::A).await;
            assert_eq!(texts(&answer), ["A 192.0.2.1"]);
            assert_eq!(answer.queries[0].name().to_ascii(), name);
        }
        assert_eq!(resolver.asked(), 1);
        let answer = pod.ask("out.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(texts(&answer), ["A 192.0.2.1", "CNAME www.example.com."]);
        assert_eq!(resolver.asked(), 1);

        for _ in 0..3 {
            let answer = pod.ask("nobody.example.com.", RecordType::A).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        }
        assert_eq!(resolver.asked(), 2);
        // What is the cluster's is never asked of others.
        let answer = pod.ask("www.example.com.default.svc.cluster.local.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(resolver.asked(), 2);
        shutdown.cancel();
    });
}

#[test]
fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    on_a_fresh_host("nameserver 127.0.0.53\n", || async {
        let _resolver = Resolver::start("127.0.0.53:53").await;
        let api = FakeApi::default();
        api.put(service("db", json!({"clusterIP": "None"})));
        let many: Vec<String> = (2..202).map(|number| format!("10.244.0.{number}")).collect();
        api.put(slice("db", &many, 5432));
        let (_network, pod, shutdown) = stage(&api).await;

        for (name, count) in [("db.default.svc.cluster.local.", 200), ("many.example.com.", 300)] {
            let cut = pod.ask(name, RecordType::A).await;
            assert!(
                cut.metadata.truncation && (10..40).contains(&cut.answers.len()),
                "{}",
                cut.answers.len()
            );
            let mut larger = query(name, RecordType::A);
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            larger.set_edns(edns);
            let more = pod.inside(move || over_udp(&larger, PATIENCE).unwrap()).await;
            let kept = more.answers.len();
            assert!(
                more.metadata.truncation && kept > 50 && more.edns.is_some(),
                "{name} {kept} {:?}",
                more.edns
            );
            let both = pod
                .inside(move || over_tcp(&[query(name, RecordType::A), query(name, RecordType::AAAA)]))
                .await;
            assert_eq!(both[0].answers.len(), count);
            assert!(!both[0].metadata.truncation);
        }
        shutdown.cancel();
    });
}

#[test]
fn a_resolver_that_is_dead_is_passed_over() {
    on_a_fresh_host("nameserver 127.0.0.54\nnameserver 127.0.0.53\n", || async {
        // Takes questions and answers none.
        let _dead = tokio::net::UdpSocket::bind("127.0.0.54:53").await.unwrap();
        let _resolver = Resolver::start("127.0.0.53:53").await;
        let (_network, pod, shutdown) = stage(&FakeApi::default()).await;
        let answer = pod.ask("www.example.com.", RecordType::A).await;
        assert_eq!(texts(&answer), ["A 192.0.2.1"]);
        // From now on the living one is asked first.
        let begun = Instant::now();
        let answer = pod.ask("nobody.example.com.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
        shutdown.cancel();
    });
}

#[test]
fn the_hosts_resolvers_are_read_again_when_they_change() {
    on_a_fresh_host("nameserver 127.0.0.53\n", || async {
        let first = Resolver::start("127.0.0.53:53").await;
        let second = Resolver::start("127.0.0.54:53").await;
        let (_network, pod, shutdown) = stage(&FakeApi::default()).await;
        pod.ask("www.example.com.", RecordType::A).await;
        assert_eq!((first.asked(), second.asked()), (1, 0));
        std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.54\n").unwrap();
        // It is looked at every other second, and remembered names are not asked again.
        let begun = Instant::now();
        for number in 0.. {
            let name = format!("nobody-{number}.example.com.");
            pod.inside(move || ask(&name, RecordType::A)).await;
            if second.asked() > 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let of_first = first.asked();
        pod.ask("other.example.com.", RecordType::A).await;
        assert_eq!(first.asked(), of_first);
        shutdown.cancel();
    });
}

#[test]
fn a_resolver_that_asks_back_ends_in_a_failure_and_not_in_a_storm() {
    on_a_fresh_host("nameserver 127.0.0.53\n", || async {
        let loops = Arc::new(AtomicUsize::new(0));
        let socket = Arc::new(tokio::net::UdpSocket::bind("127.0.0.53:53").await.unwrap());
        let count = loops.clone();
        // A forwarder whose only upstream is the cluster's name server.
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let onward = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
                onward.send_to(&buffer[..length], SERVER).await.unwrap();
            }
        });
        let (_network, pod, shutdown) = stage(&FakeApi::default()).await;
        let answer = pod.ask("www.example.com.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(loops.load(Ordering::SeqCst) <= 4, "{loops:?}");
        shutdown.cancel();
    });
}

#[test]
fn one_client_does_not_take_tcp_from_all_others() {
    on_a_fresh_host("", || async {
        let api = FakeApi::default();
        let (_network, pod, shutdown) = stage(&api).await;
        let held = pod
            .inside(|| (0..250).filter_map(|_| TcpStream::connect(SERVER).ok()).collect::<Vec<TcpStream>>())
            .await;
        let begun = Instant::now();
        let version = query("dns-version.cluster.local.", RecordType::TXT);
        let asked = tokio::task::spawn_blocking(move || over_tcp(&[version])).await.unwrap();
        assert_eq!(asked[0].answers.len(), 1);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        drop(held);
        shutdown.cancel();
    });
}

#[test]
fn a_name_server_of_the_users_own_gets_every_query() {
    on_a_fresh_host("", || async {
        let api = FakeApi::default();
        let (_network, _pod, shutdown) = stage(&api).await;
        assert!(api.has("EndpointSlice", "kube-dns"));
        api.put(json!({"kind": "Service", "apiVersion": "v1",
            "metadata": {"namespace": "kube-system", "name": "kube-dns"},
            "spec": {"clusterIP": "10.96.0.10", "selector": {"k8s-app": "kube-dns"}}}));
        let deadline = Instant::now() + Duration::from_secs(10);
        while api.has("EndpointSlice", "kube-dns") {
            assert!(Instant::now() < deadline, "the slice stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
    });
}
