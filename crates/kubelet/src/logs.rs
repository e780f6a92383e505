//! Logs of containers: files in CRI format, read as `kubectl logs` asks for them.
//!
//! * [`read`]: options, and which file of which run of a container.
//! * [`line`]: one line of a log file.
//! * [`follow`]: reading on while the container writes.

mod follow;
mod line;

use crate::clock::between;
use crate::config::Config;
use crate::pod::container_config::log_path;
use crate::pod::view::{ContainerView, PodView};
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// Pieces of a log, ready to be sent.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What of a log to read: `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as the container writes, until it ends.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only lines from this time on.
    pub since_time: Option<Timestamp>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log. The API answers the first two with 404 and the others with 400.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such pod on this node.
    #[error("pod \"{pod}\" not found")]
    PodNotFound {
        /// `metadata.namespace`.
        namespace: String,
        /// `metadata.name`.
        pod: String,
    },
    /// The file is gone.
    #[error("log of container \"{container}\" in pod \"{pod}\" not found: {source}")]
    FileNotFound {
        /// Which.
        container: String,
        /// Of which pod.
        pod: String,
        /// Why.
        source: std::io::Error,
    },
    /// The pod has no such container.
    #[error("container {container} is not valid for pod {pod}")]
    ContainerNotFound {
        /// Which.
        container: String,
        /// Of which pod.
        pod: String,
    },
    /// It did not start yet.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    Waiting {
        /// Which.
        container: String,
        /// Of which pod.
        pod: String,
        /// Why, e.g. `ContainerCreating`.
        reason: String,
    },
    /// It was not restarted, or the run before is forgotten.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// Which.
        container: String,
        /// Of which pod.
        pod: String,
    },
}

/// Whether a view is that of the pod asked for.
pub(crate) fn is_of(view: &PodView, namespace: &str, pod: &str, uid: &str) -> bool {
    view.namespace == namespace && view.name == pod && (uid.is_empty() || view.uid == uid)
}

/// The log of one run of a container.
pub(crate) async fn read(
    config: &Config,
    watched: watch::Receiver<PodView>,
    container: &str,
    options: LogOptions,
) -> Result<LogStream, LogError> {
    let (path, attempt) = locate(config, &watched.borrow(), container, options.previous)?;
    let file = tokio::fs::File::open(&path).await.map_err(|source| LogError::FileNotFound {
        container: container.into(),
        pod: watched.borrow().name.clone(),
        source,
    })?;
    let since = since(&options, Timestamp::now());
    let run = follow::Run { watched, container: container.into(), attempt };
    Ok(follow::stream(file.into_std().await, path, run, options, since))
}

fn locate(
    config: &Config,
    view: &PodView,
    container: &str,
    previous: bool,
) -> Result<(PathBuf, u32), LogError> {
    let names = || (container.to_owned(), view.name.clone());
    let Some(known) = view.containers.get(container) else {
        let (container, pod) = names();
        return Err(LogError::ContainerNotFound { container, pod });
    };
    let attempt = match (previous, known) {
        (true, ContainerView { previous: Some(attempt), .. }) => *attempt,
        (true, _) => {
            let (container, pod) = names();
            return Err(LogError::NoPrevious { container, pod });
        }
        (false, ContainerView { current: Some((attempt, _)), .. }) => *attempt,
        (false, _) => {
            let (container, pod) = names();
            let reason = known.waiting.clone().unwrap_or_else(|| "ContainerCreating".into());
            return Err(LogError::Waiting { container, pod, reason });
        }
    };
    let dir = config.log_dir(&view.namespace, &view.name, &view.uid);
    Ok((dir.join(log_path(container, attempt)), attempt))
}

/// The time lines must not be older than.
fn since(options: &LogOptions, now: Timestamp) -> Option<Timestamp> {
    let ago = options.since_seconds.map(Duration::from_secs);
    let relative = ago.map(|ago| {
        let age = between(Timestamp::UNIX_EPOCH, now).saturating_sub(ago);
        crate::clock::later(Timestamp::UNIX_EPOCH, age)
    });
    relative.or(options.since_time)
}
