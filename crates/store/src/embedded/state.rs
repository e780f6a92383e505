//! The current state: every entry in key order, and the revision it shows.

use crate::{Entry, Page, Revision};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// An entry ordered by its key, so that the key is held once.
struct ByKey(Arc<Entry>);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// All entries at one revision.
#[derive(Default)]
pub(super) struct State {
    entries: BTreeSet<ByKey>,
    revision: Revision,
}

impl State {
    pub(super) fn new(entries: impl IntoIterator<Item = Arc<Entry>>, revision: Revision) -> Self {
        Self { entries: entries.into_iter().map(ByKey).collect(), revision }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key).map(|entry| &entry.0)
    }

    /// The entries under `prefix` after `after`, at most `limit` (0: all), and how many follow.
    pub(super) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut matching = self
            .entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|entry| entry.0.key.starts_with(prefix));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let entries = matching.by_ref().take(limit).map(|entry| entry.0.clone()).collect();
        Page { entries, revision: self.revision, remaining: matching.count() }
    }

    /// Takes over what a batch changed: each key with its new entry, or None if it was deleted.
    pub(super) fn apply<'a>(
        &mut self,
        changed: impl Iterator<Item = (&'a str, Option<&'a Arc<Entry>>)>,
        revision: Revision,
    ) {
        for (key, entry) in changed {
            match entry {
                Some(entry) => self.entries.replace(ByKey(entry.clone())),
                None => self.entries.take(key),
            };
        }
        self.revision = revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn state(keys: &[&str]) -> State {
        let entry = |key: &&str| Arc::new(Entry::new((*key).into(), bytes::Bytes::new(), 1, 1));
        State::new(keys.iter().map(entry), 1)
    }

    #[rstest]
    #[case::whole_prefix("/a/", None, 0, &["/a/1", "/a/2", "/a/3"], 0)]
    #[case::everything("", None, 0, &["/a/1", "/a/2", "/a/3", "/b/1"], 0)]
    #[case::limited("/a/", None, 2, &["/a/1", "/a/2"], 1)]
    #[case::after_is_exclusive("/a/", Some("/a/1"), 1, &["/a/2"], 1)]
    #[case::after_need_not_exist("/a/", Some("/a/11"), 0, &["/a/2", "/a/3"], 0)]
    #[case::after_below_the_prefix("/a/", Some("/"), 0, &["/a/1", "/a/2", "/a/3"], 0)]
    #[case::after_the_last("/a/", Some("/a/3"), 0, &[], 0)]
    #[case::after_above_the_prefix("/a/", Some("/b"), 0, &[], 0)]
    #[case::limit_exactly_met("/a/", None, 3, &["/a/1", "/a/2", "/a/3"], 0)]
    #[case::no_such_prefix("/c/", None, 0, &[], 0)]
    fn a_page_holds_the_keys_under_the_prefix_and_counts_the_rest(
        #[case] prefix: &str,
        #[case] after: Option<&str>,
        #[case] limit: usize,
        #[case] keys: &[&str],
        #[case] remaining: usize,
    ) {
        let page = state(&["/b/1", "/a/2", "/a/1", "/a/3"]).page(prefix, after, limit);
        let found: Vec<&str> = page.entries.iter().map(|entry| &*entry.key).collect();
        assert_eq!((found.as_slice(), page.remaining), (keys, remaining));
    }
}
