//! The embedded engine: what every engine must do, and what is its own: files, reopening, bounded history.

#![allow(clippy::unwrap_used)] // A failed step fails the test.

mod conformance;

use conformance::{brief, committed, delete, events, next_events, put};
use sagong_store::{Batch, EmbeddedStore, Expect, Options, Outcome, Store, StoreError};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A directory that goes away, and the file in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.redb");
    (dir, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_every_engine_must_do() {
    let (_dir, file) = place();
    conformance::run(&EmbeddedStore::open(&file).unwrap()).await;
}

#[tokio::test]
async fn the_file_is_its_owners_alone_even_if_it_was_not() {
    let (_dir, file) = place();
    let mode = |file: &PathBuf| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    drop(EmbeddedStore::open(&file).unwrap());
    assert_eq!(mode(&file), 0o600);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    drop(EmbeddedStore::open(&file).unwrap());
    assert_eq!(mode(&file), 0o600);
}

#[tokio::test]
async fn everything_survives_reopening() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open(&file).unwrap();
    let first = committed(&store, vec![put("/a", "1", Expect::Absent)]).await;
    let second = committed(&store, vec![put("/a", "2", Expect::Anything)]).await;
    committed(&store, vec![put("/b", "", Expect::Absent)]).await;
    let last = committed(&store, vec![delete("/b", Expect::Anything)]).await;
    drop(store);

    let store = EmbeddedStore::open(&file).unwrap();
    assert_eq!(store.revision(), last, "also when the last change deleted the newest key");
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!((&entry.value()[..], entry.created, entry.modified), (&b"2"[..], first, second));
    assert!(store.get("/b").await.unwrap().is_none());
    assert_eq!(committed(&store, vec![put("/c", "", Expect::Absent)]).await, last + 1);
}

#[tokio::test]
async fn a_watch_from_before_the_reopening_is_compacted() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open(&file).unwrap();
    committed(&store, vec![put("/a", "1", Expect::Absent)]).await;
    let last = committed(&store, vec![put("/a", "2", Expect::Anything)]).await;
    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    match store.watch("/", last - 1).map(|_| ()) {
        Err(StoreError::Compacted { asked, oldest }) => assert_eq!((asked, oldest), (last - 1, last)),
        other => panic!("{other:?}"),
    }
    let mut watch = store.watch("/", last).unwrap();
    committed(&store, vec![put("/a", "3", Expect::Anything)]).await;
    assert_eq!(brief(&events(&mut watch, 1).await[0]), format!("~/a=3@{}", last + 1));
}

#[tokio::test]
async fn a_watch_from_the_listing_of_a_new_store_misses_nothing() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open(&file).unwrap();
    let page = store.list("/", None, 0).await.unwrap();
    committed(&store, vec![put("/a", "1", Expect::Absent)]).await;
    assert_eq!(events(&mut store.watch("/", page.revision).unwrap(), 1).await.len(), 1);
}

/// One byte changed, all over the header and here and there in the rest; and the file cut short.
#[rstest::rstest]
fn a_damaged_file_is_an_error_or_read_right_but_never_a_panic(#[values(1, 16, 255)] flip: u8) {
    let (_dir, file) = place();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = EmbeddedStore::open(&file).unwrap();
    let value = |n: usize| vec![n as u8; 700];
    let writes = (0..200).map(|n| put(&format!("/{n:03}"), value(n), Expect::Absent)).collect();
    runtime.block_on(committed(&store, writes));
    drop(store);
    let whole = std::fs::read(&file).unwrap();
    let mut refused = 0;
    for place in 0..400 {
        let mut bytes = whole.clone();
        let at = if place < 64 { place } else { (place - 64) * whole.len() / 336 };
        bytes[at] ^= flip;
        std::fs::write(&file, &bytes).unwrap();
        match EmbeddedStore::open(&file) {
            Err(StoreError::Open { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
            Ok(store) => {
                let page = runtime.block_on(store.list("/", None, 0)).unwrap();
                assert_eq!(page.entries.len(), 200, "damage at {at} went unnoticed");
                for (n, entry) in page.entries.iter().enumerate() {
                    assert!(entry.value()[..] == value(n), "damage at {at} went unnoticed");
                }
            }
        }
    }
    assert!(refused > 0);
    for length in [1, 100, 4096, 5000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let _ = EmbeddedStore::open(&file);
    }
}

#[tokio::test]
async fn a_second_engine_on_the_file_is_refused() {
    let (_dir, file) = place();
    let _store = EmbeddedStore::open(&file).unwrap();
    let error = EmbeddedStore::open(&file).unwrap_err();
    assert!(matches!(&error, StoreError::Open { path, .. } if path.ends_with("state.redb")), "{error}");
    assert!(error.to_string().contains("already open"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let (_dir, file) = place();
    let content = vec![7u8; 100_000];
    std::fs::write(&file, &content).unwrap();
    assert!(matches!(EmbeddedStore::open(&file), Err(StoreError::Open { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), content);
    assert!(matches!(EmbeddedStore::open(&file.join("below")), Err(StoreError::Open { .. })));
}

#[tokio::test]
async fn closing_ends_watches_and_refuses_writes_but_not_reads() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open(&file).unwrap();
    let mut waiting = store.watch("/", 0).unwrap();
    let waiter = tokio::spawn(async move { waiting.next().await });
    let mut behind = store.watch("/", 0).unwrap();
    committed(&store, vec![put("/a", "", Expect::Absent)]).await;
    assert!(matches!(waiter.await.unwrap(), Batch::Events(_)));
    store.close();
    store.close();
    next_events(&mut behind).await;
    assert!(matches!(behind.next().await, Batch::Closed), "after what was left to see");
    assert!(matches!(store.commit(vec![]).await, Err(StoreError::Closed)));
    assert!(store.get("/a").await.unwrap().is_some());
    EmbeddedStore::open(&file).expect("the file is free again");
}

#[tokio::test]
async fn transactions_queued_before_closing_are_carried_out() {
    let (_dir, file) = place();
    let store = Arc::new(EmbeddedStore::open(&file).unwrap());
    let mut commits: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            Box::pin(async move { store.commit(vec![put(&format!("/{n:03}"), "", Expect::Absent)]).await })
        })
        .collect();
    // The first poll queues each.
    for commit in &mut commits {
        let _ = futures::FutureExt::now_or_never(commit.as_mut());
    }
    store.close();
    assert_eq!(store.list("/", None, 0).await.unwrap().entries.len(), 100);
}

fn small_history() -> Options {
    Options { history_events: 10, ..Options::default() }
}

#[tokio::test]
async fn a_watch_older_than_the_history_is_compacted() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open_with(&file, small_history()).unwrap();
    for _ in 0..30 {
        committed(&store, vec![put("/a", "", Expect::Anything)]).await;
    }
    assert!(matches!(store.watch("/", 20), Err(StoreError::Compacted { asked: 20, oldest: 21 })));
    assert_eq!(events(&mut store.watch("/", 21).unwrap(), 10).await[0].revision(), 22);
}

#[tokio::test]
async fn a_watch_that_falls_behind_is_lost_and_stays_lost() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open_with(&file, small_history()).unwrap();
    let mut slow = store.watch("/a", 0).unwrap();
    for _ in 0..11 {
        committed(&store, vec![put("/a", "", Expect::Anything)]).await;
    }
    let progress = slow.progress();
    assert!(matches!(slow.next().await, Batch::Lost));
    assert!(matches!(slow.next().await, Batch::Lost));
    assert_eq!((progress, slow.progress()), (1, 1));
}

#[tokio::test]
async fn a_watch_of_a_quiet_prefix_is_not_lost_in_the_noise_of_others() {
    let (_dir, file) = place();
    let store = EmbeddedStore::open_with(&file, small_history()).unwrap();
    let mut quiet = store.watch("/quiet", 0).unwrap();
    for _ in 0..50 {
        committed(&store, vec![put("/noise", "", Expect::Anything)]).await;
    }
    assert_eq!(quiet.progress(), 51);
    committed(&store, vec![put("/quiet", "", Expect::Anything)]).await;
    assert_eq!(events(&mut quiet, 1).await[0].revision(), 52);
}

#[tokio::test]
async fn the_history_is_bounded_by_bytes_but_keeps_the_newest_transaction() {
    let (_dir, file) = place();
    let options = Options { history_bytes: 100_000, ..Options::default() };
    let store = EmbeddedStore::open_with(&file, options).unwrap();
    for _ in 0..20 {
        committed(&store, vec![put("/a", vec![0; 20_000], Expect::Anything)]).await;
    }
    assert!(matches!(store.watch("/", 10), Err(StoreError::Compacted { oldest: 17, .. })));
    let mut watch = store.watch("/", 21).unwrap();
    committed(&store, vec![put("/a", vec![0; 500_000], Expect::Anything)]).await;
    assert_eq!(events(&mut watch, 1).await.len(), 1);
}

/// Of 3 kB each, 90 open changes would fill this history.
#[tokio::test]
async fn changes_that_are_not_new_take_little_of_the_history_and_read_as_they_were_put() {
    let (_dir, file) = place();
    let options = Options { history_bytes: 300_000, open_bytes: 30_000, ..Options::default() };
    let store = EmbeddedStore::open_with(&file, options).unwrap();
    let common: String = (0..400u64).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    let value = |n: usize| format!("{{\"n\":{n},\"common\":\"{common}\"}}");
    let start = store.revision();
    for n in 0..400 {
        committed(&store, vec![put(&format!("/pods/{}", n % 10), value(n), Expect::Anything)]).await;
    }
    let seen = events(&mut store.watch("/", start).expect("all of it is kept"), 400).await;
    for (n, event) in seen.iter().enumerate() {
        assert_eq!(event.entry().value(), value(n));
    }
    drop(store);
    let store = EmbeddedStore::open(&file).unwrap();
    for (n, entry) in store.list("/pods/", None, 0).await.unwrap().entries.iter().enumerate() {
        assert_eq!(entry.value(), value(390 + n), "read from the file, and packed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_counting_on_one_key_lose_no_count() {
    const TASKS: usize = 32;
    const EACH: usize = 25;
    let (_dir, file) = place();
    let store = Arc::new(EmbeddedStore::open(&file).unwrap());
    committed(&*store, vec![put("/count", "0", Expect::Absent)]).await;
    let mut watch = store.watch("/count", store.revision()).unwrap();
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(count(store.clone(), EACH))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entry = store.get("/count").await.unwrap().unwrap();
    assert_eq!(&entry.value()[..], (TASKS * EACH).to_string().as_bytes());
    let seen: Vec<String> = events(&mut watch, TASKS * EACH)
        .await
        .iter()
        .map(|event| String::from_utf8_lossy(&event.entry().value()).into_owned())
        .collect();
    assert_eq!(seen, (1..=TASKS * EACH).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Adds one to the counter `times` times by compare and swap.
async fn count(store: Arc<EmbeddedStore>, times: usize) {
    let mut current = store.get("/count").await.unwrap().unwrap();
    for _ in 0..times {
        loop {
            let number: usize = std::str::from_utf8(&current.value()).unwrap().parse().unwrap();
            let next = put("/count", (number + 1).to_string(), Expect::Modified(current.modified));
            match store.commit(vec![next]).await.unwrap() {
                Outcome::Committed(_) => {
                    current = store.get("/count").await.unwrap().unwrap();
                    break;
                }
                Outcome::Refused { current: now, .. } => current = now.unwrap(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_commit_or_a_watch_has_shown_a_read_shows_too() {
    let (_dir, file) = place();
    let store = Arc::new(EmbeddedStore::open(&file).unwrap());
    let mut watch = store.watch("/", 0).unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..500 {
                let revision = committed(&*store, vec![put("/a", "", Expect::Anything)]).await;
                assert!(store.get("/a").await.unwrap().unwrap().modified >= revision);
            }
        }
    });
    let mut seen = 0;
    while seen < 500 {
        seen = next_events(&mut watch).await.last().unwrap().revision();
        assert!(store.get("/a").await.unwrap().unwrap().modified >= seen);
        assert!(store.revision() >= seen);
        assert!(store.list("/", None, 0).await.unwrap().revision >= seen);
        store.watch("/", seen).expect("not in the future");
    }
    tokio::time::timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
}
