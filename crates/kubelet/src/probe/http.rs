//! HTTP requests to containers: probes and lifecycle hooks.

use super::{Found, tcp};
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::client::ConfigExt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use url::Url;

/// What probes call themselves.
pub(crate) const PROBE: &str = "kube-probe/1.33";
/// What lifecycle hooks call themselves.
pub(crate) const LIFECYCLE: &str = "kube-lifecycle/1.33";
/// How many redirects are followed.
const REDIRECTS: usize = 10;
/// Most bytes of a body that are read.
const BODY_LIMIT: usize = 10 * 1024;
/// What an answer that is not encrypted is, to who asked for HTTPS.
const PLAIN: &str = "http: server gave HTTP response to HTTPS client";

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
    agent: &'static str,
}

/// An answer, as far as anybody looks at it.
struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
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
        agent: &'static str,
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
            agent,
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

    /// Sends it within `timeout` and follows redirects to the same host: an answer from 200 to 299 is a success. One
    /// that leads to another host is a success, too, with a warning. Worded as upstream's prober words it.
    pub(crate) async fn probe(&self, timeout: Duration) -> Found {
        match tokio::time::timeout(timeout, self.follow()).await {
            Ok(Ok(answer)) => answer.verdict(),
            Ok(Err(error)) => Found::Failure(error),
            Err(_) => Found::Failure(self.too_late()),
        }
    }

    /// Sends it within `timeout`: whatever is answered, it has arrived. A server that does not encrypt is asked again
    /// without.
    ///
    /// # Errors
    /// Why it has not, worded as upstream's hooks word it.
    pub(crate) async fn deliver(&self, timeout: Duration) -> Result<(), String> {
        let delivered = async {
            match self.follow().await {
                Err(error) if self.tls && error.ends_with(PLAIN) => {
                    Request { tls: false, ..self.clone() }.follow().await
                }
                other => other,
            }
        };
        match tokio::time::timeout(timeout, delivered).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> String {
        let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        format!("Get \"{}\": {why}", self.url())
    }

    /// The answer at the end of all redirects that stay with this host.
    async fn follow(&self) -> Result<Answer, String> {
        let mut request = self.clone();
        for _ in 0..=REDIRECTS {
            let failed = |error| format!("Get \"{}\": {error}", request.url());
            let answer = request.send().await.map_err(failed)?;
            match answer.location.as_deref().and_then(|location| request.redirected(location)) {
                Some(next) if answer.is_redirect() => request = next,
                _ => return Ok(answer),
            }
        }
        Err(format!("Get \"{}\": stopped after {REDIRECTS} redirects", request.url()))
    }

    /// The request that a redirect asks for; None if it leads to another host.
    fn redirected(&self, location: &str) -> Option<Request> {
        let base = Url::parse(&self.url()).ok()?;
        let next = base.join(location).ok()?;
        if next.host_str() != base.host_str() {
            return None;
        }
        let query = next.query().map(|query| format!("?{query}")).unwrap_or_default();
        Some(Request {
            port: next.port_or_known_default()?,
            path: format!("{}{query}", next.path()),
            tls: next.scheme() == "https",
            ..self.clone()
        })
    }

    async fn send(&self) -> Result<Answer, String> {
        let address = tcp::resolve(&self.host, self.address, self.port).await?;
        let stream = tcp::connect(address).await?;
        if !self.tls {
            return self.exchange(stream).await;
        }
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .unwrap_or_else(|_| rustls::pki_types::ServerName::IpAddress(address.ip().into()));
        let config = TLS.as_ref().map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(config.clone());
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidMessage(_)) => PLAIN.to_owned(),
                _ => format!("tls: {error}"),
            }
        })?;
        self.exchange(stream).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Answer, String> {
        let request = self.build()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let drive = Driver(tokio::spawn(async move {
            // Its end is told by the answer that is missing.
            let _ = connection.await;
        }));
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_incomplete_message() => return Err("EOF".into()),
            Err(error) => return Err(error.to_string()),
        };
        let location =
            answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = answer.status().as_u16();
        // Only a warning shows it; what is more, or breaks off, changes no verdict.
        let body = Limited::new(answer.into_body(), BODY_LIMIT).collect().await;
        let body =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        drop(drive);
        Ok(Answer { status, location, body })
    }

    fn build(&self) -> Result<http::Request<Empty<Bytes>>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("invalid header field name {name:?}"))?;
            let value: HeaderValue = value.parse().map_err(|_| format!("invalid value of header {name}"))?;
            match name {
                HOST => drop(headers.insert(name, value)),
                _ => drop(headers.append(name, value)),
            }
        }
        let own = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        for (name, value) in
            [(HOST, own(&self.authority())?), (USER_AGENT, own(self.agent)?), (ACCEPT, own("*/*")?)]
        {
            // Those given in the spec take the place of ours; an empty one means that there is to be none.
            headers.entry(name).or_insert(value);
        }
        for name in [USER_AGENT, ACCEPT] {
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(name);
            }
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut request =
            http::Request::get(&self.path).body(Empty::new()).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

impl Answer {
    /// Whether it asks for another request.
    fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    fn verdict(self) -> Found {
        match self.status {
            200..=299 => Found::Success,
            300..=399 => Found::Warning(format!("Probe terminated redirects, Response body: {}", self.body)),
            status => Found::Failure(format!("HTTP probe failed with statuscode: {status}")),
        }
    }
}

/// Ends a connection with the request it was opened for.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
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
                // As upstream says it: without such a name it may be a number.
                None => {
                    name.parse().map_err(|_| format!("strconv.Atoi: parsing {name:?}: invalid syntax"))?
                }
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// TLS that trusts any certificate: a probe asks whether somebody answers, not who.
static TLS: LazyLock<kube::Result<Arc<rustls::ClientConfig>>> = LazyLock::new(|| {
    let mut config = kube::Config::new(http::Uri::from_static("https://container"));
    config.accept_invalid_certs = true;
    // Else those of the machine would be loaded, for nothing.
    config.root_cert = Some(Vec::new());
    config.rustls_client_config().map(Arc::new)
});

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
        Request::new(&action, &spec, Some("127.0.0.1".parse().unwrap()), PROBE).unwrap()
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
    #[case("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Found::Success)]
    #[case("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 3\r\n\r\nbye",
        Found::Warning("Probe terminated redirects, Response body: bye".into()))]
    #[case("HTTP/1.1 304 Not Modified\r\n\r\n", Found::Warning("Probe terminated redirects, Response body: ".into()))]
    #[case("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", Found::Failure("HTTP probe failed with statuscode: 500".into()))]
    #[case("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Found::Failure("HTTP probe failed with statuscode: 404".into()))]
    #[tokio::test]
    async fn the_status_code_decides(#[case] answer: &'static str, #[case] expected: Found) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(serve(listener, answer));
        let headers =
            json!([{"name": "X-Probe", "value": "yes"}, {"name": "Host", "value": "kubia.example"}]);
        let action = json!({"port": "web", "path": "ready", "httpHeaders": headers});
        let result = request(action, port).probe(Duration::from_secs(5)).await;
        assert_eq!(result, expected);
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
        assert_eq!(result, Found::Failure(expected));
    }

    #[tokio::test]
    async fn silence_is_a_failure_at_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let result = request(json!({}), port).probe(Duration::from_millis(20)).await;
        let expected = format!(
            "Get \"http://127.0.0.1:{port}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        );
        assert_eq!(result, Found::Failure(expected));
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_end_of_file() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, ""));
        let result = request(json!({}), port).probe(Duration::from_secs(5)).await;
        assert_eq!(result, Found::Failure(format!("Get \"http://127.0.0.1:{port}/\": EOF")));
    }

    /// Answers one request after the other, by path.
    async fn pages(listener: TcpListener, answer: fn(&str) -> String) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            let asked = String::from_utf8_lossy(&buffer[..count]).into_owned();
            let path = asked.split(' ').nth(1).unwrap_or_default();
            stream.write_all(answer(path).as_bytes()).await.unwrap();
        }
    }

    #[rstest]
    #[case::to_a_good_page("/to?good", Found::Success)]
    #[case::to_a_bad_page("/to?bad", Found::Failure("HTTP probe failed with statuscode: 500".into()))]
    #[case::without_end("/loop", Found::Failure("Get \"http://HERE/loop\": stopped after 10 redirects".into()))]
    #[tokio::test]
    async fn redirects_to_the_same_host_are_followed(#[case] path: &str, #[case] expected: Found) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let serving = tokio::spawn(pages(listener, |path| match path.split_once('?') {
            _ if path == "/good" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
            _ if path == "/loop" => "HTTP/1.1 307 On\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n".into(),
            Some((_, next)) => format!("HTTP/1.1 302 On\r\nLocation: {next}\r\nContent-Length: 0\r\n\r\n"),
            None => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into(),
        }));
        let found = request(json!({"path": path}), here.port()).probe(Duration::from_secs(5)).await;
        serving.abort();
        let expected = match expected {
            Found::Failure(why) => Found::Failure(why.replace("HERE", &here.to_string())),
            other => other,
        };
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn headers_given_twice_are_sent_twice_and_empty_ones_take_ours_away() {
        let headers = json!([{"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}, {"name": "Accept", "value": ""}]);
        let built = request(json!({"httpHeaders": headers}), 80).build().unwrap();
        let values: Vec<_> = built.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(!built.headers().contains_key(ACCEPT));
    }

    #[tokio::test]
    async fn a_hook_has_arrived_whatever_is_answered_also_by_a_server_that_does_not_encrypt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(pages(listener, |path| match path {
            "/hook" => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into(),
            _ => "HTTP/1.1 400 What\r\nContent-Length: 0\r\n\r\n".into(),
        }));
        for scheme in ["HTTP", "HTTPS"] {
            let request = request(json!({"path": "/hook", "scheme": scheme}), port);
            assert_eq!(request.deliver(Duration::from_secs(5)).await, Ok(()), "{scheme}");
        }
        let found =
            request(json!({"path": "/hook", "scheme": "HTTPS"}), port).probe(Duration::from_secs(5)).await;
        assert_eq!(found, Found::Failure(format!("Get \"https://127.0.0.1:{port}/hook\": {PLAIN}")));
        serving.abort();
    }

    #[rstest]
    #[case(json!(0), "invalid port number: 0")]
    #[case(json!(70_000), "invalid port number: 70000")]
    #[case(json!("none"), "strconv.Atoi: parsing \"none\": invalid syntax")]
    fn ports_that_are_none_are_named(#[case] given: serde_json::Value, #[case] message: &str) {
        let spec = Container { name: "c".into(), ..Default::default() };
        assert_eq!(port(&serde_json::from_value(given).unwrap(), &spec), Err(message.to_owned()));
    }
}
