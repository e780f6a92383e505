//! Images: pulled from registries, loaded from archives, kept content-addressed, unpacked to layers and
//! mounted with overlayfs.
//!
//! The kubelet knows it through [`Images`].
//!
//! * [`ImageStore`]: the directory on disk, and [`Images`] over it.
//! * `reference`: names, normalised as Docker does.
//! * `archive`: `docker save` archives and OCI layouts.
//! * `import`: an image from a plain directory.
//! * `pull`: from a registry; `registry`: how to speak to one; `blob`: fetching that can be interrupted.
//! * [`Keyring`]: who we are to which registry.
//! * `manifest`, `digest`: what names images and their parts.
//! * `layer`: a layer's tar stream to a directory, trusting nothing in it.
//! * `removal`: removing a tree of any depth.
//! * `snapshot`: overlayfs mounts on top of layers.

mod archive;
mod blob;
mod digest;
mod import;
mod keyring;
mod layer;
mod manifest;
mod pull;
mod reference;
mod registry;
mod removal;
mod snapshot;
mod store;

pub use import::{ImportOptions, ImportedFile};
pub use keyring::{Keyring, pull_as_any};
pub use reference::normalize;
pub use removal::remove_tree;
pub use snapshot::written;
pub use store::ImageStore;

use async_trait::async_trait;
use std::path::PathBuf;

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of the config.
    pub id: String,
    /// Names with tags, normalised: `docker.io/luksa/kubia:v1`.
    pub tags: Vec<String>,
    /// Names with digests: `docker.io/luksa/kubia@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes of the layers as stored.
    pub size: u64,
    /// What the image says about its process.
    pub config: ImageConfig,
}

/// The parts of the OCI image config that a container needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageConfig {
    /// Command to run.
    pub entrypoint: Vec<String>,
    /// Arguments, or the command when there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// User; empty means root.
    pub user: String,
    /// Signal that stops the container, e.g. `SIGQUIT`; empty means SIGTERM.
    pub stop_signal: String,
}

/// Credentials of a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// The name only: what is printed ends up in logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Told how a pull goes on.
pub trait Progress: Send + Sync {
    /// Bytes fetched so far of `total` (0 while unknown), over all layers.
    fn fetched(&self, bytes: u64, total: u64);
}

/// Progress nobody looks at.
pub struct NoProgress;

impl Progress for NoProgress {
    fn fetched(&self, _bytes: u64, _total: u64) {}
}

/// Images on this node.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image of a name (`luksa/kubia:v1`, normalised as Docker does) or an id.
    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError>;
    /// Fetches an image from its registry and unpacks it. Calls for one reference share one pull.
    async fn pull(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError>;
    /// All images.
    async fn list(&self) -> Result<Vec<Image>, ImageError>;
    /// Removes an image and the layers only it used.
    async fn remove(&self, id: &str) -> Result<(), ImageError>;
    /// Removes what pulls that were interrupted left for the next try, and layers that nothing uses. Pulls and
    /// loads under way are not disturbed.
    async fn prune(&self) -> Result<(), ImageError>;
    /// Mounts a writable file system on top of the image's layers and gives its path. `key` names it (one
    /// per container attempt); asking again gives the same one, after a restart too.
    async fn mount(&self, image_id: &str, key: &str) -> Result<PathBuf, ImageError>;
    /// Unmounts and deletes what [`Images::mount`] made. No error if there is none.
    async fn unmount(&self, key: &str) -> Result<(), ImageError>;
    /// Keys of all that is mounted, for cleaning up after a crash.
    async fn mounted(&self) -> Result<Vec<String>, ImageError>;
}

/// Where images can fail.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a valid image name; shown as `InvalidImageName`.
    #[error("couldn't parse image name {reference:?}: {message}")]
    InvalidName {
        /// As given.
        reference: String,
        /// Why.
        message: String,
    },
    /// The registry does not have it, or does not say.
    #[error("failed to pull image {reference:?}: {message}")]
    Pull {
        /// Normalised name.
        reference: String,
        /// Why, the whole chain of causes.
        message: String,
    },
    /// An archive or layer is corrupt or hostile. Nothing of it was kept.
    #[error("refused {object}: {message}")]
    Refused {
        /// Which archive or layer.
        object: String,
        /// Why.
        message: String,
    },
    /// No such image.
    #[error("image {0} not found")]
    NotFound(String),
    /// Reading or writing the store failed.
    #[error("{step} {object}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// Why.
        source: std::io::Error,
    },
}
