//! What pods need of the API, as a seam of few methods so that whole pod lives can be tested in memory.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use serde_json::Value;
use std::sync::Arc;

/// Where the API can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// There is no such object, or the name belongs to another by now.
    #[error("{0} not found")]
    NotFound(String),
    /// A request failed.
    #[error("{step} {object}: {source}")]
    Request {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// The API as pods need it.
#[async_trait]
pub(crate) trait Cluster: Send + Sync {
    /// Merges changes into the status; gives the object as it is then.
    async fn patch_pod_status(&self, namespace: &str, name: &str, patch: &Value)
    -> Result<Pod, ClusterError>;
    /// Deletes a pod for good, if it still has this uid.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError>;
    /// A config map, if it exists.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError>;
    /// A secret, if it exists.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError>;
    /// Asks for a token of a service account.
    async fn request_token(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequestStatus, ClusterError>;
    /// The services of a namespace, and always `default/kubernetes`.
    async fn services(&self, namespace: &str) -> Vec<Arc<Service>>;
    /// Records an event.
    async fn create_event(&self, event: &Event) -> Result<(), ClusterError>;
    /// Counts an event once more.
    async fn patch_event(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), ClusterError>;
}

/// The API through a client.
pub(crate) struct KubeCluster {
    client: Client,
    services: Store<Service>,
}

impl KubeCluster {
    /// `services` is kept up to date by somebody else.
    pub(crate) fn new(client: Client, services: Store<Service>) -> Self {
        KubeCluster { client, services }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn failed(step: &'static str, object: String) -> impl FnOnce(kube::Error) -> ClusterError {
    move |error| match &error {
        kube::Error::Api(status) if status.code == 404 => ClusterError::NotFound(object),
        // A deletion guarded by the uid: the object it was meant for is gone. A patch may conflict for other
        // reasons, and none of them must end a pod.
        kube::Error::Api(status) if status.code == 409 && step == "deleting" => {
            ClusterError::NotFound(object)
        }
        _ => ClusterError::Request { step, object, source: Box::new(error) },
    }
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn patch_pod_status(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Pod, ClusterError> {
        let params = PatchParams::default();
        let answer = self.pods(namespace).patch_status(name, &params, &Patch::Strategic(patch)).await;
        answer.map_err(failed("patching status of", format!("pod {namespace}/{name}")))
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let answer = self.pods(namespace).delete(name, &params).await;
        answer.map(drop).map_err(failed("deleting", format!("pod {namespace}/{name}")))
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(failed("getting", format!("configmap {namespace}/{name}")))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(failed("getting", format!("secret {namespace}/{name}")))
    }

    async fn request_token(
        &self,
        namespace: &str,
        account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequestStatus, ClusterError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let object = format!("serviceaccount {namespace}/{account}");
        let answer = api.create_token_request(account, &PostParams::default(), request).await;
        let answer = answer.map_err(failed("requesting a token of", object.clone()))?;
        answer.status.ok_or(ClusterError::NotFound(format!("token of {object}")))
    }

    async fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        // Without the list the environment would miss what upstream's containers have; it comes once, early.
        let _ =
            tokio::time::timeout(std::time::Duration::from_secs(5), self.services.wait_until_ready()).await;
        let is_wanted = |service: &Arc<Service>| {
            let meta = &service.metadata;
            let is_master =
                meta.name.as_deref() == Some("kubernetes") && meta.namespace.as_deref() == Some("default");
            is_master || meta.namespace.as_deref() == Some(namespace)
        };
        self.services.state().into_iter().filter(is_wanted).collect()
    }

    async fn create_event(&self, event: &Event) -> Result<(), ClusterError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let object = format!("event {namespace}/{}", event.metadata.name.as_deref().unwrap_or_default());
        api.create(&PostParams::default(), event).await.map(drop).map_err(failed("creating", object))
    }

    async fn patch_event(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), ClusterError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let answer = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        answer.map(drop).map_err(failed("patching", format!("event {namespace}/{name}")))
    }
}
