//! The kinds Sagong serves: names, defaults, validation, table columns and patch semantics. No IO.
//!
//! * [`kind`]: what a kind is, typed ([`kind::Kind`]) and erased ([`kind::ServedKind`]); [`erased`] makes one
//!   from the other.
//! * [`kinds`]: one file per kind, and the [`kinds::registry`] that lists them; [`pod`] holds what Pod and the
//!   pod templates share.
//! * Reading: [`decode`] (bodies, strictly), [`patch`] (JSON, merge and strategic merge patches),
//!   [`selector`] (label and field selectors).
//! * Checking: [`meta`] (object metadata), [`name`] (names and labels), [`address`], [`field`] (errors with paths).
//! * Answering: [`error`] and [`status`] (failures), [`table`] (printer columns), [`openapi`] (schemas),
//!   [`duration`] (ages).
//! * Reporting: [`event`] (what becomes of repeated Events).
//! * Values: [`quantity`], [`int_or_percent`]. Their types: [`types`].

pub mod address;
pub mod decode;
pub mod duration;
pub mod erased;
pub mod error;
pub mod event;
pub mod field;
pub mod int_or_percent;
pub mod kind;
pub mod kinds;
pub mod meta;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod pod;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod table;
pub mod types;
