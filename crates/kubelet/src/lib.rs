//! The kubelet: runs the pods bound to one node, and speaks for that node. It knows the cluster only through
//! the Kubernetes API.
//!
//! * [`kubelet`]: the parts put together; [`config`] is what it is told, [`error`] how it can fail.
//! * [`pod`]: one pod from its first sight to its end: *observe, plan, apply*.
//! * [`probe`]: readiness, liveness and startup probes; [`hooks`]: postStart and preStop.
//! * [`images`]: `imagePullPolicy`. [`volumes`]: one file per source.
//! * [`node`]: the Node object, its status and lease.
//! * [`eviction`]: when the node runs short of memory or disk.
//! * [`logs`]: reading containers' logs. [`streams`]: exec, attach and port-forward. [`events`]: recording events.
//! * [`simulated`]: nodes whose pods are state transitions only.
//! * [`cluster`]: what pods need of the API. [`clock`], [`quantity`], [`shared`]: what all rooms have at hand.

#[cfg(test)]
mod api_tests;
mod clock;
mod cluster;
mod config;
mod error;
mod events;
mod eviction;
#[cfg(test)]
mod fakes;
mod hooks;
mod images;
mod kubelet;
mod logs;
mod node;
mod pod;
mod probe;
mod quantity;
mod shared;
mod simulated;
mod streams;
mod volumes;

pub use config::{Config, MOST_PODS};
pub use error::KubeletError;
pub use kubelet::Kubelet;
pub use logs::{LogError, LogOptions, LogStream};
pub use pod::machine::{Answer, PodMachine, Round, Task, Wish};
pub use simulated::{ANNOTATION as SIMULATE_ANNOTATION, SimulatedNodes, duration};
pub use streams::StreamError;
