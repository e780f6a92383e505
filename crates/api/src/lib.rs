//! The kinds Sagong serves: names, defaults, validation, table columns and patch semantics. No IO.
//!
//! * [`kind`]: what a kind is, typed ([`kind::Kind`]) and erased ([`kind::ServedKind`]).
//! * [`kinds`]: one file per kind, and the [`kinds::registry`] that lists them.

pub mod error;
pub mod field;
pub mod kind;
pub mod kinds;
