//! The embedded engine: current state in a redb file and in memory, one writer thread, group commit.
//!
//! Rooms: `state` (the ordered map readers see), `history` (the bounded ring watches read), `plan` (what a
//! batch of transactions comes to; pure), `packer` (values that lie small), `disk` (redb), `writer` (the thread that
//! joins them), `watch`.
//!
//! Invariant: state and history change only after the batch is durable, both under their locks at once, so a
//! reader never sees what a power cut could take back.

mod disk;
mod history;
mod packer;
mod plan;
mod state;
mod watch;
mod writer;

use crate::{Entry, Outcome, Page, Revision, Store, StoreError, Watch, Write};
use async_trait::async_trait;
use disk::Disk;
use history::History;
use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;
use state::State;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use watch::EmbeddedWatch;
use writer::{Message, Writer};

/// How much the embedded engine may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most changes kept for watches.
    pub history_events: usize,
    /// The most bytes of memory that changes kept for watches take (values still current are counted too). The newest
    /// transaction is kept even when it alone is larger.
    pub history_bytes: usize,
    /// Bytes of the newest of these changes whose values lie open, for watches that keep up; older ones lie packed.
    pub open_bytes: usize,
    /// Bytes of redb's own page cache. Reads never go there, so it needs to hold little more than the pages
    /// of a batch.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { history_events: 100_000, history_bytes: 8 << 20, open_bytes: 1 << 20, cache_bytes: 8 << 20 }
    }
}

/// What readers and the writer share.
struct Shared {
    state: RwLock<State>,
    /// Locked before `state` where both are needed.
    history: RwLock<History>,
    /// Why the last write failed, if it did.
    failure: Mutex<Option<String>>,
}

/// A [`Store`] in one file, for one process.
///
/// After a failed write (disk full) it drops the batch, opens the file anew and goes on. After a failed
/// `fsync` it refuses all further writes, for what the kernel then holds of the file can no longer be trusted;
/// reads and watches go on, and opening the file again ends it.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: Sender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the file, or creates it with mode 0600. Errors with [`StoreError::Open`], also when another
    /// process has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Options::default())
    }

    /// [`EmbeddedStore::open`] with limits.
    pub fn open_with(path: &Path, options: Options) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let path = path.to_owned();
        Self::open_backend(&name, move || disk::open_file(&path), options)
    }

    /// Opens whatever `backend` gives instead of a file, for tests of failing storage. It is called again
    /// when the engine recovers from a failed write. `name` stands for the path in errors.
    pub fn open_backend<B, F>(name: &str, backend: F, options: Options) -> Result<Self, StoreError>
    where
        B: StorageBackend,
        F: Fn() -> std::io::Result<B> + Send + 'static,
    {
        let open = move || backend().map(|backend| Box::new(backend) as Box<dyn StorageBackend>);
        let (disk, state) = Disk::open(Box::new(open), options.cache_bytes)
            .map_err(|source| StoreError::Open { path: name.to_owned(), source: source.into() })?;
        let history = History::new(state.revision(), &options);
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            history: RwLock::new(history),
            failure: Mutex::default(),
        });
        let (queue, waiting) = std::sync::mpsc::channel();
        let thread = Writer::spawn(disk, shared.clone(), waiting)
            .map_err(|source| StoreError::Open { path: name.to_owned(), source: source.into() })?;
        Ok(Self { shared, queue, writer: Mutex::new(Some(thread)) })
    }

    /// Finishes the writes already queued, closes the file and ends every watch with
    /// [`Batch::Closed`](crate::Batch::Closed). Blocks for about one flush; a second call does nothing.
    /// Reads go on working, writes answer [`StoreError::Closed`].
    pub fn close(&self) {
        let thread = self.writer.lock().take();
        if let Some(thread) = thread {
            // Fails only when the thread is gone already.
            let _ = self.queue.send(Message::Close);
            if thread.join().is_err() {
                tracing::error!("the store's writer thread panicked");
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.shared.state.read().get(key).cloned())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        Ok(self.shared.state.read().page(prefix, after, limit))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Outcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Commit { writes, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        Ok(Watch::new(Box::new(EmbeddedWatch::start(self.shared.clone(), prefix, from)?)))
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().revision()
    }

    fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }
}
