//! What every room of the kubelet has at hand.

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::events::Recorder;
use crate::eviction::pressure::Pressures;
use crate::volumes::{Shows, Tokens};
use sagong_image::Images;
use sagong_network::{DataPlane, PodNetwork};
use sagong_runtime::Runtime;
use std::sync::Arc;
use tokio::sync::watch;

/// The kubelet's connections to the world.
pub(crate) struct Shared {
    /// Settings.
    pub(crate) config: Config,
    /// The time.
    pub(crate) clock: Clock,
    /// The API.
    pub(crate) cluster: Arc<dyn Cluster>,
    /// Events.
    pub(crate) recorder: Recorder,
    /// Containers.
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Images.
    pub(crate) images: Arc<dyn Images>,
    /// Addresses.
    pub(crate) network: Arc<dyn PodNetwork>,
    /// Service traffic.
    pub(crate) data_plane: Arc<dyn DataPlane>,
    /// Memory of the node in bytes.
    pub(crate) node_memory: u64,
    /// Bytes of the file system that pods write to.
    pub(crate) node_storage: u64,
    /// What the node is short of.
    pub(crate) pressures: watch::Sender<Pressures>,
    /// What volumes show.
    pub(crate) shows: Shows,
    /// Tokens in volumes.
    pub(crate) tokens: Tokens,
}
