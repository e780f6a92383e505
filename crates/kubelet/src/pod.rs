//! One pod, from its first sight to its end.
//!
//! * [`snapshot`]: what is known; plain data. [`policy`]: `restartPolicy`.
//! * [`plan`]: what to do about it, decided by [`start`], [`kill`], [`termination`]; pure.
//! * [`status`]: what the API is told; pure, with [`container_status`] and [`conditions`].
//! * [`outcome`]: what an action's result changes in the snapshot; pure.
//! * [`worker`]: the task that observes, plans and applies; [`operations`] is what it can do, [`creation`] the
//!   longest of it.
//! * [`machine`]: the same for simulations, which give every answer themselves.
//! * [`manager`]: starts the workers, hands them what happens, adopts and cleans up.

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod container_config;
pub(crate) mod container_status;
mod creation;
pub(crate) mod environment;
pub(crate) mod etc_files;
pub(crate) mod hash;
pub(crate) mod kill;
pub(crate) mod last_words;
#[cfg(test)]
mod lifecycle_tests;
pub(crate) mod machine;
pub(crate) mod manager;
pub(crate) mod messages;
pub(crate) mod operations;
pub(crate) mod outcome;
pub(crate) mod plan;
#[cfg(test)]
mod plan_tests;
pub(crate) mod policy;
pub(crate) mod qos;
pub(crate) mod snapshot;
pub(crate) mod start;
pub(crate) mod status;
mod step;
pub(crate) mod termination;
pub(crate) mod view;
#[cfg(test)]
mod volume_tests;
pub(crate) mod worker;
