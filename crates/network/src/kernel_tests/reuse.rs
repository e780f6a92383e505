//! Ports used again and again, on every way from the host to a pod.

use super::*;

/// How many SYNs a namespace did not take because they looked older than what it remembers.
fn refused_as_old() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let position = names.split(' ').position(|name| name == "PAWSTimewait").unwrap();
    values.split(' ').nth(position).unwrap().parse().unwrap()
}

/// Takes one connection after the other on port 8080 and closes each first, so that it stays in TIME_WAIT here.
fn close_first(pod: &Pod) {
    pod.inside(|| {
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
    });
}

#[test]
fn no_call_looks_older_to_a_pod_than_one_that_came_another_way() {
    on_a_fresh_host(|| async {
        // Every port is used many times within the minute a pod remembers it.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        let world = World::new().await;
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        close_first(&a);
        world.endpoints(&[ip_a]).await;
        let ways = [CLUSTER_IP.to_owned(), format!("127.0.0.1:{NODE_PORT}"), format!("{ip_a}:8080")];
        for round in 0..1500 {
            let way = ways[round % ways.len()].parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&way, Duration::from_secs(5)).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(a.inside(refused_as_old), 0);
    });
}
