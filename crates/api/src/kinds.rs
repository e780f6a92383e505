//! The kinds, one file each.

use crate::kind::ServedKind;

/// Every kind that is served. Adding a kind is one file and one line here.
pub fn registry() -> Vec<Box<dyn ServedKind>> {
    vec![]
}
