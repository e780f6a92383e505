//! Flows that outlive what they were made by: UDP, and clients that services remember.

use super::*;

/// Answers every datagram to port 5353 with a name.
fn echo(pod: &Pod, name: &'static str) {
    let server = pod.inside(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = server.recv_from(&mut buffer) {
            // The client may be gone.
            let _ = server.send_to(name.as_bytes(), peer);
        }
    });
}

/// Sends a datagram from a socket that is connected already, and reads the answer.
fn call(socket: &UdpSocket) -> String {
    socket.send(b"?").unwrap();
    let mut buffer = [0; 16];
    let count = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn udp_client(target: &str) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.connect(target).unwrap();
    socket
}

/// As it is done when the rules have changed.
async fn forget(world: &World) {
    world.proxy.forgetting.forget().await.unwrap();
}

#[test]
fn a_udp_client_that_goes_on_sending_is_led_to_a_living_pod() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b, c) = (Pod::new(), Pod::new(), Pod::new());
        let (ip_a, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        world.attach("c", &c).await;
        echo(&a, "a");
        echo(&b, "b");
        world.endpoints(&[ip_a]).await;
        let (on_host, inside) = (udp_client("10.96.0.10:53"), c.inside(|| udp_client("10.96.0.10:53")));
        assert_eq!([call(&on_host), call(&inside)], ["a", "a"]);
        world.endpoints(&[ip_a, ip_b]).await;
        assert_eq!([call(&on_host), call(&inside)], ["a", "a"]);
        // While it is being stopped it may finish what it has begun; new flows go elsewhere.
        world.proxy.withdraw(ip_a).await.unwrap();
        forget(&world).await;
        assert_eq!([call(&on_host), call(&inside)], ["a", "a"]);
        assert_eq!(call(&udp_client("10.96.0.10:53")), "b");
        // Then it is gone.
        world.endpoints(&[ip_b]).await;
        forget(&world).await;
        assert_eq!([call(&on_host), call(&inside)], ["b", "b"]);
    });
}

#[test]
fn an_answer_that_its_pod_sends_after_it_was_withdrawn_arrives() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b, c) = (Pod::new(), Pod::new(), Pod::new());
        let (ip_a, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        world.attach("c", &c).await;
        let server = a.inside(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
        server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        echo(&b, "b");
        world.endpoints(&[ip_a]).await;
        let clients = [udp_client("10.96.0.10:53"), c.inside(|| udp_client("10.96.0.10:53"))];
        let mut buffer = [0; 16];
        let peers = clients.each_ref().map(|client| {
            client.send(b"?").unwrap();
            server.recv_from(&mut buffer).unwrap().1
        });
        world.endpoints(&[ip_a, ip_b]).await;
        world.proxy.withdraw(ip_a).await.unwrap();
        forget(&world).await;
        for (client, peer) in clients.iter().zip(peers) {
            server.send_to(b"late", peer).unwrap();
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"late");
        }
    });
}

#[test]
fn a_service_that_cannot_remember_more_clients_serves_them_all_the_same() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b, c) = (Pod::new(), Pod::new(), Pod::new());
        let ip_a = world.attach("a", &a).await;
        world.attach("b", &b).await;
        world.attach("c", &c).await;
        a.serve("a");
        let IpAddr::V4(ip) = ip_a else { unreachable!() };
        let sticky = rules::model::ServicePort {
            cluster_ip: Ipv4Addr::new(10, 96, 0, 10),
            endpoints: vec![std::net::SocketAddrV4::new(ip, 8080)],
            affinity: Some(60),
            ..rules::model::tests::service_port()
        };
        let text = rules::compile::replace(&rules::compile::compile(&node(), &[sticky]));
        let small = text.replace("size 65535", "size 1");
        assert_ne!(small, text);
        rules::apply::nft(&["-f", "-"], &small).await.unwrap();
        for client in [&b, &c] {
            assert_eq!(client.inside(|| ask(CLUSTER_IP)).unwrap().0, "a");
        }
    });
}

#[test]
fn clients_are_remembered_across_a_restart() {
    on_a_fresh_host(|| async {
        let first = World::new().await;
        let pods = ["a", "b", "c", "d"].map(|name| (name, Pod::new()));
        let mut all = Vec::new();
        for (name, pod) in &pods {
            all.push(first.attach(name, pod).await);
            pod.serve(name);
        }
        let spec = json!({"sessionAffinity": "ClientIP"});
        let names = || pods.each_ref().map(|(_, pod)| pod.inside(|| ask(CLUSTER_IP)).unwrap().0);
        first.endpoints_of(spec.clone(), json!({}), &all).await;
        let before = names();
        let second = World::new().await;
        for (name, pod) in &pods {
            second.attach(name, pod).await;
        }
        second.endpoints_of(spec, json!({}), &all).await;
        assert_eq!(names(), before);
    });
}

#[test]
fn a_udp_flow_older_than_its_service_is_led_to_it() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        echo(&a, "a");
        world.endpoints_of(json!({"ports": []}), json!({}), &[ip_a]).await;
        let _outside = the_world().await;
        let client = udp_client("198.51.100.1:30053");
        // Nobody listens, but the kernel tracks the flow if it is confirmed before that is found out.
        let held = UdpSocket::bind("198.51.100.1:30053").unwrap();
        client.send(b"?").unwrap();
        drop(held);
        let ports = json!([{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}]);
        world.endpoints_of(json!({"type": "NodePort", "ports": ports}), json!({}), &[ip_a]).await;
        forget(&world).await;
        assert_eq!(call(&client), "a");
    });
}

#[test]
fn udp_reaches_pods_under_the_balancers_address() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        echo(&a, "a");
        let status = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.7"}]}});
        world.endpoints_of(json!({"type": "LoadBalancer"}), status, &[ip_a]).await;
        // Held, as the balancer does.
        let _held = UdpSocket::bind("127.0.0.7:53").unwrap();
        assert_eq!(call(&udp_client("127.0.0.7:53")), "a");
    });
}

#[test]
fn a_service_with_affinity_sends_a_client_to_the_same_pod_while_it_is_there() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let (a, b) = (Pod::new(), Pod::new());
        let (ip_a, ip_b) = (world.attach("a", &a).await, world.attach("b", &b).await);
        a.serve("a");
        b.serve("b");
        let config = json!({"clientIP": {"timeoutSeconds": 1}});
        let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
        let names = || (0..30).map(|_| ask(CLUSTER_IP).unwrap().0).collect::<BTreeSet<_>>();
        world.endpoints_of(spec.clone(), json!({}), &[ip_a, ip_b]).await;
        let first = names();
        assert_eq!(first.len(), 1);
        // Another endpoint changes nothing for those remembered.
        let c = Pod::new();
        let ip_c = world.attach("c", &c).await;
        c.serve("c");
        world.endpoints_of(spec.clone(), json!({}), &[ip_a, ip_b, ip_c]).await;
        assert_eq!(names(), first);
        // The pod leaves: another one, from then on.
        let left = if first.contains("a") { ip_a } else { ip_b };
        world.proxy.withdraw(left).await.unwrap();
        let second = names();
        assert!(second.len() == 1 && second != first, "{second:?}");
        // After the time without a connection any pod may be chosen.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            tokio::time::sleep(Duration::from_millis(1300)).await;
            if names() != second {
                break;
            }
            assert!(Instant::now() < deadline, "remembered for ever");
        }
    });
}
