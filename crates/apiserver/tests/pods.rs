//! What is special about pods: logs, eviction, and scaling what makes them.

#![allow(clippy::unwrap_used)]

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use sagong_api::error::ApiError;
use sagong_apiserver::pods::log::{LogOptions, LogSource, LogStream};
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Logs that say what was asked for.
struct Echo;

#[async_trait]
impl LogSource for Echo {
    async fn open(&self, pod: &Pod, container: &str, options: LogOptions) -> Result<LogStream, ApiError> {
        if options.previous {
            let message = format!("previous terminated container {container:?} in pod \"p\" not found");
            return Err(ApiError::BadRequest(message));
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        let line = format!("{name}/{container} tail={:?} follow={}\n", options.tail_lines, options.follow);
        let lines = futures::stream::iter([Ok(Bytes::from(line))]);
        // One that is followed goes on until the client or the server ends it.
        Ok(if options.follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() })
    }
}

async fn with_pod() -> Server {
    let server = Server::start().await;
    server.api.set_logs(Arc::new(Echo));
    assert_eq!(server.json("POST", PODS, &pod("p")).await.0, 201);
    server
}

async fn bind(server: &Server) {
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.json("POST", "/api/v1/namespaces/default/bindings", &binding).await.0, 201);
}

#[tokio::test]
async fn logs_come_from_the_source_as_they_were_asked_for() {
    let server = with_pod().await;
    let get = async |query: &str| server.request("GET", &format!("{PODS}/p/log{query}"), &[], "").await;
    let (code, _, text) = get("").await;
    assert_eq!((code, text.as_str()), (200, ""), "a pod that is on no node has written nothing");
    bind(&server).await;
    let (code, headers, text) = get("?tailLines=5").await;
    assert_eq!((code, text.as_str()), (200, "p/main tail=Some(5) follow=false\n"));
    assert_eq!(headers["content-type"], "text/plain");
    let (code, _, text) = get("?container=other").await;
    assert_eq!((code, text.contains("container other is not valid for pod p")), (400, true), "{text}");
    let (code, _, text) = get("?tailLines=-1").await;
    assert_eq!((code, text.contains("must be greater than or equal to 0")), (422, true), "{text}");
    let (code, _, text) = get("?previous=true").await;
    assert_eq!((code, text.contains("previous terminated container")), (400, true), "{text}");
    let (code, ..) = server.request("GET", &format!("{PODS}/q/log"), &[], "").await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_followed_log_streams_and_ends_when_the_server_stops() {
    let server = with_pod().await;
    bind(&server).await;
    let request =
        http::Request::get(format!("{PODS}/p/log?follow=true")).body(kube::client::Body::empty()).unwrap();
    let response = server.client().send(request).await.unwrap();
    let mut pieces = http_body_util::BodyStream::new(response.into_body());
    let first = pieces.next().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "p/main tail=None follow=true\n");
    server.api.stop();
    assert!(pieces.next().await.is_none());
}

#[tokio::test]
async fn an_eviction_deletes_the_pod_gracefully() {
    let server = with_pod().await;
    bind(&server).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (code, status) = server.json("POST", &format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!((code, &status["status"]), (201, &json!("Success")));
    let (_, evicted) = server.json("GET", &format!("{PODS}/p"), &Value::Null).await;
    assert_eq!(evicted["metadata"]["deletionGracePeriodSeconds"], 30);
}

#[tokio::test]
async fn a_scale_is_read_and_written_and_may_not_be_negative() {
    let server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let yaml = [("content-type", "application/yaml")];
    let (code, _, text) = server.request("POST", path, &yaml, support::deployment("d")).await;
    assert_eq!(code, 201, "{text}");
    let (_, mut scale) = server.json("GET", &format!("{path}/d/scale"), &Value::Null).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(scale["status"]["selector"], "app=d");
    scale["spec"]["replicas"] = json!(5);
    let (code, changed) = server.json("PUT", &format!("{path}/d/scale"), &scale).await;
    assert_eq!((code, &changed["spec"]["replicas"]), (200, &json!(5)), "{changed}");
    let (code, status) = server.json("PUT", &format!("{path}/d/scale"), &scale).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")), "its version is old now");
    let (code, changed) =
        server.json("PATCH", &format!("{path}/d/scale"), &json!({"spec": {"replicas": 1}})).await;
    assert_eq!((code, &changed["spec"]["replicas"]), (200, &json!(1)), "{changed}");
    let (code, status) =
        server.json("PATCH", &format!("{path}/d/scale"), &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(code, 422, "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{message}"
    );
    let (_, deployment) = server.json("GET", &format!("{path}/d"), &Value::Null).await;
    assert_eq!(deployment["metadata"]["generation"], 3);
}

#[tokio::test]
async fn dependents_of_replication_controllers_are_kept_unless_said_otherwise() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 1, "selector": {"a": "b"},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(server.json("POST", path, &controller).await.0, 201);
    let (_, held) = server.json("DELETE", &format!("{path}/rc"), &Value::Null).await;
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]));
    let background = json!({"propagationPolicy": "Background"});
    assert_eq!(server.json("DELETE", &format!("{path}/rc"), &background).await.0, 200);
    assert_eq!(server.json("GET", &format!("{path}/rc"), &Value::Null).await.0, 404);
}
