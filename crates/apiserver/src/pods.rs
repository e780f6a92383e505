//! What upstream's registry has specially for pods.

pub(crate) mod binding;
pub(crate) mod container;
pub(crate) mod ephemeral;
pub(crate) mod eviction;
pub mod log;
pub(crate) mod service_account;
