//! The controllers: loops that make what runs match what was asked for.
//!
//! Every controller is *observe, plan, apply*. `observe` takes a snapshot from the shared [`caches`], `plan` is a
//! pure function from that snapshot and the time to a [`plan::Plan`], and the one [`runner`] applies it. Only
//! [`apply`] and [`recorder`] hold a client.
//!
//! * [`cache`], [`caches`]: one local copy per kind, shared by all controllers, with indexes.
//! * [`queue`], [`runner`]: which key is looked at when; retry, backoff, reading one's own writes.
//! * [`plan`], [`apply`]: writes as values, and their execution.
//! * [`recorder`]: Events, correlated as upstream correlates them.
//! * [`registry`]: the list of controllers.
//!
//! Adding a controller is one file and one line in [`registry`].

pub mod apply;
pub mod cache;
pub mod caches;
pub mod claim;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod plan;
pub mod pod;
pub mod queue;
pub mod recorder;
pub mod registry;
pub mod replica_set;
pub mod replication_controller;
pub mod runner;
pub mod selector;
pub mod service;

pub use registry::{Error, Options, run};
