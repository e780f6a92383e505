//! HTTP requests to containers: probes and lifecycle hooks.

use super::tcp;
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// A request, resolved against a running container.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Where to connect to; None: `host` is a name and has to be looked up.
    address: Option<IpAddr>,
    host: String,
    port: u16,
    path: String,
    tls: bool,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The request an action means, for a container of the pod at `address`.
    ///
    /// # Errors
    /// The sentence to show if the port is not one.
    pub(crate) fn new(
        action: &HTTPGetAction,
        spec: &Container,
        address: Option<IpAddr>,
    ) -> Result<Self, String> {
        let named = action.host.as_deref().filter(|host| !host.is_empty());
        let address = match named {
            Some(host) => host.parse().ok(),
            None => Some(address.ok_or("pod has no address")?),
        };
        let host = named.map_or_else(|| address.map(|it| it.to_string()).unwrap_or_default(), str::to_owned);
        let path = action.path.as_deref().unwrap_or("/");
        let headers = action.http_headers.iter().flatten();
        Ok(Request {
            address,
            host,
            port: port(&action.port, spec)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        match self.address {
            Some(IpAddr::V6(_)) => format!("[{}]:{}", self.host, self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// The address in full, for messages.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Sends it within `timeout`; an answer from 200 to 399 is a success.
    ///
    /// # Errors
    /// Why it failed, worded as upstream's prober words it.
    pub(crate) async fn probe(&self, timeout: Duration) -> Result<(), String> {
        let status = match tokio::time::timeout(timeout, self.send()).await {
            Ok(answer) => answer.map_err(|error| format!("Get \"{}\": {error}", self.url()))?,
            Err(_) => {
                let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                return Err(format!("Get \"{}\": {why}", self.url()));
            }
        };
        match status {
            200..=399 => Ok(()),
            _ => Err(format!("HTTP probe failed with statuscode: {status}")),
        }
    }

    async fn send(&self) -> Result<u16, String> {
        let address = match self.address {
            Some(address) => SocketAddr::new(address, self.port),
            None => {
                let mut found = tokio::net::lookup_host((self.host.as_str(), self.port))
                    .await
                    .map_err(|error| format!("dial tcp: lookup {}: {error}", self.host))?;
                found.next().ok_or_else(|| format!("dial tcp: lookup {}: no such host", self.host))?
            }
        };
        let stream = tcp::connect(address).await?;
        if !self.tls {
            return self.exchange(stream).await;
        }
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .unwrap_or_else(|_| rustls::pki_types::ServerName::IpAddress(address.ip().into()));
        let connector = TlsConnector::from(TLS.clone().map_err(|error| error.to_string())?);
        let stream = connector.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
        self.exchange(stream).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<u16, String> {
        let request = self.build()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let drive = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        drive.abort();
        match answer {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) if error.is_incomplete_message() => Err("EOF".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn build(&self) -> Result<http::Request<Empty<Bytes>>, String> {
        let mut request = http::Request::get(&self.path)
            .header(HOST, self.authority())
            .header(USER_AGENT, "kube-probe/1.33")
            .header(ACCEPT, "*/*")
            .header(CONNECTION, "close")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("invalid header field name {name:?}"))?;
            let value: HeaderValue = value.parse().map_err(|_| format!("invalid value of header {name}"))?;
            // `Host`, `User-Agent` and `Accept` given in the spec take the place of ours.
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// The number of a port given as number or name.
///
/// # Errors
/// The sentence to show if there is no such port.
pub(crate) fn port(port: &IntOrString, spec: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = spec.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match named {
                Some(named) => named.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("couldn't find port: {name} in container {}", spec.name))?,
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// TLS that trusts any certificate: a probe asks whether somebody answers, not who.
static TLS: LazyLock<Result<Arc<rustls::ClientConfig>, rustls::Error>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Arc::new(trust::Anyone(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_no_client_auth();
    Ok(Arc::new(config))
});

mod trust {
    //! A certificate check that is none.

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use std::sync::Arc;

    #[derive(Debug)]
    pub(super) struct Anyone(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn request(action: serde_json::Value, port: u16) -> Request {
        let mut action = action;
        if action.get("port").is_none() {
            action["port"] = json!(port);
        }
        let spec = json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
        let action = serde_json::from_value(action).unwrap();
        let spec = serde_json::from_value(spec).unwrap();
        Request::new(&action, &spec, Some("127.0.0.1".parse().unwrap())).unwrap()
    }

    /// Answers one request with `answer` and gives what it was.
    async fn serve(listener: TcpListener, answer: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&buffer[..count]).to_lowercase()
    }

    #[rstest]
    #[case("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(()))]
    #[case("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", Ok(()))]
    #[case("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", Err("HTTP probe failed with statuscode: 500"))]
    #[case("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Err("HTTP probe failed with statuscode: 404"))]
    #[tokio::test]
    async fn the_status_code_decides(#[case] answer: &'static str, #[case] expected: Result<(), &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(serve(listener, answer));
        let headers =
            json!([{"name": "X-Probe", "value": "yes"}, {"name": "Host", "value": "kubia.example"}]);
        let action = json!({"port": "web", "path": "ready", "httpHeaders": headers});
        let result = request(action, port).probe(Duration::from_secs(5)).await;
        assert_eq!(result, expected.map_err(str::to_owned));
        let asked = served.await.unwrap();
        assert!(asked.starts_with("get /ready http/1.1\r\n"), "{asked}");
        assert!(asked.contains("x-probe: yes") && asked.contains("host: kubia.example"), "{asked}");
        assert!(
            asked.contains("user-agent: kube-probe/1.33") && asked.contains("connection: close"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_is_worded_as_upstream_words_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let result = request(json!({"path": "/"}), port).probe(Duration::from_secs(5)).await;
        let expected = format!(
            "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        assert_eq!(result, Err(expected));
    }

    #[tokio::test]
    async fn silence_is_a_failure_at_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let result = request(json!({}), port).probe(Duration::from_millis(20)).await;
        let expected = format!(
            "Get \"http://127.0.0.1:{port}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        );
        assert_eq!(result, Err(expected));
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_end_of_file() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, ""));
        let result = request(json!({}), port).probe(Duration::from_secs(5)).await;
        assert_eq!(result, Err(format!("Get \"http://127.0.0.1:{port}/\": EOF")));
    }

    #[rstest]
    #[case(json!(0), "invalid port number: 0")]
    #[case(json!(70_000), "invalid port number: 70000")]
    #[case(json!("none"), "couldn't find port: none in container c")]
    fn ports_that_are_none_are_named(#[case] given: serde_json::Value, #[case] message: &str) {
        let spec = Container { name: "c".into(), ..Default::default() };
        assert_eq!(port(&serde_json::from_value(given).unwrap(), &spec), Err(message.to_owned()));
    }
}
