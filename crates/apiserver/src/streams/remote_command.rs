//! A session between a client and a program, whatever the protocol between them.

use super::status::Verdict;
use super::{Input, Output, Resize, Session, StreamError, TerminalSize};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes of output passed on at once, at most.
const PIECE: usize = 32 * 1024;
/// How long a command whose client is gone may take to end by itself, its streams being closed; then it is killed.
const HANGING_UP: Duration = Duration::from_secs(2);

/// The client's ends of a session.
pub(super) struct Client {
    /// What it says; ends when it has said all.
    pub(super) stdin: Option<mpsc::Receiver<Bytes>>,
    /// Sizes of its terminal.
    pub(super) resize: Option<mpsc::Receiver<TerminalSize>>,
    /// Where output goes.
    pub(super) stdout: Option<Box<dyn Listener>>,
    /// Where errors go.
    pub(super) stderr: Option<Box<dyn Listener>>,
    /// Cancelled when it is gone, or says nothing for too long.
    pub(super) gone: CancellationToken,
}

/// Somebody who is told what a program writes.
#[async_trait]
pub(super) trait Listener: Send {
    /// False if nobody listens any more.
    async fn tell(&self, bytes: Bytes) -> bool;
}

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// The program ended, and all it wrote was passed on.
    Exit(i32),
    /// What happened to the program is not known.
    Lost(StreamError),
    /// The client went away.
    Gone,
}

/// Holds a session from its beginning to its end: `begin` starts the program, `verdict` puts its exit code into words.
/// None if nobody is left who could be told.
pub(super) async fn hold(
    begin: impl Future<Output = Result<Session, Verdict>>,
    verdict: impl FnOnce(i32) -> Verdict,
    client: Client,
) -> Option<Verdict> {
    match begin.await {
        Ok(session) => match converse(session, client).await {
            Ended::Exit(code) => Some(verdict(code)),
            Ended::Lost(error) => Some(Verdict::internal(&error.to_string())),
            Ended::Gone => None,
        },
        Err(verdict) => Some(verdict),
    }
}

/// Passes everything on until the program has ended and its output has too, or the client is gone.
async fn converse(session: Session, client: Client) -> Ended {
    let Session { stdin, stdout, stderr, resize, mut end } = session;
    let gone = client.gone;
    let (mut exit, mut told) = (None, None);
    {
        let outputs = async { tokio::join!(tell(stdout, client.stdout), tell(stderr, client.stderr)) };
        let inputs = async { tokio::join!(feed(stdin, client.stdin), adjust(resize, client.resize)) };
        tokio::pin!(outputs, inputs);
        let mut listening = true;
        while exit.is_none() || told.is_none() {
            tokio::select! {
                ended = &mut end, if exit.is_none() => match ended {
                    Ok(code) => exit = Some(code),
                    Err(error) => return Ended::Lost(error),
                },
                heard = &mut outputs, if told.is_none() => match heard {
                    (true, true) => told = Some(()),
                    _ => break,
                },
                _ = &mut inputs, if listening => listening = false,
                () = gone.cancelled() => break,
            }
        }
        if let (Some(code), Some(())) = (exit, told) {
            return Ended::Exit(code);
        }
    }
    // Its streams are closed by now; a terminal has hung up.
    if exit.is_none() {
        let _ = tokio::time::timeout(HANGING_UP, end).await;
    }
    Ended::Gone
}

/// Passes output on to its end. False if nobody listens any more.
async fn tell(output: Option<Output>, listener: Option<Box<dyn Listener>>) -> bool {
    let Some(mut output) = output else { return true };
    let mut buffer = vec![0; PIECE];
    loop {
        match output.read(&mut buffer).await {
            Ok(length) if length > 0 => {
                let Some(listener) = &listener else { continue };
                if !listener.tell(Bytes::copy_from_slice(&buffer[..length])).await {
                    return false;
                }
            }
            _ => return true,
        }
    }
}

/// Passes input on until there is no more, or the program takes no more.
async fn feed(input: Option<Input>, client: Option<mpsc::Receiver<Bytes>>) {
    let Some(mut client) = client else { return };
    let Some(mut input) = input else { return };
    while let Some(bytes) = client.recv().await {
        if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
    let _ = input.shutdown().await;
}

async fn adjust(resize: Option<Resize>, sizes: Option<mpsc::Receiver<TerminalSize>>) {
    let (Some(resize), Some(mut sizes)) = (resize, sizes) else { return };
    while let Some(size) = sizes.recv().await {
        resize(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    struct Told(mpsc::UnboundedSender<Bytes>);

    #[async_trait]
    impl Listener for Told {
        async fn tell(&self, bytes: Bytes) -> bool {
            self.0.send(bytes).is_ok()
        }
    }

    fn client(gone: &CancellationToken) -> (Client, mpsc::Sender<Bytes>, mpsc::UnboundedReceiver<Bytes>) {
        let (stdin, input) = mpsc::channel(1);
        let (stdout, told) = mpsc::unbounded_channel();
        let client = Client {
            stdin: Some(input),
            resize: None,
            stdout: Some(Box::new(Told(stdout))),
            stderr: None,
            gone: gone.clone(),
        };
        (client, stdin, told)
    }

    /// A program that ends with a code once its input has ended, having repeated it.
    fn echo() -> Session {
        let (stdin, mut input) = duplex(8);
        let (mut output, stdout) = duplex(8);
        let end = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut input, &mut output).await;
            7
        });
        Session {
            stdin: Some(Box::pin(stdin)),
            stdout: Some(Box::pin(stdout)),
            stderr: None,
            resize: None,
            end: Box::pin(async move { Ok(end.await.unwrap()) }),
        }
    }

    #[tokio::test]
    async fn all_that_was_written_arrives_before_the_exit_code() {
        let (client, stdin, mut told) = client(&CancellationToken::new());
        let session = tokio::spawn(converse(echo(), client));
        for _ in 0..100 {
            stdin.send(Bytes::from_static(b"0123456789")).await.unwrap();
        }
        drop(stdin);
        assert!(matches!(session.await.unwrap(), Ended::Exit(7)));
        let mut length = 0;
        while let Some(bytes) = told.recv().await {
            length += bytes.len();
        }
        assert_eq!(length, 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_whose_client_is_gone_may_end_by_itself_and_then_is_dropped() {
        let gone = CancellationToken::new();
        let (client_, _stdin, _told) = client(&gone);
        let ended = tokio::spawn(converse(echo(), client_));
        gone.cancel();
        assert!(matches!(ended.await.unwrap(), Ended::Gone));

        let (alive, dropped) = tokio::sync::oneshot::channel::<()>();
        let deaf = Session {
            end: Box::pin(async move {
                let _alive = alive;
                std::future::pending().await
            }),
            ..echo()
        };
        let began = tokio::time::Instant::now();
        let (client_, _stdin, _told) = client(&gone);
        assert!(matches!(converse(deaf, client_).await, Ended::Gone));
        assert!(dropped.await.is_err());
        assert_eq!(began.elapsed(), HANGING_UP);
    }
}
