//! The network against a real kernel. Each test has a network namespace of its own as "the host", so nothing
//! outside is touched and everything is gone when its thread ends. Needs root, as the network itself does.

mod flows;
mod names;
mod reuse;

use crate::pod::{Pods, bridge, netlink::Netlink};
use crate::proxy::{Proxy, watch::Change};
use crate::rules::model::Node;
use crate::{DataPlane, PodNetwork, rules};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::collections::BTreeSet;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const INSTANCE: &str = "7e57a0";
const CLUSTER_IP: &str = "10.96.0.10:80";
const NODE_PORT: u16 = 30080;

/// Runs a test in a fresh namespace without any route.
fn on_a_fresh_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::here().unwrap();
                netlink.up(netlink.expect("lo").await.unwrap()).await.unwrap();
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
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(done.send(work())))).unwrap();
        result.recv().unwrap()
    }

    /// Answers connections to port 8080 until told to stop, or until the sender is dropped; then the listening
    /// socket closes at once.
    fn serve_until_stopped(&self) -> mpsc::Sender<()> {
        let (stop, stopped) = mpsc::channel::<()>();
        self.inside(move || {
            let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
            let closing = listener.try_clone().unwrap();
            std::thread::spawn(move || {
                let _ = stopped.recv();
                // Wakes the thread that accepts, and refuses everybody from now on.
                let _ = nix::sys::socket::shutdown(
                    std::os::fd::AsRawFd::as_raw_fd(&closing),
                    nix::sys::socket::Shutdown::Read,
                );
            });
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    let Ok(mut client) = client else { return };
                    let _ = writeln!(client, "pod {}", client.peer_addr().unwrap().ip());
                }
            });
        });
        stop
    }

    /// Answers every connection to port 8080 with a name and the address it came from, and closes it once the
    /// client has.
    fn serve(&self, name: &'static str) {
        self.inside(move || {
            let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    let mut client = client.unwrap();
                    std::thread::spawn(move || {
                        let _ = writeln!(client, "{name} {}", client.peer_addr().unwrap().ip());
                        let _ = client.read_to_end(&mut Vec::new());
                    });
                }
            });
        });
    }
}

/// Connects and reads what the server says: its name and our address as it sees it.
fn ask(address: &str) -> std::io::Result<(String, IpAddr)> {
    let (answer, _) = open(address)?;
    Ok(answer)
}

fn open(address: &str) -> std::io::Result<((String, IpAddr), TcpStream)> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    let (name, peer) = line.split_once(' ').unwrap();
    Ok(((name.to_owned(), peer.parse().unwrap()), stream))
}

struct World {
    pods: Pods,
    proxy: Proxy,
}

fn node() -> Node {
    Node {
        instance: INSTANCE.into(),
        node_cidr: "10.244.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
    }
}

impl World {
    async fn new() -> Self {
        let node = node();
        let pods = Pods::new(INSTANCE, node.node_cidr, node.service_cidr).unwrap();
        let proxy = Proxy::new(node);
        pods.prepare().await.unwrap();
        proxy.prepare().await.unwrap();
        Self { pods, proxy }
    }

    async fn attach(&self, id: &str, pod: &Pod) -> IpAddr {
        self.pods.attach(id, &pod.netns).await.unwrap()
    }

    /// One service, kubia, with these ready endpoints.
    async fn endpoints(&self, addresses: &[IpAddr]) {
        self.endpoints_of(json!({"type": "NodePort"}), json!({}), addresses).await;
    }

    /// The same with more in the service's spec and status.
    async fn endpoints_of(&self, spec: serde_json::Value, status: serde_json::Value, addresses: &[IpAddr]) {
        let protocol =
            |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port});
        let mut service = json!({
            "metadata": {"namespace": "default", "name": "kubia"}, "status": status,
            "spec": {"clusterIP": "10.96.0.10", "externalIPs": ["192.0.2.7"], "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "nodePort": NODE_PORT},
                {"name": "dns", "protocol": "UDP", "port": 53}
            ]}
        });
        for (field, value) in spec.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        let endpoints: Vec<_> =
            addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "metadata": {"namespace": "default", "name": "kubia-1", "labels": {"kubernetes.io/service-name": "kubia"}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [protocol("http", "TCP", 8080), protocol("dns", "UDP", 5353)]
        });
        self.proxy.change(Change::Services(vec![serde_json::from_value(service).unwrap()]));
        self.proxy.change(Change::Slices(vec![serde_json::from_value(slice).unwrap()]));
        self.proxy.apply().await.unwrap();
    }
}

fn gateway() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1))
}

#[test]
fn a_pod_gets_an_address_and_reaches_the_host_and_other_pods() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let begun = Instant::now();
        let (ip_a, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        println!("two attachments: {:?}", begun.elapsed());
        assert_eq!([ip_a, ip_b].map(|ip| ip.to_string()), ["10.244.0.2", "10.244.0.3"]);
        assert_eq!(world.attach("a", &a).await, ip_a);

        b.serve("b");
        let target = format!("{ip_b}:8080");
        assert_eq!(ask(&target).unwrap(), ("b".into(), gateway()));
        let from_a = a.inside(move || ask(&target)).unwrap();
        assert_eq!(from_a, ("b".into(), ip_a));

        let host = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = host.local_addr().unwrap().port();
        let reached = a.inside(move || TcpStream::connect(("10.244.0.1", port)).map(drop));
        reached.unwrap();
    });
}

#[test]
fn nobody_waits_for_a_pod_that_is_gone() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let (_, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        world.pods.detach("b").await.unwrap();
        world.pods.detach("b").await.unwrap();
        let target = format!("{ip_b}:8080");
        let begun = Instant::now();
        ask(&target).unwrap_err();
        a.inside(move || ask(&target)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_service_is_reached_from_everywhere_under_each_of_its_addresses() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let (ip_a, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        a.serve("a");
        b.serve("b");
        world.endpoints(&[ip_a, ip_b]).await;

        let node_port = format!("127.0.0.1:{NODE_PORT}");
        let at_gateway = format!("10.244.0.1:{NODE_PORT}");
        let bridge::Sources { loopback, translated } = bridge::sources(node().node_cidr);
        for (address, seen) in [(CLUSTER_IP, translated), (&node_port, loopback), (&at_gateway, translated)] {
            let answers: BTreeSet<_> = (0..40).map(|_| ask(address).unwrap()).collect();
            let seen = IpAddr::V4(seen);
            assert_eq!(answers, BTreeSet::from([("a".into(), seen), ("b".into(), seen)]), "{address}");
        }
        for address in [CLUSTER_IP.to_owned(), at_gateway, "192.0.2.7:80".to_owned()] {
            let asked = address.clone();
            let answers: BTreeSet<_> = a.inside(move || (0..40).map(|_| ask(&asked).unwrap()).collect());
            // To itself it comes as the gateway: a hairpin.
            assert_eq!(answers, BTreeSet::from([("a".into(), gateway()), ("b".into(), ip_a)]), "{address}");
        }
    });
}

#[test]
fn udp_services_work_too() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let (_, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        world.endpoints(&[ip_b]).await;
        let server = b.inside(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((count, peer)) = server.recv_from(&mut buffer) {
                server.send_to(&buffer[..count], peer).unwrap();
            }
        });
        let ping = || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            socket.connect("10.96.0.10:53").unwrap();
            socket.send(b"ping").unwrap();
            let mut buffer = [0; 16];
            let count = socket.recv(&mut buffer).unwrap();
            buffer[..count].to_vec()
        };
        assert_eq!(ping(), b"ping");
        assert_eq!(a.inside(ping), b"ping");
    });
}

#[test]
fn what_has_no_pod_is_refused_at_once() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        let node_port = format!("127.0.0.1:{NODE_PORT}");
        let refused = |result: std::io::Result<_>| {
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        };
        world.endpoints(&[]).await;
        for address in [CLUSTER_IP, &node_port, "10.96.77.77:80", "10.96.0.10:81"] {
            refused(ask(address));
        }
        for address in [CLUSTER_IP, "10.244.0.1:30080", "192.0.2.7:80", "10.96.77.77:80"] {
            refused(a.inside(move || ask(address)));
        }
        a.serve("a");
        world.endpoints(&[ip_a]).await;
        ask(CLUSTER_IP).unwrap();
        refused(ask("10.96.0.10:81"));
    });
}

#[test]
fn a_withdrawn_pod_gets_no_new_connection_and_keeps_its_old_ones() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let (ip_a, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        a.serve("a");
        b.serve("b");
        world.endpoints(&[ip_a]).await;
        let (answer, old) = open(CLUSTER_IP).unwrap();
        assert_eq!(answer.0, "a");
        assert_eq!(world.proxy.connections(ip_a, &a.netns).await.unwrap(), 1);

        world.endpoints(&[ip_a, ip_b]).await;
        let begun = Instant::now();
        world.proxy.withdraw(ip_a).await.unwrap();
        println!("withdrawn within {:?}", begun.elapsed());
        assert!((0..50).all(|_| ask(CLUSTER_IP).unwrap().0 == "b"));
        // Slices that still name it change nothing, before and after its address is restored for another pod.
        world.endpoints(&[ip_a, ip_b]).await;
        assert!((0..50).all(|_| ask(CLUSTER_IP).unwrap().0 == "b"));
        assert_eq!(world.proxy.connections(ip_a, &a.netns).await.unwrap(), 1);

        drop(old);
        let deadline = Instant::now() + Duration::from_secs(3);
        while world.proxy.connections(ip_a, &a.netns).await.unwrap() > 0 {
            assert!(Instant::now() < deadline, "the connection still counts");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_connection_the_pod_has_not_seen_yet_counts() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        world.endpoints(&[ip_a]).await;
        // Packets leave the host and are dropped in the pod.
        let drop_all = "add table ip t\nadd chain ip t c { type filter hook prerouting priority -300 ; policy drop ; }\n";
        a.inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(rules::apply::nft(&["-f", "-"], drop_all)).unwrap();
        });
        assert_eq!(world.proxy.connections(ip_a, &a.netns).await.unwrap(), 0);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let connecting = tokio::spawn(socket.connect(CLUSTER_IP.parse().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(3);
        while world.proxy.connections(ip_a, &a.netns).await.unwrap() != 1 {
            assert!(Instant::now() < deadline, "the SYN is not counted");
            tokio::task::yield_now().await;
        }
        connecting.abort();
    });
}

#[test]
fn pods_and_services_go_on_across_a_restart() {
    on_a_fresh_host(|| async {
        let (a, b) = (Pod::new(), Pod::new());
        let (ip_a, ip_b) = {
            let world = World::new().await;
            let ips = (world.attach("a", &a).await, world.attach("b", &b).await);
            a.serve("a");
            world.endpoints(&[ips.0]).await;
            ips
        };
        let world = World::new().await;
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "a");
        world.pods.adopt(&[("a".to_owned(), ip_a)]).await.unwrap();
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "a");
        assert_eq!(world.attach("a", &a).await, ip_a);
        // b was not adopted: its cable is gone, and its address is not the next one given out.
        let c = Pod::new();
        let ip_c = world.attach("c", &c).await;
        assert_eq!(ip_c, ip_b, "the address behind the highest adopted one");
        c.serve("c");
        world.endpoints(&[ip_c]).await;
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "c");
    });
}

#[test]
fn an_attachment_that_broke_half_way_is_made_again() {
    on_a_fresh_host(|| async {
        let a = Pod::new();
        let first = World::new().await.attach("a", &a).await;
        // The new process knows nothing of the first attachment, and nothing was adopted.
        let world = World::new().await;
        let second = world.attach("a", &a).await;
        assert_eq!(first, second);
        a.serve("a");
        assert_eq!(ask(&format!("{second}:8080")).unwrap().0, "a");
    });
}

#[test]
fn destroying_leaves_nothing_behind() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        let ip = world.attach("a", &a).await;
        world.endpoints(&[ip]).await;
        crate::destroy(INSTANCE).await.unwrap();
        crate::destroy(INSTANCE).await.unwrap();
        let netlink = Netlink::here().unwrap();
        let links: Vec<String> = netlink.links().await.unwrap().into_iter().map(|(_, name)| name).collect();
        assert!(links.iter().all(|name| !name.starts_with("sg")), "{links:?}");
        assert_eq!(netlink.routes().await.unwrap(), []);
        assert_eq!(rules::apply::nft(&["list", "tables"], "").await.unwrap(), "");
    });
}

#[test]
fn two_clusters_live_side_by_side() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        a.serve("a");
        world.endpoints(&[ip_a]).await;

        let other = Node {
            instance: "0ddba1".into(),
            node_cidr: "10.245.0.0/16".parse().unwrap(),
            pod_cidr: "10.245.0.0/16".parse().unwrap(),
            service_cidr: "10.112.0.0/12".parse().unwrap(),
        };
        let pods = Pods::new(&other.instance, other.node_cidr, other.service_cidr).unwrap();
        pods.prepare().await.unwrap();
        Proxy::new(other).prepare().await.unwrap();
        let b = Pod::new();
        let ip_b = pods.attach("b", &b.netns).await.unwrap();
        assert_eq!(ip_b.to_string(), "10.245.0.2");
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "a");
        crate::destroy("0ddba1").await.unwrap();
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "a");
    });
}

#[test]
fn changed_ranges_replace_the_bridge() {
    on_a_fresh_host(|| async {
        drop(World::new().await);
        let netlink = Netlink::here().unwrap();
        let cidr = "10.100.0.0/24".parse().unwrap();
        bridge::ensure(&netlink, INSTANCE, cidr, "10.200.0.0/16".parse().unwrap()).await.unwrap();
        let mut addresses: Vec<_> =
            netlink.addresses().await.unwrap().into_iter().map(|(_, a)| a.to_string()).collect();
        addresses.sort();
        assert_eq!(addresses, ["10.100.0.1/24", "127.0.0.1/8"]);
        assert_eq!(netlink.routes().await.unwrap().len(), 2);
    });
}

#[test]
fn a_clash_with_an_existing_network_is_named_with_its_remedy() {
    on_a_fresh_host(|| async {
        drop(World::new().await);
        let mine = crate::Options {
            instance: INSTANCE.into(),
            node_cidr: "10.244.0.0/24".parse().unwrap(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            load_balancer: false,
        };
        assert_eq!(crate::check(&mine).await, Ok(()));
        let other = crate::Options { instance: "0ddba1".into(), ..mine };
        let message = crate::check(&other).await.unwrap_err();
        assert!(message.contains("10.244.0.0/16 clashes with 10.244.0.0/24"), "{message}");
        assert!(message.ends_with("choose another range with --pod-cidr"), "{message}");
    });
}

#[test]
fn changing_one_endpoint_of_many_services_is_fast() {
    on_a_fresh_host(|| async {
        let services = |moved: u8| -> Vec<_> {
            (0..1000u16)
                .map(|number| rules::model::ServicePort {
                    name: format!("default/s{number}"),
                    protocol: rules::model::Protocol::Tcp,
                    cluster_ip: Ipv4Addr::new(10, 96, (number >> 8) as u8, number as u8),
                    port: 80,
                    node_port: None,
                    endpoints: vec![
                        format!("10.244.0.{}:80", if number == 500 { moved } else { 2 }).parse().unwrap(),
                    ],
                    ..rules::model::tests::service_port()
                })
                .collect()
        };
        let mut rules = rules::apply::Rules::new(node());
        let mut took = Vec::new();
        for moved in 2..8 {
            let begun = Instant::now();
            rules.apply(&services(moved)).await.unwrap();
            took.push(begun.elapsed());
        }
        println!("1000 services: first {:?}, then {:?}", took[0], &took[1..]);
    });
}

/// Connects the host to another network namespace, "the world": 198.51.100.1 here, 198.51.100.2 there.
async fn the_world() -> Pod {
    let world = Pod::new();
    let netlink = Netlink::here().unwrap();
    let inside = Netlink::inside(&world.netns).await.unwrap();
    let namespace = std::fs::File::open(&world.netns).unwrap();
    let peer = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkUnspec>::new()
        .name("up1")
        .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&namespace))
        .build();
    let pair = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkVeth>::new("up0", "up1")
        .set_info_data(rtnetlink::packet_route::link::InfoData::Veth(
            rtnetlink::packet_route::link::InfoVeth::Peer(peer),
        ))
        .build();
    netlink.handle().link().add(pair).execute().await.unwrap();
    for (side, name, address) in [(&netlink, "up0", [198, 51, 100, 1]), (&inside, "up1", [198, 51, 100, 2])] {
        let index = side.expect(name).await.unwrap();
        side.up(index).await.unwrap();
        side.handle().address().add(index, IpAddr::from(address), 24).execute().await.unwrap();
    }
    for (side, name) in [(&netlink, "up0"), (&inside, "up1")] {
        side.carries(side.expect(name).await.unwrap()).await.unwrap();
    }
    world
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

#[test]
fn pods_reach_the_world_under_the_hosts_address_and_the_world_reaches_node_ports() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let outside = the_world().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        outside.serve("outside");
        let seen = a.inside(|| ask("198.51.100.2:8080")).unwrap();
        assert_eq!(seen, ("outside".into(), HERE));

        a.serve("a");
        world.endpoints(&[ip_a]).await;
        let from_outside = outside.inside(|| ask("198.51.100.1:30080")).unwrap();
        // The pod sees who really asks.
        assert_eq!(from_outside, ("a".into(), THERE));
    });
}

#[test]
fn a_service_may_lead_out_of_the_cluster_or_to_the_host_itself() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let outside = the_world().await;
        let a = Pod::new();
        world.attach("a", &a).await;
        outside.serve("outside");
        world.endpoints(&[THERE]).await;
        assert_eq!(a.inside(|| ask(CLUSTER_IP)).unwrap(), ("outside".into(), HERE));
        assert_eq!(ask(CLUSTER_IP).unwrap(), ("outside".into(), HERE));

        // As the `kubernetes` service does.
        let api = TcpListener::bind("0.0.0.0:8080").unwrap();
        std::thread::spawn(move || {
            for client in api.incoming() {
                let mut client = client.unwrap();
                let _ = writeln!(client, "api {}", client.peer_addr().unwrap().ip());
            }
        });
        world.endpoints(&[HERE]).await;
        assert_eq!(a.inside(|| ask(CLUSTER_IP)).unwrap().0, "api");
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "api");
    });
}

#[test]
fn pods_get_past_a_firewall_that_drops_what_is_not_allowed() {
    on_a_fresh_host(|| async {
        let firewall = "add table ip filter\n\
            add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }\n\
            add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }\n\
            add rule ip filter INPUT iifname lo accept\n\
            add rule ip filter INPUT ct state established accept\n";
        rules::apply::nft(&["-f", "-"], firewall).await.unwrap();
        let before = rules::apply::nft(&["list", "ruleset"], "").await.unwrap();
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let (_, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        b.serve("b");
        world.endpoints(&[ip_b]).await;
        assert_eq!(a.inside(|| ask(CLUSTER_IP)).unwrap().0, "b");
        // The host answers under the gateway's address.
        let host = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = host.local_addr().unwrap().port();
        a.inside(move || TcpStream::connect(("10.244.0.1", port)).map(drop)).unwrap();
        drop(World::new().await);
        let input = rules::apply::nft(&["list", "chain", "ip", "filter", "INPUT"], "").await.unwrap();
        assert_eq!(input.matches("accept comment").count(), 1, "{input}");
        let rules = rules::apply::nft(&["list", "chain", "ip", "filter", "FORWARD"], "").await.unwrap();
        assert_eq!(rules.matches("accept comment").count(), 2, "{rules}");
        crate::destroy(INSTANCE).await.unwrap();
        assert_eq!(rules::apply::nft(&["list", "ruleset"], "").await.unwrap(), before);
    });
}

/// Clients of the ClusterIP, each connecting anew without a pause.
struct Clients {
    going: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(usize, Vec<std::io::Error>)>>,
}

impl Clients {
    fn start(count: usize) -> Self {
        let netns = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        let going = Arc::new(AtomicBool::new(true));
        let start = |_| {
            let (netns, going) = (std::fs::File::open(&netns).unwrap(), Arc::clone(&going));
            std::thread::spawn(move || {
                nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                let (mut asked, mut failed) = (0, Vec::new());
                while going.load(Ordering::Relaxed) {
                    asked += 1;
                    failed.extend(ask(CLUSTER_IP).err());
                }
                (asked, failed)
            })
        };
        let threads = (0..count).map(start).collect();
        Self { going, threads }
    }

    /// Stops them and makes sure that nobody was refused.
    fn all_were_served(self, during: &str) {
        self.going.store(false, Ordering::Relaxed);
        let results: Vec<_> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let asked: usize = results.iter().map(|result| result.0).sum();
        let failed: Vec<_> = results.into_iter().flat_map(|result| result.1).collect();
        println!("{asked} connections during {during}");
        assert_eq!(failed.len(), 0, "{:?}", failed.first());
    }
}

#[test]
fn changing_the_endpoints_refuses_nobody() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let pods = [Pod::new(), Pod::new(), Pod::new()];
        let mut all = Vec::new();
        let mut serving = Vec::new();
        for (pod, id) in pods.iter().zip(["a", "b", "c"]) {
            all.push(world.attach(id, pod).await);
            serving.push(pod.serve_until_stopped());
        }
        world.endpoints(&all).await;
        let clients = Clients::start(4);
        for round in 0..50 {
            world.endpoints(&all[..2 + round % 2]).await;
        }
        clients.all_were_served("50 changes");
    });
}

/// Nobody but the rules and the count of connections protects these clients: a pod dies the moment it is counted
/// as having none.
#[test]
fn no_connection_is_on_its_way_to_a_pod_counted_as_having_none() {
    const ROUNDS: usize = 10;
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let mut pods = Vec::new();
        let mut clients = None;
        for number in 0..ROUNDS + 2 {
            let (name, pod) = (format!("pod-{number}"), Pod::new());
            let ip = world.attach(&name, &pod).await;
            let stop = pod.serve_until_stopped();
            pods.push((name, pod, ip, stop));
            let all: Vec<_> = pods.iter().map(|pod| pod.2).collect();
            world.endpoints(&all).await;
            if pods.len() < 3 {
                continue;
            }
            clients.get_or_insert_with(|| Clients::start(4));
            let (name, pod, ip, stop) = pods.remove(0);
            world.proxy.withdraw(ip).await.unwrap();
            while world.proxy.connections(ip, &pod.netns).await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
            stop.send(()).unwrap();
            world.endpoints(&all[1..]).await;
            world.pods.detach(&name).await.unwrap();
            world.proxy.restore(ip);
        }
        clients.unwrap().all_were_served("the replacement of 10 pods");
    });
}
