//! Port-forwarding over WebSocket, in messages of `channel.k8s.io`: for each port two channels, one for its bytes and
//! one for what went wrong.

use super::channels::{Protocol, Said};
use super::forward_spdy::Connect;
use super::idle::{self, Idle};
use super::{patience, websocket};
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
        let given_up = gone.child_token();
        let forward = forward(port, channels, said, connect.clone());
        connections.spawn(given_up.clone().run_until_cancelled_owned(forward));
        inputs.push(Some(Input { said: input, given_up }));
    }
    let ears = Ears { protocol, inputs, ask: Box::new(websocket::asking(&queue)) };
    drop(queue);
    let reader = tokio::spawn(ears.listen(stream, idle.clone(), gone.clone()));
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = gone.cancelled() => {}
        () = idle.expired(idle::LIMIT) => {}
    }
    drop(connections);
    websocket::hang_up(writer, reader).await;
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

/// Where goes what the client says to a port.
struct Input {
    said: mpsc::Sender<Bytes>,
    given_up: CancellationToken,
}

/// Where goes what the client says.
struct Ears {
    protocol: Protocol,
    /// None once a port is told nothing more.
    inputs: Vec<Option<Input>>,
    /// Asks whether the client is still there.
    ask: Box<dyn Fn() + Send + Sync>,
}

impl Ears {
    async fn listen<S>(
        mut self,
        mut stream: SplitStream<WebSocketStream<S>>,
        idle: Idle,
        gone: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(message) = websocket::read(&mut stream, &idle).await {
            match self.protocol.decode(message) {
                Ok(Some(Said::Bytes(channel, bytes))) => self.hear(channel, Some(bytes)).await,
                Ok(Some(Said::End(channel))) => self.hear(channel, None).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "a port-forward is given up");
                    break;
                }
            }
        }
        gone.cancel();
    }

    async fn hear(&mut self, channel: u8, bytes: Option<Bytes>) {
        // Nothing is said on the channels for what went wrong.
        let input =
            if channel.is_multiple_of(2) { self.inputs.get_mut(usize::from(channel / 2)) } else { None };
        let Some(input) = input else { return };
        let (Some(open), Some(bytes)) = (&*input, bytes) else { return *input = None };
        match patience::wait(open.said.send(bytes), Some(patience::LIMIT), &self.ask).await {
            Some(Ok(())) => return,
            Some(Err(_)) => {}
            // The other ports wait for it.
            None => open.given_up.cancel(),
        }
        *input = None;
    }
}
