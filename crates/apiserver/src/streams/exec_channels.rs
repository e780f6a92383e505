//! Sessions over WebSocket, in messages of `channel.k8s.io`.

use super::channels::{ERROR, Protocol, RESIZE, STDERR, STDIN, STDOUT, Said};
use super::idle::{self, Idle};
use super::patience;
use super::remote_command::{Client, Listener, hold};
use super::status::Verdict;
use super::{Session, StreamOptions, TerminalSize, websocket};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SplitStream;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// How long a client is told nothing. Without the fix of kubernetes#131203 client-go begins to read while it still makes
/// its streams, and throws away, with the words `Unknown stream id 1`, what comes for one that is not made yet.
const HEAD_START: Duration = Duration::from_millis(10);

/// Serves one session. `begin` starts the program; `verdict` puts its exit code into words.
pub(super) async fn serve<S>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    options: StreamOptions,
    begin: impl Future<Output = Result<Session, Verdict>>,
    verdict: impl FnOnce(i32) -> Verdict,
    stopping: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = socket.split();
    let (queue, queued) = mpsc::channel(4);
    let (idle, gone) = (Idle::new(), stopping.child_token());
    let (heard, lost) = (idle.clone(), gone.clone());
    let writer = tokio::spawn(async move {
        tokio::time::sleep(HEAD_START).await;
        websocket::write(sink, queued, heard).await;
        lost.cancel();
    });
    let (stdin, input) = mpsc::channel(4);
    let (resize, sizes) = mpsc::channel(4);
    let ears = Ears {
        protocol,
        stdin: options.stdin.then_some(stdin),
        resize: options.tty.then_some(resize),
        ask: Box::new(websocket::asking(&queue)),
    };
    let reader = tokio::spawn(listen(ears, stream, idle.clone(), gone.clone()));
    // The first thing a client hears, so that it knows that there is somebody.
    let first = [(options.stdout, STDOUT), (options.stderr, STDERR), (true, ERROR)];
    let first = first.iter().find(|(wanted, _)| *wanted).map_or(ERROR, |(_, channel)| *channel);
    let _ = queue.send(protocol.encode(first, &[])).await;
    let channel = |wanted: bool, number: u8| {
        wanted.then(|| Box::new(Channel { protocol, number, queue: queue.clone() }) as Box<dyn Listener>)
    };
    let client = Client {
        stdin: options.stdin.then_some(input),
        resize: options.tty.then_some(sizes),
        stdout: channel(options.stdout, STDOUT),
        stderr: channel(options.stderr, STDERR),
        gone: gone.clone(),
    };
    let silence = async {
        idle.expired(idle::LIMIT).await;
        gone.cancel();
        std::future::pending().await
    };
    let verdict = tokio::select! {
        verdict = hold(begin, verdict, client) => verdict,
        never = silence => never,
    };
    if let Some(said) = verdict.and_then(|verdict| verdict.said(protocol.version)) {
        let _ = queue.send(protocol.encode(ERROR, &said)).await;
    }
    drop(queue);
    websocket::hang_up(writer, reader).await;
}

/// Where a program's output goes.
struct Channel {
    protocol: Protocol,
    number: u8,
    queue: mpsc::Sender<Message>,
}

#[async_trait]
impl Listener for Channel {
    async fn tell(&self, bytes: Bytes) -> bool {
        self.queue.send(self.protocol.encode(self.number, &bytes)).await.is_ok()
    }
}

/// Where goes what the client says.
struct Ears {
    protocol: Protocol,
    stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
    /// Asks whether the client is still there.
    ask: Box<dyn Fn() + Send + Sync>,
}

async fn listen<S>(
    mut ears: Ears,
    mut stream: SplitStream<WebSocketStream<S>>,
    idle: Idle,
    gone: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = websocket::read(&mut stream, &idle).await {
        match ears.protocol.decode(message) {
            Ok(said) => ears.hear(said).await,
            Err(error) => {
                tracing::debug!(%error, "a session is given up");
                break;
            }
        }
    }
    gone.cancel();
}

impl Ears {
    async fn hear(&mut self, said: Option<Said>) {
        match said {
            Some(Said::Bytes(STDIN, bytes)) if !bytes.is_empty() => {
                // What the program does not take any more is left out.
                if let Some(stdin) = &self.stdin
                    && !matches!(patience::wait(stdin.send(bytes), None, &self.ask).await, Some(Ok(())))
                {
                    self.stdin = None;
                }
            }
            Some(Said::End(STDIN)) => self.stdin = None,
            Some(Said::Bytes(RESIZE, bytes)) => {
                if let (Some(resize), Ok(size)) = (&self.resize, serde_json::from_slice(&bytes)) {
                    let _ = resize.send(size).await;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::SinkExt;
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    const OPTIONS: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: false, tty: false };

    /// A program that repeats its input, and ends with it and the code 3.
    async fn echo() -> Result<Session, Verdict> {
        let (stdin, mut input) = duplex(64);
        let (mut output, stdout) = duplex(64);
        let end = tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = input.read(&mut buffer).await {
                if output.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
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

    /// What the client hears on the channels for output and for errors, until the server closes.
    async fn heard(
        client: &mut WebSocketStream<tokio::io::DuplexStream>,
        protocol: Protocol,
    ) -> (String, String, bool) {
        let (mut out, mut error) = (Vec::new(), Vec::new());
        while let Some(Ok(message)) = client.next().await {
            if let Message::Close(frame) = &message {
                let normal = frame.as_ref().is_some_and(|frame| u16::from(frame.code) == 1000);
                return (String::from_utf8(out).unwrap(), String::from_utf8(error).unwrap(), normal);
            }
            match protocol.decode(message).unwrap() {
                Some(Said::Bytes(STDOUT, bytes)) => out.extend_from_slice(&bytes),
                Some(Said::Bytes(ERROR, bytes)) => error.extend_from_slice(&bytes),
                _ => {}
            }
        }
        panic!("the server hung up without a word");
    }

    async fn client(protocol: Protocol) -> WebSocketStream<tokio::io::DuplexStream> {
        let (near, far) = duplex(4096);
        let socket = websocket::over(far).await;
        let verdict = |code| Verdict::exit(&["echo".into()], code);
        tokio::spawn(serve(socket, protocol, OPTIONS, echo(), verdict, CancellationToken::new()));
        WebSocketStream::from_raw_socket(near, Role::Client, None).await
    }

    #[tokio::test]
    async fn input_output_and_the_exit_code_over_version_5() {
        let protocol = Protocol::named("v5.channel.k8s.io").unwrap();
        let mut client = client(protocol).await;
        for word in ["hello ", "world"] {
            client.send(protocol.encode(STDIN, word.as_bytes())).await.unwrap();
        }
        client.send(Message::binary(vec![255, STDIN])).await.unwrap();
        let (out, error, normal) = heard(&mut client, protocol).await;
        assert_eq!((out.as_str(), normal), ("hello world", true));
        assert!(error.contains(r#""reason":"NonZeroExitCode""#), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_time_to_make_its_streams() {
        let protocol = Protocol::named("v5.channel.k8s.io").unwrap();
        let began = tokio::time::Instant::now();
        let mut client = client(protocol).await;
        client.next().await.unwrap().unwrap();
        assert!(began.elapsed() >= HEAD_START, "{:?}", began.elapsed());
    }

    #[rstest]
    #[case("v4.base64.channel.k8s.io")]
    #[case("base64.channel.k8s.io")]
    #[case("")]
    #[tokio::test]
    async fn older_protocols_hear_the_same_output(#[case] name: &str) {
        let protocol = Protocol::named(name).unwrap();
        let mut client = client(protocol).await;
        client.send(protocol.encode(STDIN, b"hello")).await.unwrap();
        let mut out = Vec::new();
        while out.len() < 5 {
            let message = client.next().await.unwrap().unwrap();
            if let Some(Said::Bytes(STDOUT, bytes)) = protocol.decode(message).unwrap() {
                out.extend_from_slice(&bytes);
            }
        }
        assert_eq!(out, b"hello");
    }
}
