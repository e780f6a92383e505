//! SPDY/3.1 (`draft-mbelshe-httpbis-spdy-00` with version 3's flow control left out, as every Kubernetes client and
//! server leaves it out: the connection below it does that).
//!
//! * `dictionary`, `headers`: compressed lists of headers. `frame`: bytes to frames and back; no IO.
//! * `connection`: streams of one connection.

#[cfg(test)]
mod client;
mod connection;
mod dictionary;
mod frame;
mod headers;

use std::time::Duration;

#[cfg(test)]
pub(super) use client::Client;
pub(super) use connection::{Connection, Stream, StreamWriter};

/// How long a client may take to open streams that belong together (upstream's `streamCreationTimeout`).
pub(super) const OPENING: Duration = Duration::from_secs(30);
