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
            let reason = match known.waiting.as_deref() {
                // The two commonest failures are put in words, as upstream does.
                Some("ErrImagePull") => "image can't be pulled",
                Some("ImagePullBackOff") => "trying and failing to pull image",
                reason => reason.unwrap_or("ContainerCreating"),
            };
            let reason = reason.to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use rstest::rstest;
    use std::collections::BTreeMap;
    use std::io::Write;

    const LOG: &str = "2025-01-01T00:00:01Z stdout F one\n2025-01-01T00:00:02Z stdout F two\n\
                       2025-01-01T00:00:03Z stderr F three\n";

    struct Setup {
        config: Config,
        view: watch::Sender<PodView>,
        dir: tempfile::TempDir,
    }

    fn setup(running: bool) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let container =
            ContainerView { current: Some((1, "id".into())), previous: Some(0), running, waiting: None };
        let fresh = ContainerView { waiting: Some("ErrImagePull".into()), ..Default::default() };
        let view = PodView {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            containers: BTreeMap::from([("c".into(), container), ("fresh".into(), fresh)]),
            ..Default::default()
        };
        std::fs::create_dir_all(dir.path().join("logs/ns_p_u/c")).unwrap();
        std::fs::write(dir.path().join("logs/ns_p_u/c/1.log"), LOG).unwrap();
        std::fs::write(dir.path().join("logs/ns_p_u/c/0.log"), "2025-01-01T00:00:00Z stdout F old\n")
            .unwrap();
        Setup { config: Config::new("n", "abcdef", dir.path()), view: watch::channel(view).0, dir }
    }

    async fn all(setup: &Setup, options: LogOptions) -> String {
        let mut stream = read(&setup.config, setup.view.subscribe(), "c", options).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        text
    }

    #[rstest]
    #[case::all(LogOptions::default(), "one\ntwo\nthree\n")]
    #[case::previous(LogOptions { previous: true, ..Default::default() }, "old\n")]
    #[case::tail(LogOptions { tail_lines: Some(1), ..Default::default() }, "three\n")]
    #[case::no_tail(LogOptions { tail_lines: Some(0), ..Default::default() }, "")]
    #[case::limit(LogOptions { limit_bytes: Some(5), ..Default::default() }, "one\nt")]
    #[case::since(LogOptions { since_time: Some("2025-01-01T00:00:02Z".parse().unwrap()), ..Default::default() },
        "two\nthree\n")]
    #[case::since_seconds(LogOptions { since_seconds: Some(1), ..Default::default() }, "")]
    #[case::times(LogOptions { timestamps: true, tail_lines: Some(1), ..Default::default() },
        "2025-01-01T00:00:03Z three\n")]
    #[tokio::test]
    async fn options_choose_what_is_read(#[case] options: LogOptions, #[case] expected: &str) {
        assert_eq!(all(&setup(true), options).await, expected);
    }

    #[tokio::test]
    async fn following_goes_on_until_the_container_ends() {
        let setup = setup(true);
        let options = LogOptions { follow: true, tail_lines: Some(1), ..Default::default() };
        let mut stream = read(&setup.config, setup.view.subscribe(), "c", options).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "three\n");
        let path = setup.dir.path().join("logs/ns_p_u/c/1.log");
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"2025-01-01T00:00:04Z stdout F four\n2025-01-01T00:00:05Z std").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "four\n");
        file.write_all(b"out F five\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "five\n");
        setup.view.send_modify(|view| view.containers.get_mut("c").unwrap().running = false);
        assert!(stream.next().await.is_none());
    }

    #[rstest]
    #[case("none", false, "container none is not valid for pod p")]
    #[case("fresh", false, "container \"fresh\" in pod \"p\" is waiting to start: image can't be pulled")]
    #[case("fresh", true, "previous terminated container \"fresh\" in pod \"p\" not found")]
    #[tokio::test]
    async fn what_has_no_log_says_why(
        #[case] container: &str,
        #[case] previous: bool,
        #[case] message: &str,
    ) {
        let setup = setup(true);
        let options = LogOptions { previous, ..Default::default() };
        let error = read(&setup.config, setup.view.subscribe(), container, options).await.err().unwrap();
        assert_eq!(error.to_string(), message);
    }
}
