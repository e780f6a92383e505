//! What is deleted along with what, on a real API server in the same process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use sagong_apiserver::authn::User;
use sagong_apiserver::{ApiServer, Config};
use sagong_controllers::Options;
use sagong_store::EmbeddedStore;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for a wrong deletion to happen, which takes a few milliseconds.
const A_WHILE: Duration = Duration::from_millis(300);

struct Cluster {
    client: Client,
    _dir: TempDir,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    async fn start(options: Options) -> Self {
        let cluster = Self::without_controllers().await;
        cluster.run(options);
        cluster
    }

    fn run(&self, options: Options) {
        let controllers = sagong_controllers::run(self.client.clone(), options, self.shutdown.clone());
        tokio::spawn(async move { controllers.await.unwrap() });
    }

    async fn without_controllers() -> Self {
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
        Self { client, _dir: dir, shutdown: CancellationToken::new() }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    async fn config_map(&self, namespace: &str, name: &str, metadata: Value) -> ConfigMap {
        let mut object = json!({"metadata": {"name": name}});
        for (field, value) in metadata.as_object().unwrap() {
            object["metadata"][field] = value.clone();
        }
        create(&self.api(namespace), object).await
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: DeserializeOwned + serde::Serialize + Clone + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// Waits until the object, or its absence, is as wished.
async fn until<K>(api: &Api<K>, name: &str, what: &str, is: impl Fn(Option<&K>) -> bool)
where
    K: DeserializeOwned + Clone + Debug,
{
    let began = Instant::now();
    loop {
        let current = api.get_opt(name).await.unwrap();
        if is(current.as_ref()) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{name} is never {what}: {current:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_gone<K: DeserializeOwned + Clone + Debug>(api: &Api<K>, name: &str) {
    until(api, name, "gone", |object| object.is_none()).await;
}

async fn until_count<K: DeserializeOwned + Clone + Debug>(api: &Api<K>, count: usize) -> Vec<K> {
    let began = Instant::now();
    loop {
        let listed = api.list(&ListParams::default()).await.unwrap().items;
        if listed.len() == count {
            return listed;
        }
        assert!(began.elapsed() < PATIENCE, "there are never {count}: {listed:#?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn owned_by(owners: &[&ConfigMap]) -> Value {
    let reference = |owner: &&ConfigMap| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid(),
            "blockOwnerDeletion": true})
    };
    json!({"ownerReferences": owners.iter().map(reference).collect::<Vec<_>>()})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "kubia"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "kubia"}},
        "template": {"metadata": {"labels": {"app": "kubia"}},
            "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]}}}})
}

fn with(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }
}

async fn release<K: DeserializeOwned + Clone + Debug>(api: &Api<K>, name: &str) {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_deployment_takes_its_replica_sets_and_pods_along() {
    let cluster = Cluster::start(Options::default()).await;
    let deployments = cluster.api::<Deployment>("default");
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        create(&deployments, deployment()).await;
        until_count(&cluster.api::<Pod>("default"), 3).await;
        deployments.delete("kubia", &with(policy)).await.unwrap();
        until_count(&cluster.api::<Pod>("default"), 0).await;
        until_count(&cluster.api::<ReplicaSet>("default"), 0).await;
        until_count(&deployments, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; run it alone, in release"]
async fn a_thousand_pods_are_collected() {
    let cluster = Cluster::start(Options::default()).await;
    let deployments = cluster.api::<Deployment>("default");
    let mut large = deployment();
    large["spec"]["replicas"] = json!(1000);
    create(&deployments, large).await;
    until_count(&cluster.api::<Pod>("default"), 1000).await;
    let began = Instant::now();
    deployments.delete("kubia", &DeleteParams::default()).await.unwrap();
    until_count(&cluster.api::<Pod>("default"), 0).await;
    eprintln!("collected in {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphaned_replica_set_keeps_its_pods_until_its_deployment_is_made_again() {
    let cluster = Cluster::start(Options::default()).await;
    let deployments = cluster.api::<Deployment>("default");
    create(&deployments, deployment()).await;
    until_count(&cluster.api::<Pod>("default"), 3).await;
    deployments.delete("kubia", &with(PropagationPolicy::Orphan)).await.unwrap();
    until_gone(&deployments, "kubia").await;
    tokio::time::sleep(A_WHILE).await;
    let sets = until_count(&cluster.api::<ReplicaSet>("default"), 1).await;
    assert!(sets[0].owner_references().is_empty());
    let pods = until_count(&cluster.api::<Pod>("default"), 3).await;
    assert!(pods.iter().all(|pod| pod.owner_references()[0].uid == sets[0].uid().unwrap()));

    let again = create(&deployments, deployment()).await;
    let name = sets[0].name_any();
    let owner = |set: &ReplicaSet| set.owner_references().first().map(|owner| owner.uid.clone());
    until(&cluster.api::<ReplicaSet>("default"), &name, "adopted", |set| set.and_then(owner) == again.uid())
        .await;
    tokio::time::sleep(A_WHILE).await;
    until_count(&cluster.api::<ReplicaSet>("default"), 1).await;
    let after = until_count(&cluster.api::<Pod>("default"), 3).await;
    let uids = |pods: &[Pod]| pods.iter().map(ResourceExt::uid).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(uids(&after), uids(&pods), "the same pods");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_keeps_the_owner_until_the_last_dependent_is_gone() {
    let cluster = Cluster::start(Options::default()).await;
    let maps = cluster.api::<ConfigMap>("default");
    let owner = cluster.config_map("default", "owner", json!({})).await;
    let mut held = owned_by(&[&owner]);
    held["finalizers"] = json!(["example.com/hold"]);
    cluster.config_map("default", "held", held).await;
    cluster.config_map("default", "free", owned_by(&[&owner])).await;
    maps.delete("owner", &with(PropagationPolicy::Foreground)).await.unwrap();
    until_gone(&maps, "free").await;
    until(&maps, "held", "terminating", |map| map.is_some_and(|m| m.metadata.deletion_timestamp.is_some()))
        .await;
    tokio::time::sleep(A_WHILE).await;
    assert!(maps.get_opt("owner").await.unwrap().is_some(), "the owner waits");
    release(&maps, "held").await;
    until_gone(&maps, "held").await;
    until_gone(&maps, "owner").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_goes_with_its_last_owner_only_and_owners_that_never_were_do_not_count() {
    let cluster = Cluster::start(Options::default()).await;
    let maps = cluster.api::<ConfigMap>("default");
    let first = cluster.config_map("default", "first", json!({})).await;
    let second = cluster.config_map("default", "second", json!({})).await;
    cluster.config_map("default", "shared", owned_by(&[&first, &second])).await;
    let mut never = first.clone();
    never.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
    cluster.config_map("default", "fatherless", owned_by(&[&never])).await;
    until_gone(&maps, "fatherless").await;

    maps.delete("first", &DeleteParams::default()).await.unwrap();
    let owners = |map: Option<&ConfigMap>| map.map(|map| map.owner_references().len());
    until(&maps, "shared", "owned by one", |map| owners(map) == Some(1)).await;
    maps.delete("second", &DeleteParams::default()).await.unwrap();
    until_gone(&maps, "shared").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_its_owner_while_nobody_looked_goes_later() {
    let cluster = Cluster::without_controllers().await;
    let maps = cluster.api::<ConfigMap>("default");
    let owner = cluster.config_map("default", "owner", json!({})).await;
    let living = cluster.config_map("default", "living", json!({})).await;
    cluster.config_map("default", "goes", owned_by(&[&owner])).await;
    cluster.config_map("default", "stays", owned_by(&[&living])).await;
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    // Another object of that name is not the owner.
    cluster.config_map("default", "owner", json!({})).await;
    cluster.run(Options::default());
    until_gone(&maps, "goes").await;
    assert!(maps.get_opt("stays").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_does_not_block_its_deletion() {
    let cluster = Cluster::start(Options::default()).await;
    let maps = cluster.api::<ConfigMap>("default");
    let mut circle = Vec::new();
    for name in ["one", "two", "three"] {
        circle.push(cluster.config_map("default", name, json!({})).await);
    }
    for (index, name) in ["one", "two", "three"].into_iter().enumerate() {
        let patch = Patch::Merge(json!({"metadata": owned_by(&[&circle[(index + 2) % 3]])}));
        maps.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
    maps.delete("one", &with(PropagationPolicy::Foreground)).await.unwrap();
    until_count(&maps, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependent_with_another_owner_survives_foreground_deletion_of_the_first() {
    let cluster = Cluster::start(Options::default()).await;
    let maps = cluster.api::<ConfigMap>("default");
    let going = cluster.config_map("default", "going", json!({})).await;
    let staying = cluster.config_map("default", "staying", json!({})).await;
    cluster.config_map("default", "shared", owned_by(&[&going, &staying])).await;
    cluster.config_map("default", "own", owned_by(&[&going])).await;
    maps.delete("going", &with(PropagationPolicy::Foreground)).await.unwrap();
    until_gone(&maps, "going").await;
    until_gone(&maps, "own").await;
    let shared = maps.get("shared").await.unwrap();
    assert_eq!(shared.owner_references()[0].uid, staying.uid().unwrap());
    assert_eq!((shared.owner_references().len(), shared.metadata.deletion_timestamp), (1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_in_another_namespace_is_no_owner_but_keeps_its_own_dependents() {
    let cluster = Cluster::start(Options::default()).await;
    let owner = cluster.config_map("default", "owner", json!({})).await;
    cluster.config_map("kube-public", "abroad", owned_by(&[&owner])).await;
    cluster.config_map("default", "at-home", owned_by(&[&owner])).await;
    until_gone(&cluster.api::<ConfigMap>("kube-public"), "abroad").await;
    let events = until_count(&cluster.api::<Event>("kube-public"), 1).await;
    assert_eq!(events[0].reason.as_deref(), Some("OwnerRefInvalidNamespace"));
    tokio::time::sleep(A_WHILE).await;
    assert!(cluster.api::<ConfigMap>("default").get_opt("at-home").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_is_emptied_before_it_goes_and_says_what_holds_it() {
    let cluster = Cluster::start(Options { root_ca: Some("PEM".into()), ..Options::default() }).await;
    let namespaces = cluster.all::<Namespace>();
    create(&namespaces, json!({"metadata": {"name": "demo"}})).await;
    until(&cluster.api::<ServiceAccount>("demo"), "default", "there", |account| account.is_some()).await;
    until(&cluster.api::<ConfigMap>("demo"), "kube-root-ca.crt", "there", |map| map.is_some()).await;
    create(&cluster.api::<Deployment>("demo"), deployment()).await;
    until_count(&cluster.api::<Pod>("demo"), 3).await;
    cluster.config_map("demo", "held", json!({"finalizers": ["example.com/hold"]})).await;

    namespaces.delete("demo", &DeleteParams::default()).await.unwrap();
    let says = |namespace: Option<&Namespace>, message: &str| {
        let conditions = namespace?.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().any(|c| c.message.as_deref() == Some(message)).then_some(())
    };
    let held =
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    until(&namespaces, "demo", "held", |namespace| says(namespace, held).is_some()).await;
    until_count(&cluster.api::<Pod>("demo"), 0).await;
    until_count(&cluster.api::<Deployment>("demo"), 0).await;
    let left = "Some resources are remaining: configmaps. has 1 resource instances";
    until(&namespaces, "demo", "left with one map", |namespace| says(namespace, left).is_some()).await;
    release(&cluster.api::<ConfigMap>("demo"), "held").await;
    until_gone(&namespaces, "demo").await;
    assert!(cluster.api::<ConfigMap>("demo").list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_namespace_is_gone_within_a_second() {
    let cluster = Cluster::start(Options::default()).await;
    let namespaces = cluster.all::<Namespace>();
    create(&namespaces, json!({"metadata": {"name": "demo"}})).await;
    until(&cluster.api::<ServiceAccount>("demo"), "default", "there", |account| account.is_some()).await;
    let began = Instant::now();
    namespaces.delete("demo", &DeleteParams::default()).await.unwrap();
    until_gone(&namespaces, "demo").await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

static LATER: AtomicI64 = AtomicI64::new(0);

fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_secs(LATER.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_becomes_unknown_is_tainted_and_loses_its_pods_until_it_is_heard_again() {
    let cluster = Cluster::start(Options { clock, ..Options::default() }).await;
    let nodes = cluster.all::<Node>();
    let report = |name: &'static str, status: &'static str| {
        let nodes = nodes.clone();
        async move {
            let now = clock().to_string();
            let ready = json!({"type": "Ready", "status": status, "reason": "KubeletReady", "message": "ready",
                "lastHeartbeatTime": now, "lastTransitionTime": now});
            let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
            nodes.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
        }
    };
    for name in ["silent", "loud"] {
        create(&nodes, json!({"metadata": {"name": name}})).await;
        report(name, "True").await;
    }
    let leases = cluster.api::<Lease>("kube-node-lease");
    create(
        &leases,
        json!({"metadata": {"name": "silent"}, "spec": {"renewTime": "2024-01-01T00:00:00.000000Z"}}),
    )
    .await;
    let pods = cluster.api::<Pod>("default");
    let tolerations = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 0}]);
    for (name, tolerations) in [("stays", json!([{"operator": "Exists"}])), ("goes", tolerations)] {
        let spec = json!({"nodeName": "silent", "terminationGracePeriodSeconds": 0, "tolerations": tolerations,
            "containers": [{"name": "main", "image": "i"}]});
        create(&pods, json!({"metadata": {"name": name}, "spec": spec})).await;
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": clock().to_string()});
        let patch = Patch::Merge(json!({"status": {"phase": "Running", "conditions": [ready]}}));
        pods.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(keys_of_taints(&nodes.get("silent").await.unwrap()), [""; 0]);

    LATER.store(41, Ordering::Relaxed);
    report("loud", "True").await;
    let touch = Patch::Merge(json!({"metadata": {"labels": {"touched": "yes"}}}));
    nodes.patch("silent", &PatchParams::default(), &touch).await.unwrap();
    let unreachable =
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    until(&nodes, "silent", "unreachable", |node| node.is_some_and(|n| keys_of_taints(n) == unreachable))
        .await;
    until_gone(&pods, "goes").await;
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).unwrap();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    until(&pods, "stays", "not ready", |pod| pod.is_some_and(|pod| !is_ready(pod))).await;

    report("silent", "True").await;
    until(&nodes, "silent", "reachable", |node| node.is_some_and(|n| keys_of_taints(n).is_empty())).await;
    assert!(keys_of_taints(&nodes.get("loud").await.unwrap()).is_empty());
}

fn keys_of_taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
}
