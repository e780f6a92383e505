//! Owners that are gone for good: a uid never comes back.

use crate::cache::Key;
use crate::plan::KindRef;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};

/// Identities remembered; what is forgotten is asked for again at the API server.
const REMEMBERED: usize = 4096;

/// One object of one name at one time. The namespace belongs to it: a reference from another namespace means an object
/// that does not exist, while the owner may well be alive where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    kind: KindRef,
    key: Key,
    uid: String,
}

impl Identity {
    /// The identity of the object of this kind, name and uid.
    pub fn new(kind: KindRef, key: &Key, uid: &str) -> Self {
        Self { kind, key: key.clone(), uid: uid.to_owned() }
    }
}

/// A bounded set of identities; the oldest are forgotten first.
#[derive(Default)]
pub struct Gone(Mutex<(HashSet<Identity>, VecDeque<Identity>)>);

impl Gone {
    /// Remembers that the object does not exist and never will.
    pub fn insert(&self, identity: Identity) {
        let mut guard = self.0.lock();
        let (known, order) = &mut *guard;
        if known.insert(identity.clone()) {
            order.push_back(identity);
        }
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }

    /// Whether it is remembered.
    pub fn contains(&self, identity: &Identity) -> bool {
        self.0.lock().0.contains(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn identity(namespace: &str, uid: usize) -> Identity {
        Identity::new(KindRef::of::<Pod>(), &Key::new(namespace, "a"), &uid.to_string())
    }

    #[test]
    fn the_same_uid_in_another_namespace_is_not_gone() {
        let gone = Gone::default();
        gone.insert(identity("here", 1));
        assert!(gone.contains(&identity("here", 1)));
        assert!(!gone.contains(&identity("there", 1)));
    }

    #[test]
    fn only_so_many_are_remembered_the_oldest_are_forgotten() {
        let gone = Gone::default();
        (0..REMEMBERED + 10).for_each(|uid| gone.insert(identity("here", uid)));
        assert!(!gone.contains(&identity("here", 9)));
        assert!(gone.contains(&identity("here", 10)));
        assert_eq!(gone.0.lock().0.len(), REMEMBERED);
    }
}
