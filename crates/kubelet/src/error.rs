//! Where the kubelet can fail.

/// An error of the kubelet as a whole. What goes wrong with a single pod is no error here: it ends in the
/// pod's status and events.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// The runtime did not say what exists.
    #[error("listing {what}: {source}")]
    List {
        /// `sandboxes` or `containers`.
        what: &'static str,
        /// Why.
        source: sagong_runtime::RuntimeError,
    },
    /// The network did not take over the addresses of running pods.
    #[error("adopting {count} pod addresses: {source}")]
    Adopt {
        /// How many.
        count: usize,
        /// Why.
        source: sagong_network::NetworkError,
    },
    /// A directory of the kubelet cannot be made.
    #[error("creating {path}: {source}")]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
