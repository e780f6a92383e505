//! Reads a log file to its end, and on while the container writes: woken by the kernel (inotify), never by a
//! clock.

use super::line::{self, Line};
use super::{LogOptions, LogStream};
use crate::pod::view::PodView;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use rustix::fs::inotify;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// The run of a container whose log is read.
pub(super) struct Run {
    /// Its pod.
    pub(super) watched: watch::Receiver<PodView>,
    /// Its container.
    pub(super) container: String,
    /// Its restart count.
    pub(super) attempt: u32,
}

impl Run {
    /// Whether more may be written.
    fn goes_on(&self) -> bool {
        let view = self.watched.borrow();
        view.containers.get(&self.container).is_some_and(|container| {
            container.running
                && container.current.as_ref().is_some_and(|(attempt, _)| *attempt == self.attempt)
        })
    }
}

/// What is to be read, piece by piece.
pub(super) fn stream(
    file: File,
    path: PathBuf,
    run: Run,
    options: LogOptions,
    since: Option<Timestamp>,
) -> LogStream {
    let (pieces, stream) = mpsc::channel(4);
    let failed = pieces.clone();
    let left = options.limit_bytes;
    let reader = Reader { file, path, rest: Vec::new(), begins: true, left, options, since, pieces };
    tokio::spawn(async move {
        if let Err(error) = reader.run(run).await {
            // Whoever reads may have gone.
            let _ = failed.send(Err(error)).await;
        }
    });
    ReceiverStream::new(stream).boxed()
}

struct Reader {
    file: File,
    path: PathBuf,
    /// Bytes of a line whose end is not there yet.
    rest: Vec<u8>,
    /// Whether the next line of the file begins a line of the program.
    begins: bool,
    /// Bytes that may still be sent.
    left: Option<u64>,
    options: LogOptions,
    since: Option<Timestamp>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Reader {
    async fn run(mut self, mut run: Run) -> io::Result<()> {
        // Watching begins before reading, so that nothing is missed in between.
        let changes = if self.options.follow { Some(Changes::new(&self.path)?) } else { None };
        if let Some(count) = self.options.tail_lines {
            self.seek_to_tail(count)?;
        }
        loop {
            let goes_on = run.goes_on();
            if !self.read_to_end().await? {
                return Ok(());
            }
            let Some(changes) = changes.as_ref().filter(|_| goes_on) else { return Ok(()) };
            tokio::select! {
                changed = changes.wait() => changed?,
                ended = run.watched.changed() => if ended.is_err() {
                    self.read_to_end().await?;
                    return Ok(());
                },
                () = self.pieces.closed() => return Ok(()),
            }
        }
    }

    fn seek_to_tail(&mut self, count: u64) -> io::Result<()> {
        let mut text = Vec::new();
        self.file.read_to_end(&mut text)?;
        let start = line::tail_start(&text, count);
        self.file.seek(SeekFrom::Start(start as u64)).map(drop)
    }

    /// Sends all that is there; false if nobody wants more.
    async fn read_to_end(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        while self.left != Some(0) {
            let count = self.file.read(&mut chunk)?;
            if count == 0 {
                return Ok(true);
            }
            self.rest.extend_from_slice(&chunk[..count]);
            let piece = self.take_lines();
            if !piece.is_empty() && self.pieces.send(Ok(piece.into())).await.is_err() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The whole lines read so far, as the user sees them.
    fn take_lines(&mut self) -> Vec<u8> {
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        let mut out = Vec::with_capacity(lines.len());
        for parsed in lines.split(|byte| *byte == b'\n').filter_map(line::parse) {
            let Line { is_whole, .. } = parsed;
            if parsed.is_since(self.since) {
                parsed.print(self.begins, self.options.timestamps, &mut out);
            }
            self.begins = is_whole;
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }
}

/// Tells when a file is written to. The descriptor of inotify is read like a pipe, which it is for tokio.
struct Changes(pipe::Receiver);

impl Changes {
    fn new(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF)?;
        pipe::Receiver::from_owned_fd_unchecked(fd).map(Changes)
    }

    /// Waits for the next change and forgets all that happened so far.
    async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?;
        let mut buffer = [0_u8; 4096];
        loop {
            match self.0.try_read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
