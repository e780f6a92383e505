//! `kube-root-ca.crt` in every namespace: the certificates by which pods recognise the API server.

use crate::cache::Key;
use crate::caches::Caches;
use crate::plan::{Plan, Write};
use crate::runner::{self, Watch};
use crate::service_account::{is_open, wake_new};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";
const ENTRY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Upstream's words: the API's users read them.
const DESCRIBED: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// The controller that publishes the CA.
pub struct Controller {
    pem: String,
}

/// What a plan depends on.
pub struct Snapshot {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Its config map, if it has one.
    pub published: Option<Arc<ConfigMap>>,
}

impl Controller {
    /// Publishes these certificates, PEM.
    pub fn new(pem: impl Into<String>) -> Self {
        Self { pem: pem.into() }
    }
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on(&caches.namespaces, wake_new);
        watch.on(&caches.config_maps, |change, wake| {
            if let Some(changed) = change.latest().filter(|map| map.metadata.name.as_deref() == Some(NAME)) {
                wake(Key::new("", changed.metadata.namespace.clone().unwrap_or_default()));
            }
        });
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let namespace = caches.namespaces.get(key)?;
        let published = caches.config_maps.get(&Key::new(key.name.clone(), NAME));
        Some(Snapshot { namespace, published })
    }

    fn plan(&self, snapshot: &Snapshot, _now: Timestamp) -> Plan {
        plan(snapshot, &self.pem)
    }
}

/// Makes the config map, or puts right one that was changed.
pub fn plan(snapshot: &Snapshot, pem: &str) -> Plan {
    let mut plan = Plan::default();
    if !is_open(&snapshot.namespace) {
        return plan;
    }
    let data = BTreeMap::from([(ENTRY.to_owned(), pem.to_owned())]);
    let described = (DESCRIPTION.to_owned(), DESCRIBED.to_owned());
    match &snapshot.published {
        Some(map) if map.data.as_ref() == Some(&data) && annotation(map) == Some(DESCRIBED) => {}
        Some(map) => {
            let mut map = ConfigMap::clone(map);
            map.data = Some(data);
            map.metadata.annotations.get_or_insert_default().extend([described]);
            plan.then(Write::update(map).tolerating(&[404]));
        }
        None => {
            let metadata = ObjectMeta {
                namespace: snapshot.namespace.metadata.name.clone(),
                name: Some(NAME.to_owned()),
                annotations: Some([described].into()),
                ..ObjectMeta::default()
            };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            plan.then(Write::create(map).tolerating(&[404, 409]));
        }
    }
    plan
}

fn annotation(map: &ConfigMap) -> Option<&str> {
    map.metadata.annotations.as_ref()?.get(DESCRIPTION).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn snapshot(published: Option<ConfigMap>) -> Snapshot {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("demo".into());
        Snapshot { namespace: Arc::new(namespace), published: published.map(Arc::new) }
    }

    fn written(snapshot: &Snapshot) -> Option<(&'static str, ConfigMap)> {
        let plan = plan(snapshot, "PEM");
        plan.writes().next().map(|write| (write.verb.name(), write.object::<ConfigMap>().unwrap().clone()))
    }

    #[test]
    fn the_ca_is_published_once_and_put_right_when_changed() {
        let (verb, map) = written(&snapshot(None)).unwrap();
        assert_eq!((verb, map.data.as_ref().unwrap()[ENTRY].as_str()), ("create", "PEM"));
        assert!(written(&snapshot(Some(map.clone()))).is_none());
        let mut changed = map.clone();
        changed.data.as_mut().unwrap().insert(ENTRY.into(), "other".into());
        let (verb, again) = written(&snapshot(Some(changed))).unwrap();
        assert_eq!((verb, again), ("update", map));
    }

    #[test]
    fn nothing_is_published_in_a_namespace_that_is_going() {
        let mut snapshot = snapshot(None);
        Arc::get_mut(&mut snapshot.namespace).unwrap().metadata.deletion_timestamp =
            Some(Time(Timestamp::UNIX_EPOCH));
        assert!(written(&snapshot).is_none());
    }
}
