//! The caches of all kinds, and the watches that fill them.

use crate::cache::{Cache, Cached, Key, revision_of};
use crate::pod::Sketch;
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, ReplicationController, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a failed watch waits at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

/// The parts of a cache that do not depend on its kind.
#[async_trait]
pub trait AnyCache: Send + Sync {
    /// [`Cache::note_write`].
    fn note_write(&self, revision: u64);
    /// [`Cache::saw`].
    async fn saw(&self, revision: u64);
    /// [`Cache::saw_going`].
    async fn saw_going(&self, key: &Key, uid: &str);
    /// [`Cache::synced`].
    async fn synced(&self);
}

#[async_trait]
impl<K: Cached> AnyCache for Cache<K> {
    fn note_write(&self, revision: u64) {
        Cache::note_write(self, revision);
    }
    async fn saw(&self, revision: u64) {
        Cache::saw(self, revision).await;
    }
    async fn saw_going(&self, key: &Key, uid: &str) {
        Cache::saw_going(self, key, uid).await;
    }
    async fn synced(&self) {
        Cache::synced(self).await;
    }
}

macro_rules! caches {
    ($($(#[$doc:meta])* $field:ident: $kind:ty,)*) => {
        /// One cache per kind, shared by all controllers.
        #[derive(Default)]
        pub struct Caches { $($(#[$doc])* pub $field: Arc<Cache<$kind>>,)* }

        impl Caches {
            /// Starts a watch for every kind on the given task tracker; they end with `shutdown`.
            pub fn start(&self, client: &Client, tasks: &tokio_util::task::TaskTracker, shutdown: &CancellationToken) {
                $(tasks.spawn(follow(Api::<$kind>::all(client.clone()), self.$field.clone(), shutdown.clone()));)*
            }

            /// The cache of a kind by its plural name and group, if that kind is cached.
            pub fn of(&self, group: &str, plural: &str) -> Option<&dyn AnyCache> {
                use k8s_openapi::Resource;
                $(if <$kind>::GROUP == group && <$kind>::URL_PATH_SEGMENT == plural {
                    return Some(&*self.$field);
                })*
                None
            }

            /// Resolves when every first list is in.
            pub async fn synced(&self) {
                $(self.$field.synced().await;)*
            }
        }
    };
}

caches! {
    /// apps/v1 Deployments.
    deployments: Deployment,
    /// apps/v1 ReplicaSets.
    replica_sets: ReplicaSet,
    /// v1 ReplicationControllers.
    replication_controllers: ReplicationController,
    /// v1 Pods, as far as controllers need them.
    pods: Sketch,
    /// v1 Services.
    services: Service,
    /// v1 Endpoints.
    endpoints: Endpoints,
    /// discovery.k8s.io/v1 EndpointSlices.
    endpoint_slices: EndpointSlice,
    /// v1 Nodes.
    nodes: Node,
    /// v1 Namespaces.
    namespaces: Namespace,
    /// v1 ServiceAccounts.
    service_accounts: ServiceAccount,
    /// v1 ConfigMaps.
    config_maps: ConfigMap,
    /// v1 Secrets.
    secrets: Secret,
    /// coordination.k8s.io/v1 Leases.
    leases: Lease,
}

/// Keeps a cache equal to what the API server has until `shutdown`. An interrupted watch resumes where it was;
/// one that is too old (410) lists afresh; failures are retried with exponential pauses.
async fn follow<K>(api: Api<K>, cache: Arc<Cache<K>>, shutdown: CancellationToken)
where
    K: Cached + kube::Resource + DeserializeOwned + Debug,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut listed = Vec::new();
    let mut floor = 0;
    let mut trouble = Trouble::default();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                let pause = trouble.met(K::KIND.as_ref(), &error);
                // A server older than the kind has none of it; who works with other kinds goes on.
                if refused(&error) == Some(404) && cache.is_empty() {
                    cache.replace(Vec::new(), cache.written());
                }
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            // Said before every attempt to list: not yet a success.
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                floor = cache.written();
            }
            Some(Ok(watcher::Event::InitApply(object))) => listed.push(slim(object)),
            Some(Ok(watcher::Event::InitDone)) => {
                tracing::debug!(kind = K::KIND, count = listed.len(), "listed");
                cache.replace(std::mem::take(&mut listed), floor);
                trouble = Trouble::default();
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                cache.upsert(slim(object));
                trouble = Trouble::default();
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                tracing::trace!(kind = K::KIND, revision = revision_of(object.metadata()), "deleted");
                cache.remove(&object);
                trouble = Trouble::default();
            }
        }
    }
}

/// Failures of a watch in a row.
struct Trouble {
    pause: Duration,
    told: bool,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { pause: RETRY.0, told: false }
    }
}

impl Trouble {
    /// Says what a person must know, once, and gives how long to wait.
    fn met(&mut self, kind: &str, error: &watcher::Error) -> Duration {
        match refused(error) {
            Some(404) if !self.told => tracing::warn!(kind, "not served by this API server"),
            Some(_) if !self.told => tracing::warn!(kind, %error, "cannot be listed or watched"),
            _ => tracing::debug!(kind, %error, "watch interrupted"),
        }
        self.told |= refused(error).is_some();
        let pause = self.pause;
        self.pause = (pause * 2).min(RETRY.1);
        pause
    }
}

/// The status code with which the API server refuses to list or watch, if it does for good: neither busy (429, 5xx)
/// nor telling that the watch is too old (410).
fn refused(error: &watcher::Error) -> Option<u16> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))) = error
    else {
        return None;
    };
    Some(status.code).filter(|code| (400..500).contains(code) && ![410, 429].contains(code))
}

/// Drops what no controller reads and what would only cost memory.
fn slim<K: Cached>(mut object: K) -> K {
    object.metadata_mut().managed_fields = None;
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use kube::client::Body;
    use rstest::rstest;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// An API server that refuses everything, and counts how often.
    fn refusing(code: u16, asked: Arc<AtomicU32>) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let status = serde_json::json!({"kind": "Status", "status": "Failure", "code": code});
            let answer = Response::builder().status(code).body(Body::from(status.to_string().into_bytes()));
            async { Ok::<_, Infallible>(answer.expect("answer")) }
        });
        Client::new(service, "default")
    }

    #[rstest]
    #[case::not_served(404, true)]
    #[case::not_allowed(403, false)]
    #[case::broken(500, false)]
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_refuses_is_asked_ever_more_rarely(
        #[case] code: u16,
        #[case] counts_as_empty: bool,
    ) {
        let (asked, cache) = (Arc::new(AtomicU32::new(0)), Arc::new(Cache::<EndpointSlice>::default()));
        let following =
            follow(Api::all(refusing(code, asked.clone())), cache.clone(), CancellationToken::new());
        let _ = tokio::time::timeout(Duration::from_secs(60), following).await;
        // After 10, 20, 40 … 5,120 ms and then every 10 s: some 15 times in a minute.
        let asked = asked.load(Ordering::Relaxed);
        assert!((10..25).contains(&asked), "{asked}");
        let synced = tokio::time::timeout(Duration::from_secs(1), cache.synced()).await;
        assert_eq!(synced.is_ok(), counts_as_empty);
    }
}
