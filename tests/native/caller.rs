//! A program for pods of the tests: calls by name, with the C library's resolver and the pod's own resolv.conf.
//!
//! `caller NAME…` prints what each name resolves to, and ends. `caller load WAY…` sends requests on each of these ways
//! without end; it prints every failure, and now and then how many requests each version answered. Only the standard
//! library, so that one `rustc` call builds it.

#![allow(dead_code)]

#[path = "../src/load.rs"]
mod load;

use load::{Load, Way};
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((word, ways)) if word == "load" => {
            send(&ways.iter().map(|way| Way::read(way).expect("a way")).collect::<Vec<_>>());
        }
        _ => arguments.iter().for_each(|name| println!("{name}: {}", resolve(name))),
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

fn send(ways: &[Way]) {
    // With few ways more of each.
    let pause = Duration::from_millis(if ways.len() > 2 { 30 } else { 5 });
    let loads: Vec<Load> = ways.iter().map(|way| Load::on(way, 1, pause)).collect();
    let mut told = vec![0; ways.len()];
    loop {
        std::thread::sleep(Duration::from_millis(200));
        for ((way, load), told) in ways.iter().zip(&loads).zip(&mut told) {
            let tally = load.so_far();
            tally.failures[*told..].iter().for_each(|failure| println!("FAILED {way} {failure}"));
            *told = tally.failures.len();
            println!("answered {way} {:?}", tally.versions);
        }
    }
}
