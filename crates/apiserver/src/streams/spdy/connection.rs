//! The streams of one connection: a task that reads, a task that writes, and what they share.

use super::frame::{Decoder, Encoder, Frame, FrameError, Reason, data_head, go_away, ping, reset};
use super::headers::Headers;
use crate::streams::idle::{ASKING, Idle};
use crate::streams::patience;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Streams of a connection at once.
const MOST_STREAMS: usize = 512;
/// Bytes read at once, and most bytes in one data frame that is written.
const PIECE: usize = 16 * 1024;
/// Pieces of one stream that wait to be taken, 256 KiB; then the whole connection waits, for a while. With the most
/// streams a client can make the server keep 128 MiB.
const WAITING: usize = 16;
/// A question of ours, by its number: servers number theirs evenly, and Go's clients hang up at 0.
const ASKED: u32 = 2;
/// How long the other side may take to hang up once all is said.
const FAREWELL: Duration = Duration::from_secs(5);

/// A stream the client has opened. Dropping it gives up what the client still says on it.
pub(crate) struct Stream {
    /// What it is for.
    pub(crate) headers: Headers,
    /// Its number.
    pub(crate) id: u32,
    /// What the client says; ends when it has said all.
    pub(crate) input: mpsc::Receiver<Bytes>,
    /// Where the server answers.
    pub(crate) output: StreamWriter,
}

impl Stream {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Gives it up, saying so.
    pub(crate) async fn refuse(self) {
        let _ = self.output.queue.send(Said::Reset(self.id, Reason::Protocol)).await;
    }
}

/// Where the server answers on a stream.
pub(crate) struct StreamWriter {
    id: u32,
    queue: mpsc::Sender<Said>,
    given_up: CancellationToken,
    open: Shared,
}

impl StreamWriter {
    /// Says something; false if nobody listens any more.
    pub(crate) async fn send(&self, bytes: Bytes) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            if self.given_up.is_cancelled()
                || self.queue.send(Said::Data(self.id, piece, false)).await.is_err()
            {
                return false;
            }
        }
        true
    }

    /// Says that this was all.
    pub(crate) async fn end(&self) {
        if !self.given_up.is_cancelled() {
            let _ = self.queue.send(Said::Data(self.id, Bytes::new(), true)).await;
        }
    }

    /// Waits until the client gives the stream up.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let over = |stream: &Open| stream.input.as_ref().is_none_or(mpsc::Sender::is_closed);
        if open.get(&self.id).is_some_and(over) {
            open.remove(&self.id);
        }
    }
}

type Shared = Arc<Mutex<HashMap<u32, Open>>>;

/// A stream as the reading side knows it.
struct Open {
    /// None once the client has said all.
    input: Option<mpsc::Sender<Bytes>>,
    given_up: CancellationToken,
}

enum Said {
    Accept(u32),
    Data(u32, Bytes, bool),
    Reset(u32, Reason),
    Ping(u32),
    GoAway(u32),
}

/// A connection whose client opens streams.
pub(crate) struct Connection {
    streams: mpsc::Receiver<Stream>,
    queue: mpsc::Sender<Said>,
    gone: CancellationToken,
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
}

impl Connection {
    /// Begins to read and write. A stream on which nothing is taken for longer than `limit` is given up; None: it may
    /// keep the others waiting. To be called within a tokio runtime.
    pub(crate) fn new<S>(io: S, idle: Idle, limit: Option<Duration>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reading, writing) = tokio::io::split(io);
        let (opened, streams) = mpsc::channel(16);
        let (queue, queued) = mpsc::channel(16);
        let gone = CancellationToken::new();
        let reader = Reader { opened, queue: queue.clone(), open: Shared::default(), latest: 0, limit };
        let (over, heard) = (gone.clone(), idle.clone());
        let reader = tokio::spawn(async move {
            tokio::select! {
                () = reader.run(reading, heard) => {}
                // Nothing can be said to the client any more.
                () = over.cancelled() => {}
            }
            over.cancel();
        });
        let over = gone.clone();
        let writer = tokio::spawn(async move {
            if let Err(error) = write(writing, queued, idle).await {
                tracing::debug!(%error, "writing to a SPDY connection");
            }
            over.cancel();
        });
        let [reader, writer] = [reader, writer].map(AbortOnDropHandle::new);
        Self { streams, queue, gone, reader, writer }
    }

    /// The next stream the client opens; None when it is gone.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Cancelled when the client is gone.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Lets what was said arrive, and the client hang up.
    pub(crate) async fn close(self) {
        let Self { mut streams, queue, gone, reader, writer } = self;
        let _ = queue.send(Said::GoAway(0)).await;
        drop(queue);
        let refused = async { while streams.recv().await.is_some() {} };
        let over = async {
            gone.cancelled().await;
        };
        tokio::select! {
            () = over => {}
            () = refused => {}
            () = tokio::time::sleep(FAREWELL) => {}
        }
        drop(reader);
        // What is queued is written, unless nobody takes it.
        let _ = tokio::time::timeout(FAREWELL, writer).await;
    }
}

struct Reader {
    opened: mpsc::Sender<Stream>,
    queue: mpsc::Sender<Said>,
    open: Shared,
    latest: u32,
    /// How long a stream may take nothing.
    limit: Option<Duration>,
}

impl Reader {
    async fn run<R: AsyncRead>(mut self, mut io: ReadHalf<R>, idle: Idle) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; PIECE];
        loop {
            match io.read(&mut buffer).await {
                Ok(length) if length > 0 => decoder.push(&buffer[..length]),
                _ => return,
            }
            if let Err(error) = self.take(&mut decoder, &idle).await {
                tracing::debug!(%error, "a SPDY connection is given up");
                let _ = self.queue.send(Said::GoAway(self.latest)).await;
                return;
            }
        }
    }

    async fn take(&mut self, decoder: &mut Decoder, idle: &Idle) -> Result<(), FrameError> {
        while let Some(frame) = decoder.next()? {
            match frame {
                // Only an answer.
                Frame::Ping { id } if id % 2 == 0 => continue,
                _ => idle.touch(),
            }
            match frame {
                Frame::Open { id, last, headers } => self.begin(id, last, headers).await,
                Frame::Data { id, last, bytes } => self.data(id, last, bytes).await,
                Frame::Headers { id, last: true } => self.data(id, true, Bytes::new()).await,
                Frame::Headers { .. } | Frame::GoAway => {}
                Frame::Reset { id } => {
                    if let Some(stream) = self.open.lock().remove(&id) {
                        stream.given_up.cancel();
                    }
                }
                Frame::Ping { id } => {
                    let _ = self.queue.send(Said::Ping(id)).await;
                }
            }
        }
        Ok(())
    }

    async fn begin(&mut self, id: u32, last: bool, headers: Headers) {
        // Clients number theirs oddly and upwards.
        let sound = id % 2 == 1 && id > self.latest && self.open.lock().len() < MOST_STREAMS;
        if !sound {
            let _ = self.queue.send(Said::Reset(id, Reason::Refused)).await;
            return;
        }
        self.latest = id;
        let (sender, input) = mpsc::channel(WAITING);
        let given_up = CancellationToken::new();
        let open = Open { input: (!last).then_some(sender), given_up: given_up.clone() };
        self.open.lock().insert(id, open);
        let output = StreamWriter { id, queue: self.queue.clone(), given_up, open: self.open.clone() };
        if self.queue.send(Said::Accept(id)).await.is_ok() {
            // Nobody takes it if the conversation is over.
            let _ = self.opened.send(Stream { headers, id, input, output }).await;
        }
    }

    async fn data(&mut self, id: u32, last: bool, bytes: Bytes) {
        let input = self.open.lock().get(&id).and_then(|stream| stream.input.clone());
        // On a stream that is over it is left out.
        if let Some(input) = input
            && !bytes.is_empty()
        {
            let queue = &self.queue;
            let ask = || drop(queue.try_send(Said::Ping(ASKED)));
            if patience::wait(input.send(bytes), self.limit, ask).await.is_none() {
                return self.give_up(id).await;
            }
        }
        if last && let Some(stream) = self.open.lock().get_mut(&id) {
            stream.input = None;
        }
    }

    /// Gives up a stream nobody takes anything from.
    async fn give_up(&mut self, id: u32) {
        tracing::debug!(id, "a stream is reset: nobody takes what is said on it");
        if let Some(stream) = self.open.lock().remove(&id) {
            stream.given_up.cancel();
        }
        let _ = self.queue.send(Said::Reset(id, Reason::Cancelled)).await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for (_, stream) in self.open.lock().drain() {
            stream.given_up.cancel();
        }
    }
}

/// Writes what is queued, several frames at once if they wait; asks whether the client is there when nothing is.
async fn write<W: AsyncWrite>(
    mut io: WriteHalf<W>,
    mut queued: mpsc::Receiver<Said>,
    idle: Idle,
) -> io::Result<()> {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for asked in (ASKED..u32::MAX).step_by(2).cycle() {
        let silent = tokio::time::timeout(ASKING, queued.recv()).await;
        let is_said = silent.is_ok();
        let mut next = match silent {
            Ok(None) => break,
            Ok(said) => said,
            Err(_) => Some(Said::Ping(asked)),
        };
        while let Some(said) = next {
            match said {
                Said::Accept(id) => bytes.extend(encoder.accept(id).map_err(io::Error::other)?),
                Said::Data(id, data, last) => {
                    bytes.extend_from_slice(&data_head(id, last, data.len()));
                    bytes.extend_from_slice(&data);
                }
                Said::Reset(id, reason) => bytes.extend(reset(id, reason)),
                Said::Ping(id) => bytes.extend(ping(id)),
                Said::GoAway(latest) => bytes.extend(go_away(latest)),
            }
            next = queued.try_recv().ok();
        }
        io.write_all(&bytes).await?;
        io.flush().await?;
        if is_said {
            idle.touch();
        }
        bytes.clear();
    }
    io.shutdown().await
}
