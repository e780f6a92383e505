//! `proxy`: the API server on a local port, with one's own credentials.
//!
//! Whoever reaches the port is whoever runs this. So it listens on loopback, answers only requests for names of this
//! machine, and refuses `exec` and `attach`, as kubectl's does. Streams, of `port-forward` say, pass as they are.

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use regex::RegexSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    short("port", 'p', Takes::Number, "8001", "The port; 0 for any"),
    flag("address", Takes::Text, "127.0.0.1", "The address to listen on"),
    flag(
        "accept-hosts",
        Takes::Text,
        r"^localhost$,^127\.0\.0\.1$,^\[::1\]$",
        "Hosts that requests may name",
    ),
    flag("accept-paths", Takes::Text, "^.*", "Paths that are passed on"),
    flag("reject-paths", Takes::Text, "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach", "Paths that are not"),
    flag("reject-methods", Takes::Text, "^$", "Methods that are not passed on"),
    flag("disable-filter", Takes::Bool, "false", "Pass everything on: dangerous"),
    flag("api-prefix", Takes::Text, "/", "Below which path the API is"),
]];

/// What is passed on.
struct Filter {
    hosts: RegexSet,
    paths: RegexSet,
    rejected_paths: RegexSet,
    rejected_methods: RegexSet,
    everything: bool,
}

impl Filter {
    fn new(context: &Context) -> Outcome<Self> {
        let set = |flag: &str| {
            RegexSet::new(context.flags.text(flag).split(','))
                .map_err(|error| Failure::Message(format!("invalid --{flag}: {error}")))
        };
        Ok(Self {
            hosts: set("accept-hosts")?,
            paths: set("accept-paths")?,
            rejected_paths: set("reject-paths")?,
            rejected_methods: set("reject-methods")?,
            everything: context.flags.on("disable-filter"),
        })
    }

    fn passes(&self, method: &str, host: &str, path: &str) -> bool {
        // The port is no part of the name; the brackets of an IPv6 address are.
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.is_empty() => name,
            _ => host,
        };
        self.everything
            || self.hosts.is_match(host)
                && self.paths.is_match(path)
                && !self.rejected_paths.is_match(path)
                && !self.rejected_methods.is_match(method)
    }
}

/// Runs it, until interrupted.
///
/// # Errors
/// The command line is wrong, or the port is taken.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let filter = Rc::new(Filter::new(context)?);
    let prefix: Rc<str> = format!("/{}", flags.text("api-prefix").trim_matches('/')).into();
    let port = u16::try_from(flags.number("port"))
        .map_err(|_| Failure::Message(format!("listen tcp: address {}: invalid port", flags.text("port"))))?;
    let client = context.client().await?.kube();
    if flags.on("disable-filter") {
        context
            .err("Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious\n");
    }
    let address = (flags.text("address"), port);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return fail(format!("listen tcp {}:{port}: bind: {error}", address.0)),
    };
    out(&format!("Starting to serve on {}\n", listener.local_addr()?));
    let connections = tokio::task::LocalSet::new();
    let serving =
        connections.run_until(async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of file descriptors, say: until some connection has ended.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (client, filter, prefix) = (client.clone(), filter.clone(), prefix.clone());
                let service = service_fn(move |request| {
                    let (client, filter, prefix) = (client.clone(), filter.clone(), prefix.clone());
                    async move {
                        Ok::<_, std::convert::Infallible>(answer(&client, &filter, &prefix, request).await)
                    }
                });
                tokio::task::spawn_local(async move {
                    // A connection that breaks off concerns nobody else.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
    tokio::select! {
        () = serving => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn answer(
    client: &kube::Client,
    filter: &Filter,
    prefix: &str,
    mut request: Request<Incoming>,
) -> Response<Either<Body, Full<Bytes>>> {
    let refuse = |status: StatusCode, text: String| {
        let mut response = Response::new(Either::Right(Full::new(Bytes::from(text))));
        *response.status_mut() = status;
        response
    };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    if !filter.passes(request.method().as_str(), host, path) {
        return refuse(StatusCode::FORBIDDEN, "Forbidden\n".into());
    }
    let stream = request.headers().contains_key(header::UPGRADE);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let Some(target) = target.strip_prefix(prefix.trim_end_matches('/')).filter(|t| t.starts_with('/'))
    else {
        return refuse(StatusCode::NOT_FOUND, "404 page not found\n".into());
    };
    let mut passed = Request::builder().method(request.method()).uri(target);
    for (name, value) in request.headers() {
        // The server is to see one's own credentials and connection, not the browser's; of a stream, what it is to become.
        let connection = matches!(*name, header::CONNECTION | header::UPGRADE) && !stream;
        if !connection && !matches!(*name, header::HOST | header::AUTHORIZATION) {
            passed = passed.header(name, value);
        }
    }
    let near = stream.then(|| hyper::upgrade::on(&mut request));
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let passed = match passed.body(Body::from(body.to_vec())) {
        Ok(passed) => passed,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match client.send(passed).await {
        Ok(mut response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                && let Some(near) = near
            {
                tokio::task::spawn_local(join(near, hyper::upgrade::on(&mut response)));
            }
            response.map(Either::Left)
        }
        Err(error) => refuse(StatusCode::BAD_GATEWAY, format!("{error}\n")),
    }
}

/// Passes bytes both ways between two connections that have become streams, until both have ended.
async fn join(near: hyper::upgrade::OnUpgrade, far: hyper::upgrade::OnUpgrade) {
    if let Ok((near, far)) = futures::try_join!(near, far) {
        // A stream that breaks off concerns nobody else.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("GET", "localhost:8001", "/api", true)]
    #[case("GET", "[::1]:8001", "/api", true)]
    #[case("GET", "127.0.0.1", "/api", true)]
    #[case("GET", "evil.example:8001", "/api", false)]
    #[case("GET", "localhost.evil.example", "/api", false)]
    #[case("POST", "localhost:8001", "/api/v1/namespaces/default/pods/p/exec", false)]
    #[case("POST", "localhost:8001", "/api/v1/namespaces/default/pods/p/attach", false)]
    #[case("GET", "localhost:8001", "/api/v1/namespaces/default/pods/p/log", true)]
    fn only_harmless_requests_of_this_machine_pass(
        #[case] method: &str,
        #[case] host: &str,
        #[case] path: &str,
        #[case] expected: bool,
    ) {
        let set = |index: usize| {
            let flag = FLAGS[0][index];
            RegexSet::new(flag.default.split(',')).unwrap_or_default()
        };
        let filter = Filter {
            hosts: set(2),
            paths: set(3),
            rejected_paths: set(4),
            rejected_methods: set(5),
            everything: false,
        };
        assert_eq!(filter.passes(method, host, path), expected);
    }
}
