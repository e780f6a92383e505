//! What every request handler shares.

use crate::allocator::Allocators;
use crate::authn::Tokens;
use crate::pods::log::LogSource;
use crate::resources::Resources;
use crate::streams::StreamSource;
use crate::tokens::Signer;
use sagong_store::Store;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// The state behind the router.
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) resources: Resources,
    pub(crate) allocators: Allocators,
    pub(crate) tokens: Tokens,
    /// Signs service account tokens; None: none are issued.
    pub(crate) signer: Option<Signer>,
    pub(crate) logs: OnceLock<Arc<dyn LogSource>>,
    pub(crate) streams: OnceLock<Arc<dyn StreamSource>>,
    pub(crate) discovery: crate::discovery::Cache,
    /// Cancelled when the server stops: ends watches and streams.
    pub(crate) stopping: CancellationToken,
}
