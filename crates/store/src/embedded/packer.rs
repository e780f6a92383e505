//! Lets values lie small: the objects of one kind differ in little, so each is told as its differences from one of
//! them. A Pod of a Deployment takes some 200 bytes instead of 2,700, for 3 µs of work.

use crate::Entry;
use crate::entry::Packed;
use std::collections::HashMap;
use std::sync::Arc;

/// Smaller values stay as they are: there is nothing to gain.
const LEAST: usize = 256;
/// So do larger ones, which would hold up the writer, and of which LZ4 would not see a whole model (64 KiB).
const MOST: usize = 32 << 10;

/// What values of each kind are compared with.
#[derive(Default)]
pub(super) struct Packer {
    /// By the first part of the key, of which there are as many as there are kinds.
    models: HashMap<Box<str>, Arc<[u8]>>,
}

impl Packer {
    /// Packs the entry's value if that makes it small. A value that the model of its kind is no help with is the model
    /// for those to come: the template has changed, say.
    pub(super) fn pack(&mut self, entry: &Entry) {
        let value = entry.value();
        if entry.is_packed() || !(LEAST..=MOST).contains(&value.len()) {
            return;
        }
        let kind = kind(&entry.key);
        match self.models.get(kind).and_then(|model| Packed::new(&value, model)) {
            Some(packed) => entry.keep_packed(packed),
            None => drop(self.models.insert(kind.into(), Arc::from(&*value))),
        }
    }
}

/// `/pods` of `/pods/default/kubia`.
fn kind(key: &str) -> &str {
    let end = key.char_indices().skip(1).find(|(_, c)| *c == '/').map_or(key.len(), |(at, _)| at);
    &key[..end]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails

    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn entry(key: &str, value: impl Into<Bytes>) -> Entry {
        Entry::new(key.into(), value.into(), 1, 1)
    }

    /// About a Pod of a Deployment.
    fn pod(name: usize) -> String {
        let spec = (0..60).map(|n| format!("\"field{n}\":\"{}\",", n * 7919)).collect::<String>();
        format!("{{\"metadata\":{{\"name\":\"kubia-{name}\",\"uid\":\"{:032x}\"}},{spec}}}", name * 104_729)
    }

    #[test]
    fn objects_like_others_take_a_tenth_and_read_the_same() {
        let mut packer = Packer::default();
        let entries: Vec<Entry> = (0..50).map(|n| entry(&format!("/pods/default/{n}"), pod(n))).collect();
        entries.iter().for_each(|entry| packer.pack(entry));
        assert!(!entries[0].is_packed(), "the first has nothing to be compared with");
        for (n, entry) in entries.iter().enumerate().skip(1) {
            assert!(entry.weight() < pod(n).len() / 10, "{} of {}", entry.weight(), pod(n).len());
            assert_eq!((entry.value(), entry.size()), (pod(n).into(), pod(n).len()));
        }
    }

    #[test]
    fn kinds_are_not_compared_with_each_other_and_a_stranger_is_the_next_model() {
        let mut packer = Packer::default();
        // Like nothing else, itself included: xorshift.
        let strange = |mut seed: u64| {
            let mut next = || {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            };
            (0..2000).map(|_| next()).collect::<Vec<u8>>()
        };
        let entries = [
            entry("/pods/a/1", pod(1)),
            entry("/events/a/1", pod(2)),
            entry("/pods/a/2", strange(1)),
            entry("/pods/b/3", strange(1)),
        ];
        entries.iter().for_each(|entry| packer.pack(entry));
        assert_eq!(entries.each_ref().map(Entry::is_packed), [false, false, false, true]);
        assert_eq!(entries[3].value(), strange(1));
    }

    #[test]
    fn what_is_derived_is_kept_while_the_value_lies_open_and_made_anew_afterwards() {
        let mut packer = Packer::default();
        let entries = [entry("/pods/a/1", pod(1)), entry("/pods/a/2", pod(2))];
        let made = std::cell::Cell::new(0);
        let length = || {
            let memo = entries[1].memo(|value| {
                made.set(made.get() + 1);
                Arc::new(value.len())
            });
            (*memo.downcast::<usize>().unwrap(), made.get())
        };
        assert_eq!([length(), length()], [(pod(2).len(), 1); 2]);
        entries.iter().for_each(|entry| packer.pack(entry));
        assert!(entries[1].is_packed());
        assert_eq!([length(), length()], [(pod(2).len(), 2), (pod(2).len(), 3)]);
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_it_was_put(
            values in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"abc{}\"\0\xff"[..]), 0..1500), 1..6),
            repeats in 1..60_usize,
            keys in prop::collection::vec("/?[a-bé]{0,2}/?[a-b]{0,2}", 6),
        ) {
            let mut packer = Packer::default();
            for (value, key) in values.iter().zip(&keys) {
                let value = value.repeat(repeats);
                let entry = entry(key, value.clone());
                packer.pack(&entry);
                packer.pack(&entry);
                prop_assert_eq!(entry.value(), value);
            }
        }
    }
}
