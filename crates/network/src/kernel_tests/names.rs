//! Who reaches the name server's addresses, and what is heard of it while it is away.

use super::*;
use crate::pod::netlink::default_via;
use std::io::ErrorKind;

/// Sends a datagram and tells how waiting for an answer ends.
fn heard(target: &'static str, patience: Duration) -> ErrorKind {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.connect(target).unwrap();
    socket.send(b"?").unwrap();
    socket.recv(&mut [0; 16]).unwrap_err().kind()
}

#[test]
fn neighbours_do_not_reach_the_name_server() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let outside = the_world().await;
        let inside = Netlink::inside(&outside.netns).await.unwrap();
        let Ok(link) = inside.index("up1").await else { unreachable!() };
        let via = default_via(Ipv4Addr::new(198, 51, 100, 1), link.unwrap());
        inside.handle().route().add(via).execute().await.unwrap();
        let a = Pod::new();
        let ip_a = world.attach("a", &a).await;
        a.serve("a");
        // The name server's ClusterIP, here with a pod behind it.
        world.endpoints(&[ip_a]).await;
        assert_eq!(a.inside(|| ask(CLUSTER_IP)).unwrap().0, "a");
        assert_eq!(ask(CLUSTER_IP).unwrap().0, "a");
        let connect = || {
            let target = CLUSTER_IP.parse().unwrap();
            TcpStream::connect_timeout(&target, Duration::from_millis(300)).map(drop).map_err(|e| e.kind())
        };
        assert_eq!(outside.inside(connect), Err(ErrorKind::TimedOut));

        let server = UdpSocket::bind("10.244.0.1:10053").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert_eq!(
            outside.inside(|| heard("10.244.0.1:10053", Duration::from_millis(100))),
            ErrorKind::WouldBlock
        );
        server.recv(&mut [0; 16]).unwrap_err();
        for reaches in [true, false].map(|from_pod| move || (from_pod, Duration::from_millis(1))) {
            let (from_pod, patience) = reaches();
            let send = move || heard("10.244.0.1:10053", patience);
            let _ = if from_pod { a.inside(send) } else { send() };
            server.recv(&mut [0; 16]).unwrap();
        }
    });
}

#[test]
fn nobody_is_refused_by_a_name_server_that_is_away() {
    on_a_fresh_host(|| async {
        let world = World::new().await;
        let a = Pod::new();
        world.attach("a", &a).await;
        world.endpoints(&[]).await;
        let patience = Duration::from_millis(500);
        for (target, kind) in
            [("10.244.0.1:10053", ErrorKind::WouldBlock), ("10.244.0.1:10054", ErrorKind::ConnectionRefused)]
        {
            assert_eq!(a.inside(move || heard(target, patience)), kind, "{target}");
            assert_eq!(heard(target, patience), kind, "{target}");
        }
    });
}
