//! A versioned key-value store with watch: what the API server keeps its objects in.
//!
//! [`Store`] is shaped so that etcd fits behind it: one global revision, compare-and-swap transactions,
//! list by prefix, watch from a revision. [`EmbeddedStore`] is the engine in a file of its own; its rooms
//! are under `embedded/`.

mod embedded;
mod entry;

pub use embedded::{EmbeddedStore, Options};
pub use entry::{Entry, Memo};

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// A point in the store's history. Every transaction that changed something has its own, one more than the
/// one before. 0 is the empty store.
pub type Revision = u64;

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    Modified(Revision),
    /// Nothing.
    Anything,
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The condition.
    pub expect: Expect,
    /// The new value, or None to delete.
    pub value: Option<Bytes>,
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every condition held; every write happened, durably, at one revision. Deleting an absent key with
    /// [`Expect::Anything`] changes nothing.
    Committed(Revision),
    /// A condition did not hold; nothing was written. The index is of the first write that failed, the
    /// entry is what the key holds now.
    Refused {
        /// Index into the writes.
        index: usize,
        /// The present entry of that key.
        current: Option<Arc<Entry>>,
    },
}

/// A page of a listing, in key order.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Arc<Entry>>,
    /// The revision the page shows the store at.
    pub revision: Revision,
    /// How many entries follow this page.
    pub remaining: usize,
}

/// A change.
#[derive(Clone, Debug)]
pub enum Event {
    /// The key was created or changed.
    Put {
        /// As it is now.
        entry: Arc<Entry>,
        /// As it was before; None if created.
        previous: Option<Arc<Entry>>,
    },
    /// The key was deleted.
    Delete {
        /// The last value; `modified` is the revision of the deletion.
        entry: Arc<Entry>,
    },
}

impl Event {
    /// What was put, or what was deleted.
    pub fn entry(&self) -> &Arc<Entry> {
        match self {
            Self::Put { entry, .. } | Self::Delete { entry } => entry,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        self.entry().modified
    }
}

/// Where a store can fail. A refused condition is not an error but an [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than the history kept; list again.
    #[error("revision {asked} is older than the oldest kept, {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest that a watch can start from.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future: the store is at {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// Opening the file failed.
    #[error("opening the store at {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The write could not be made durable. It was shown to no reader and no watch; whether it is on disk is
    /// known only when a later read shows it.
    #[error("writing the store: {source}")]
    Write {
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// A versioned key-value store.
#[async_trait]
pub trait Store: Send + Sync {
    /// The present entry of a key.
    async fn get(&self, key: &str) -> Result<Option<Arc<Entry>>, StoreError>;

    /// The entries whose key starts with `prefix` and is greater than `after`, at most `limit` (0: all).
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Carries out all writes at one revision, or none. Durable before it returns. The conditions are judged
    /// against the store as it was before the transaction; of several writes to one key the last counts.
    /// When nothing changes, the outcome names the present revision and no new one is used up. Dropping the
    /// future does not take the transaction back.
    async fn commit(&self, writes: Vec<Write>) -> Result<Outcome, StoreError>;

    /// Every change after revision `from` to keys that start with `prefix`, in order, none missing, none
    /// twice. `from` 0 means from now on.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError>;

    /// The present revision.
    fn revision(&self) -> Revision;

    /// Why writes fail: what the last one failed with. None if it succeeded, or there was none yet.
    fn failure(&self) -> Option<String>;
}

/// What [`Watch::next`] gives.
#[derive(Debug)]
pub enum Batch {
    /// Changes, never empty, in revision order.
    Events(Vec<Event>),
    /// The watcher fell behind the history kept; it must list again.
    Lost,
    /// The store was closed.
    Closed,
}

/// A running watch. Dropping it ends it. It never holds up the store or other watchers.
pub struct Watch {
    source: Box<dyn WatchSource>,
}

/// What an engine implements to feed a [`Watch`].
#[async_trait]
pub trait WatchSource: Send + Sync {
    /// Waits for the next batch. Cancel-safe.
    async fn next(&mut self) -> Batch;
    /// The revision up to which the watch has seen everything (for bookmarks).
    fn progress(&self) -> Revision;
}

impl Watch {
    /// A watch fed by `source`.
    pub fn new(source: Box<dyn WatchSource>) -> Self {
        Self { source }
    }

    /// Waits for the next changes. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Batch {
        self.source.next().await
    }

    /// The revision up to which everything was seen; grows also when nothing under the prefix changes.
    pub fn progress(&self) -> Revision {
        self.source.progress()
    }
}
