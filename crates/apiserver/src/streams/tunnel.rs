//! Bytes within the messages of a WebSocket (KEP-4006: `SPDY/3.1+portforward.k8s.io`).

use super::idle::Idle;
use super::{patience, websocket};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Bytes on their way in each direction.
const BUFFER: usize = 64 * 1024;

/// The bytes of all messages as one stream, both ways. Ends when either side hangs up.
pub(super) fn tunnel<S>(socket: WebSocketStream<S>, idle: Idle) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (outer, inner) = duplex(BUFFER);
    let (mut reading, mut writing) = tokio::io::split(inner);
    let (sink, mut stream) = socket.split();
    let (queue, queued) = mpsc::channel(4);
    let heard = idle.clone();
    let (gone, ask) = (CancellationToken::new(), websocket::asking(&queue));
    let lost = gone.clone();
    tokio::spawn(async move {
        if !websocket::write(sink, queued, idle).await {
            lost.cancel();
        }
    });
    let receive = async move {
        while let Some(message) = websocket::read(&mut stream, &heard).await {
            // Only binary messages carry anything.
            if let Message::Binary(bytes) = message
                && !matches!(patience::wait(writing.write_all(&bytes), None, &ask).await, Some(Ok(())))
            {
                // Nobody listens inside; the client may still have to read what it was sent.
                websocket::farewell(async { while websocket::read(&mut stream, &heard).await.is_some() {} })
                    .await;
                return;
            }
        }
        let _ = writing.shutdown().await;
    };
    let send = async move {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(length) = reading.read(&mut buffer).await
            && length > 0
            && queue.send(Message::binary(buffer[..length].to_vec())).await.is_ok()
        {}
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = async { tokio::join!(receive, send) } => {}
            () = gone.cancelled() => {}
        }
    });
    outer
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::SinkExt;
    use std::time::Duration;
    use tokio::time::Instant;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn bytes_pass_both_ways_whatever_the_messages() {
        let (near, far) = duplex(1024);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut inside = tunnel(websocket::over(far).await, Idle::new());
        for word in ["hel", "", "lo"] {
            client.send(Message::binary(word.as_bytes().to_vec())).await.unwrap();
        }
        let mut heard = [0; 5];
        inside.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        inside.write_all(b"world").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().into_data(), "world");
        drop(inside);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(Some(_))))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_ends_with_its_client_also_while_nobody_reads_it() {
        let (near, far) = duplex(1024);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut inside = tunnel(websocket::over(far).await, Idle::new());
        let began = Instant::now();
        let talk = async { while client.send(Message::binary(vec![0; 512])).await.is_ok() {} };
        tokio::time::timeout(Duration::from_millis(500), talk).await.unwrap_err();
        drop(client);
        while inside.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_stream_ends_with_its_client() {
        let (near, far) = duplex(1024);
        let mut inside = tunnel(websocket::over(far).await, Idle::new());
        drop(near);
        assert_eq!(inside.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
