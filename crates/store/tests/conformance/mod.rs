//! What every engine behind [`Store`] must do, whatever it stores in. Each check works under a prefix of its
//! own and compares revisions only with each other, so a store that is already in use will do.

#![allow(dead_code)] // Shared by several test binaries, none of which uses all of it.

use bytes::Bytes;
use sagong_store::{Batch, Entry, Event, Expect, Outcome, Revision, Store, StoreError, Watch, Write};
use std::sync::Arc;
use std::time::Duration;

/// All checks.
pub(crate) async fn run(store: &dyn Store) {
    an_absent_key_is_none(store).await;
    a_put_is_read_back_with_its_revisions(store).await;
    every_changing_transaction_has_the_next_revision(store).await;
    conditions_are_kept(store).await;
    a_transaction_happens_as_a_whole(store).await;
    a_deleted_key_starts_anew(store).await;
    a_listing_pages_in_key_order(store).await;
    values_may_be_empty_large_and_binary(store).await;
    a_watch_sees_every_change_after_its_revision(store).await;
    a_watch_sees_only_its_prefix(store).await;
    a_watch_from_zero_starts_now(store).await;
    a_watch_from_the_future_is_refused(store).await;
    a_listing_and_a_watch_from_its_revision_miss_nothing(store).await;
    the_changes_of_a_transaction_come_in_one_batch(store).await;
    progress_grows_without_changes_under_the_prefix(store).await;
    a_dropped_wait_loses_nothing(store).await;
}

pub(crate) fn put(key: &str, value: impl Into<Vec<u8>>, expect: Expect) -> Write {
    Write { key: key.to_owned(), expect, value: Some(Bytes::from(value.into())) }
}

pub(crate) fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.to_owned(), expect, value: None }
}

/// Commits what must succeed.
pub(crate) async fn committed(store: &dyn Store, writes: Vec<Write>) -> Revision {
    match store.commit(writes).await.expect("commit") {
        Outcome::Committed(revision) => revision,
        refused => panic!("refused: {refused:?}"),
    }
}

/// Commits what must be refused.
pub(crate) async fn refused(store: &dyn Store, writes: Vec<Write>) -> (usize, Option<Arc<Entry>>) {
    match store.commit(writes).await.expect("commit") {
        Outcome::Refused { index, current } => (index, current),
        committed => panic!("not refused: {committed:?}"),
    }
}

/// The next batch, which must be of changes and come within ten seconds.
pub(crate) async fn next_events(watch: &mut Watch) -> Vec<Event> {
    match tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("no change within 10 s") {
        Batch::Events(events) => {
            assert!(!events.is_empty(), "an empty batch");
            events
        }
        other => panic!("no changes but {other:?}"),
    }
}

/// Exactly `count` changes.
pub(crate) async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(next_events(watch).await);
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

/// A change in short: `+key=value@revision`, `~` for an update, `-` for a deletion.
pub(crate) fn brief(event: &Event) -> String {
    let entry = event.entry();
    let sign = match event {
        Event::Put { previous: None, .. } => '+',
        Event::Put { previous: Some(_), .. } => '~',
        Event::Delete { .. } => '-',
    };
    format!("{sign}{}={}@{}", entry.key, String::from_utf8_lossy(&entry.value()), event.revision())
}

fn keys(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.key).collect()
}

async fn an_absent_key_is_none(store: &dyn Store) {
    assert!(store.get("/absent/key").await.unwrap().is_none());
    let page = store.list("/absent/", None, 0).await.unwrap();
    assert!(page.entries.is_empty());
    assert_eq!(page.remaining, 0);
    let revision = store.revision();
    assert_eq!(committed(store, vec![delete("/absent/key", Expect::Anything)]).await, revision);
    assert_eq!(committed(store, vec![]).await, revision);
    assert_eq!(store.revision(), revision, "changing nothing uses no revision");
}

async fn a_put_is_read_back_with_its_revisions(store: &dyn Store) {
    let first = committed(store, vec![put("/put/a", "1", Expect::Absent)]).await;
    let second = committed(store, vec![put("/put/a", "2", Expect::Modified(first))]).await;
    let entry = store.get("/put/a").await.unwrap().expect("the entry");
    assert_eq!((&entry.value()[..], entry.created, entry.modified), (&b"2"[..], first, second));
    assert_eq!(&*entry.key, "/put/a");
}

async fn every_changing_transaction_has_the_next_revision(store: &dyn Store) {
    let first = committed(store, vec![put("/revision/a", "", Expect::Anything)]).await;
    let second = committed(
        store,
        vec![put("/revision/b", "", Expect::Anything), put("/revision/c", "", Expect::Anything)],
    )
    .await;
    let third = committed(store, vec![delete("/revision/a", Expect::Anything)]).await;
    assert_eq!((second, third), (first + 1, first + 2));
    assert_eq!(store.revision(), third);
}

async fn conditions_are_kept(store: &dyn Store) {
    assert_eq!(refused(store, vec![put("/cas/a", "", Expect::Modified(1))]).await.0, 0);
    assert!(refused(store, vec![delete("/cas/a", Expect::Modified(1))]).await.1.is_none());
    let first = committed(store, vec![put("/cas/a", "1", Expect::Absent)]).await;
    let (index, current) = refused(store, vec![put("/cas/a", "2", Expect::Absent)]).await;
    assert_eq!((index, current.expect("the current entry").modified), (0, first));
    let second = committed(store, vec![put("/cas/a", "2", Expect::Modified(first))]).await;
    assert_eq!(
        refused(store, vec![put("/cas/a", "3", Expect::Modified(first))]).await.1.unwrap().modified,
        second
    );
    refused(store, vec![delete("/cas/a", Expect::Modified(first))]).await;
    refused(store, vec![delete("/cas/a", Expect::Absent)]).await;
    assert_eq!(store.revision(), second, "a refusal uses no revision");
    committed(store, vec![delete("/cas/a", Expect::Modified(second))]).await;
    assert!(store.get("/cas/a").await.unwrap().is_none());
}

async fn a_transaction_happens_as_a_whole(store: &dyn Store) {
    committed(store, vec![put("/whole/b", "1", Expect::Absent)]).await;
    let (index, current) =
        refused(store, vec![put("/whole/a", "", Expect::Absent), put("/whole/b", "2", Expect::Absent)]).await;
    assert_eq!((index, &current.unwrap().value()[..]), (1, &b"1"[..]));
    assert!(store.get("/whole/a").await.unwrap().is_none());
    let revision =
        committed(store, vec![put("/whole/a", "1", Expect::Absent), delete("/whole/b", Expect::Anything)])
            .await;
    assert_eq!(store.get("/whole/a").await.unwrap().unwrap().modified, revision);
    assert!(store.get("/whole/b").await.unwrap().is_none());
}

async fn a_deleted_key_starts_anew(store: &dyn Store) {
    let first = committed(store, vec![put("/anew/a", "1", Expect::Absent)]).await;
    committed(store, vec![delete("/anew/a", Expect::Modified(first))]).await;
    let third = committed(store, vec![put("/anew/a", "2", Expect::Absent)]).await;
    assert_eq!(store.get("/anew/a").await.unwrap().unwrap().created, third);
}

async fn a_listing_pages_in_key_order(store: &dyn Store) {
    let names = ["/page/b", "/page/a", "/page/c", "/pages/x", "/pag", "/page/ä"];
    let writes = names.iter().map(|name| put(name, *name, Expect::Anything)).collect();
    let revision = committed(store, writes).await;
    let page = store.list("/page/", None, 0).await.unwrap();
    assert_eq!(keys(&page.entries), ["/page/a", "/page/b", "/page/c", "/page/ä"]);
    assert_eq!((page.revision, page.remaining), (revision, 0));
    let page = store.list("/page/", None, 3).await.unwrap();
    assert_eq!((keys(&page.entries).len(), page.remaining), (3, 1));
    let page = store.list("/page/", Some("/page/c"), 3).await.unwrap();
    assert_eq!((keys(&page.entries), page.remaining), (vec!["/page/ä"], 0));
    let page = store.list("/page/", Some("/page/ä"), 3).await.unwrap();
    assert!(page.entries.is_empty());
}

async fn values_may_be_empty_large_and_binary(store: &dyn Store) {
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    committed(store, vec![put("/value/empty", "", Expect::Anything)]).await;
    committed(store, vec![put("/value/large", large.clone(), Expect::Anything)]).await;
    committed(store, vec![put("/value/binary", vec![0, 255, 0, 10], Expect::Anything)]).await;
    assert!(store.get("/value/empty").await.unwrap().unwrap().value().is_empty());
    assert_eq!(store.get("/value/large").await.unwrap().unwrap().value(), large);
    assert_eq!(store.get("/value/binary").await.unwrap().unwrap().value()[..], [0, 255, 0, 10]);
}

async fn a_watch_sees_every_change_after_its_revision(store: &dyn Store) {
    let first = committed(store, vec![put("/watch/a", "1", Expect::Absent)]).await;
    committed(store, vec![put("/watch/a", "2", Expect::Anything)]).await;
    let mut watch = store.watch("/watch/", first).unwrap();
    committed(store, vec![put("/watch/b", "3", Expect::Absent)]).await;
    committed(store, vec![delete("/watch/a", Expect::Anything)]).await;
    let events = events(&mut watch, 3).await;
    let seen: Vec<String> = events.iter().map(brief).collect();
    let expected = [
        format!("~/watch/a=2@{}", first + 1),
        format!("+/watch/b=3@{}", first + 2),
        format!("-/watch/a=2@{}", first + 3),
    ];
    assert_eq!(seen, expected);
    let Event::Put { previous: Some(previous), .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!((&previous.value()[..], previous.modified), (&b"1"[..], first));
    assert_eq!(events[2].entry().created, first, "a deletion shows the revisions of what was deleted");
}

async fn a_watch_sees_only_its_prefix(store: &dyn Store) {
    let start = store.revision();
    let mut narrow = store.watch("/only/a/", start).unwrap();
    let mut wide = store.watch("/only/", start).unwrap();
    let mut single = store.watch("/only/b/1", start).unwrap();
    for key in ["/only/a/1", "/only/b/1", "/only/a", "/only/ä", "/onl", "/only/a/2"] {
        committed(store, vec![put(key, "", Expect::Anything)]).await;
    }
    let of =
        |events: Vec<Event>| -> Vec<String> { events.iter().map(|e| e.entry().key.to_string()).collect() };
    assert_eq!(of(events(&mut narrow, 2).await), ["/only/a/1", "/only/a/2"]);
    assert_eq!(of(events(&mut single, 1).await), ["/only/b/1"]);
    assert_eq!(of(events(&mut wide, 5).await), ["/only/a/1", "/only/b/1", "/only/a", "/only/ä", "/only/a/2"]);
}

async fn a_watch_from_zero_starts_now(store: &dyn Store) {
    committed(store, vec![put("/now/a", "before", Expect::Anything)]).await;
    let mut watch = store.watch("/now/", 0).unwrap();
    committed(store, vec![put("/now/a", "after", Expect::Anything)]).await;
    assert_eq!(&events(&mut watch, 1).await[0].entry().value()[..], b"after");
}

async fn a_watch_from_the_future_is_refused(store: &dyn Store) {
    let current = store.revision();
    match store.watch("/", current + 1).map(|_| ()) {
        Err(StoreError::Future { asked, current: at }) => assert_eq!((asked, at), (current + 1, current)),
        other => panic!("{other:?}"),
    }
}

async fn a_listing_and_a_watch_from_its_revision_miss_nothing(store: &dyn Store) {
    const COUNT: usize = 300;
    let writer = async {
        for n in 0..COUNT {
            committed(store, vec![put(&format!("/miss/{n:04}"), "", Expect::Absent)]).await;
        }
    };
    let reader = async {
        for _ in 0..20 {
            let page = store.list("/miss/", None, 0).await.unwrap();
            let mut watch = store.watch("/miss/", page.revision).unwrap();
            let mut seen: Vec<String> = page.entries.iter().map(|entry| entry.key.to_string()).collect();
            while seen.len() < COUNT {
                seen.extend(next_events(&mut watch).await.iter().map(|e| e.entry().key.to_string()));
                if seen.len().is_multiple_of(7) {
                    break;
                }
            }
            let expected: Vec<String> = (0..seen.len()).map(|n| format!("/miss/{n:04}")).collect();
            assert_eq!(seen, expected);
        }
    };
    futures::join!(writer, reader);
}

async fn the_changes_of_a_transaction_come_in_one_batch(store: &dyn Store) {
    let mut watch = store.watch("/batch/", store.revision()).unwrap();
    let writes = (0..2500).map(|n| put(&format!("/batch/{n:05}"), "", Expect::Absent)).collect();
    let revision = committed(store, writes).await;
    let events = next_events(&mut watch).await;
    assert_eq!(events.len(), 2500);
    assert!(events.iter().all(|event| event.revision() == revision));
    assert_eq!(watch.progress(), store.revision());
}

async fn progress_grows_without_changes_under_the_prefix(store: &dyn Store) {
    let start = store.revision();
    let mut watch = store.watch("/progress/quiet/", start).unwrap();
    assert_eq!(watch.progress(), start);
    let elsewhere = committed(store, vec![put("/progress/other", "", Expect::Anything)]).await;
    until_progress(&watch, elsewhere).await;
    let first = committed(store, vec![put("/progress/quiet/a", "", Expect::Anything)]).await;
    let second = committed(store, vec![put("/progress/quiet/a", "", Expect::Anything)]).await;
    assert!(watch.progress() < first, "a change not handed out yet is not seen");
    let last = next_events(&mut watch).await.last().map(Event::revision).unwrap();
    assert!(watch.progress() >= last && watch.progress() <= second);
}

async fn until_progress(watch: &Watch, revision: Revision) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while watch.progress() < revision {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("progress within 10 s");
}

async fn a_dropped_wait_loses_nothing(store: &dyn Store) {
    let mut watch = store.watch("/dropped/", store.revision()).unwrap();
    let mut seen = Vec::new();
    for n in 0..50 {
        // Polled once, then dropped.
        let _ = futures::FutureExt::now_or_never(watch.next()).map(|batch| match batch {
            Batch::Events(events) => seen.extend(events.iter().map(Event::revision)),
            other => panic!("{other:?}"),
        });
        committed(store, vec![put("/dropped/a", format!("{n}"), Expect::Anything)]).await;
    }
    seen.extend(events(&mut watch, 50 - seen.len()).await.iter().map(Event::revision));
    assert_eq!(seen.len(), 50);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}
