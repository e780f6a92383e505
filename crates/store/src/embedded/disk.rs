//! The file: one redb table of entries, one of numbers; a batch is one redb transaction.
//!
//! Commits are redb's one-phase kind: pages and commit slot are checksummed and one `fsync` makes them durable
//! together; after a crash the newer slot is taken only if everything it names is intact. Two phases would
//! cost a second `fsync` and guard against someone who chooses both the data and the order of the crash.

use super::plan::Plan;
use super::state::State;
use crate::{Entry, Revision};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Key → created revision, modified revision (both u64, little endian), value.
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// The layout above.
const FORMAT_NOW: u64 = 1;
/// Where a new store is. Not 0, for a watch from 0 starts now and would miss what came after an empty listing.
const FIRST: Revision = 1;
const REVISIONS: usize = 16;

/// Opens the storage, again after a failure.
pub(super) type Reopen = Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send>;

/// Why the file could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("{0}")]
    Storage(#[from] redb::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the file has format {found}; this version reads format {FORMAT_NOW}")]
    Format { found: u64 },
    #[error("the entry {key} is cut short")]
    Truncated { key: String },
    #[error("the file shows revision {found} where {expected} was written")]
    Diverged { expected: Revision, found: Revision },
    #[error("the file is damaged: {0}")]
    Damaged(String),
    #[error("an earlier fsync failed, so what the file holds is unknown; restart to read it anew: {0}")]
    SyncFailed(Arc<DiskError>),
}

/// What became of a batch that was to be written.
pub(super) enum Written {
    /// It is durable.
    Yes,
    /// It is not, and has to be reported as failed.
    No(Arc<DiskError>),
}

/// The open file, or why it is not open.
pub(super) struct Disk {
    reopen: Reopen,
    cache_bytes: usize,
    sync_failed: Arc<AtomicBool>,
    database: Option<Database>,
    /// Set when no write will be tried any more.
    refusing: Option<Arc<DiskError>>,
}

impl Disk {
    /// Opens the storage, repairs it if it was not closed, and reads all of it.
    pub(super) fn open(reopen: Reopen, cache_bytes: usize) -> Result<(Self, State), DiskError> {
        let sync_failed = Arc::new(AtomicBool::new(false));
        let mut disk = Self { reopen, cache_bytes, sync_failed, database: None, refusing: None };
        let database = disk.open_database()?;
        let state = unpanicked(|| load(&database))?;
        disk.database = Some(database);
        Ok((disk, state))
    }

    fn open_database(&self) -> Result<Database, DiskError> {
        unpanicked(|| self.try_open_database())
    }

    fn try_open_database(&self) -> Result<Database, DiskError> {
        let backend = Guarded { inner: (self.reopen)()?, sync_failed: self.sync_failed.clone() };
        let database = Builder::new()
            .set_cache_size(self.cache_bytes)
            // All of it is read anyway, and a damaged page is to be an error, not a wrong answer later.
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(redb::Error::from)?;
        initialise(&database)?;
        Ok(database)
    }

    /// Writes a batch. When that fails, finds out by opening the file anew whether it is there after all.
    ///
    /// `before` is the revision before the batch.
    pub(super) fn write(&mut self, plan: &Plan, before: Revision) -> Written {
        if let Some(why) = &self.refusing {
            return Written::No(why.clone());
        }
        let attempt = match &self.database {
            Some(database) => unpanicked(|| Ok(write(database, plan)?)),
            None => self
                .recover()
                .and_then(|found| self.expect_revision(before, found))
                .and_then(|()| self.database.as_ref().map_or(Ok(()), |database| Ok(write(database, plan)?))),
        };
        match attempt {
            Ok(()) => Written::Yes,
            Err(error) => self.after_failure(error, plan, before),
        }
    }

    fn after_failure(&mut self, error: DiskError, plan: &Plan, before: Revision) -> Written {
        tracing::error!(%error, "writing the store failed");
        let error = Arc::new(error);
        self.database = None;
        if self.sync_failed.load(Ordering::Acquire) {
            return self.refuse(DiskError::SyncFailed(error));
        }
        match self.recover() {
            Ok(found) if found == plan.revision => Written::Yes,
            Ok(found) => match self.expect_revision(before, found) {
                Ok(()) => Written::No(error),
                Err(diverged) => self.refuse(diverged),
            },
            Err(again) if self.sync_failed.load(Ordering::Acquire) => {
                self.refuse(DiskError::SyncFailed(Arc::new(again)))
            }
            Err(again) => {
                tracing::warn!(error = %again, "the store cannot be opened anew yet; the next write tries again");
                Written::No(error)
            }
        }
    }

    /// Opens the file anew and proves that it can be written; gives the revision it holds.
    fn recover(&mut self) -> Result<Revision, DiskError> {
        let database = self.open_database()?;
        let revision = read_revision(&database)?;
        unpanicked(|| Ok(touch(&database, revision)?))?;
        self.database = Some(database);
        Ok(revision)
    }

    fn expect_revision(&self, expected: Revision, found: Revision) -> Result<(), DiskError> {
        if found == expected { Ok(()) } else { Err(DiskError::Diverged { expected, found }) }
    }

    fn refuse(&mut self, why: DiskError) -> Written {
        tracing::error!(error = %why, "the store refuses further writes");
        let why = Arc::new(why);
        self.database = None;
        self.refusing = Some(why.clone());
        Written::No(why)
    }

    /// Leaves the file so that the next open need not repair it.
    pub(super) fn close(mut self) {
        let Some(database) = self.database.take() else { return };
        if let Err(error) = unpanicked(|| Ok(database.close().map_err(redb::Error::from)?)) {
            tracing::warn!(%error, "closing the store; the next open will repair it");
        }
    }
}

/// Makes an error of a panic: on some damage that its checksums do not cover redb panics.
fn unpanicked<T>(step: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(DiskError::Damaged(message.unwrap_or("redb gave up").to_owned()))
    })
}

/// Opens or creates the file, readable by its owner only. A new file's name is made durable too.
pub(super) fn open_file(path: &Path) -> io::Result<FileBackend> {
    let existed = path.exists();
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    if !existed {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    FileBackend::new(file).map_err(io::Error::other)
}

/// Creates the tables of a new file; refuses a file of another format.
fn initialise(database: &Database) -> Result<(), DiskError> {
    match read_number(database, FORMAT)? {
        Some(FORMAT_NOW) => Ok(()),
        Some(found) => Err(DiskError::Format { found }),
        None => {
            let transaction = database.begin_write().map_err(redb::Error::from)?;
            let created = (|| {
                transaction.open_table(ENTRIES)?;
                let mut numbers = transaction.open_table(NUMBERS)?;
                numbers.insert(FORMAT, FORMAT_NOW)?;
                numbers.insert(REVISION, FIRST)?;
                Ok::<_, redb::Error>(())
            })();
            created?;
            Ok(transaction.commit().map_err(redb::Error::from)?)
        }
    }
}

fn load(database: &Database) -> Result<State, DiskError> {
    let mut entries = Vec::new();
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, stored) = row.map_err(redb::Error::from)?;
        entries.push(Arc::new(decode(key.value(), stored.value())?));
    }
    Ok(State::new(entries, read_revision(database)?))
}

fn decode(key: &str, stored: &[u8]) -> Result<Entry, DiskError> {
    let truncated = || DiskError::Truncated { key: key.to_owned() };
    let (created, rest) = stored.split_first_chunk().ok_or_else(truncated)?;
    let (modified, value) = rest.split_first_chunk().ok_or_else(truncated)?;
    Ok(Entry {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        created: u64::from_le_bytes(*created),
        modified: u64::from_le_bytes(*modified),
        memo: Default::default(),
    })
}

fn read_revision(database: &Database) -> Result<Revision, DiskError> {
    Ok(read_number(database, REVISION)?.unwrap_or(FIRST))
}

fn read_number(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(NUMBERS) {
        Ok(table) => Ok(table.get(name)?.map(|number| number.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write(database: &Database, plan: &Plan) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, entry) in plan.changes() {
            match entry {
                Some(entry) => {
                    let mut stored = entries.insert_reserve(key, REVISIONS + entry.value.len())?;
                    let stored = stored.as_mut();
                    stored[..8].copy_from_slice(&entry.created.to_le_bytes());
                    stored[8..REVISIONS].copy_from_slice(&entry.modified.to_le_bytes());
                    stored[REVISIONS..].copy_from_slice(&entry.value);
                }
                None => {
                    entries.remove(key)?;
                }
            }
        }
        transaction.open_table(NUMBERS)?.insert(REVISION, plan.revision)?;
    }
    Ok(transaction.commit()?)
}

/// Makes durable what the file holds, by a commit that changes nothing.
fn touch(database: &Database, revision: Revision) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.open_table(NUMBERS)?.insert(REVISION, revision)?;
    Ok(transaction.commit()?)
}

/// Remembers that an `fsync` failed: afterwards the kernel may call pages clean that never reached the disk,
/// so neither reading the file nor another `fsync` tells what is durable.
#[derive(Debug)]
struct Guarded {
    inner: Box<dyn StorageBackend>,
    sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Guarded {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
