//! The file: one redb table of entries, one of numbers; a batch is one redb transaction.
//!
//! Commits are redb's one-phase kind: pages and commit slot are checksummed and one `fsync` makes them durable
//! together; after a crash the newer slot is taken only if everything it names is intact. Two phases would
//! cost a second `fsync` and guard against someone who chooses both the data and the order of the crash.

use super::packer::Packer;
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

/// A batch that was reported as failed although the file, which could not be opened since, may hold it.
struct InDoubt {
    /// The revision with it.
    revision: Revision,
    /// Its keys, with what they held before it.
    before: Vec<(Box<str>, Option<Arc<Entry>>)>,
}

/// The open file, or why it is not open.
pub(super) struct Disk {
    reopen: Reopen,
    cache_bytes: usize,
    sync_failed: Arc<AtomicBool>,
    database: Option<Database>,
    /// The revision of what is shown.
    revision: Revision,
    /// At most one batch: the next is not tried before the file was opened again.
    in_doubt: Option<InDoubt>,
    /// Set when no write will be tried any more.
    refusing: Option<Arc<DiskError>>,
}

impl Disk {
    /// Opens the storage, repairs it if it was not closed, and reads all of it.
    pub(super) fn open(reopen: Reopen, cache_bytes: usize) -> Result<(Self, State), DiskError> {
        let mut disk = Self {
            reopen,
            cache_bytes,
            sync_failed: Arc::new(AtomicBool::new(false)),
            database: None,
            revision: FIRST,
            in_doubt: None,
            refusing: None,
        };
        let database = disk.open_database()?;
        let state = unpanicked(|| load(&database))?;
        disk.revision = state.revision();
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

    /// Writes a batch. When that fails, finds out by opening the file anew whether it is there after all. When that
    /// fails too, the batch counts as failed, and is taken out of the file before the next one is written.
    ///
    /// `shown` gives what a key holds without the batch.
    pub(super) fn write(&mut self, plan: &Plan, shown: impl Fn(&str) -> Option<Arc<Entry>>) -> Written {
        if let Some(why) = &self.refusing {
            return Written::No(why.clone());
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => match self.recover() {
                Ok(database) => database,
                Err(error) => return self.give_up(error),
            },
        };
        let Err(error) = unpanicked(|| Ok(write(&database, plan)?)) else {
            self.revision = plan.revision;
            self.database = Some(database);
            return Written::Yes;
        };
        drop(database);
        tracing::error!(%error, "writing the store failed");
        let before = plan.changes().map(|(key, _)| (key.into(), shown(key))).collect();
        self.in_doubt = Some(InDoubt { revision: plan.revision, before });
        if self.sync_failed.load(Ordering::Acquire) {
            return self.give_up(error);
        }
        match self.find_out() {
            Ok(true) => Written::Yes,
            Ok(false) => Written::No(Arc::new(error)),
            Err(again) if self.is_final(&again) => self.give_up(again),
            Err(again) => {
                tracing::warn!(error = %again, "the store cannot be opened anew yet; the next write tries again");
                Written::No(Arc::new(error))
            }
        }
    }

    /// Opens the file anew to see whether the batch in doubt is there, and makes what is found durable.
    fn find_out(&mut self) -> Result<bool, DiskError> {
        let database = self.open_database()?;
        let found = read_revision(&database)?;
        let is_there = self.in_doubt.as_ref().is_some_and(|batch| batch.revision == found);
        if !is_there {
            self.expect(found)?;
        }
        unpanicked(|| Ok(restore(&database, found, &[])?))?;
        self.revision = found;
        self.in_doubt = None;
        self.database = Some(database);
        Ok(is_there)
    }

    /// Opens the file anew and brings it to what is shown, without a batch that was reported as failed.
    fn recover(&mut self) -> Result<Database, DiskError> {
        let database = self.open_database()?;
        let found = read_revision(&database)?;
        let undo = match &self.in_doubt {
            Some(batch) if batch.revision == found => &batch.before[..],
            _ => &[],
        };
        if undo.is_empty() {
            self.expect(found)?;
        }
        unpanicked(|| Ok(restore(&database, self.revision, undo)?))?;
        self.in_doubt = None;
        Ok(database)
    }

    fn expect(&self, found: Revision) -> Result<(), DiskError> {
        let expected = self.revision;
        if found == expected { Ok(()) } else { Err(DiskError::Diverged { expected, found }) }
    }

    /// Whether trying again would be wrong.
    fn is_final(&self, error: &DiskError) -> bool {
        self.sync_failed.load(Ordering::Acquire) || matches!(error, DiskError::Diverged { .. })
    }

    /// Reports a failure, and refuses all further writes if trying again would be wrong.
    fn give_up(&mut self, error: DiskError) -> Written {
        if !self.is_final(&error) {
            return Written::No(Arc::new(error));
        }
        let why = match error {
            diverged @ DiskError::Diverged { .. } => diverged,
            error => DiskError::SyncFailed(Arc::new(error)),
        };
        tracing::error!(error = %why, "the store refuses further writes");
        let why = Arc::new(why);
        self.refusing = Some(why.clone());
        Written::No(why)
    }

    /// Leaves the file so that the next open need not repair it, and without a batch that was reported as failed if
    /// that can be done now.
    pub(super) fn close(mut self) {
        if self.in_doubt.is_some() && self.refusing.is_none() {
            match self.recover() {
                Ok(database) => self.database = Some(database),
                Err(error) => {
                    tracing::warn!(%error, "closing the store; a write that was reported as failed may be in it");
                }
            }
        }
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
    let (mut entries, mut packer) = (Vec::new(), Packer::default());
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, stored) = row.map_err(redb::Error::from)?;
        let entry = decode(key.value(), stored.value())?;
        // Nobody has asked for it yet.
        packer.pack(&entry);
        entries.push(Arc::new(entry));
    }
    Ok(State::new(entries, read_revision(database)?))
}

fn decode(key: &str, stored: &[u8]) -> Result<Entry, DiskError> {
    let truncated = || DiskError::Truncated { key: key.to_owned() };
    let (created, rest) = stored.split_first_chunk().ok_or_else(truncated)?;
    let (modified, value) = rest.split_first_chunk().ok_or_else(truncated)?;
    let (created, modified) = (u64::from_le_bytes(*created), u64::from_le_bytes(*modified));
    Ok(Entry::new(key.into(), Bytes::copy_from_slice(value), created, modified))
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
    commit(database, plan.changes(), plan.revision)
}

/// Makes durable what the file holds, with these keys as they were.
fn restore(
    database: &Database,
    revision: Revision,
    keys: &[(Box<str>, Option<Arc<Entry>>)],
) -> Result<(), redb::Error> {
    commit(database, keys.iter().map(|(key, entry)| (&**key, entry.as_ref())), revision)
}

/// One durable transaction: these keys, with these entries or without any, at this revision.
fn commit<'a>(
    database: &Database,
    changes: impl Iterator<Item = (&'a str, Option<&'a Arc<Entry>>)>,
    revision: Revision,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, entry) in changes {
            match entry {
                Some(entry) => {
                    let value = entry.value();
                    let mut stored = entries.insert_reserve(key, REVISIONS + value.len())?;
                    let stored = stored.as_mut();
                    stored[..8].copy_from_slice(&entry.created.to_le_bytes());
                    stored[8..REVISIONS].copy_from_slice(&entry.modified.to_le_bytes());
                    stored[REVISIONS..].copy_from_slice(&value);
                }
                None => {
                    entries.remove(key)?;
                }
            }
        }
        transaction.open_table(NUMBERS)?.insert(REVISION, revision)?;
    }
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
