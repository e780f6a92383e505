//! Namespaces being deleted: everything in them goes first, then their finalizer.
//!
//! * [`content`]: what is left in one, asked of the API server kind by kind.
//! * [`conditions`]: what its status tells about that.
//!
//! Pods go before everything else (KEP-5080), so that what protects them, such as policies and secrets, stays until
//! they have ended.

pub mod conditions;
pub mod content;

use crate::cache::{Cache, Cached, Key};
use crate::caches::Caches;
use crate::live::{self, ReadError};
use crate::plan::{Deletion, KindRef, Plan, Verb, Write};
use crate::runner::Watch;
use async_trait::async_trait;
use content::Content;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use sagong_api::kinds::namespace::FINALIZER;
use std::sync::Arc;

/// How soon after deleting it is checked whether anything is left, and how often while something holds on. The end of
/// the last object of a kind, as the caches see it, wakes the namespace at once.
const SOON: SignedDuration = SignedDuration::from_millis(10);
const LATER: SignedDuration = SignedDuration::from_secs(5);

/// The namespace controller.
pub struct Controller;

/// What a plan depends on.
pub struct Snapshot {
    /// The namespace, as the API server has it now. It is being deleted.
    pub namespace: Namespace,
    /// What is in it, by kind.
    pub contents: Vec<Content>,
}

#[async_trait]
impl live::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on(&caches.namespaces, |change, wake| {
            if let Some(namespace) = change.new.as_ref().filter(|namespace| is_held(namespace)) {
                wake(Key::of(&namespace.metadata));
            }
        });
        on_end(watch, &caches.pods);
        on_end(watch, &caches.replica_sets);
        on_end(watch, &caches.deployments);
        on_end(watch, &caches.replication_controllers);
        on_end(watch, &caches.services);
        on_end(watch, &caches.config_maps);
        on_end(watch, &caches.secrets);
    }

    async fn observe(&self, client: &Client, _: &Caches, key: &Key) -> Result<Option<Snapshot>, ReadError> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace =
            namespaces.get_opt(&key.name).await.map_err(ReadError::of(format!("namespace {key}")))?;
        let Some(namespace) = namespace.filter(is_held) else { return Ok(None) };
        let contents = content::of(client, &key.name).await?;
        Ok(Some(Snapshot { namespace, contents }))
    }

    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        plan(snapshot, now)
    }
}

/// Wakes a namespace that is being deleted when the last object of a kind in it has gone.
fn on_end<K: Cached>(watch: &mut Watch, cache: &Arc<Cache<K>>) {
    let (caches, of_kind) = (watch.caches(), cache.clone());
    watch.on(cache, move |change, wake| {
        let Some(gone) = change.old.as_ref().filter(|_| change.new.is_none()) else { return };
        let key = Key::new("", gone.metadata().namespace.clone().unwrap_or_default());
        let is_held = caches.namespaces.get(&key).is_some_and(|namespace| is_held(&namespace));
        if is_held && of_kind.in_namespace(&key.name).is_empty() {
            wake(key);
        }
    });
}

/// Whether it is being deleted and waits for us.
fn is_held(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    namespace.metadata.deletion_timestamp.is_some() && finalizers.into_iter().any(|name| name == FINALIZER)
}

/// Deletes what is there, or gives the namespace free when nothing is.
pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let Snapshot { namespace, contents } = snapshot;
    let mut plan = Plan::default();
    if contents.iter().all(|content| content.objects.is_empty()) {
        plan.then(finalize(namespace));
        return plan;
    }
    plan.steps.extend(
        conditions::write(namespace, contents, now).map(|write| crate::plan::Step::together(vec![write])),
    );
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let pods =
        contents.iter().find(|content| content.kind == KindRef::of::<k8s_openapi::api::core::v1::Pod>());
    let turn: Vec<&Content> = match pods.filter(|pods| !pods.objects.is_empty()) {
        Some(pods) => vec![pods],
        None => contents.iter().collect(),
    };
    let deletes: Vec<Write> = turn.iter().flat_map(|content| delete(content, name)).collect();
    let pause = if deletes.is_empty() { LATER } else { SOON };
    plan.then_all(deletes);
    plan.look_again_at(now + pause);
    plan
}

/// Deletes the objects of a kind whose deletion has not begun.
fn delete(content: &Content, namespace: &str) -> Vec<Write> {
    let begin = content.objects.iter().filter(|object| object.deletion_timestamp.is_none());
    let one = |name: &str, uid: Option<String>| {
        let deletion = Deletion { uid, ..Deletion::default() };
        Write::at(content.kind, Key::new(namespace, name), Verb::Delete(deletion)).tolerating(&[404])
    };
    if content.deletes_collections {
        // A deletion without a name is one of the whole collection.
        return begin.take(1).map(|_| one("", None)).collect();
    }
    begin.map(|object| one(object.name.as_deref().unwrap_or_default(), object.uid.clone())).collect()
}

/// Takes our finalizer off. The API server removes the namespace then, if no other is left.
fn finalize(namespace: &Namespace) -> Write {
    let mut free = namespace.clone();
    if let Some(finalizers) = free.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|name| name != FINALIZER);
    }
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let subresource = Key::new("", format!("{name}/finalize"));
    Write::at(KindRef::of::<Namespace>(), subresource, Verb::Update(Box::new(free))).tolerating(&[404])
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::Resource;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use rstest::rstest;
    use serde_json::json;

    fn namespace() -> Namespace {
        serde_json::from_value(json!({
            "metadata": {"name": "demo", "deletionTimestamp": "2024-01-01T00:00:00Z", "resourceVersion": "9"},
            "spec": {"finalizers": ["kubernetes", "example.com/mine"]}, "status": {"phase": "Terminating"},
        }))
        .unwrap()
    }

    /// `count` objects, of which some are being deleted already.
    fn content<K: Resource>(count: usize, terminating: usize) -> Content {
        let object = |index: usize| ObjectMeta {
            name: Some(format!("x{index}")),
            uid: Some(format!("u{index}")),
            deletion_timestamp: (index < terminating).then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        Content {
            kind: KindRef::of::<K>(),
            deletes_collections: true,
            objects: (0..count).map(object).collect(),
        }
    }

    fn planned(contents: Vec<Content>) -> (Vec<String>, Option<i64>) {
        let now = Timestamp::UNIX_EPOCH;
        let plan = plan(&Snapshot { namespace: namespace(), contents }, now);
        let writes = plan.writes().filter(|write| write.verb.name() != "patch status");
        let writes =
            writes.map(|write| format!("{} {} {}", write.verb.name(), write.kind.plural, write.key.name));
        (writes.collect(), plan.look_again.map(|when| when.as_millisecond()))
    }

    #[rstest]
    #[case::empty(vec![content::<Pod>(0, 0)], &["update namespaces demo/finalize"], None)]
    #[case::nothing_at_all(vec![], &["update namespaces demo/finalize"], None)]
    #[case::pods_go_first(vec![content::<ConfigMap>(2, 0), content::<Pod>(2, 0)], &["delete pods "], Some(10))]
    #[case::pods_are_waited_for(vec![content::<ConfigMap>(2, 0), content::<Pod>(2, 2)], &[], Some(5000))]
    #[case::the_rest_goes_together(
        vec![content::<ConfigMap>(2, 0), content::<Secret>(1, 0), content::<Pod>(0, 0)],
        &["delete configmaps ", "delete secrets "], Some(10))]
    #[case::what_goes_already_is_not_deleted_again(
        vec![content::<ConfigMap>(2, 2), content::<Secret>(1, 0)], &["delete secrets "], Some(10))]
    fn a_namespace_is_emptied_pods_first_and_then_set_free(
        #[case] contents: Vec<Content>,
        #[case] writes: &[&str],
        #[case] look_again: Option<i64>,
    ) {
        assert_eq!(planned(contents), (writes.iter().map(|w| w.to_string()).collect(), look_again));
    }

    #[test]
    fn kinds_without_deletecollection_are_deleted_one_by_one() {
        let contents = vec![Content { deletes_collections: false, ..content::<ConfigMap>(3, 1) }];
        assert_eq!(planned(contents).0, ["delete configmaps x1", "delete configmaps x2"]);
    }

    #[test]
    fn only_our_finalizer_is_taken_off() {
        let plan = plan(&Snapshot { namespace: namespace(), contents: vec![] }, Timestamp::UNIX_EPOCH);
        let free = plan.writes().next().unwrap().object::<Namespace>().unwrap();
        assert_eq!(
            free.spec.as_ref().unwrap().finalizers.as_deref(),
            Some(&["example.com/mine".to_owned()][..])
        );
        assert_eq!(free.metadata.resource_version.as_deref(), Some("9"));
    }

    #[test]
    fn a_namespace_in_use_or_without_our_finalizer_is_left_alone() {
        assert!(is_held(&namespace()));
        let mut others = namespace();
        others.spec.as_mut().unwrap().finalizers = Some(vec!["example.com/mine".into()]);
        assert!(!is_held(&others));
        let mut used = namespace();
        used.metadata.deletion_timestamp = None;
        assert!(!is_held(&used));
    }
}
