//! A local copy of all objects of one kind, with the indexes controllers ask for.
//!
//! A cache is filled by [`crate::caches`] from a watch, or directly by tests and simulations. Objects are shared
//! (`Arc`), never copied. Lists come in name order, so that planning is deterministic.

mod ordered;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ordered::{ByKey, ByName};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{oneshot, watch};

/// Namespace and name of an object; the namespace is empty for cluster-wide kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of `namespace`/`name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of the object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What an object must offer to be cached.
pub trait Cached: k8s_openapi::Metadata<Ty = ObjectMeta> + Clone + Send + Sync + 'static {}

impl<K: k8s_openapi::Metadata<Ty = ObjectMeta> + Clone + Send + Sync + 'static> Cached for K {}

/// The owner reference of the controller that manages the object, if it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// One object as it was and as it is now. Both are there for a modification; at least one always is.
pub struct Change<K> {
    /// Before; none when the object was added.
    pub old: Option<Arc<K>>,
    /// Now; none when the object was deleted.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The versions that exist, newest first.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<K>> {
        self.new.iter().chain(self.old.iter())
    }

    /// The newest version there is.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
/// Objects of one namespace, in order of name.
type Named<K> = BTreeSet<ByName<K>>;

struct State<K> {
    namespaces: HashMap<String, Named<K>>,
    by_owner: HashMap<String, BTreeSet<ByKey<K>>>,
    uncontrolled: HashMap<String, Named<K>>,
    count: usize,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), by_owner: HashMap::new(), uncontrolled: HashMap::new(), count: 0 }
    }
}

impl<K: Cached> State<K> {
    fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.namespaces.get(&key.namespace)?.get(key.name.as_str()).map(|ByName(object)| object)
    }

    fn insert(&mut self, key: &Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.take(key);
        let meta = object.metadata();
        for owner in meta.owner_references.iter().flatten() {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(ByKey(object.clone()));
        }
        if controller_of(meta).is_none() {
            let named = self.uncontrolled.entry(key.namespace.clone()).or_default();
            named.insert(ByName(object.clone()));
        }
        self.namespaces.entry(key.namespace.clone()).or_default().insert(ByName(object));
        self.count += 1;
        old
    }

    fn take(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = remove_named(&mut self.namespaces, key)?;
        self.count -= 1;
        remove_named(&mut self.uncontrolled, key);
        for owner in old.metadata().owner_references.iter().flatten() {
            if let Some(owned) = self.by_owner.get_mut(&owner.uid) {
                owned.remove(&ByKey(old.clone()));
                if owned.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }
}

fn remove_named<K: Cached>(namespaces: &mut HashMap<String, Named<K>>, key: &Key) -> Option<Arc<K>> {
    let named = namespaces.get_mut(&key.namespace)?;
    let old = named.take(key.name.as_str());
    if named.is_empty() {
        namespaces.remove(&key.namespace);
    }
    old.map(|ByName(object)| object)
}

/// Who waits for the cache to catch up, and with what.
#[derive(Default)]
struct Waiters {
    seen: u64,
    next: u64,
    revisions: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    going: HashMap<Key, Vec<(String, oneshot::Sender<()>)>>,
}

/// All objects of one kind, as far as the watch has told.
pub struct Cache<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    waiters: Mutex<Waiters>,
    written: AtomicU64,
    synced: watch::Sender<bool>,
}

impl<K: Cached> Default for Cache<K> {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            handlers: RwLock::default(),
            waiters: Mutex::default(),
            written: AtomicU64::new(0),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Cached> Cache<K> {
    /// The object, if it exists.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().get(key).cloned()
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.state.read().count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object, in order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        let state = self.state.read();
        let mut namespaces: Vec<_> = state.namespaces.iter().collect();
        namespaces.sort_unstable_by_key(|(name, _)| *name);
        namespaces.into_iter().flat_map(|(_, named)| values(named)).collect()
    }

    /// The objects of one namespace, in order of name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.state.read().namespaces.get(namespace).map(values).unwrap_or_default()
    }

    /// The objects with any owner reference to this uid.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let owned = state.by_owner.get(uid).into_iter().flatten();
        owned.map(|ByKey(object)| object.clone()).collect()
    }

    /// The objects whose *controller* has this uid.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let Some(owned) = state.by_owner.get(uid) else { return Vec::new() };
        let is_controlled = |object: &&Arc<K>| controller_of(object.metadata()).is_some_and(|o| o.uid == uid);
        owned.iter().map(|ByKey(object)| object).filter(is_controlled).cloned().collect()
    }

    /// The objects of a namespace that have no controller, in order of name.
    pub fn uncontrolled(&self, namespace: &str) -> Vec<Arc<K>> {
        self.state.read().uncontrolled.get(namespace).map(values).unwrap_or_default()
    }

    /// Calls `handler` after every change from now on, in order, from whoever feeds the cache. It must not block.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// Adds or replaces an object.
    pub fn upsert(&self, object: impl Into<Arc<K>>) {
        let object = object.into();
        let key = Key::of(object.metadata());
        let revision = revision_of(object.metadata());
        let terminating = object.metadata().deletion_timestamp.is_some();
        let old = self.state.write().insert(&key, object.clone());
        let uid = object.metadata().uid.clone();
        self.notify(&Change { old, new: Some(object) });
        let mut waiters = self.waiters.lock();
        waiters.advance(revision);
        waiters.settle(&key, |waited| terminating || uid.as_deref() != Some(waited));
    }

    /// Removes an object; `last` is its final state, with the revision of its deletion.
    pub fn remove(&self, last: &K) {
        let key = Key::of(last.metadata());
        let old = self.state.write().take(&key);
        if old.is_some() {
            self.notify(&Change { old, new: None });
        }
        let mut waiters = self.waiters.lock();
        waiters.advance(revision_of(last.metadata()));
        waiters.settle(&key, |_| true);
    }

    /// Replaces the whole content, as after a fresh list, and marks the cache as synced. `floor` is what
    /// [`Cache::written`] was when the list was asked for: the list shows at least that.
    pub fn replace(&self, objects: Vec<K>, floor: u64) {
        let mut fresh = State::default();
        let mut newest = floor;
        for object in objects {
            newest = newest.max(revision_of(object.metadata()));
            fresh.insert(&Key::of(object.metadata()), Arc::new(object));
        }
        let changes = {
            let mut state = self.state.write();
            let changes = differences(&state, &fresh);
            *state = fresh;
            changes
        };
        changes.iter().for_each(|change| self.notify(change));
        {
            let state = self.state.read();
            let mut waiters = self.waiters.lock();
            waiters.advance(newest);
            let keys: Vec<Key> = waiters.going.keys().cloned().collect();
            for key in keys {
                let meta = state.get(&key).map(|object| object.metadata());
                waiters.settle(&key, |uid| is_gone(meta, uid));
            }
        }
        self.synced.send_replace(true);
    }

    /// Resolves when the first list is in.
    pub async fn synced(&self) {
        // The sender lives as long as the cache, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Notes a write of ours, for the floor of [`Cache::replace`].
    pub fn note_write(&self, revision: u64) {
        self.written.fetch_max(revision, Ordering::Relaxed);
    }

    /// The newest revision this process wrote to this kind.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Resolves when the cache has seen this revision or a later one.
    pub async fn saw(&self, revision: u64) {
        let receiver = {
            let mut waiters = self.waiters.lock();
            if waiters.seen >= revision {
                return;
            }
            let (sender, receiver) = oneshot::channel();
            let id = waiters.next;
            waiters.next += 1;
            waiters.revisions.insert((revision, id), sender);
            receiver
        };
        let _ = receiver.await;
    }

    /// Resolves when the cache shows the object with this uid as deleted or being deleted.
    pub async fn saw_going(&self, key: &Key, uid: &str) {
        let receiver = {
            let state = self.state.read();
            let mut waiters = self.waiters.lock();
            if is_gone(state.get(key).map(|object| object.metadata()), uid) {
                return;
            }
            let (sender, receiver) = oneshot::channel();
            waiters.going.entry(key.clone()).or_default().push((uid.to_owned(), sender));
            receiver
        };
        let _ = receiver.await;
    }

    fn notify(&self, change: &Change<K>) {
        self.handlers.read().iter().for_each(|handler| handler(change));
    }
}

impl Waiters {
    fn advance(&mut self, revision: u64) {
        if revision <= self.seen {
            return;
        }
        self.seen = revision;
        let later = self.revisions.split_off(&(revision.saturating_add(1), 0));
        for (_, sender) in std::mem::replace(&mut self.revisions, later) {
            let _ = sender.send(());
        }
    }

    fn settle(&mut self, key: &Key, is_gone: impl Fn(&str) -> bool) {
        let Some(waiting) = self.going.remove(key) else { return };
        let (done, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(uid, _)| is_gone(uid));
        for (_, sender) in done {
            let _ = sender.send(());
        }
        if !rest.is_empty() {
            self.going.insert(key.clone(), rest);
        }
    }
}

/// The resource version as a number; 0 when there is none.
pub fn revision_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn is_gone(meta: Option<&ObjectMeta>, uid: &str) -> bool {
    meta.is_none_or(|meta| meta.deletion_timestamp.is_some() || meta.uid.as_deref() != Some(uid))
}

fn values<K>(named: &Named<K>) -> Vec<Arc<K>> {
    named.iter().map(|ByName(object)| object.clone()).collect()
}

fn differences<K: Cached>(old: &State<K>, new: &State<K>) -> Vec<Change<K>> {
    let mut changes = Vec::new();
    for (namespace, named) in &old.namespaces {
        for object in named {
            if new.namespaces.get(namespace).is_none_or(|named| !named.contains(object)) {
                changes.push(Change { old: Some(object.0.clone()), new: None });
            }
        }
    }
    for ByName(object) in new.namespaces.values().flatten() {
        let before = old.get(&Key::of(object.metadata()));
        let version = |object: &Arc<K>| object.metadata().resource_version.clone();
        if before.is_none_or(|before| version(before) != version(object)) {
            changes.push(Change { old: before.cloned(), new: Some(object.clone()) });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use std::sync::atomic::AtomicUsize;

    fn pod(name: &str, revision: u64, controller: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.resource_version = Some(revision.to_string());
        pod.metadata.owner_references = controller.map(|uid| {
            vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
        });
        pod
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn an_adopted_object_moves_from_the_uncontrolled_to_its_owner() {
        let cache = Cache::default();
        cache.upsert(pod("a", 1, None));
        cache.upsert(pod("b", 2, Some("rs")));
        assert_eq!(names(&cache.uncontrolled("default")), ["a"]);
        cache.upsert(pod("a", 3, Some("rs")));
        assert!(cache.uncontrolled("default").is_empty());
        assert_eq!(names(&cache.controlled_by("rs")), ["a", "b"]);
        cache.remove(&pod("a", 4, None));
        assert_eq!(names(&cache.controlled_by("rs")), ["b"]);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_fresh_list_reports_only_what_differs() {
        let cache = Cache::default();
        cache.replace(vec![pod("a", 1, None), pod("b", 2, None), pod("c", 3, None)], 0);
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        cache.on_change(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        cache.replace(vec![pod("a", 1, None), pod("b", 5, None), pod("d", 4, None)], 0);
        assert_eq!(count.load(Ordering::Relaxed), 3, "b changed, c went, d came");
    }

    #[tokio::test]
    async fn waiting_for_a_revision_ends_when_a_later_one_arrives() {
        let cache = Arc::new(Cache::default());
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { cache.saw(7).await }
        });
        cache.upsert(pod("a", 6, None));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        cache.upsert(pod("b", 9, None));
        waiting.await.unwrap();
        cache.saw(9).await;
    }

    #[tokio::test]
    async fn waiting_for_a_deletion_ends_when_the_object_is_terminating_replaced_or_gone() {
        let cache = Cache::default();
        cache.upsert(pod("a", 1, None));
        let key = Key::new("default", "a");
        let wait = cache.saw_going(&key, "uid-a");
        tokio::pin!(wait);
        assert!(futures::poll!(wait.as_mut()).is_pending());
        let mut terminating = pod("a", 2, None);
        terminating.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        cache.upsert(terminating);
        wait.await;
        cache.saw_going(&key, "another").await;
        cache.remove(&pod("a", 3, None));
        cache.saw_going(&key, "uid-a").await;
    }

    #[tokio::test]
    async fn a_fresh_list_shows_what_was_written_before_it_was_asked_for() {
        let cache: Cache<Pod> = Cache::default();
        cache.note_write(40);
        let floor = cache.written();
        cache.replace(vec![pod("a", 3, None)], floor);
        cache.saw(40).await;
        cache.synced().await;
    }
}
