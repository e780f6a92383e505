//! Numbers of the embedded engine on this machine's disk: durable writes, listing, watch fan-out, opening.
//!
//! `cargo bench -p sagong-store [-- DIRECTORY]`; the directory (default: the temporary one) decides which disk.

use bytes::Bytes;
use sagong_store::{Batch, EmbeddedStore, Expect, Store, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// About a small Pod as JSON.
const VALUE: usize = 2048;
const SPELL: Duration = Duration::from_secs(2);
const WATCHES: usize = 1000;

fn main() {
    let chosen = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let parent = chosen.map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("a directory to work in");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for writers in [1, 16, 64, 256] {
        runtime.block_on(durable_writes(&dir.path().join(format!("writes-{writers}")), writers));
    }
    let file = dir.path().join("objects");
    runtime.block_on(listing(&file));
    opening(&file);
    runtime.block_on(fan_out(&dir.path().join("watches")));
}

fn put(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: Some(Bytes::from(vec![b'x'; VALUE])) }
}

async fn durable_writes(file: &Path, writers: usize) {
    let store = Arc::new(EmbeddedStore::open(file).expect("open"));
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let key = format!("/pods/default/{writer}-{}", took.len() % 50);
                    store.commit(vec![put(key)]).await.expect("commit");
                    took.push(begun.elapsed());
                }
                took
            })
        })
        .collect();
    tokio::time::sleep(SPELL).await;
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a writer"));
    }
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    took.sort();
    println!(
        "durable writes of {VALUE} bytes, {writers:3} writers: {rate:7.0}/s   p50 {:?}   p99 {:?}",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
    );
}

async fn listing(file: &Path) {
    let store = EmbeddedStore::open(file).expect("open");
    for chunk in 0..20 {
        let writes = (0..500).map(|n| put(format!("/pods/default/{chunk:02}-{n:03}"))).collect();
        store.commit(writes).await.expect("commit");
    }
    println!("list of 10,000: {:?}", median(list_times(&store, 0).await));
    println!("list of 500 of 10,000: {:?}", median(list_times(&store, 500).await));
}

async fn list_times(store: &EmbeddedStore, limit: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        let page = store.list("/pods/", None, limit).await.expect("list");
        times.push(begun.elapsed());
        assert_eq!(page.entries.len() + page.remaining, 10_000);
    }
    times
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn opening(file: &Path) {
    let open = |file: &Path| {
        let begun = Instant::now();
        let store = EmbeddedStore::open(file).expect("open");
        (begun.elapsed(), store)
    };
    let (closed, store) = open(file);
    let crashed = file.with_extension("crashed");
    std::fs::copy(file, &crashed).expect("copy");
    let (repaired, _) = open(&crashed);
    drop(store);
    let bytes = std::fs::metadata(file).expect("size").len();
    println!(
        "open with 10,000 entries ({} MB): {closed:?} when closed, {repaired:?} after a crash",
        bytes >> 20
    );
}

async fn fan_out(file: &Path) {
    const CHANGES: usize = 500;
    for (what, prefix) in [("of the prefix written to", "/pods/"), ("of other prefixes", "/secrets/")] {
        let store = Arc::new(EmbeddedStore::open(file).expect("open"));
        let seeing = prefix == "/pods/";
        let watches: Vec<_> = (0..WATCHES)
            .map(|n| {
                let prefix = if seeing { prefix.to_owned() } else { format!("{prefix}{n}") };
                let mut watch = store.watch(&prefix, 0).expect("watch");
                tokio::spawn(async move {
                    let mut seen = 0;
                    while seeing && seen < CHANGES {
                        match watch.next().await {
                            Batch::Events(events) => seen += events.len(),
                            other => panic!("{other:?}"),
                        }
                    }
                    watch
                })
            })
            .collect();
        let begun = Instant::now();
        for n in 0..CHANGES {
            store.commit(vec![put(format!("/pods/default/{}", n % 50))]).await.expect("commit");
        }
        let written = begun.elapsed();
        for watch in watches {
            watch.await.expect("a watch");
        }
        let total = begun.elapsed();
        println!(
            "{CHANGES} writes one by one, {WATCHES} watches {what}: {:.0} writes/s{}",
            CHANGES as f64 / written.as_secs_f64(),
            if seeing {
                format!(", {:.0} deliveries/s", (CHANGES * WATCHES) as f64 / total.as_secs_f64())
            } else {
                String::new()
            },
        );
    }
}
