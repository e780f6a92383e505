//! The controllers on a real API server in the same process, with a node that is only pretended.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Event, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use rstest::rstest;
use sagong_apiserver::authn::User;
use sagong_apiserver::{ApiServer, Config};
use sagong_store::EmbeddedStore;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    client: Client,
    refuses_pods: Arc<AtomicBool>,
    _dir: TempDir,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let config = Config {
            store: Arc::new(EmbeddedStore::open(&dir.path().join("store.redb")).unwrap()),
            kinds: sagong_api::kinds::registry(),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            node_ports: 30000..=32767,
            tokens: Vec::new(),
            token_key: None,
        };
        let api = ApiServer::new(config).await.unwrap();
        api.bootstrap("192.0.2.1".parse().unwrap(), 6443).await.unwrap();
        let client = api.client(User::admin("test"));
        let node = serde_json::from_value(json!({"metadata": {"name": "node"}})).unwrap();
        Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await.unwrap();
        let shutdown = CancellationToken::new();
        let refuses_pods = Arc::new(AtomicBool::new(false));
        let through = refusing(client.clone(), refuses_pods.clone());
        let controllers = sagong_controllers::run(through, Default::default(), shutdown.clone());
        tokio::spawn(async move { controllers.await.unwrap() });
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(pretend_node(client.clone())));
        Self { client, refuses_pods, _dir: dir, shutdown }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: serde_json::Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Waits until the object satisfies `condition`.
    async fn until<K>(&self, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watcher(self.api::<K>(), config));
        let wait = async {
            loop {
                if let Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) =
                    events.next().await
                    && condition(&object)
                {
                    return object;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} is never {what}"))
    }

    async fn messages(&self, reason: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let mut events: Vec<Event> =
            events.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect();
        events.sort_by_key(|event| event.metadata.resource_version.clone().unwrap().parse::<u64>().unwrap());
        events.into_iter().filter_map(|event| event.message).collect()
    }
}

/// A client that refuses to create pods while it is told to.
fn refusing(inner: Client, refuses_pods: Arc<AtomicBool>) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let creates_pod = request.method() == http::Method::POST && request.uri().path().ends_with("/pods");
        let refused = creates_pod && refuses_pods.load(Ordering::Relaxed);
        let inner = inner.clone();
        async move {
            if refused {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                    "reason": "Forbidden", "message": "exceeded quota"});
                let body = kube::client::Body::from(status.to_string().into_bytes());
                return Ok(http::Response::builder().status(403).body(body).unwrap());
            }
            inner.send(request).await
        }
    });
    Client::new(service, "default")
}

/// Binds every pod to a node, makes it ready, and lets it end when asked to.
async fn pretend_node(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()));
    let mut next_address = 0u32;
    let mut known: HashMap<String, ()> = HashMap::new();
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else { continue };
        let (namespace, name) = (pod.namespace().unwrap(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            if known.remove(&pod.uid().unwrap()).is_some() {
                tokio::spawn(
                    async move { api.delete(&name, &DeleteParams::default().grace_period(0)).await },
                );
            }
            continue;
        }
        if known.insert(pod.uid().unwrap(), ()).is_some() {
            continue;
        }
        let is_broken = pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("broken");
        next_address += 1;
        let address = format!("10.244.{}.{}", next_address / 250, next_address % 250 + 1);
        let client = client.clone();
        tokio::spawn(async move {
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"kind": "Node", "name": "node"}});
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
            let request = http::Request::post(path).header("content-type", "application/json");
            client.request_text(request.body(binding.to_string().into_bytes()).unwrap()).await.unwrap();
            let ready = if is_broken { "False" } else { "True" };
            let now = jiff::Timestamp::now().to_string();
            let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}});
            let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        });
    }
}

fn deployment(replicas: i32, image: &str) -> serde_json::Value {
    let one_by_one = json!({"maxSurge": 1, "maxUnavailable": 0});
    let rolling = if replicas > 100 { json!({}) } else { one_by_one };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kubia"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "kubia"}},
            "strategy": {"rollingUpdate": rolling},
            "template": {
                "metadata": {"labels": {"app": "kubia"}},
                "spec": {"containers": [{"name": "nodejs", "image": image}]},
            },
        },
    })
}

fn is_complete(deployment: &Deployment, replicas: i32) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation == deployment.metadata.generation
        && status.replicas.unwrap_or(0) == replicas
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
}

fn image(image: &str) -> Patch<serde_json::Value> {
    Patch::Strategic(
        json!({"spec": {"template": {"spec": {"containers": [{"name": "nodejs", "image": image}]}}}}),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_forward_and_back_and_its_service_follows() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "kubia"},
            "spec": {"selector": {"app": "kubia"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .await;
    cluster.create::<Deployment>(deployment(3, "v1")).await;
    cluster.until::<Deployment>("kubia", "complete", |d| is_complete(d, 3)).await;
    cluster
        .until::<Endpoints>("kubia", "listing three pods", |endpoints| {
            endpoints.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).count() == 3
        })
        .await;

    let deployments = cluster.api::<Deployment>();
    deployments.patch("kubia", &PatchParams::default(), &image("v2")).await.unwrap();
    cluster
        .until::<Deployment>("kubia", "rolled", |d| d.metadata.generation >= Some(2) && is_complete(d, 3))
        .await;
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 3]);

    deployments.patch("kubia", &PatchParams::default(), &image("v1")).await.unwrap();
    let done = cluster
        .until::<Deployment>("kubia", "back", |d| d.metadata.generation >= Some(3) && is_complete(d, 3))
        .await;
    assert_eq!(done.annotations()["deployment.kubernetes.io/revision"], "3");
    assert_eq!(cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.len(), 2);

    let slices = ListParams::default().labels("kubernetes.io/service-name=kubia");
    let began = Instant::now();
    loop {
        let slices = cluster.api::<EndpointSlice>().list(&slices).await.unwrap().items;
        let endpoints: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).collect();
        let ready = |endpoint: &&&k8s_openapi::api::discovery::v1::Endpoint| {
            endpoint.conditions.as_ref().unwrap().ready == Some(true)
        };
        if endpoints.len() == 3 && endpoints.iter().filter(ready).count() == 3 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{endpoints:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let scaling = cluster.messages("ScalingReplicaSet").await;
    let expected = ["0 to 3", "0 to 1", "3 to 2", "1 to 2", "2 to 1", "2 to 3", "1 to 0", "0 to 1", "3 to 2"];
    let steps: Vec<&str> =
        scaling.iter().filter_map(|message| message.split_once(" from ")).map(|(_, s)| s).collect();
    assert_eq!(steps[..9], expected);
    assert!(scaling[9].starts_with("(combined from similar events): Scaled down"), "{scaling:#?}");
    assert!(cluster.messages("SuccessfulCreate").await.len() >= 9);
}

#[rstest]
#[case::replication_controller(json!({"app": "kubia"}))]
#[case::bare_replica_set(json!({"matchLabels": {"app": "kubia"}}))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_deleted_or_relabelled_are_replaced_and_adopted_when_they_match_again(
    #[case] selector: serde_json::Value,
) {
    let cluster = Cluster::start().await;
    let is_set = selector["matchLabels"].is_object();
    let object = json!({"metadata": {"name": "kubia"}, "spec": {"replicas": 2, "selector": selector,
        "template": {"metadata": {"labels": {"app": "kubia"}},
            "spec": {"containers": [{"name": "nodejs", "image": "v1"}]}}}});
    // A pod that matches and is another's stays so.
    let node = Api::<Node>::all(cluster.client.clone()).get("node").await.unwrap();
    let foreign = json!({"metadata": {"name": "foreign", "labels": {"app": "kubia", "foreign": "yes"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node", "uid": node.uid(),
            "controller": true}]}, "spec": {"containers": [{"name": "nodejs", "image": "v1"}]}});
    let foreign: Pod = cluster.create(foreign).await;
    if is_set {
        cluster.create::<ReplicaSet>(object).await;
        let is_ready = |set: &ReplicaSet| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(2));
        cluster.until("kubia", "ready", is_ready).await;
    } else {
        cluster.create::<ReplicationController>(object).await;
        let is_ready =
            |set: &ReplicationController| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(2));
        cluster.until("kubia", "ready", is_ready).await;
    }
    let ours = ListParams::default().labels("!foreign");
    let pods = cluster.api::<Pod>();
    let listed = pods.list(&ours).await.unwrap().items;
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "debug"}}}));
    pods.patch(&listed[0].name_any(), &PatchParams::default(), &relabel).await.unwrap();
    pods.delete(&listed[1].name_any(), &DeleteParams::default()).await.unwrap();
    let began = Instant::now();
    loop {
        let now = pods.list(&ours).await.unwrap().items;
        let released = now.iter().find(|pod| pod.uid() == listed[0].uid()).unwrap();
        let others: Vec<_> = now.iter().filter(|pod| pod.labels()["app"] == "kubia").collect();
        let is_new = |pod: &&Pod| pod.uid() != listed[1].uid() && pod.owner_references().len() == 1;
        if released.owner_references().is_empty()
            && others.len() == 2
            && others.into_iter().all(|pod| is_new(&pod))
        {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{now:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Given its label back, the released pod is adopted and one too many goes.
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "kubia"}}}));
    pods.patch(&listed[0].name_any(), &PatchParams::default(), &relabel).await.unwrap();
    let began = Instant::now();
    loop {
        let now = pods.list(&ours).await.unwrap().items;
        if now.len() == 2 && now.iter().all(|pod| pod.owner_references().len() == 1) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{now:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let now = pods.get("foreign").await.unwrap();
    assert_eq!((now.uid(), now.owner_references()), (foreign.uid(), foreign.owner_references()));
    assert_eq!(now.metadata.deletion_timestamp, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_create_is_told_and_retried() {
    let cluster = Cluster::start().await;
    cluster.refuses_pods.store(true, Ordering::Relaxed);
    cluster.create::<Deployment>(deployment(2, "v1")).await;
    let told = |deployment: &Deployment| {
        let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    };
    cluster.until::<Deployment>("kubia", "failing", told).await;
    let began = Instant::now();
    while cluster.messages("FailedCreate").await.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cluster.messages("FailedCreate").await, ["Error creating: exceeded quota"]);
    cluster.refuses_pods.store(false, Ordering::Relaxed);
    cluster.until::<Deployment>("kubia", "complete", |d| is_complete(d, 2) && !told(d)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; run it alone, in release"]
async fn a_thousand_pods_are_created_and_rolled() {
    let cluster = Cluster::start().await;
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
    };
    let began = (Instant::now(), cpu());
    cluster.create::<Deployment>(deployment(1000, "v1")).await;
    cluster.until::<Deployment>("kubia", "complete", |d| is_complete(d, 1000)).await;
    eprintln!("created in {:?}, {:.2} s of CPU", began.0.elapsed(), cpu() - began.1);
    let began = (Instant::now(), cpu());
    cluster.api::<Deployment>().patch("kubia", &PatchParams::default(), &image("v2")).await.unwrap();
    cluster
        .until::<Deployment>("kubia", "rolled", |d| d.metadata.generation >= Some(2) && is_complete(d, 1000))
        .await;
    eprintln!("rolled in {:?}, {:.2} s of CPU", began.0.elapsed(), cpu() - began.1);
}
