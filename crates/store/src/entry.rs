//! A key with its value, which lies packed while nobody is likely to ask for it.

use crate::Revision;
use bytes::Bytes;
use parking_lot::RwLock;
use std::any::Any;
use std::sync::Arc;

/// What a reader keeps with an entry.
pub type Memo = Arc<dyn Any + Send + Sync>;

/// A key with its current (or, in a watch event of a deletion, last) value. Shared, never copied.
#[derive(Debug)]
pub struct Entry {
    /// E.g. `/pods/default/kubia`.
    pub key: Box<str>,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that last changed it. For a deletion event: the revision of the deletion.
    pub modified: Revision,
    held: RwLock<Held>,
}

/// How the value lies in memory.
#[derive(Debug)]
enum Held {
    Open { value: Bytes, memo: Option<Memo> },
    Packed(Packed),
}

/// A value told in LZ4 as its differences from another one.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    model: Arc<[u8]>,
    block: Box<[u8]>,
    size: u32,
}

impl Entry {
    /// An entry with this value, which lies open.
    pub fn new(key: Box<str>, value: Bytes, created: Revision, modified: Revision) -> Self {
        Self { key, created, modified, held: RwLock::new(Held::Open { value, memo: None }) }
    }

    /// The bytes as they were put. Of one that lies packed they are a copy of the caller's own (some 2 µs for a Pod).
    pub fn value(&self) -> Bytes {
        match &*self.held.read() {
            Held::Open { value, .. } => value.clone(),
            Held::Packed(packed) => packed.unpack(),
        }
    }

    /// The number of bytes that were put.
    pub fn size(&self) -> usize {
        match &*self.held.read() {
            Held::Open { value, .. } => value.len(),
            Held::Packed(packed) => packed.size as usize,
        }
    }

    /// What `derive` makes of the value (parsed labels, say). It is kept with an open value, so that it is made once
    /// for all readers of news, and not kept with a packed one. Never stored on disk.
    pub fn memo(&self, derive: impl FnOnce(&Bytes) -> Memo) -> Memo {
        let value = match &*self.held.read() {
            Held::Open { memo: Some(memo), .. } => return memo.clone(),
            Held::Open { value, .. } => value.clone(),
            Held::Packed(packed) => packed.unpack(),
        };
        let made = derive(&value);
        match &mut *self.held.write() {
            Held::Open { memo, .. } => memo.get_or_insert(made).clone(),
            Held::Packed(_) => made,
        }
    }

    /// Bytes of memory that the value takes.
    pub(crate) fn weight(&self) -> usize {
        match &*self.held.read() {
            Held::Open { value, .. } => value.len(),
            Held::Packed(packed) => packed.block.len(),
        }
    }

    /// Whether the value lies packed.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(&*self.held.read(), Held::Packed(_))
    }

    /// Lets the value lie packed from now on, and drops the memo.
    pub(crate) fn keep_packed(&self, packed: Packed) {
        *self.held.write() = Held::Packed(packed);
    }
}

impl Packed {
    /// None unless it takes at most half of the room, and reads back the same.
    pub(crate) fn new(value: &[u8], model: &Arc<[u8]>) -> Option<Self> {
        let block = lz4_flex::block::compress_with_dict(value, model);
        if block.len() > value.len() / 2 {
            return None;
        }
        let packed =
            Self { model: model.clone(), block: block.into(), size: u32::try_from(value.len()).ok()? };
        (packed.read().is_some_and(|read| read == value)).then_some(packed)
    }

    fn read(&self) -> Option<Vec<u8>> {
        lz4_flex::block::decompress_with_dict(&self.block, self.size as usize, &self.model).ok()
    }

    fn unpack(&self) -> Bytes {
        // It was read back when it was packed.
        self.read().expect("what was packed can be unpacked").into()
    }
}
