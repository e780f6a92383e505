//! WebSockets on connections that were upgraded.

use super::idle::{ASKING, Idle};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_util::task::AbortOnDropHandle;

/// Longest message, in bytes. Clients send tens of kilobytes at once.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How long the other side may take to hang up once all is said.
const FAREWELL: Duration = Duration::from_secs(5);

/// The connection under a WebSocket.
pub(super) type Io = TokioIo<Upgraded>;

/// Takes a connection over once the answer is sent.
pub(super) async fn accept(upgrade: OnUpgrade) -> Result<WebSocketStream<Io>, hyper::Error> {
    let io = TokioIo::new(upgrade.await?);
    Ok(over(io).await)
}

/// A WebSocket on a connection; the handshake is over.
pub(super) async fn over<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_BYTES)).max_frame_size(Some(MOST_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Sends what is queued, several messages at once if they wait; at the end says goodbye. Ends before, with false, when
/// the client is gone.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Message>,
    idle: Idle,
) -> bool {
    loop {
        match tokio::time::timeout(ASKING, queue.recv()).await {
            Ok(None) => break,
            Err(_) => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return false;
                }
                continue;
            }
            Ok(mut next) => {
                while let Some(message) = next {
                    if sink.feed(message).await.is_err() {
                        return false;
                    }
                    next = queue.try_recv().ok();
                }
            }
        }
        if sink.flush().await.is_err() {
            return false;
        }
        idle.touch();
    }
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(goodbye))).await.is_ok()
}

/// Asks whether the client is still there, while nothing is read from it. Holds the conversation open no longer than
/// others do.
pub(super) fn asking(queue: &mpsc::Sender<Message>) -> impl Fn() + use<> {
    let queue = queue.downgrade();
    move || {
        let ping = Message::Ping(Bytes::new());
        drop(queue.upgrade().map(|queue| queue.try_send(ping)));
    }
}

/// The next message that says something; None when the client is gone.
pub(super) async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    idle: &Idle,
) -> Option<Message> {
    loop {
        match stream.next().await? {
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(message @ (Message::Binary(_) | Message::Text(_))) => {
                idle.touch();
                return Some(message);
            }
            // Only an answer.
            Ok(Message::Pong(_)) => {}
            // Pings are answered below.
            Ok(_) => idle.touch(),
        }
    }
}

/// Ends a conversation once all is queued: what was sent last arrives, and then nothing more is read.
pub(super) async fn hang_up<W>(writer: JoinHandle<W>, reader: JoinHandle<()>) {
    let reader = AbortOnDropHandle::new(reader);
    farewell(async {
        let _ = writer.await;
        let _ = reader.await;
    })
    .await;
}

/// Waits until the client has hung up too, for a while: what was sent last arrives.
pub(super) async fn farewell<F: Future<Output = ()>>(hung_up: F) {
    let _ = tokio::time::timeout(FAREWELL, hung_up).await;
}
