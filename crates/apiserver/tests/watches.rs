//! Watches under load: nothing lost, repeated or out of order, and nobody waits for the slow.

#![allow(clippy::unwrap_used)]

mod support;

use futures::io::{AsyncBufReadExt, Lines};
use futures::{AsyncBufRead, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use sagong_store::Options;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// From the present state on, whose end is marked.
const INITIAL: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

type Events = Lines<Pin<Box<dyn AsyncBufRead + Send>>>;

/// A watch over a connection of its own; its head has arrived.
async fn watch(server: &Server, query: &str) -> Events {
    let client = server.https(|_| {}).await;
    let request = http::Request::get(format!("{MAPS}?watch=true&{query}")).body(Vec::new()).unwrap();
    let body: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(client.request_stream(request).await.unwrap());
    body.lines()
}

async fn next(events: &mut Events) -> Option<(String, Value)> {
    let mut event: Value = serde_json::from_str(&events.next().await?.unwrap()).unwrap();
    Some((event["type"].as_str().unwrap().to_owned(), event["object"].take()))
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Reads until the object that says it is the last, and gives what is there then, by name. Each event must fit
/// to what the ones before it said, and be newer.
async fn followed(mut events: Events, from: u64) -> BTreeMap<String, u64> {
    let (mut there, mut newest): (BTreeMap<String, u64>, u64) = (BTreeMap::new(), from);
    let mut initial = from == 0;
    loop {
        let (change, object) = next(&mut events).await.unwrap();
        if change == "BOOKMARK" {
            initial = false;
            newest = version(&object);
            continue;
        }
        let (name, version) = (object["metadata"]["name"].as_str().unwrap().to_owned(), version(&object));
        assert!(initial || version > newest, "{change} {name} {version} after {newest}");
        newest = newest.max(version);
        let before = match change.as_str() {
            "DELETED" => there.remove(&name),
            _ => there.insert(name.clone(), version),
        };
        assert_eq!(before.is_some(), change != "ADDED", "{change} {name}, which was {before:?}");
        if object["data"]["last"] == "yes" {
            return there;
        }
    }
}

/// Creates, changes and deletes a few maps at random, so that they begin and cease to be selected.
async fn writer(server: Arc<Server>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..60 {
        let name = format!("map-{}", random.random_range(0..6));
        let color = if random.random() { "red" } else { "blue" };
        let map = json!({"metadata": {"name": name, "labels": {"color": color}}, "data": {"by": format!("{seed} {round}"), "fill": "x".repeat(300)}});
        let (method, path) = match random.random_range(0..4) {
            0 => ("DELETE", format!("{MAPS}/{name}")),
            1 => ("POST", MAPS.to_owned()),
            _ => ("PATCH", format!("{MAPS}/{name}")),
        };
        let body = if method == "DELETE" { Value::Null } else { map };
        let (code, answer) = server.json(method, &path, &body).await;
        assert!([200, 201, 404, 409].contains(&code), "{method} {path}: {answer}");
    }
}

#[rstest]
#[case::everything("")]
#[case::by_label("&labelSelector=color%3Dred")]
#[case::by_name("&fieldSelector=metadata.name%3Dmap-3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_change_once_and_in_order(
    #[case] selection: &str,
    #[values(1 << 20, 0)] open_bytes: usize,
) {
    let server = Arc::new(Server::start_with(Options { open_bytes, ..Options::default() }).await);
    let (_, list) = server.json("GET", MAPS, &Value::Null).await;
    assert_eq!(list["items"], json!([]));
    let empty = version(&list);

    let mut watchers = tokio::task::JoinSet::new();
    for watcher in 0..30 {
        let (start, from) = match watcher % 2 {
            0 => (INITIAL.to_owned(), 0),
            _ => (format!("resourceVersion={empty}"), empty),
        };
        let events = watch(&server, &format!("{start}{selection}")).await;
        watchers.spawn(followed(events, from));
    }
    let writers = (1..=6).map(|seed| tokio::spawn(writer(server.clone(), seed)));
    for ended in futures::future::join_all(writers).await {
        ended.unwrap();
    }
    server.json("DELETE", &format!("{MAPS}/map-3"), &Value::Null).await;
    let last = json!({"metadata": {"name": "map-3", "labels": {"color": "red"}}, "data": {"last": "yes"}});
    assert_eq!(server.json("POST", MAPS, &last).await.0, 201);

    let (_, list) = server.json("GET", &format!("{MAPS}?{selection}"), &Value::Null).await;
    let listed = list["items"].as_array().unwrap().iter();
    let listed: BTreeMap<String, u64> =
        listed.map(|map| (map["metadata"]["name"].as_str().unwrap().to_owned(), version(map))).collect();
    assert!(listed.contains_key("map-3"));
    while let Some(there) = watchers.join_next().await {
        assert_eq!(there.unwrap(), listed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_told_that_it_is_too_late_and_nobody_waits_for_it() {
    const WRITES: usize = 1200;
    let server = Server::start_with(Options { history_events: 200, ..Options::default() }).await;
    let map = |n: usize| json!({"metadata": {"name": "map"}, "data": {"n": n.to_string(), "fill": "x".repeat(32 << 10)}});
    assert_eq!(server.json("POST", MAPS, &map(0)).await.0, 201);
    let mut slow = watch(&server, "").await;
    let mut quick = watch(&server, "").await;
    for n in 0..WRITES {
        let (_, object) = next(&mut quick).await.unwrap();
        assert_eq!(object["data"]["n"], n.to_string());
        assert_eq!(server.json("PATCH", &format!("{MAPS}/map"), &map(n + 1)).await.0, 200);
    }

    let mut seen = 0;
    let error = loop {
        let (change, object) = next(&mut slow).await.unwrap();
        if change == "ERROR" {
            break object;
        }
        assert_eq!(object["data"]["n"], seen.to_string(), "in order, as far as it goes");
        seen += 1;
    };
    assert_eq!((&error["code"], &error["reason"]), (&json!(410), &json!("Expired")), "{error}");
    assert!(seen < WRITES, "all of it was kept for the one that did not read");
    assert!(next(&mut slow).await.is_none(), "and that is the end");
}
