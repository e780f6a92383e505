//! `kill -9` in a loop: every acknowledged write is there afterwards, whole, and no revision is used twice.
//!
//! The writer is this test binary run again, told by the environment to write until it is killed.

#![allow(clippy::unwrap_used)] // A failed step fails the test.

use bytes::Bytes;
use sagong_store::{EmbeddedStore, Expect, Outcome, Revision, Store, Write};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = "SAGONG_STORE_CRASH_FILE";
const ROUND: &str = "SAGONG_STORE_CRASH_ROUND";
const ROUNDS: usize = 8;
const WRITERS: usize = 8;

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.redb");
    let mut acknowledged: BTreeMap<String, Revision> = BTreeMap::new();
    let mut highest = 0;
    for round in 0..ROUNDS {
        let lifetime = Duration::from_millis(60 + 37 * (round as u64 % 4));
        let acks = write_until_killed(&file, round, lifetime);
        assert!(!acks.is_empty(), "round {round} wrote nothing");
        for (key, revision) in acks {
            assert!(revision > highest, "{key} has revision {revision}, which was used before the crash");
            acknowledged.insert(key, revision);
        }
        highest = check(&file, &acknowledged);
    }
}

/// Opens a copy, so that the next round finds the file as the crash left it; gives its revision.
fn check(file: &Path, acknowledged: &BTreeMap<String, Revision>) -> Revision {
    let copy: PathBuf = file.with_extension("copy");
    std::fs::copy(file, &copy).unwrap();
    let store = EmbeddedStore::open(&copy).expect("opening after the crash");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let page = runtime.block_on(store.list("/", None, 0)).unwrap();
    let found: BTreeMap<&str, _> = page.entries.iter().map(|entry| (&*entry.key, entry)).collect();
    for (key, revision) in acknowledged {
        let entry = found.get(key.as_str()).unwrap_or_else(|| panic!("{key} is gone"));
        assert_eq!((entry.modified, entry.created), (*revision, *revision), "{key}");
        assert_eq!(entry.value(), value(key), "{key}");
    }
    for (key, entry) in &found {
        let twin =
            found.get(&*twin(key)).unwrap_or_else(|| panic!("half of the transaction of {key} is gone"));
        assert_eq!(twin.modified, entry.modified);
        assert!(entry.modified <= page.revision);
    }
    page.revision
}

/// The other key of the same transaction.
fn twin(key: &str) -> String {
    match key.strip_prefix("/left/") {
        Some(rest) => format!("/right/{rest}"),
        None => key.replace("/right/", "/left/"),
    }
}

fn value(key: &str) -> Bytes {
    Bytes::from(key.repeat(40))
}

/// Runs the writer for a while, kills it, and gives what it acknowledged.
fn write_until_killed(file: &Path, round: usize, lifetime: Duration) -> Vec<(String, Revision)> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_that_gets_killed", "--nocapture"])
        .env(FILE, file)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = KilledOnDrop(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut acks: Vec<_> = lines.by_ref().find_map(|line| parse(&line)).into_iter().collect();
    let killer = std::thread::spawn(move || {
        // The moment of the kill is the point; there is nothing to wait for.
        std::thread::sleep(lifetime);
        drop(child);
    });
    acks.extend(lines.filter_map(|line| parse(&line)));
    killer.join().unwrap();
    acks
}

/// `ack KEY REVISION.`; a line cut off by the kill has no full stop.
fn parse(line: &str) -> Option<(String, Revision)> {
    let (key, revision) = line.strip_prefix("ack ")?.strip_suffix('.')?.split_once(' ')?;
    Some((key.to_owned(), revision.parse().ok()?))
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_writer_that_gets_killed() {
    let (Ok(file), Ok(round)) = (std::env::var(FILE), std::env::var(ROUND)) else { return };
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(Path::new(&file)).unwrap());
        let writers = (0..WRITERS).map(|writer| {
            let (store, round) = (store.clone(), round.clone());
            tokio::spawn(async move {
                // Ends by itself should the parent be gone.
                for n in 0..100_000 {
                    write_pair(&*store, format!("{round}/{writer}/{n}")).await;
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

async fn write_pair(store: &dyn Store, name: String) {
    let keys = [format!("/left/{name}"), format!("/right/{name}")];
    let write = |key: &String| Write { key: key.clone(), expect: Expect::Absent, value: Some(value(key)) };
    match store.commit(keys.iter().map(write).collect()).await.unwrap() {
        Outcome::Committed(revision) => {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "ack {} {revision}.", keys[0]);
        }
        Outcome::Refused { .. } => panic!("{name} exists"),
    }
}
