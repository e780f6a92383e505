//! Random operations against a model: outcomes, listings and watches (never lose, repeat or reorder).

#![allow(clippy::unwrap_used)] // A failed step fails the test.

use bytes::Bytes;
use futures::FutureExt;
use proptest::prelude::*;
use sagong_store::{Batch, EmbeddedStore, Event, Expect, Options, Outcome, Store, StoreError, Watch, Write};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/ab", "/b/1", "/b/2"];
const PREFIXES: [&str; 6] = ["", "/", "/a", "/a/", "/b/", "/c"];

/// A condition, drawn before it is known what the key holds.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Absent,
    Current,
    Outdated,
    Anything,
}

/// Key, condition, and whether it deletes.
type Draft = (usize, Condition, bool);

#[derive(Clone, Debug)]
enum Step {
    /// Transactions sent at once.
    Commit(Vec<Vec<Draft>>),
    /// Prefix, and how many revisions back.
    Watch(usize, u64),
    Poll(usize),
    Drop(usize),
    List(usize, Option<usize>, usize),
    Reopen,
}

fn draft() -> impl Strategy<Value = Draft> {
    let condition = prop_oneof![
        2 => Just(Condition::Absent),
        3 => Just(Condition::Current),
        1 => Just(Condition::Outdated),
        4 => Just(Condition::Anything),
    ];
    (0..KEYS.len(), condition, prop::bool::weighted(0.3))
}

fn step() -> impl Strategy<Value = Step> {
    let transaction =
        prop_oneof![3 => prop::collection::vec(draft(), 1), 1 => prop::collection::vec(draft(), 0..4)];
    prop_oneof![
        10 => prop::collection::vec(transaction, 1..6).prop_map(Step::Commit),
        4 => (0..PREFIXES.len(), 0..8u64).prop_map(|(prefix, back)| Step::Watch(prefix, back)),
        6 => (0..8usize).prop_map(Step::Poll),
        1 => (0..8usize).prop_map(Step::Drop),
        2 => (0..PREFIXES.len(), prop::option::of(0..KEYS.len()), 0..4usize)
            .prop_map(|(prefix, after, limit)| Step::List(prefix, after, limit)),
        1 => Just(Step::Reopen),
    ]
}

/// What a key holds: value, created, modified.
type Held = (Bytes, u64, u64);

/// A change as the model knows it: revision, key, the state before and after.
type Change = (u64, &'static str, Option<Held>, Option<Held>);

struct Model {
    held: BTreeMap<&'static str, Held>,
    revision: u64,
    changes: Vec<Change>,
    counter: u64,
}

/// What a transaction should come to.
#[derive(Debug, PartialEq)]
enum Expected {
    Committed(u64),
    Refused(usize, Option<Held>),
}

impl Model {
    fn new() -> Self {
        Self { held: BTreeMap::new(), revision: 1, changes: Vec::new(), counter: 0 }
    }

    /// Turns drafts into writes, as the model stands before the transaction.
    fn writes(&mut self, drafts: &[Draft]) -> Vec<Write> {
        let mut write = |&(key, condition, deletes): &Draft| {
            let modified = self.held.get(KEYS[key]).map(|held| held.2);
            let expect = match (condition, modified) {
                (Condition::Absent, _) => Expect::Absent,
                (Condition::Anything, _) => Expect::Anything,
                (Condition::Current, Some(at)) => Expect::Modified(at),
                (Condition::Current, None) => Expect::Absent,
                (Condition::Outdated, at) => Expect::Modified(at.unwrap_or(2) - 1),
            };
            self.counter += 1;
            // Long enough to be packed, and alike.
            let value = (!deletes).then(|| Bytes::from(format!("{:=>400}", self.counter)));
            Write { key: KEYS[key].to_owned(), expect, value }
        };
        drafts.iter().map(&mut write).collect()
    }

    fn commit(&mut self, writes: &[Write]) -> Expected {
        for (index, write) in writes.iter().enumerate() {
            let held = self.held.get(&*write.key);
            let holds = match write.expect {
                Expect::Absent => held.is_none(),
                Expect::Modified(at) => held.is_some_and(|held| held.2 == at),
                Expect::Anything => true,
            };
            if !holds {
                return Expected::Refused(index, held.cloned());
            }
        }
        let revision = self.revision + 1;
        let mut last: Vec<&Write> = Vec::new();
        for write in writes.iter().rev() {
            if last.iter().all(|later| later.key != write.key) {
                last.push(write);
            }
        }
        for write in last.into_iter().rev() {
            let key = *KEYS.iter().find(|key| **key == write.key).unwrap();
            let before = self.held.get(key).cloned();
            let after = write
                .value
                .clone()
                .map(|value| (value, before.as_ref().map_or(revision, |before| before.1), revision));
            if before.is_none() && after.is_none() {
                continue;
            }
            match after.clone() {
                Some(after) => self.held.insert(key, after),
                None => self.held.remove(key),
            };
            self.changes.push((revision, key, before, after));
            self.revision = revision;
        }
        Expected::Committed(self.revision)
    }
}

/// A watch and how far it got in the model's changes.
struct Observer {
    watch: Watch,
    prefix: &'static str,
    next: usize,
    progress: u64,
}

impl Observer {
    /// The changes the watch should still show.
    fn left<'a>(&self, model: &'a Model) -> impl Iterator<Item = (usize, &'a Change)> {
        let prefix = self.prefix;
        model
            .changes
            .iter()
            .enumerate()
            .skip(self.next)
            .filter(move |(_, change)| change.1.starts_with(prefix))
    }

    /// Takes a batch if there is one; false when the watch is lost.
    fn poll(&mut self, model: &Model, history: usize) -> bool {
        let left = self.left(model).count();
        match self.watch.next().now_or_never() {
            None => assert_eq!(left, 0, "changes of {:?} are held back", self.prefix),
            Some(Batch::Events(events)) => {
                assert!(!events.is_empty());
                for event in &events {
                    let (index, change) = self.left(model).next().expect("a change that was not made");
                    check(event, change);
                    self.next = index + 1;
                }
            }
            Some(Batch::Lost) => {
                assert!(model.changes.len() - self.next > history, "lost though everything was kept");
                return false;
            }
            Some(Batch::Closed) => panic!("closed"),
        }
        let progress = self.watch.progress();
        let complete = self.left(model).next().map_or(model.revision, |(_, change)| change.0 - 1);
        assert!(progress >= self.progress, "progress went back");
        assert!(progress <= complete, "progress {progress} claims more than {complete}");
        if self.left(model).next().is_none() {
            assert_eq!(progress, model.revision);
        }
        self.progress = progress;
        true
    }
}

fn check(event: &Event, (revision, key, before, after): &Change) {
    let entry = event.entry();
    assert_eq!((&*entry.key, event.revision()), (*key, *revision));
    match (event, before, after) {
        (Event::Put { entry, previous }, before, Some(after)) => {
            assert_eq!((&entry.value(), entry.created), (&after.0, after.1));
            let previous = previous.as_ref().map(|p| (p.value(), p.created, p.modified));
            assert_eq!(&previous, before);
        }
        (Event::Delete { entry }, Some(before), None) => {
            assert_eq!((&entry.value(), entry.created), (&before.0, before.1));
        }
        other => panic!("{other:?}"),
    }
}

struct World {
    store: EmbeddedStore,
    options: Options,
    model: Model,
    observers: Vec<Observer>,
    /// The revision at which the engine was opened.
    opened: u64,
}

impl World {
    async fn step(&mut self, step: &Step, file: &Path) {
        match step {
            Step::Commit(transactions) => self.commit(transactions).await,
            Step::Watch(prefix, back) => self.watch(PREFIXES[*prefix], *back),
            Step::Poll(index) => self.poll(*index),
            Step::Drop(index) => {
                if *index < self.observers.len() {
                    self.observers.swap_remove(*index);
                }
            }
            Step::List(prefix, after, limit) => {
                self.list(PREFIXES[*prefix], after.map(|after| KEYS[after]), *limit).await;
            }
            Step::Reopen => {
                self.observers.clear();
                self.store.close();
                self.store = EmbeddedStore::open_with(file, self.options.clone()).unwrap();
                self.opened = self.model.revision;
            }
        }
        assert_eq!(self.store.revision(), self.model.revision);
    }

    async fn commit(&mut self, transactions: &[Vec<Draft>]) {
        let transactions: Vec<Vec<Write>> =
            transactions.iter().map(|drafts| self.model.writes(drafts)).collect();
        let commits = transactions.iter().map(|writes| self.store.commit(writes.clone()));
        let outcomes = futures::future::join_all(commits).await;
        for (writes, outcome) in transactions.iter().zip(outcomes) {
            let outcome = match outcome.unwrap() {
                Outcome::Committed(revision) => Expected::Committed(revision),
                Outcome::Refused { index, current } => {
                    Expected::Refused(index, current.map(|e| (e.value(), e.created, e.modified)))
                }
            };
            let expected = self.model.commit(writes);
            assert_eq!(outcome, expected, "{writes:?}");
        }
    }

    fn watch(&mut self, prefix: &'static str, back: u64) {
        let from = self.model.revision.saturating_sub(back);
        match self.store.watch(prefix, from) {
            Ok(watch) => {
                let from = if from == 0 { self.model.revision } else { from };
                let next = self.model.changes.partition_point(|change| change.0 <= from);
                self.observers.push(Observer { watch, prefix, next, progress: 0 });
            }
            Err(StoreError::Compacted { asked, oldest }) => {
                assert_eq!(asked, from);
                let kept = self.model.changes.iter().filter(|change| change.0 > from).count();
                assert!(from < self.opened || kept > self.options.history_events, "{oldest}");
                drop(self.store.watch(prefix, oldest).expect("the oldest can be watched"));
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn poll(&mut self, index: usize) {
        if let Some(observer) = self.observers.get_mut(index)
            && !observer.poll(&self.model, self.options.history_events)
        {
            self.observers.swap_remove(index);
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) {
        let page = self.store.list(prefix, after, limit).await.unwrap();
        let all: Vec<_> = self
            .model
            .held
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| **key > after))
            .map(|(key, (value, created, modified))| (*key, value.clone(), *created, *modified))
            .collect();
        let shown = if limit == 0 { all.len() } else { limit.min(all.len()) };
        let entries: Vec<_> =
            page.entries.iter().map(|e| (&*e.key, e.value(), e.created, e.modified)).collect();
        assert_eq!((&entries[..], page.remaining), (&all[..shown], all.len() - shown));
        assert_eq!(page.revision, self.model.revision);
    }

    /// Every watch gets to the end.
    fn drain(&mut self) {
        for mut observer in self.observers.drain(..) {
            while observer.left(&self.model).next().is_some() {
                if !observer.poll(&self.model, self.options.history_events) {
                    break;
                }
            }
        }
    }
}

async fn play(steps: &[Step], history_events: usize, open_bytes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.redb");
    let options = Options { history_events, open_bytes, ..Options::default() };
    let store = EmbeddedStore::open_with(&file, options.clone()).unwrap();
    let mut world = World { store, options, model: Model::new(), observers: Vec::new(), opened: 1 };
    for step in steps {
        world.step(step, &file).await;
    }
    for prefix in PREFIXES {
        world.list(prefix, None, 0).await;
    }
    world.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_agree_with_the_model(
        steps in prop::collection::vec(step(), 1..60),
        history in prop_oneof![Just(100_000usize), 1..12usize],
        open in prop_oneof![Just(1usize << 20), 0..4000usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), play(&steps, history, open)).await.expect("stuck");
        });
    }
}
