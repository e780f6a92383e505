//! What watches read: the last changes in a bounded ring, and for each watched prefix which of them concern it.
//!
//! The writer appends each change once; per prefix (not per watch) it notes the position of the changes under
//! it. So a change costs the writer nothing for watches of other prefixes, a watch never looks at changes of
//! other prefixes, and falling behind is judged only by changes that the watch would have seen.
//!
//! Most watches read a change at once. So the values of changes that are no longer among the newest are handed out to
//! be packed, and the ring holds several times as many of them.

use super::Options;
use crate::{Entry, Event, Revision, StoreError};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// The position of a change since the engine was opened. Unlike a revision it belongs to one change only.
pub(super) type Position = u64;

/// The most changes handed out at once (more only if one transaction made more).
const BATCH: usize = 1000;

/// What keeping a change costs besides its key and value, roughly.
const OVERHEAD: usize = 256;

/// The ring.
pub(super) struct History {
    events: VecDeque<Kept>,
    /// The position of the oldest change kept.
    first: Position,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
    /// The position from which on values are still to lie open.
    open_from: Position,
    open_bytes: usize,
    max_open_bytes: usize,
    /// Changes no longer among the newest, to be packed.
    settled: Vec<(Position, Arc<Entry>)>,
    /// The oldest revision a watch can start from: everything after it is kept.
    oldest: Revision,
    /// The present revision.
    head: Revision,
    interests: HashMap<Box<str>, Interest>,
    /// How many interests have a prefix of a given length: the lengths at which a key needs to be looked up.
    lengths: BTreeMap<usize, usize>,
    closed: bool,
}

/// A change, and the bytes it was last known to take.
struct Kept {
    event: Event,
    cost: usize,
}

/// A prefix that is being watched.
struct Interest {
    watches: usize,
    changed: Arc<Notify>,
    /// The positions of the changes under the prefix, from `complete_from` on, as far as still in the ring.
    positions: VecDeque<Position>,
    complete_from: Position,
    /// One more than the last position dropped from `positions`; 0 if none was.
    dropped_to: Position,
}

/// What a watch finds.
#[derive(Debug)]
pub(super) enum Found {
    /// Changes, and the position to go on from.
    Events(Vec<Event>, Position),
    /// Nothing new.
    Nothing,
    /// Changes it should have seen are no longer kept.
    Lost,
    /// Nothing new, and there never will be.
    Closed,
}

impl History {
    pub(super) fn new(head: Revision, options: &Options) -> Self {
        Self {
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            max_events: options.history_events,
            max_bytes: options.history_bytes,
            open_from: 0,
            open_bytes: 0,
            max_open_bytes: options.open_bytes,
            settled: Vec::new(),
            oldest: head,
            head,
            interests: HashMap::new(),
            lengths: BTreeMap::new(),
            closed: false,
        }
    }

    fn end(&self) -> Position {
        self.first + self.events.len() as u64
    }

    /// Adds the changes of a batch that brought the store to `head`; gives whom to wake once unlocked.
    pub(super) fn append(&mut self, events: Vec<Event>, head: Revision) -> Vec<Arc<Notify>> {
        let mut wake: Vec<Arc<Notify>> = Vec::new();
        for event in events {
            let position = self.end();
            let key = &event.entry().key;
            for &length in self.lengths.range(..=key.len()).map(|(length, _)| length) {
                // None: not a character boundary, so no prefix ends here.
                let Some(interest) = key.get(..length).and_then(|prefix| self.interests.get_mut(prefix))
                else {
                    continue;
                };
                interest.forget_before(self.first);
                interest.positions.push_back(position);
                if !wake.iter().any(|notify| Arc::ptr_eq(notify, &interest.changed)) {
                    wake.push(interest.changed.clone());
                }
            }
            let cost = cost(&event);
            self.bytes += cost;
            self.open_bytes += cost;
            self.events.push_back(Kept { event, cost });
        }
        self.head = head;
        self.evict();
        while self.open_bytes > self.max_open_bytes {
            self.settle_oldest();
        }
        wake
    }

    /// The oldest of the open changes is one no longer.
    fn settle_oldest(&mut self) {
        let Some(kept) = self.events.get((self.open_from - self.first) as usize) else { return };
        self.open_bytes -= kept.cost;
        self.settled.push((self.open_from, kept.event.entry().clone()));
        self.open_from += 1;
    }

    /// The changes whose values are to be packed since this was asked last; [`History::weigh`] them afterwards.
    pub(super) fn settled(&mut self) -> Vec<(Position, Arc<Entry>)> {
        std::mem::take(&mut self.settled)
    }

    /// Takes note of what changes take now.
    pub(super) fn weigh(&mut self, changes: &[(Position, Arc<Entry>)]) {
        for (position, _) in changes {
            let index = position.checked_sub(self.first).map(|index| index as usize);
            let Some(kept) = index.and_then(|index| self.events.get_mut(index)) else { continue };
            let now = cost(&kept.event);
            self.bytes = self.bytes + now - kept.cost;
            kept.cost = now;
        }
    }

    /// Drops the oldest changes until the rest fits, but never of the newest revision.
    fn evict(&mut self) {
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(revision) = self.events.front().map(Kept::revision) else { break };
            if revision == self.head {
                break;
            }
            let of_revision = self.events.iter().take_while(|kept| kept.revision() == revision).count();
            let first = self.first + of_revision as u64;
            while self.open_from < first {
                self.settle_oldest();
            }
            self.bytes -= self.events.drain(..of_revision).map(|kept| kept.cost).sum::<usize>();
            self.first = first;
            self.oldest = revision;
        }
    }

    /// Begins a watch after revision `from` (0: the present one). Gives where it starts, the revision it has
    /// then seen, and what tells it of changes. Each needs its [`History::leave`].
    pub(super) fn join(
        &mut self,
        prefix: &str,
        from: Revision,
    ) -> Result<(Position, Revision, Arc<Notify>), StoreError> {
        let from = if from == 0 { self.head } else { from };
        if from > self.head {
            return Err(StoreError::Future { asked: from, current: self.head });
        }
        if from < self.oldest {
            return Err(StoreError::Compacted { asked: from, oldest: self.oldest });
        }
        let start = self.first + self.events.partition_point(|kept| kept.revision() <= from) as u64;
        let end = self.end();
        let lengths = &mut self.lengths;
        let interest = self.interests.entry(prefix.into()).or_insert_with(|| {
            *lengths.entry(prefix.len()).or_default() += 1;
            Interest::new(end)
        });
        interest.watches += 1;
        while interest.complete_from > start {
            interest.complete_from -= 1;
            let kept = &self.events[(interest.complete_from - self.first) as usize];
            if kept.event.entry().key.starts_with(prefix) {
                interest.positions.push_front(interest.complete_from);
            }
        }
        Ok((start, from, interest.changed.clone()))
    }

    /// Ends a watch.
    pub(super) fn leave(&mut self, prefix: &str) {
        let Some(interest) = self.interests.get_mut(prefix) else { return };
        interest.watches -= 1;
        if interest.watches > 0 {
            return;
        }
        self.interests.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// The changes under `prefix` from position `at` on. Whole revisions, at most about a thousand changes.
    pub(super) fn read(&self, prefix: &str, at: Position) -> Found {
        let Some(interest) = self.interests.get(prefix) else { return Found::Closed };
        let pending = match interest.pending(at, self.first) {
            Pending::Lost => return Found::Lost,
            Pending::From(index) => interest.positions.range(index..),
        };
        let mut events: Vec<Event> = Vec::with_capacity(pending.len().min(BATCH));
        let mut next = at;
        for &position in pending {
            let event = &self.events[(position - self.first) as usize].event;
            if events.len() >= BATCH && events.last().is_some_and(|last| last.revision() != event.revision())
            {
                break;
            }
            events.push(event.clone());
            next = position + 1;
        }
        match (events.is_empty(), self.closed) {
            (false, _) => Found::Events(events, next),
            (true, true) => Found::Closed,
            (true, false) => Found::Nothing,
        }
    }

    /// Up to which revision a watch of `prefix` at position `at`, known to have seen `seen`, has seen
    /// everything.
    pub(super) fn progress(&self, prefix: &str, at: Position, seen: Revision) -> Revision {
        let Some(interest) = self.interests.get(prefix) else { return seen };
        match interest.pending(at, self.first) {
            Pending::Lost => seen,
            Pending::From(index) => match interest.positions.get(index) {
                Some(position) => self.events[(position - self.first) as usize].revision() - 1,
                None => self.head,
            },
        }
    }

    /// No change will follow; gives whom to wake.
    pub(super) fn close(&mut self) -> Vec<Arc<Notify>> {
        self.closed = true;
        self.interests.values().map(|interest| interest.changed.clone()).collect()
    }
}

impl Kept {
    fn revision(&self) -> Revision {
        self.event.revision()
    }
}

/// What is left to see for a watch.
enum Pending {
    /// Some of it is gone.
    Lost,
    /// The index into the positions from which on all is new; may be one past the last.
    From(usize),
}

impl Interest {
    fn new(complete_from: Position) -> Self {
        Self {
            watches: 0,
            changed: Arc::new(Notify::new()),
            positions: VecDeque::new(),
            complete_from,
            dropped_to: 0,
        }
    }

    fn pending(&self, at: Position, first: Position) -> Pending {
        let index = self.positions.partition_point(|&position| position < at);
        let gone = self.positions.get(index).is_some_and(|&position| position < first);
        if gone || self.dropped_to > at { Pending::Lost } else { Pending::From(index) }
    }

    fn forget_before(&mut self, first: Position) {
        let gone = self.positions.partition_point(|&position| position < first);
        if let Some(position) = self.positions.drain(..gone).next_back() {
            self.dropped_to = position + 1;
        }
        self.complete_from = self.complete_from.max(first);
    }
}

fn cost(event: &Event) -> usize {
    let entry = event.entry();
    OVERHEAD + entry.key.len() + entry.weight()
}
