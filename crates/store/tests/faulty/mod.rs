//! A disk in memory that fails on demand and, when its power is cut, loses a random part of what was not synced.

use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Writing, with an I/O error.
    Write,
    /// Writing, for lack of space.
    Full,
    /// Syncing. What was to be synced stays visible but, as on Linux, no later sync tries it again.
    Sync,
    /// Everything.
    Dead,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What a disk guarantees to write as a whole.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Platter {
    /// As read.
    visible: Vec<u8>,
    /// As after a power cut at the worst.
    durable: Vec<u8>,
    /// In between: may or may not survive.
    unsynced: Vec<Change>,
    /// Since a sync failed, nothing is certain to become durable.
    forgetful: bool,
    fault: Option<Fault>,
    /// Operations until the fault sets in.
    delay: u32,
    /// Failures until the fault is over; None: until healed.
    spell: Option<u32>,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<Platter>>);

impl FaultyDisk {
    /// From now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.fail_after(fault, 0);
    }

    /// After so many writes, syncs and changes of length.
    pub(crate) fn fail_after(&self, fault: Fault, operations: u32) {
        let mut platter = self.lock();
        (platter.fault, platter.delay, platter.spell) = (Some(fault), operations, None);
    }

    /// After so many operations, until so many have failed.
    pub(crate) fn fail_for_a_while(&self, fault: Fault, operations: u32, failures: u32) {
        self.fail_after(fault, operations);
        self.lock().spell = Some(failures);
    }

    /// All works again.
    pub(crate) fn heal(&self) {
        self.lock().fault = None;
    }

    /// What `EmbeddedStore::open_backend` takes.
    pub(crate) fn attach(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    /// A new disk as this one would be after a power cut: what was synced, and of the rest sectors at random.
    pub(crate) fn power_cut(&self, seed: u64) -> Self {
        let platter = self.lock();
        let mut state = seed | 1;
        let mut coin = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 4 == 0
        };
        // At times all or nothing survives, which a coin per sector would hardly ever show.
        let (all, none) = (coin() && coin(), coin() && coin());
        let mut survived = platter.durable.clone();
        for change in &platter.unsynced {
            match change {
                Change::Length(length) if all || (!none && coin()) => survived.resize(*length, 0),
                Change::Length(_) => {}
                Change::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if all || (!none && coin()) {
                            place(&mut survived, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        let after = Platter { visible: survived.clone(), durable: survived, ..Platter::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

fn place(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

impl Platter {
    /// Whether an operation of these kinds fails now.
    fn attempt(&mut self, kinds: &[Fault]) -> io::Result<()> {
        let Some(fault) = self.fault else { return Ok(()) };
        if self.delay > 0 {
            self.delay -= 1;
            return Ok(());
        }
        if !kinds.contains(&fault) {
            return Ok(());
        }
        if let Some(left) = &mut self.spell {
            *left -= 1;
            if *left == 0 {
                self.fault = None;
            }
        }
        match fault {
            Fault::Full => Err(io::Error::from_raw_os_error(28)),
            _ => Err(io::Error::from_raw_os_error(5)),
        }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().visible.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.lock();
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(platter.visible.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.lock();
        platter.attempt(&[Fault::Full, Fault::Dead])?;
        platter.visible.resize(len as usize, 0);
        platter.unsynced.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        if let Err(error) = platter.attempt(&[Fault::Sync, Fault::Dead]) {
            platter.forgetful = true;
            return Err(error);
        }
        if !platter.forgetful {
            platter.durable = platter.visible.clone();
            platter.unsynced.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        platter.attempt(&[Fault::Write, Fault::Full, Fault::Dead])?;
        place(&mut platter.visible, offset as usize, data);
        platter.unsynced.push(Change::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}
