//! Which objects the volumes of running pods show, and the watches that say when one changed: never more than one
//! for config maps and one for secrets, and none while nobody shows any.

use super::needs::Shown;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use tokio::sync::{mpsc, watch};

/// Namespace and name.
type Name = (String, String);

/// The version each pod has seen last, by uid; None: the object did not exist.
type Seen = BTreeMap<String, Option<String>>;

/// Which objects are shown by which pods.
pub(crate) struct Shows {
    shown: Mutex<HashMap<(Shown, Name), Seen>>,
    /// Whether any config map, and any secret, is shown.
    any: [watch::Sender<bool>; 2],
}

impl Default for Shows {
    fn default() -> Self {
        Shows { shown: Mutex::default(), any: [watch::Sender::new(false), watch::Sender::new(false)] }
    }
}

impl Shows {
    /// A pod shows this object, last seen in this version; None: it does not exist.
    pub(super) fn note(&self, shown: Shown, name: Name, uid: &str, version: Option<String>) {
        self.shown.lock().entry((shown, name)).or_default().insert(uid.to_owned(), version);
        self.tell(shown);
    }

    /// Nothing this object does is of interest to the pod: it cannot change.
    pub(super) fn ignore(&self, shown: Shown, name: Name, uid: &str) {
        let mut all = self.shown.lock();
        if let Some(pods) = all.get_mut(&(shown, name)) {
            pods.remove(uid);
        }
        all.retain(|_, pods| !pods.is_empty());
        drop(all);
        self.tell(shown);
    }

    /// A pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.shown.lock().retain(|_, pods| {
            pods.remove(uid);
            !pods.is_empty()
        });
        self.tell(Shown::ConfigMap);
        self.tell(Shown::Secret);
    }

    /// The pods that show another version of this object than there is now.
    fn outdated(&self, shown: Shown, meta: &ObjectMeta, is_deleted: bool) -> BTreeSet<String> {
        let name = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let version = meta.resource_version.clone().filter(|_| !is_deleted);
        let all = self.shown.lock();
        let pods = all.get(&(shown, name)).into_iter().flatten();
        pods.filter(|(_, seen)| **seen != version).map(|(uid, _)| uid.clone()).collect()
    }

    fn tell(&self, shown: Shown) {
        // Told while the lock is held, so that an older answer cannot come after a newer one.
        let all = self.shown.lock();
        let any = all.keys().any(|(other, _)| *other == shown);
        self.any[shown as usize].send_if_modified(|old| std::mem::replace(old, any) != any);
    }
}

/// Says of which pods the volumes are out of date, for ever.
pub(crate) async fn follow(client: Client, shows: &Shows, outdated: mpsc::UnboundedSender<String>) {
    tokio::join!(
        follow_kind::<ConfigMap>(client.clone(), Shown::ConfigMap, shows, &outdated),
        follow_kind::<Secret>(client, Shown::Secret, shows, &outdated),
    );
}

async fn follow_kind<K>(client: Client, shown: Shown, shows: &Shows, outdated: &mpsc::UnboundedSender<String>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
    K: serde::de::DeserializeOwned,
{
    let mut any = shows.any[shown as usize].subscribe();
    loop {
        if any.wait_for(|any| *any).await.is_err() {
            return;
        }
        // Only what says that something changed: the contents are fetched by whoever shows them.
        let api: Api<PartialObjectMeta<K>> = Api::all(client.clone());
        let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = any.wait_for(|any| !*any) => break,
            };
            let (meta, is_deleted) = match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    (object.metadata, false)
                }
                Some(Ok(watcher::Event::Delete(object))) => (object.metadata, true),
                Some(Ok(_)) => continue,
                Some(Err(error)) => {
                    tracing::debug!(%error, ?shown, "watching what volumes show");
                    continue;
                }
                None => break,
            };
            for uid in shows.outdated(shown, &meta, is_deleted) {
                let _ = outdated.send(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("ns".into()),
            name: Some("cm".into()),
            resource_version: Some(version.into()),
            ..Default::default()
        }
    }

    #[test]
    fn a_pod_is_told_of_versions_it_has_not_seen_and_of_no_others() {
        let shows = Shows::default();
        let name = || ("ns".to_owned(), "cm".to_owned());
        shows.note(Shown::ConfigMap, name(), "a", Some("7".into()));
        shows.note(Shown::ConfigMap, name(), "b", None);
        let told = |shown, version, deleted| {
            let told = shows.outdated(shown, &meta(version), deleted);
            told.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(Shown::ConfigMap, "7", false), "b");
        assert_eq!(told(Shown::ConfigMap, "8", false), "a b");
        assert_eq!(told(Shown::ConfigMap, "8", true), "a");
        assert_eq!(told(Shown::Secret, "8", false), "");
        shows.forget("a");
        assert_eq!(told(Shown::ConfigMap, "8", false), "b");
    }

    #[test]
    fn nothing_is_watched_while_nothing_that_can_change_is_shown() {
        let shows = Shows::default();
        let any = shows.any[Shown::Secret as usize].subscribe();
        let name = || ("ns".to_owned(), "s".to_owned());
        shows.note(Shown::Secret, name(), "a", None);
        assert!(*any.borrow());
        shows.ignore(Shown::Secret, name(), "a");
        assert!(!*any.borrow());
        shows.note(Shown::Secret, name(), "a", None);
        shows.forget("a");
        assert!(!*any.borrow());
    }
}
