//! What a batch of transactions comes to: outcomes, events and the keys that change. Pure.

use super::state::State;
use crate::{Entry, Event, Expect, Outcome, Revision, Write};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The result of carrying out transactions one after the other on a state, not yet made true.
#[derive(Debug)]
pub(super) struct Plan {
    /// One per transaction.
    pub(super) outcomes: Vec<Outcome>,
    /// What watches will see, in revision order.
    pub(super) events: Vec<Event>,
    /// Each key that was written with what it holds in the end.
    pub(super) changed: BTreeMap<Box<str>, Option<Arc<Entry>>>,
    /// The revision after the batch. That of the state before it if nothing changed.
    pub(super) revision: Revision,
}

impl Plan {
    /// Judges each transaction against `state` and what the ones before it in the batch wrote.
    pub(super) fn new(state: &State, transactions: impl IntoIterator<Item = Vec<Write>>) -> Self {
        let mut plan = Self {
            outcomes: Vec::new(),
            events: Vec::new(),
            changed: BTreeMap::new(),
            revision: state.revision(),
        };
        for writes in transactions {
            let outcome = match plan.first_refusal(state, &writes) {
                Some(refused) => refused,
                None => plan.carry_out(state, writes),
            };
            plan.outcomes.push(outcome);
        }
        plan
    }

    /// What the keys hold in the end, in key order.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&str, Option<&Arc<Entry>>)> {
        self.changed.iter().map(|(key, entry)| (&**key, entry.as_ref()))
    }

    fn current(&self, state: &State, key: &str) -> Option<Arc<Entry>> {
        match self.changed.get(key) {
            Some(entry) => entry.clone(),
            None => state.get(key).cloned(),
        }
    }

    fn first_refusal(&self, state: &State, writes: &[Write]) -> Option<Outcome> {
        writes.iter().enumerate().find_map(|(index, write)| {
            let current = self.current(state, &write.key);
            let holds = match write.expect {
                Expect::Absent => current.is_none(),
                Expect::Modified(at) => current.as_ref().is_some_and(|entry| entry.modified == at),
                Expect::Anything => true,
            };
            (!holds).then_some(Outcome::Refused { index, current })
        })
    }

    fn carry_out(&mut self, state: &State, writes: Vec<Write>) -> Outcome {
        let revision = self.revision + 1;
        let mut changed = false;
        for write in last_per_key(writes) {
            let previous = self.current(state, &write.key);
            let key: Box<str> = write.key.into();
            let event = match (write.value, previous) {
                (None, None) => continue,
                (None, Some(previous)) => {
                    self.changed.insert(key.clone(), None);
                    Event::Delete { entry: entry(key, previous.value(), previous.created, revision) }
                }
                (Some(value), previous) => {
                    let created = previous.as_ref().map_or(revision, |previous| previous.created);
                    let entry = entry(key.clone(), value, created, revision);
                    self.changed.insert(key, Some(entry.clone()));
                    Event::Put { entry, previous }
                }
            };
            self.events.push(event);
            changed = true;
        }
        if changed {
            self.revision = revision;
        }
        Outcome::Committed(self.revision)
    }
}

fn entry(key: Box<str>, value: bytes::Bytes, created: Revision, modified: Revision) -> Arc<Entry> {
    Arc::new(Entry::new(key, value, created, modified))
}

/// The writes without those that a later one to the same key overrides, so that a revision changes a key
/// at most once.
fn last_per_key(writes: Vec<Write>) -> Vec<Write> {
    if writes.len() < 2 {
        return writes;
    }
    let last: HashMap<&str, usize> =
        writes.iter().enumerate().map(|(index, write)| (&*write.key, index)).collect();
    let keep: Vec<bool> =
        writes.iter().enumerate().map(|(index, write)| last[&*write.key] == index).collect();
    writes.into_iter().zip(keep).filter_map(|(write, keep)| keep.then_some(write)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rstest::rstest;

    fn put(key: &str, expect: Expect) -> Write {
        Write { key: key.into(), expect, value: Some(Bytes::from_static(b"v")) }
    }

    fn delete(key: &str, expect: Expect) -> Write {
        Write { key: key.into(), expect, value: None }
    }

    /// Holds "/a", last changed at 5, at revision 7.
    fn state() -> State {
        State::new([entry("/a".into(), Bytes::from_static(b"old"), 3, 5)], 7)
    }

    #[rstest]
    #[case::create(put("/b", Expect::Absent), Ok(8))]
    #[case::create_existing(put("/a", Expect::Absent), Err(0))]
    #[case::update(put("/a", Expect::Modified(5)), Ok(8))]
    #[case::update_outdated(put("/a", Expect::Modified(4)), Err(0))]
    #[case::update_absent(put("/b", Expect::Modified(5)), Err(0))]
    #[case::overwrite(put("/a", Expect::Anything), Ok(8))]
    #[case::delete(delete("/a", Expect::Modified(5)), Ok(8))]
    #[case::delete_outdated(delete("/a", Expect::Modified(6)), Err(0))]
    #[case::delete_absent_uses_no_revision(delete("/b", Expect::Anything), Ok(7))]
    #[case::check_absence_uses_no_revision(delete("/b", Expect::Absent), Ok(7))]
    fn a_write_happens_when_its_condition_holds(#[case] write: Write, #[case] expected: Result<u64, usize>) {
        let plan = Plan::new(&state(), [vec![write]]);
        let outcome = match &plan.outcomes[0] {
            Outcome::Committed(revision) => Ok(*revision),
            Outcome::Refused { index, .. } => Err(*index),
        };
        assert_eq!(outcome, expected);
        assert_eq!(plan.revision, expected.unwrap_or(7));
        assert_eq!(plan.events.len(), usize::from(expected == Ok(8)));
    }

    #[test]
    fn one_refused_write_refuses_the_transaction_and_shows_the_current_entry() {
        let plan = Plan::new(&state(), [vec![put("/b", Expect::Absent), put("/a", Expect::Modified(1))]]);
        let Outcome::Refused { index: 1, current: Some(current) } = &plan.outcomes[0] else {
            panic!("{:?}", plan.outcomes);
        };
        assert_eq!(&current.value()[..], b"old");
        assert!(plan.changed.is_empty() && plan.events.is_empty());
    }

    #[test]
    fn transactions_of_a_batch_see_the_ones_before_them() {
        let plan = Plan::new(
            &state(),
            [
                vec![put("/b", Expect::Absent)],
                vec![put("/b", Expect::Absent)],
                vec![put("/b", Expect::Modified(8))],
            ],
        );
        assert!(matches!(plan.outcomes[0], Outcome::Committed(8)));
        assert!(matches!(&plan.outcomes[1], Outcome::Refused { current: Some(c), .. } if c.modified == 8));
        assert!(matches!(plan.outcomes[2], Outcome::Committed(9)));
        let last = plan.changed["/b"].as_ref().unwrap();
        assert_eq!((last.created, last.modified), (8, 9));
    }

    #[test]
    fn a_key_created_again_after_deletion_has_a_new_created_revision() {
        let plan =
            Plan::new(&state(), [vec![delete("/a", Expect::Anything)], vec![put("/a", Expect::Absent)]]);
        let entry = plan.changed["/a"].as_ref().unwrap();
        assert_eq!((entry.created, entry.modified), (9, 9));
        assert!(
            matches!(&plan.events[0], Event::Delete { entry } if entry.modified == 8 && entry.created == 3)
        );
        assert!(matches!(&plan.events[1], Event::Put { previous: None, .. }));
    }

    #[test]
    fn of_two_writes_to_one_key_the_last_counts() {
        let plan = Plan::new(&state(), [vec![delete("/a", Expect::Anything), put("/a", Expect::Anything)]]);
        assert_eq!(plan.events.len(), 1);
        assert!(matches!(&plan.events[0], Event::Put { previous: Some(_), .. }));
        assert_eq!(plan.changed["/a"].as_ref().unwrap().created, 3);
    }
}
