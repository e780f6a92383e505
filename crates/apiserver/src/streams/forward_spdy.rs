//! Port-forwarding over SPDY/3.1 (`portforward.k8s.io`): for each connection two streams, one for its bytes and one for
//! what went wrong.

use super::idle::{self, Idle};
use super::options;
use super::patience;
use super::spdy::{Connection as Spdy, OPENING, Stream};
use super::{Connection, StreamError};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long what is left may take once one side has ended.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// Connects to a port of the pod.
pub(super) type Connect =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Connection>, StreamError>> + Send + Sync>;

/// The first of a connection's streams, waiting for the other.
struct Half {
    stream: Stream,
    since: Instant,
}

/// Serves every connection until the client is gone.
pub(super) async fn serve<S>(io: S, connect: Connect, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let idle = Idle::new();
    let mut spdy = Spdy::new(io, idle.clone(), Some(patience::LIMIT));
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = spdy.accept() => stream,
            Some(_) = connections.join_next() => continue,
            () = idle.expired(idle::LIMIT) => None,
            () = stopping.cancelled() => None,
        };
        let Some(stream) = stream else { break };
        expire(&mut halves).await;
        let Some((request, kind)) = request(&stream) else {
            stream.refuse().await;
            continue;
        };
        match halves.remove(&request) {
            Some(Half { stream: first, .. }) if is_pair(&first, &stream) => {
                let (data, error) = if kind == Kind::Data { (stream, first) } else { (first, stream) };
                connections.spawn(forward(data, error, connect.clone()));
            }
            Some(Half { stream: first, .. }) => {
                first.refuse().await;
                stream.refuse().await;
            }
            None => drop(halves.insert(request, Half { stream, since: Instant::now() })),
        }
    }
    drop(halves);
    drop(connections);
    spdy.close().await;
}

async fn expire(halves: &mut HashMap<String, Half>) {
    let old: Vec<String> =
        halves.iter().filter(|(_, half)| half.since.elapsed() > OPENING).map(|(id, _)| id.clone()).collect();
    for id in old {
        if let Some(half) = halves.remove(&id) {
            half.stream.refuse().await;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

fn kind(stream: &Stream) -> Option<Kind> {
    match stream.header("streamtype")? {
        "data" => Some(Kind::Data),
        "error" => Some(Kind::Error),
        _ => None,
    }
}

/// Which connection a stream is of, and which of its two. None if that is not said.
fn request(stream: &Stream) -> Option<(String, Kind)> {
    let kind = kind(stream)?;
    options::port(stream.header("port")?).ok()?;
    let request = match stream.header("requestid") {
        Some(request) => request.to_owned(),
        // The oldest clients open the stream for errors right before the one for bytes.
        None if kind == Kind::Error => format!("stream {}", stream.id),
        None => format!("stream {}", stream.id.checked_sub(2)?),
    };
    Some((request, kind))
}

fn is_pair(first: &Stream, second: &Stream) -> bool {
    kind(first) != kind(second) && first.header("port") == second.header("port")
}

/// One connection from its beginning to its end.
async fn forward(mut data: Stream, error: Stream, connect: Connect) {
    let port = data.header("port").and_then(|port| options::port(port).ok()).unwrap_or_default();
    match connect(port).await {
        Ok(connection) => exchange(&mut data, connection).await,
        Err(reason) => {
            error.output.send(Bytes::from(reason.to_string())).await;
        }
    }
    data.output.end().await;
    error.output.end().await;
}

async fn exchange(data: &mut Stream, connection: Box<dyn Connection>) {
    let (mut reading, mut writing) = tokio::io::split(connection);
    let Stream { input, output, .. } = data;
    let inwards = async {
        while let Some(bytes) = input.recv().await {
            if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                return;
            }
        }
        let _ = writing.shutdown().await;
    };
    let outwards = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length) = reading.read(&mut buffer).await
            && length > 0
            && output.send(Bytes::copy_from_slice(&buffer[..length])).await
        {}
    };
    tokio::pin!(inwards, outwards);
    tokio::select! {
        // The pod has ended the connection; what is left of the client's words it may still take.
        () = &mut outwards => {
            output.end().await;
            let _ = tokio::time::timeout(LEFT_OVER, inwards).await;
        }
        // The client has said all; the answer may take its time.
        () = &mut inwards => tokio::select! {
            () = outwards => {}
            () = output.given_up() => {}
        },
        () = output.given_up() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::spdy::Client;
    use super::*;
    use rstest::rstest;
    use tokio::io::duplex;

    /// A pod that repeats what it hears on port 7, hears nothing on port 9, and has no other port.
    fn connect() -> Connect {
        Arc::new(|port| {
            Box::pin(async move {
                if port == 9 {
                    let (near, far) = duplex(64);
                    tokio::spawn(async move {
                        let _far = far;
                        std::future::pending::<()>().await
                    });
                    return Ok(Box::new(near) as Box<dyn Connection>);
                }
                if port != 7 {
                    return Err(StreamError("refused".into()));
                }
                let (near, far) = duplex(64);
                tokio::spawn(async move {
                    let (mut reading, mut writing) = tokio::io::split(far);
                    let _ = tokio::io::copy(&mut reading, &mut writing).await;
                    writing.shutdown().await
                });
                Ok(Box::new(near) as Box<dyn Connection>)
            })
        })
    }

    fn client() -> Client {
        let (near, far) = duplex(4096);
        tokio::spawn(serve(far, connect(), CancellationToken::new()));
        Client::new(near)
    }

    async fn pair(client: &mut Client, port: &str, request: &str) -> (u32, u32) {
        let headers = |kind| [("streamType", kind), ("port", port), ("requestID", request)];
        let error = client.open(&headers("error")).await;
        client.say(error, b"", true).await;
        (error, client.open(&headers("data")).await)
    }

    #[tokio::test]
    async fn connections_side_by_side_do_not_mix() {
        let mut client = client();
        let mut pairs = Vec::new();
        for request in ["0", "1", "2"] {
            pairs.push(pair(&mut client, "7", request).await);
        }
        for round in 0..20 {
            for (error, data) in &pairs {
                client.say(*data, format!("{error} says {round};").as_bytes(), round == 19).await;
            }
            let last = pairs[2];
            client.until(|c| c.text(last.1).matches(';').count() > round).await;
        }
        for (error, data) in pairs {
            assert!(client.until(|c| c.ended(error) && c.ended(data)).await);
            let expected: String = (0..20).map(|round| format!("{error} says {round};")).collect();
            assert_eq!((client.text(data), client.text(error)), (expected, String::new()));
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_told_on_the_stream_for_errors() {
        let mut client = client();
        let (error, data) = pair(&mut client, "8", "0").await;
        assert!(client.until(|c| c.ended(error) && c.ended(data)).await);
        assert_eq!((client.text(error).as_str(), client.text(data).as_str()), ("refused", ""));
        // Others are not disturbed.
        let (_, data) = pair(&mut client, "7", "1").await;
        client.say(data, b"x", true).await;
        assert!(client.until(|c| c.ended(data)).await);
        assert_eq!(client.text(data), "x");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_pod_takes_nothing_is_given_up_for_the_sake_of_the_others() {
        let mut client = client();
        let (_, stuck) = pair(&mut client, "9", "0").await;
        let began = Instant::now();
        client.say(stuck, &vec![0; 4 << 20], false).await;
        let (_, data) = pair(&mut client, "7", "1").await;
        client.say(data, b"x", true).await;
        assert!(client.until(|c| c.ended(data)).await);
        assert_eq!((client.text(data).as_str(), client.refused.clone()), ("x", vec![stuck]));
        assert_eq!(began.elapsed().as_secs(), patience::LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_is_noticed_while_a_pod_takes_nothing() {
        let (near, far) = duplex(4096);
        let served = tokio::spawn(serve(far, connect(), CancellationToken::new()));
        let mut client = Client::new(near);
        let (_, stuck) = pair(&mut client, "9", "0").await;
        let began = Instant::now();
        let bytes = vec![0; 4 << 20];
        tokio::time::timeout(Duration::from_millis(500), client.say(stuck, &bytes, false)).await.unwrap_err();
        drop(client);
        served.await.unwrap();
        assert!(began.elapsed() < patience::LIMIT, "{:?}", began.elapsed());
    }

    #[rstest]
    #[case(&[("streamtype", "data")])]
    #[case(&[("streamtype", "data"), ("port", "0"), ("requestid", "1")])]
    #[case(&[("streamtype", "what"), ("port", "7"), ("requestid", "1")])]
    #[case(&[])]
    #[tokio::test]
    async fn a_stream_that_says_too_little_is_refused(#[case] headers: &[(&str, &str)]) {
        let mut client = client();
        let id = client.open(headers).await;
        assert!(client.until(|c| c.refused.contains(&id)).await);
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection() {
        let mut client = client();
        pair(&mut client, "7", "0").await;
        client.raw(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await;
        assert!(!client.until(|_| false).await);
    }
}
