//! Sessions over SPDY/3.1: a stream for each of the program's.

use super::idle::{self, Idle};
use super::remote_command::{Client, Listener, hold};
use super::spdy::{Connection, OPENING, Stream, StreamWriter};
use super::status::Verdict;
use super::{Session, StreamOptions, TerminalSize};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Longest description of a terminal's size, in bytes.
const MOST_SIZE: usize = 4096;

/// The protocols that are spoken, by their names, and their versions. Without a name it is the first one.
pub(super) const PROTOCOLS: [(&str, u8); 5] = [
    ("v4.channel.k8s.io", 4),
    ("v3.channel.k8s.io", 3),
    ("v2.channel.k8s.io", 2),
    ("channel.k8s.io", 1),
    ("", 1),
];

/// The streams of a session that a client has opened.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Serves one session. `begin` starts the program; `verdict` puts its exit code into words.
pub(super) async fn serve<S>(
    io: S,
    version: u8,
    options: StreamOptions,
    begin: impl Future<Output = Result<Session, Verdict>>,
    verdict: impl FnOnce(i32) -> Verdict,
    stopping: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let idle = Idle::new();
    let mut connection = Connection::new(io, idle.clone(), None);
    let opened = tokio::time::timeout(OPENING, open(&mut connection, version, options)).await;
    let Ok(Some(streams)) = opened else {
        tracing::debug!("a client did not open the streams of its session");
        return connection.close().await;
    };
    let gone = stopping.child_token();
    let watch = tokio::spawn(watch(connection.gone(), idle, gone.clone()));
    let _watch = AbortOnDropHandle::new(watch);
    let Streams { error, stdin, stdout, stderr, resize } = streams;
    let Some(error) = error else { return connection.close().await };
    let [out, err] = [stdout, stderr].map(|stream| stream.map(|stream| Arc::new(stream.output)));
    let client = Client {
        stdin: stdin.map(|stream| stream.input),
        resize: resize.map(|stream| sizes(stream.input)),
        stdout: out.as_ref().map(tell),
        stderr: err.as_ref().map(tell),
        gone,
    };
    let verdict = hold(begin, verdict, client).await;
    for stream in [&out, &err].into_iter().flatten() {
        stream.end().await;
    }
    if let Some(said) = verdict.and_then(|verdict| verdict.said(version)) {
        error.output.send(said).await;
    }
    error.output.end().await;
    drop((out, err, error));
    connection.close().await;
}

/// Waits for every stream that such a session has. None if the client went away.
async fn open(connection: &mut Connection, version: u8, options: StreamOptions) -> Option<Streams> {
    let mut streams = Streams::default();
    let resizes = options.tty && version >= 3;
    let wanted = [true, options.stdin, options.stdout, options.stderr, resizes];
    let mut missing = wanted.iter().filter(|wanted| **wanted).count();
    while missing > 0 {
        let stream = connection.accept().await?;
        let place = match stream.header("streamtype") {
            Some("error") => &mut streams.error,
            Some("stdin") if options.stdin => &mut streams.stdin,
            Some("stdout") if options.stdout => &mut streams.stdout,
            Some("stderr") if options.stderr => &mut streams.stderr,
            Some("resize") if resizes => &mut streams.resize,
            _ => {
                stream.refuse().await;
                continue;
            }
        };
        if place.is_some() {
            stream.refuse().await;
            continue;
        }
        *place = Some(stream);
        missing -= 1;
    }
    Some(streams)
}

/// Notices that the client is gone, or silent.
async fn watch(client: CancellationToken, idle: Idle, gone: CancellationToken) {
    tokio::select! {
        () = client.cancelled() => {}
        () = idle.expired(idle::LIMIT) => {}
    }
    gone.cancel();
}

fn tell(stream: &Arc<StreamWriter>) -> Box<dyn Listener> {
    Box::new(stream.clone())
}

#[async_trait]
impl Listener for Arc<StreamWriter> {
    async fn tell(&self, bytes: Bytes) -> bool {
        self.send(bytes).await
    }
}

/// Reads sizes, which follow one another as JSON.
fn sizes(mut input: mpsc::Receiver<Bytes>) -> mpsc::Receiver<TerminalSize> {
    let (sender, sizes) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut received = Vec::new();
        while let Some(bytes) = input.recv().await {
            received.extend_from_slice(&bytes);
            for size in take_sizes(&mut received) {
                if sender.send(size).await.is_err() {
                    return;
                }
            }
            if received.len() > MOST_SIZE {
                return;
            }
        }
    });
    sizes
}

/// Takes the sizes that are complete off what was received.
fn take_sizes(received: &mut Vec<u8>) -> Vec<TerminalSize> {
    let mut stream = serde_json::Deserializer::from_slice(received).into_iter::<TerminalSize>();
    let (mut sizes, mut used) = (Vec::new(), 0);
    while let Some(Ok(size)) = stream.next() {
        sizes.push(size);
        used = stream.byte_offset();
    }
    received.drain(..used);
    sizes
}

#[cfg(test)]
mod tests {
    use super::super::spdy::Client;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const OPTIONS: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };

    /// A program that repeats its input, and ends with it and the code 3.
    async fn echo() -> Result<Session, Verdict> {
        let (stdin, mut input) = duplex(64);
        let (mut output, stdout) = duplex(64);
        let end = tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = input.read(&mut buffer).await {
                output.write_all(&buffer[..length]).await.unwrap();
            }
            3
        });
        Ok(Session {
            stdin: Some(Box::pin(stdin)),
            stdout: Some(Box::pin(stdout)),
            stderr: None,
            resize: None,
            end: Box::pin(async move { Ok(end.await.unwrap()) }),
        })
    }

    #[rstest::rstest]
    #[case(4, r#""reason":"NonZeroExitCode""#)]
    #[case(1, "command terminated with non-zero exit code: ")]
    #[tokio::test]
    async fn a_session_has_a_stream_for_each_of_the_programs(#[case] version: u8, #[case] told: &str) {
        let (near, far) = duplex(4096);
        let verdict = |code| Verdict::exit(&["echo".into()], code);
        tokio::spawn(serve(far, version, OPTIONS, echo(), verdict, CancellationToken::new()));
        let mut client = Client::new(near);
        let mut ids = Vec::new();
        // One that is not asked for, and one twice.
        for kind in ["stderr", "error", "error", "stdin", "stdout", "resize"] {
            if kind != "resize" || version >= 3 {
                ids.push(client.open(&[("streamType", kind)]).await);
            }
        }
        let (refused, error, stdin, stdout) = ([ids[0], ids[2]], ids[1], ids[3], ids[4]);
        client.say(stdin, b"hello ", false).await;
        client.say(stdin, b"world", true).await;
        assert!(client.until(|c| c.ended(error) && c.ended(stdout)).await);
        assert_eq!(client.text(stdout), "hello world");
        assert!(client.text(error).contains(told), "{}", client.text(error));
        assert_eq!(client.refused, refused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_opens_nothing_is_hung_up_on() {
        let (near, far) = duplex(4096);
        let verdict = |_| Verdict::success();
        tokio::spawn(serve(far, 4, OPTIONS, echo(), verdict, CancellationToken::new()));
        let mut client = Client::new(near);
        client.open(&[("streamType", "error")]).await;
        assert!(!client.until(|_| false).await);
    }

    #[test]
    fn sizes_are_taken_once_they_are_complete() {
        let mut received = br#"{"Width":80,"Height":24}
{"Width":100,"Hei"#
            .to_vec();
        assert_eq!(take_sizes(&mut received), [TerminalSize { width: 80, height: 24 }]);
        received.extend_from_slice(br#"ght":30}"#);
        assert_eq!(take_sizes(&mut received), [TerminalSize { width: 100, height: 30 }]);
        assert!(received.is_empty());
    }
}
