//! Probes by gRPC's health checking protocol: `grpc.health.v1.Health/Check` over HTTP/2.
//!
//! A request of one string and an answer of one number need no gRPC library: hyper speaks HTTP/2, and the two
//! messages are a few bytes (`https://github.com/grpc/grpc/blob/master/doc/health-checking.md`,
//! `PROTOCOL-HTTP2.md` beside it for framing, trailers and `grpc-timeout`).

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Most bytes of an answer that are read; a right one has seven.
const ANSWER_LIMIT: usize = 4096;
/// The status of a call to a method that is not there.
const UNIMPLEMENTED: u32 = 12;
/// The statuses of gRPC, by number, as Go prints them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Asks whether `service` (empty: the server as a whole) is serving, within `timeout`.
///
/// # Errors
/// Why it is not known to be, worded as upstream's prober words it.
pub(crate) async fn probe(target: SocketAddr, service: &str, timeout: Duration) -> Result<(), String> {
    let began = tokio::time::Instant::now();
    let stream = match tokio::time::timeout(timeout, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => {
            // gRPC's dialer goes on trying until the deadline, so a refusal and silence look the same to it.
            let after = timeout.as_secs();
            return Err(format!(
                "timeout: failed to connect service \"{target}\" within {after}s: context deadline exceeded"
            ));
        }
    };
    let left = timeout.saturating_sub(began.elapsed());
    let answer = tokio::time::timeout(left, check(stream, target, service, timeout)).await;
    let answer = answer.unwrap_or_else(|_| {
        Err(format!("timeout: health rpc did not complete within {}s", timeout.as_secs()))
    });
    match answer? {
        Some(1) => Ok(()),
        status => Err(format!("service unhealthy (responded with {:?})", name(status))),
    }
}

/// The status as the answer has it; None: it says nothing, which means `UNKNOWN`.
async fn check(
    stream: TcpStream,
    target: SocketAddr,
    service: &str,
    timeout: Duration,
) -> Result<Option<u64>, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "error: health rpc probe failed: rpc error: code = Unavailable desc = connection error: desc = \"{error}\""
        )
    };
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let drive = Driver(tokio::spawn(async move {
        // Its end is told by the request that needs it.
        let _ = connection.await;
    }));
    let request = http::Request::post(format!("http://{target}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.33")
        .header("grpc-timeout", format!("{}m", timeout.as_millis()))
        .body(Full::new(message(service)))
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let (parts, body) = answer.into_parts();
    if parts.status != http::StatusCode::OK {
        let code = parts.status.as_u16();
        return Err(format!(
            "error: health rpc probe failed: rpc error: code = Unknown desc = unexpected HTTP status code received \
             from server: {code}"
        ));
    }
    let collected = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| failed(&error))?;
    // An answer without a body has its status among the headers.
    verdict(collected.trailers().unwrap_or(&parts.headers))?;
    drop(drive);
    Ok(status(&collected.to_bytes()))
}

/// Ends a connection with the probe that opened it.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `grpc-status` and `grpc-message`.
fn verdict(trailers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let code: u32 = text("grpc-status").and_then(|code| code.parse().ok()).unwrap_or(2);
    let message = text("grpc-message").unwrap_or_default();
    match code {
        0 => Ok(()),
        UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        code => {
            let name = CODES.get(code as usize).copied().unwrap_or("Unknown");
            Err(format!("error: health rpc probe failed: rpc error: code = {name} desc = {message}"))
        }
    }
}

/// `HealthCheckRequest { service }` in gRPC's framing: not compressed, and the length.
fn message(service: &str) -> Bytes {
    let mut fields = BytesMut::new();
    if !service.is_empty() {
        // Field 1, a string.
        fields.put_u8(0x0a);
        put_varint(&mut fields, service.len());
        fields.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(fields.len()).unwrap_or(u32::MAX));
    message.put(fields);
    message.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Field 1 of a `HealthCheckResponse` in gRPC's framing. Fields it may get later are passed over.
fn status(framed: &[u8]) -> Option<u64> {
    let mut rest = framed.get(5..)?;
    let mut found = None;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                if tag >> 3 == 1 {
                    found = Some(value);
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    found
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// `HealthCheckResponse.ServingStatus` as Go prints it.
fn name(status: Option<u64>) -> String {
    match status.unwrap_or(0) {
        0 => "UNKNOWN".into(),
        1 => "SERVING".into(),
        2 => "NOT_SERVING".into(),
        3 => "SERVICE_UNKNOWN".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use proptest::prelude::{any, prop};
    use proptest::proptest;
    use rstest::rstest;
    use std::convert::Infallible;
    use tokio::net::TcpListener;

    /// Answers one connection; gives the request's path and body.
    async fn serve(
        listener: TcpListener,
        body: &'static [u8],
        trailers: &'static [(&str, &str)],
    ) -> (String, Vec<u8>) {
        let (stream, _) = listener.accept().await.unwrap();
        let (seen, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let path = request.uri().path().to_owned();
                let asked = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                seen.send((path, asked)).unwrap();
                let mut map = HeaderMap::new();
                for (name, value) in trailers {
                    map.insert(*name, value.parse().unwrap());
                }
                let frames = [Frame::data(Bytes::from_static(body)), Frame::trailers(map)];
                let frames = frames.into_iter().map(Ok::<_, Infallible>);
                let body = StreamBody::new(futures::stream::iter(frames));
                let answer = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(answer.body(body).unwrap())
            }
        });
        let serving = tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
        let asked = asked.recv().await.unwrap();
        let _ = serving.await;
        asked
    }

    const OK: &[(&str, &str)] = &[("grpc-status", "0")];

    #[rstest]
    #[case::serving(&[0, 0, 0, 0, 2, 8, 1], OK, Ok(()))]
    #[case::not_serving(&[0, 0, 0, 0, 2, 8, 2], OK, Err("service unhealthy (responded with \"NOT_SERVING\")"))]
    #[case::empty_means_unknown(&[0, 0, 0, 0, 0], OK, Err("service unhealthy (responded with \"UNKNOWN\")"))]
    #[case::no_health_service(&[], &[("grpc-status", "12"), ("grpc-message", "unknown service")],
        Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service"))]
    #[case::no_such_service(&[], &[("grpc-status", "5"), ("grpc-message", "unknown")],
        Err("error: health rpc probe failed: rpc error: code = NotFound desc = unknown"))]
    #[tokio::test]
    async fn the_answer_decides(
        #[case] body: &'static [u8],
        #[case] trailers: &'static [(&'static str, &'static str)],
        #[case] expected: Result<(), &str>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, body, trailers));
        let result = probe(target, "kubia.v1", Duration::from_secs(5)).await;
        assert_eq!(result, expected.map_err(str::to_owned));
        let (path, asked) = served.await.unwrap();
        assert_eq!(path, "/grpc.health.v1.Health/Check");
        assert_eq!(asked, b"\0\0\0\0\x0a\x0a\x08kubia.v1");
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let silent = probe(target, "", Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(silent, "timeout: health rpc did not complete within 1s");
        drop(listener);
        let gone = probe(target, "", Duration::from_secs(1)).await.unwrap_err();
        let expected =
            format!("timeout: failed to connect service \"{target}\" within 1s: context deadline exceeded");
        assert_eq!(gone, expected);
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = status(&bytes);
        }
    }
}
