//! Port-forwarding over WebSocket, in messages of `channel.k8s.io`: for each port two channels, one for its bytes and
//! one for what went wrong.

use super::channels::{Protocol, Said};
use super::forward_spdy::Connect;
use super::idle::{self, Idle};
use super::websocket;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Serves one connection to each port.
pub(super) async fn serve<S>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    ports: Vec<u16>,
    connect: Connect,
    stopping: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = socket.split();
    let (queue, queued) = mpsc::channel(4);
    let (idle, gone) = (Idle::new(), stopping.child_token());
    let (heard, lost) = (idle.clone(), gone.clone());
    let writer = tokio::spawn(async move {
        websocket::write(sink, queued, heard).await;
        lost.cancel();
    });
    let (mut inputs, mut connections) = (Vec::new(), JoinSet::new());
    for (index, port) in ports.into_iter().enumerate() {
        let (input, said) = mpsc::channel(4);
        let number = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
        // Each channel begins with its port.
        for channel in [number, number + 1] {
            let _ = queue.send(protocol.encode(channel, &port.to_le_bytes())).await;
        }
        let channels = Channels { protocol, number, queue: queue.clone() };
        connections.spawn(forward(port, channels, said, connect.clone()));
        inputs.push(Some(input));
    }
    drop(queue);
    let reader = tokio::spawn(listen(protocol, inputs, stream, idle.clone(), gone.clone()));
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = gone.cancelled() => {}
        () = idle.expired(idle::LIMIT) => {}
    }
    drop(connections);
    let abort = reader.abort_handle();
    websocket::farewell(async {
        let _ = writer.await;
        let _ = reader.await;
    })
    .await;
    abort.abort();
}

/// The two channels of a port.
struct Channels {
    protocol: Protocol,
    number: u8,
    queue: mpsc::Sender<Message>,
}

async fn forward(port: u16, channels: Channels, mut said: mpsc::Receiver<Bytes>, connect: Connect) {
    let Channels { protocol, number, queue } = channels;
    let connection = match connect(port).await {
        Ok(connection) => connection,
        Err(error) => {
            let _ = queue.send(protocol.encode(number + 1, error.to_string().as_bytes())).await;
            return;
        }
    };
    let (mut reading, mut writing) = tokio::io::split(connection);
    let inwards = async {
        while let Some(bytes) = said.recv().await {
            if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                break;
            }
        }
        let _ = writing.shutdown().await;
        // The end of the connection is the pod's to make.
        std::future::pending::<()>().await;
    };
    let outwards = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length) = reading.read(&mut buffer).await
            && length > 0
            && queue.send(protocol.encode(number, &buffer[..length])).await.is_ok()
        {}
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

async fn listen<S>(
    protocol: Protocol,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    mut stream: SplitStream<WebSocketStream<S>>,
    idle: Idle,
    gone: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = websocket::read(&mut stream, &idle).await {
        let (channel, bytes) = match protocol.decode(message) {
            Ok(Some(Said::Bytes(channel, bytes))) => (channel, Some(bytes)),
            Ok(Some(Said::End(channel))) => (channel, None),
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%error, "a port-forward is given up");
                break;
            }
        };
        // Nothing is said on the channels for what went wrong.
        let input = if channel % 2 == 0 { inputs.get_mut(usize::from(channel / 2)) } else { None };
        let Some(input) = input else { continue };
        let taken = match (bytes, &*input) {
            (Some(bytes), Some(open)) => open.send(bytes).await.is_ok(),
            _ => false,
        };
        if !taken {
            *input = None;
        }
    }
    gone.cancel();
}
