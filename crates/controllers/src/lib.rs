//! The controllers: loops that make what runs match what was asked for.
//!
//! Every controller is *observe, plan, apply*. `observe` takes a snapshot from the shared [`caches`], `plan` is a
//! pure function from that snapshot and the time to a [`plan::Plan`], and the one [`runner`] applies it. Only
//! [`apply`] and [`recorder`] write.
//!
//! * [`cache`], [`caches`]: one local copy per kind, shared by all controllers, with indexes.
//! * [`queue`], [`runner`]: which key is looked at when; retry, backoff, reading one's own writes. [`live`] is the
//!   same for controllers that must ask the API server before they delete.
//! * [`plan`], [`apply`]: writes as values, and their execution.
//! * [`recorder`]: Events, correlated as upstream correlates them.
//! * [`registry`]: the list of controllers. [`election`]: of several instances one works.
//!
//! Adding a controller is one file and one line in [`registry`].

pub mod apply;
pub mod cache;
pub mod caches;
pub mod claim;
pub mod deployment;
pub mod election;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod garbage;
pub mod live;
pub mod namespace;
pub mod node;
pub mod plan;
pub mod pod;
pub mod queue;
pub mod recorder;
pub mod registry;
pub mod replica_set;
pub mod replication_controller;
pub mod root_ca;
pub mod runner;
pub mod selector;
pub mod service;
pub mod service_account;

pub use registry::{Error, Options, run};
