//! Objects as members of ordered sets: what they are ordered by is in them already, and is not held twice.

use super::Cached;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// An object ordered by its name; for those of one namespace.
pub(super) struct ByName<K>(pub(super) Arc<K>);

/// An object ordered by namespace and name.
pub(super) struct ByKey<K>(pub(super) Arc<K>);

impl<K: Cached> ByName<K> {
    fn name(&self) -> &str {
        self.0.metadata().name.as_deref().unwrap_or_default()
    }
}

impl<K: Cached> ByKey<K> {
    fn key(&self) -> (&str, &str) {
        let meta = self.0.metadata();
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl<K: Cached> Borrow<str> for ByName<K> {
    fn borrow(&self) -> &str {
        self.name()
    }
}

macro_rules! ordered_by {
    ($type:ident, $method:ident) => {
        impl<K: Cached> Ord for $type<K> {
            fn cmp(&self, other: &Self) -> Ordering {
                self.$method().cmp(&other.$method())
            }
        }
        impl<K: Cached> PartialOrd for $type<K> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl<K: Cached> PartialEq for $type<K> {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl<K: Cached> Eq for $type<K> {}
    };
}
ordered_by!(ByName, name);
ordered_by!(ByKey, key);
