//! The node: its object, its heartbeat, its lease.
//!
//! * [`facts`]: what the machine is.
//! * [`status`]: `status` of the Node from it; pure.
//! * [`register`]: makes the object and keeps its status up to date.
//! * [`lease`]: renews the lease by which others see that we live.

pub(crate) mod facts;
pub(crate) mod lease;
pub(crate) mod register;
pub(crate) mod status;

pub(crate) use facts::cpus;
