//! What the kubelet says to the API, request by request, against a server that is a function.

use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, KubeCluster};
use crate::config::Config;
use crate::events::Recorder;
use crate::fakes::World;
use crate::node::facts::Facts;
use crate::node::{lease, register};
use crate::shared::Shared;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::client::Body;
use kube::runtime::reflector::store::Writer;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Requests so far: `METHOD path?query`, content type, body.
type Requests = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A client of a server that answers by `answer(request line, body)`.
fn client(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> (Client, Requests) {
    let requests = Requests::default();
    let seen = requests.clone();
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let line = format!("{} {path}", request.method());
            let kind = request.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned());
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let (code, value) = answer(&line, &body);
            seen.lock().push((line, kind.unwrap_or_default(), body));
            let answer =
                http::Response::builder().status(code).body(Body::from(value.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    (Client::new(service, "default"), requests)
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": reason}),
    )
}

fn shared(world: &Arc<World>) -> Arc<Shared> {
    let mut config = Config::new("node", "abcdef", world.dir.path());
    config.pod_cidr = Some("10.244.0.0/24".into());
    config.node_addresses = vec!["192.168.0.1".parse().unwrap()];
    let clock = Clock::for_tests();
    let (recorder, _) = Recorder::new(world.clone(), "node".into(), clock.clone());
    Arc::new(Shared {
        config,
        clock,
        cluster: world.clone(),
        recorder,
        runtime: world.clone(),
        images: world.clone(),
        network: world.clone(),
        data_plane: world.clone(),
        node_memory: 1 << 30,
        node_storage: 1 << 40,
        pressures: Default::default(),
        shows: Default::default(),
        tokens: Default::default(),
    })
}

/// Waits until so many requests were made.
async fn requested(requests: &Requests, count: usize) -> Vec<(String, String, Value)> {
    while requests.lock().len() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    requests.lock().clone()
}

#[tokio::test(start_paused = true)]
async fn a_new_node_is_created_and_at_once_ready() {
    let world = World::new();
    let shared = shared(&world);
    let kept = parking_lot::Mutex::new(json!({"metadata": {"name": "node", "uid": "node-uid"}}));
    let (client, requests) = client(move |_, body| {
        let mut node = kept.lock();
        if body["status"].is_object() {
            node["status"] = body["status"].clone();
        }
        (200, node.clone())
    });
    let (uid, mut seen) = watch::channel(None);
    let work = shared.clone();
    let task = tokio::spawn(async move { register::run(&work, client, Facts::default(), uid).await });
    let all = requested(&requests, 2).await;
    assert!(all[0].0.starts_with("POST /api/v1/nodes?"), "{}", all[0].0);
    assert_eq!(all[0].2["spec"]["podCIDR"], json!("10.244.0.0/24"));
    assert_eq!(all[0].2["metadata"]["labels"]["kubernetes.io/hostname"], json!("node"));
    assert!(all[1].0.starts_with("PATCH /api/v1/nodes/node/status?"), "{}", all[1].0);
    let status = &all[1].2["status"];
    assert_eq!(
        status["addresses"],
        json!([{"type": "InternalIP", "address": "192.168.0.1"},
        {"type": "Hostname", "address": "node"}])
    );
    assert_eq!(status["capacity"]["pods"], json!("110"));
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], json!("sagong://test"));
    assert_eq!(seen.wait_for(Option::is_some).await.unwrap().as_deref(), Some("node-uid"));
    // Nothing changes, so nothing is written for five minutes.
    let writes = || requests.lock().iter().filter(|(line, ..)| !line.starts_with("GET ")).count();
    tokio::time::sleep(Duration::from_secs(290)).await;
    assert_eq!(writes(), 2);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(writes(), 3);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_exists_is_taken_over() {
    let world = World::new();
    let shared = shared(&world);
    let (client, requests) = client(|line, _| match line.starts_with("POST") {
        true => failure(409, "AlreadyExists"),
        false => {
            (200, json!({"metadata": {"name": "node", "uid": "u"}, "spec": {"podCIDR": "10.244.0.0/24"}}))
        }
    });
    let (uid, _seen) = watch::channel(None);
    let work = shared.clone();
    let task = tokio::spawn(async move { register::run(&work, client, Facts::default(), uid).await });
    let all = requested(&requests, 3).await;
    assert!(all[1].0.starts_with("PATCH /api/v1/nodes/node?") && all[1].2["metadata"]["labels"].is_object());
    assert!(all[2].0.starts_with("PATCH /api/v1/nodes/node/status?"));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_made_once_and_renewed_every_ten_seconds() {
    let world = World::new();
    let shared = shared(&world);
    let made = Mutex::new(false);
    let (client, requests) = client(move |line, _| {
        let mut made = made.lock();
        if line.starts_with("POST") {
            *made = true;
        }
        if *made { (200, json!({"metadata": {"name": "node"}})) } else { failure(404, "NotFound") }
    });
    let (_uid, seen) = watch::channel(Some("node-uid".to_owned()));
    let task = tokio::spawn(async move { lease::run(&shared, client, seen).await });
    tokio::time::sleep(Duration::from_secs(25)).await;
    let all = requests.lock().clone();
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lines: Vec<&str> = all.iter().map(|(line, ..)| line.split('?').next().unwrap()).collect();
    let patch = format!("PATCH {path}/node");
    assert_eq!(lines, [patch.as_str(), &format!("POST {path}"), &patch, &patch]);
    assert_eq!(all[1].2["spec"]["leaseDurationSeconds"], json!(40));
    assert_eq!(all[1].2["metadata"]["ownerReferences"][0]["uid"], json!("node-uid"));
    assert!(all[2].2["spec"]["renewTime"].as_str().unwrap().ends_with('Z'));
    task.abort();
}

#[tokio::test]
async fn a_status_is_merged_and_a_deletion_is_guarded_by_the_uid() {
    let (client, requests) = client(|_, _| (200, json!({"metadata": {"name": "p", "namespace": "ns"}})));
    let cluster = KubeCluster::new(client, Writer::<Service>::default().as_reader());
    let patch = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running"}});
    cluster.patch_pod_status("ns", "p", &patch).await.unwrap();
    cluster.delete_pod("ns", "p", "u").await.unwrap();
    let all = requests.lock().clone();
    assert!(all[0].0.starts_with("PATCH /api/v1/namespaces/ns/pods/p/status?"), "{}", all[0].0);
    assert_eq!((all[0].1.as_str(), &all[0].2), ("application/strategic-merge-patch+json", &patch));
    assert!(all[1].0.starts_with("DELETE /api/v1/namespaces/ns/pods/p?"), "{}", all[1].0);
    assert_eq!(all[1].2["gracePeriodSeconds"], json!(0));
    assert_eq!(all[1].2["preconditions"], json!({"uid": "u"}));
}

#[tokio::test]
async fn a_pod_that_became_another_counts_as_deleted_but_a_conflicting_patch_does_not() {
    let (client, _) = client(|_, _| failure(409, "Conflict"));
    let cluster = KubeCluster::new(client, Writer::<Service>::default().as_reader());
    assert!(matches!(cluster.delete_pod("ns", "p", "u").await, Err(ClusterError::NotFound(_))));
    let patched = cluster.patch_pod_status("ns", "p", &json!({})).await;
    assert!(matches!(patched, Err(ClusterError::Request { .. })));
}
