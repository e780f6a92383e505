//! Who is let in, and what nobody else is told.

use crate::image::Made;
use crate::server::{Answer, Request, Server};
use crate::{Fixture, name};
use base64::Engine;
use rstest::rstest;
use sagong_image::Images;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A registry and its token server in one: it lets in whoever has `Bearer TOKEN`, and gives the token to `user`, or to
/// everybody if that is empty.
async fn with_tokens(made: &Made, user: &'static str, field: &'static str) -> Server {
    let made = made.clone();
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            let wanted = format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:s3cret"))
            );
            let is_let_in = user.is_empty() || request.header("authorization") == Some(wanted.as_str());
            return match is_let_in {
                true => Answer::ok(format!(r#"{{"{field}": "t0ken"}}"#).into_bytes()),
                false => Answer {
                    body: br#"{"details": "incorrect username or password"}"#.to_vec(),
                    ..Answer::status(401)
                },
            };
        }
        if request.header("authorization") == Some("Bearer t0ken") {
            return made.answer(request);
        }
        let host = request.header("host").unwrap();
        let challenge = format!(
            "Bearer realm=\"http://{host}/token\",service=\"the registry\",scope=\"repository:kubia:pull\""
        );
        Answer::status(401).with("WWW-Authenticate", challenge)
    });
    server.await
}

#[rstest]
#[case::anybody("", "token", None)]
#[case::anybody_with_a_name("", "access_token", Some("user"))]
#[case::one("user", "token", Some("user"))]
#[case::one_under_the_other_name("user", "access_token", Some("user"))]
#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all(
    #[case] known: &'static str,
    #[case] field: &'static str,
    #[case] user: Option<&str>,
) {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let server = with_tokens(&made, known, field).await;
    match user {
        Some(user) => fixture.pull_as(&server, user).await.unwrap(),
        None => fixture.pull(&server).await.unwrap(),
    };
    let asked = server.seen_of("/token");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].path.contains("service=the+registry"), "{}", asked[0].path);
    assert!(asked[0].path.contains("scope=repository%3Akubia%3Apull"), "{}", asked[0].path);
    assert_eq!(asked[0].header("authorization").is_some(), user.is_some());
    // One refusal, then manifest, config and layer.
    assert_eq!(server.seen_of("/v2/").len(), 4);
}

#[rstest]
#[case::nobody(None, "no credentials were given")]
#[case::a_stranger(Some("stranger"), "the credentials given were refused")]
#[tokio::test]
async fn who_gets_no_token_is_told_why(#[case] user: Option<&str>, #[case] why: &str) {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let server = with_tokens(&made, "user", "token").await;
    let refused = match user {
        Some(user) => fixture.pull_as(&server, user).await,
        None => fixture.pull(&server).await,
    };
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("pull access denied") && error.contains(why), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    fixture.assert_clean(0).await;
}

#[tokio::test]
async fn a_token_that_has_expired_is_replaced() {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let (layer, count) = (made.layer(0), AtomicUsize::new(0));
    let expired = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            let token = format!(r#"{{"token": "t{}"}}"#, count.fetch_add(1, Ordering::SeqCst));
            return Answer::ok(token.into_bytes());
        }
        // The first token lasts until the layer is asked for.
        if request.path.ends_with(&layer) {
            expired.store(1, Ordering::SeqCst);
        }
        let valid = format!("Bearer t{}", expired.load(Ordering::SeqCst));
        if request.header("authorization") == Some(valid.as_str()) {
            return made.answer(request);
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
        Answer::status(401).with("WWW-Authenticate", realm)
    })
    .await;
    fixture.pull(&server).await.unwrap();
    assert_eq!(server.seen_of("/token").len(), 2);
}

#[rstest]
#[case::its_user(Some("user"), None)]
#[case::a_stranger(Some("stranger"), Some("the credentials given were refused"))]
#[case::nobody(None, Some("no credentials were given"))]
#[tokio::test]
async fn a_registry_with_passwords_lets_in_its_users(#[case] user: Option<&str>, #[case] why: Option<&str>) {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Basic dXNlcjpzM2NyZXQ=") => made.answer(request),
        _ => Answer::status(401).with("WWW-Authenticate", "Basic realm=\"private\""),
    })
    .await;
    let pulled = match user {
        Some(user) => fixture.pull_as(&server, user).await,
        None => fixture.pull(&server).await,
    };
    match why {
        None => drop(pulled.unwrap()),
        Some(why) => assert!(pulled.unwrap_err().to_string().contains(why)),
    }
    assert_eq!(server.seen()[0].header("authorization"), None, "nothing is told before it is asked for");
}

/// Where the registry has its blobs elsewhere.
async fn redirecting(made: &Made, to: String) -> Server {
    let made = made.clone();
    let server = Server::start(move |request: &Request| {
        if request.header("authorization") != Some("Basic dXNlcjpzM2NyZXQ=") {
            return Answer::status(401).with("WWW-Authenticate", "Basic realm=\"private\"");
        }
        match request.path.contains("/blobs/") {
            true => Answer::status(307).with("Location", format!("{to}{}?signature=abc", request.path)),
            false => made.answer(request),
        }
    });
    server.await
}

#[tokio::test]
async fn where_a_registry_redirects_to_gets_no_credentials() {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let served = made.clone();
    let elsewhere = Server::start(move |request| {
        let path = request.path.split('?').next().unwrap().to_owned();
        served.answer(&Request { path, headers: request.headers.clone() })
    })
    .await;
    for host in ["127.0.0.1", "localhost"] {
        let server = redirecting(&made, format!("http://{host}:{}", elsewhere.port)).await;
        fixture.pull_as(&server, "user").await.unwrap();
        for image in fixture.store.list().await.unwrap() {
            fixture.store.remove(&image.id).await.unwrap();
        }
    }
    let asked = elsewhere.seen();
    assert_eq!(asked.len(), 4, "config and layer, twice");
    for request in asked {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

#[tokio::test]
async fn an_address_that_lets_in_whoever_reads_it_is_not_told() {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    // Port 1 on loopback: nothing listens there.
    let server = redirecting(&made, "http://127.0.0.1:1".into()).await;
    let error = fixture.pull_as(&server, "user").await.unwrap_err().to_string();
    assert!(error.contains(&name(&server)) && error.contains("refused"), "{error}");
    assert!(!error.contains("signature"), "{error}");
}
