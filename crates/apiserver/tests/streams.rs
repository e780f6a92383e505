//! Streams before they begin: who may, what is asked for, and in which protocol.

#![allow(clippy::unwrap_used)]

mod support;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use rstest::rstest;
use sagong_apiserver::authn::User;
use sagong_apiserver::streams::{Connection, Session, StreamError, StreamOptions, StreamSource};
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SPDY: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];

/// A node on which nothing runs.
struct Nothing;

fn not_found<T>(container: &str) -> Result<T, StreamError> {
    Err(StreamError(format!("container not found ({container:?})")))
}

#[async_trait]
impl StreamSource for Nothing {
    async fn runs(&self, _: &Pod, _: &str) -> Result<bool, StreamError> {
        Ok(false)
    }

    async fn exec(
        &self,
        _: &Pod,
        container: &str,
        _: &[String],
        _: StreamOptions,
    ) -> Result<Session, StreamError> {
        not_found(container)
    }

    async fn attach(&self, _: &Pod, container: &str, _: StreamOptions) -> Result<Session, StreamError> {
        not_found(container)
    }

    async fn find_pod(&self, _: &Pod) -> Result<(), StreamError> {
        Err(StreamError("pod not found (\"p_default\")".into()))
    }

    async fn connect(&self, _: &Pod, _: u16) -> Result<Box<dyn Connection>, StreamError> {
        not_found("main")
    }
}

async fn with_pod() -> Server {
    let server = Server::start().await;
    server.api.set_streams(Arc::new(Nothing));
    assert_eq!(server.json("POST", PODS, &pod("p")).await.0, 201);
    server
}

async fn bind(server: &Server) {
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.json("POST", "/api/v1/namespaces/default/bindings", &binding).await.0, 201);
}

fn message(text: &str) -> String {
    let status: Value = serde_json::from_str(text).unwrap();
    status["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pod_on_no_node_has_no_streams() {
    let server = with_pod().await;
    for path in ["exec?command=sh&stdout=1", "attach?stdout=1", "portforward"] {
        let (code, _, text) = server.request("POST", &format!("{PODS}/p/{path}"), &SPDY, "").await;
        assert_eq!((code, message(&text).as_str()), (400, "pod p does not have a host assigned"), "{path}");
    }
}

#[rstest]
#[case("GET", "p/exec?command=sh&stdout=1", &[], 400, "Upgrade request required")]
#[case("POST", "p/attach?stdout=1", &[], 400, "Upgrade request required")]
#[case("POST", "p/exec?stdout=1", &SPDY, 400, "you must specify at least 1 command for the container")]
#[case("POST", "p/exec?command=sh", &SPDY, 400, "you must specify at least 1 of stdin, stdout, stderr")]
#[case("POST", "p/exec?command=sh&stdout=1&container=x", &SPDY, 400, "container x is not valid for pod p")]
#[case("POST", "q/exec?command=sh&stdout=1", &SPDY, 404, "pods \"q\" not found")]
#[case("PUT", "p/exec?command=sh&stdout=1", &SPDY, 405,
    "the server does not allow this method on the requested resource")]
#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused(
    #[case] method: &str,
    #[case] path: &str,
    #[case] headers: &[(&str, &str)],
    #[case] code: u16,
    #[case] said: &str,
) {
    let server = with_pod().await;
    bind(&server).await;
    let (found, _, text) = server.request(method, &format!("{PODS}/{path}"), headers, "").await;
    assert_eq!((found, message(&text).as_str()), (code, said));
}

#[tokio::test]
async fn opening_a_stream_is_creating_it_whatever_the_method() {
    let server = with_pod().await;
    bind(&server).await;
    let jane = server.api.client(User::new("jane", &["dev"]));
    for method in ["GET", "POST"] {
        let path = format!("{PODS}/p/exec?command=sh&stdout=1");
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(kube::client::Body::empty()).unwrap();
        let response = jane.send(request).await.unwrap();
        assert_eq!(response.status(), 403);
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert_eq!(
            message(std::str::from_utf8(&bytes).unwrap()),
            "pods \"p\" is forbidden: User \"jane\" cannot create resource \"pods/exec\" in API group \"\" in the \
             namespace \"default\""
        );
    }
}

#[tokio::test]
async fn streams_are_discovered() {
    let server = Server::start().await;
    let (_, list) = server.json("GET", "/api/v1", &Value::Null).await;
    let kind = |name: &str| {
        let all = list["resources"].as_array().unwrap();
        all.iter().find(|resource| resource["name"] == name).unwrap()["kind"].clone()
    };
    assert_eq!(kind("pods/exec"), "PodExecOptions");
    assert_eq!(kind("pods/attach"), "PodAttachOptions");
    assert_eq!(kind("pods/portforward"), "PodPortForwardOptions");
}
