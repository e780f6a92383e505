//! A program for pods of the tests: calls by name, with the C library's resolver and the pod's own resolv.conf.
//!
//! `caller NAME…` prints what each name resolves to, and ends. `caller load NAME PORT` sends requests without
//! end, each with a look-up and a connection of its own; it prints every failure, and now and then how many
//! requests each version answered. Only the standard library, so that one `rustc` call builds it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [word, name, port] if word == "load" => load(name, port.parse().expect("a port")),
        names => names.iter().for_each(|name| println!("{name}: {}", resolve(name))),
    }
}

fn resolve(name: &str) -> String {
    match (name, 80).to_socket_addrs() {
        Ok(all) => {
            let mut all: Vec<IpAddr> = all.map(|address| address.ip()).collect();
            all.sort();
            all.dedup();
            all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("{error}"),
    }
}

fn load(name: &str, port: u16) {
    let (mut versions, mut told) = (BTreeMap::<String, usize>::new(), Instant::now());
    loop {
        let begun = Instant::now();
        match request(name, port) {
            Ok(version) => *versions.entry(version).or_default() += 1,
            Err(error) => println!("FAILED after {:?}: {error}", begun.elapsed()),
        }
        if told.elapsed() > Duration::from_millis(200) {
            println!("answered {versions:?}");
            told = Instant::now();
        }
        // The rate, not a wait for anything.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn request(name: &str, port: u16) -> std::io::Result<String> {
    let bad = |what: &str| std::io::Error::other(what.to_owned());
    let address: SocketAddr = (name, port).to_socket_addrs()?.next().ok_or_else(|| bad("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let version = body.strip_prefix("This is ").and_then(|rest| rest.split(' ').next());
    let good = answer.starts_with("HTTP/1.1 200 ") && body.ends_with('\n');
    version.filter(|_| good).map(str::to_owned).ok_or_else(|| bad(&format!("{answer:?}")))
}
