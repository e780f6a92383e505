//! The verbs, one file each, the same for every kind.
//!
//! [`input`] reads bodies, [`modify`] is the read-change-write loop that every change of an existing object
//! goes through, [`apply`] knows who owns which field, [`selection`] filters, [`removal`] plans deletions; the rest are the verbs.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod input;
pub(crate) mod list;
pub(crate) mod modify;
pub(crate) mod patch;
pub(crate) mod removal;
pub(crate) mod scale;
pub(crate) mod selection;
pub(crate) mod update;
pub(crate) mod watch;
