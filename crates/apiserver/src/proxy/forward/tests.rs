use super::*;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PREFIX: &str = "/api/v1/namespaces/default/pods/web/proxy";

/// A pod that answers one request with these bytes, and tells what it was asked.
async fn pod(answer: &'static str) -> (Destination, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = Destination { https: false, address: listener.local_addr().unwrap() };
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") && !asked.ends_with(b"\r\n\r\nbody") {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.unwrap();
            asked.extend_from_slice(&piece[..read]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (destination, asked)
}

fn call(method: Method, tail: &str, query: &str) -> Call {
    let uri = format!("{PREFIX}{tail}{query}").parse().unwrap();
    Call { method, uri, tail: tail.to_owned(), upgrade: None }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_reaches_the_pod_as_it_was_but_for_what_is_the_api_servers() {
    let (destination, asked) =
        pod("HTTP/1.1 201 Created\r\nconnection: close\r\nx-a: b\r\ncontent-length: 2\r\n\r\nhi").await;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, "cluster:6443".parse().unwrap());
    headers.insert(AUTHORIZATION, "Bearer secret".parse().unwrap());
    headers.insert(CONNECTION, "x-hop".parse().unwrap());
    headers.insert("x-hop", "1".parse().unwrap());
    headers.insert("x-kept", "1".parse().unwrap());
    let call = call(Method::POST, "/a%2Fb/", "?q=1");
    let response = forward(destination, call, &headers, Bytes::from_static(b"body")).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["x-a"]),
        (StatusCode::CREATED, &"b".parse::<HeaderValue>().unwrap())
    );
    assert!(!response.headers().contains_key(CONNECTION));
    assert_eq!(text(response).await, "hi");
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /a%2Fb/?q=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\nbody"), "{asked}");
    for kept in
        ["host: cluster:6443", "x-kept: 1", "x-forwarded-host: cluster:6443", "x-forwarded-proto: https"]
    {
        assert!(asked.contains(kept), "{kept}: {asked}");
    }
    for gone in ["secret", "x-hop"] {
        assert!(!asked.contains(gone), "{gone}: {asked}");
    }
}

#[rstest::rstest]
#[case::within_the_pod("/login?x=1", "/api/v1/namespaces/default/pods/web/proxy/login?x=1")]
#[case::relative("login", "login")]
#[case::elsewhere("http://example.com/login", "http://example.com/login")]
#[case::elsewhere_by_the_same_scheme("//example.com/login", "//example.com/login")]
fn a_redirect_within_the_pod_leads_through_the_proxy(#[case] given: &str, #[case] expected: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, given.parse().unwrap());
    redirect(&mut headers, PREFIX, Destination { https: false, address: ([10, 0, 0, 1], 80).into() });
    assert_eq!(headers[LOCATION], expected);
}

#[tokio::test]
async fn a_pod_that_does_not_listen_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = Destination { https: false, address: listener.local_addr().unwrap() };
    drop(listener);
    let refused = forward(destination, call(Method::GET, "/", ""), &HeaderMap::new(), Bytes::new()).await;
    let refused = refused.unwrap_err();
    let message = refused.0.message.clone().unwrap();
    assert_eq!(
        (refused.code(), message.starts_with("error trying to reach service: dial tcp 127.0.0.1:")),
        (503, true),
        "{message}"
    );
}
