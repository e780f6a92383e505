//! Leader election between two candidates, on a real API server in the same process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use sagong_apiserver::authn::User;
use sagong_apiserver::{ApiServer, Config};
use sagong_controllers::election::{Election, Settings};
use sagong_store::EmbeddedStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

async fn server() -> (ApiServer, TempDir) {
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
    (api, dir)
}

/// As upstream's, only quicker.
fn settings(identity: &str) -> Settings {
    Settings {
        duration: Duration::from_millis(1500),
        deadline: Duration::from_millis(900),
        retry: Duration::from_millis(100),
        ..Settings::new(identity)
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

async fn holder(client: &Client) -> (String, i32) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let spec = leases.get("kube-controller-manager").await.unwrap().spec.unwrap();
    (spec.holder_identity.unwrap(), spec.lease_transitions.unwrap())
}

/// A client whose requests can be cut off.
fn cut(inner: Client, is_cut: Arc<AtomicBool>) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, is_cut) = (inner.clone(), is_cut.clone());
        async move {
            if is_cut.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            inner.send(request).await
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_lease_that_is_given_back_is_taken_over_at_once() {
    let (api, _dir) = server().await;
    let client = api.client(User::admin("test"));
    let mut first = Election::new(client.clone(), settings("first"));
    soon(first.acquire(|other| panic!("{other} leads"))).await;
    assert_eq!(holder(&client).await, ("first".into(), 0));

    let mut second = Election::new(client.clone(), settings("second"));
    let mut leaders = Vec::new();
    let still_waits = tokio::time::timeout(Duration::from_millis(2500), async {
        tokio::join!(second.acquire(|other| leaders.push(other.to_owned())), first.lost())
    });
    assert!(still_waits.await.is_err(), "a lease that is renewed is nobody else's");
    assert_eq!(leaders, ["first"], "told once");

    first.release().await;
    soon(second.acquire(|_| {})).await;
    assert_eq!(holder(&client).await.0, "second");
    second.release().await;
    assert_eq!(holder(&client).await.0, "");

    let events: Api<Event> = Api::namespaced(client, "kube-system");
    let mut events = events.list(&ListParams::default().fields("reason=LeaderElection")).await.unwrap().items;
    events.sort_by_key(|event| event.metadata.resource_version.clone().unwrap().parse::<u64>().unwrap());
    let messages: Vec<_> = events.into_iter().filter_map(|event| event.message).collect();
    let told =
        ["first became leader", "first stopped leading", "second became leader", "second stopped leading"];
    for message in told {
        assert!(messages.iter().any(|other| other == message), "{message}: {messages:?}");
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_before_another_begins() {
    let (api, _dir) = server().await;
    let client = api.client(User::admin("test"));
    let is_cut = Arc::new(AtomicBool::new(false));
    let mut first = Election::new(cut(client.clone(), is_cut.clone()), settings("first"));
    soon(first.acquire(|_| {})).await;
    let mut second = Election::new(client.clone(), settings("second"));
    is_cut.store(true, Ordering::Relaxed);
    let lost = async {
        first.lost().await;
        std::time::Instant::now()
    };
    let taken = async {
        second.acquire(|_| {}).await;
        std::time::Instant::now()
    };
    let (lost, taken) = soon(async { tokio::join!(lost, taken) }).await;
    assert!(lost < taken, "two led for {:?}", lost - taken);
    assert_eq!(holder(&client).await, ("second".into(), 1));
}
