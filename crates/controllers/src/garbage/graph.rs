//! Who owns what. The edges are those of the shared caches, which index every object by the uids of its owners, so
//! nothing is kept twice and no event causes a scan.

use super::gone::{Gone, Identity};
use crate::cache::{Cache, Cached, Key};
use crate::caches::Caches;
use crate::plan::KindRef;
use crate::runner::Watch;
use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sagong_api::meta::{FOREGROUND, ORPHAN};
use std::sync::Arc;

/// An object of any kind: all that garbage collection needs of it.
#[derive(Clone)]
pub struct Item {
    /// Its kind.
    pub kind: KindRef,
    object: Arc<dyn HasMeta>,
}

/// Something with metadata.
pub trait HasMeta: Send + Sync {
    /// The metadata.
    fn meta(&self) -> &ObjectMeta;
}

impl<K: Cached> HasMeta for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

impl Item {
    /// The object as an item.
    pub fn new<K: Cached + Resource>(object: Arc<K>) -> Self {
        Self { kind: KindRef::of::<K>(), object }
    }

    /// An object that is held otherwise than in a cache, as an item.
    pub fn held(kind: KindRef, object: Arc<dyn HasMeta>) -> Self {
        Self { kind, object }
    }

    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// Its namespace and name.
    pub fn key(&self) -> Key {
        Key::of(self.meta())
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// Whether it has this uid.
    pub fn is(&self, uid: &str) -> bool {
        self.uid() == uid
    }

    /// Whether its deletion was asked for.
    pub fn is_terminating(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Whether it waits for its dependents to be deleted before it goes (`foregroundDeletion`).
    pub fn is_deleting_dependents(&self) -> bool {
        is_deleting_dependents(self.meta())
    }

    /// Whether it waits for its dependents to be set free before it goes (`orphan`).
    pub fn is_orphaning(&self) -> bool {
        self.is_terminating() && has_finalizer(self.meta(), ORPHAN)
    }

    /// Whether its owner with this uid may not go before it does.
    pub fn blocks(&self, owner: &str) -> bool {
        references_of(self.meta()).any(|r| r.uid == owner && r.block_owner_deletion == Some(true))
    }

    /// The key under which the collector looks at it: its kind and name in one.
    fn queue_key(&self) -> Key {
        let Key { namespace, name } = self.key();
        Key::new(namespace, format!("{}.{}/{name}", self.kind.plural, self.kind.group))
    }
}

/// Whether the object has this finalizer.
pub fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

/// Whether the object with this metadata is being deleted in the foreground.
pub fn is_deleting_dependents(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, FOREGROUND)
}

fn references_of(meta: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    meta.owner_references.iter().flatten()
}

/// The objects of one kind.
pub trait Kin: Send + Sync {
    /// The kind.
    fn names(&self) -> KindRef;
    /// Whether its objects are in namespaces.
    fn is_namespaced(&self) -> bool;
    /// The object, if it exists.
    fn get(&self, key: &Key) -> Option<Item>;
    /// Those with an owner reference to this uid.
    fn owned_by(&self, uid: &str) -> Vec<Item>;
    /// Whether any of them, wherever, has this uid. Looks at all of them.
    fn has(&self, uid: &str) -> bool;
    /// Wakes what changes of them concern.
    fn watch(&self, graph: Arc<Graph>, watch: &mut Watch);
}

struct Kind<K> {
    cache: Arc<Cache<K>>,
    namespaced: bool,
}

impl<K: Cached + Resource> Kin for Kind<K> {
    fn names(&self) -> KindRef {
        KindRef::of::<K>()
    }

    fn is_namespaced(&self) -> bool {
        self.namespaced
    }

    fn get(&self, key: &Key) -> Option<Item> {
        self.cache.get(key).map(Item::new)
    }

    fn owned_by(&self, uid: &str) -> Vec<Item> {
        self.cache.owned_by(uid).into_iter().map(Item::new).collect()
    }

    fn has(&self, uid: &str) -> bool {
        self.cache.list().iter().any(|object| object.metadata().uid.as_deref() == Some(uid))
    }

    fn watch(&self, graph: Arc<Graph>, watch: &mut Watch) {
        watch.on(&self.cache, move |change, wake| {
            let item = |object: &Arc<K>| Item::new(object.clone());
            graph.wake(change.old.as_ref().map(item), change.new.as_ref().map(item), wake);
        });
    }
}

/// All kinds that are collected, and what is known to be gone.
pub struct Graph {
    kinds: Vec<Box<dyn Kin>>,
    gone: Arc<Gone>,
}

impl Graph {
    /// The graph over these caches. Events are left out: they expire by themselves.
    pub fn new(caches: &Caches, gone: Arc<Gone>) -> Self {
        fn kind<K: Cached + Resource>(cache: &Arc<Cache<K>>, namespaced: bool) -> Box<dyn Kin> {
            Box::new(Kind { cache: cache.clone(), namespaced })
        }
        let kinds = vec![
            kind(&caches.deployments, true),
            kind(&caches.replica_sets, true),
            kind(&caches.replication_controllers, true),
            kind(&caches.pods, true),
            kind(&caches.services, true),
            kind(&caches.endpoints, true),
            kind(&caches.endpoint_slices, true),
            kind(&caches.config_maps, true),
            kind(&caches.secrets, true),
            kind(&caches.service_accounts, true),
            kind(&caches.leases, true),
            kind(&caches.nodes, false),
            kind(&caches.namespaces, false),
        ];
        Self { kinds, gone }
    }

    /// The kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &dyn Kin> {
        self.kinds.iter().map(|kin| &**kin)
    }

    /// Wakes what changes concern.
    pub fn watch(this: &Arc<Self>, watch: &mut Watch) {
        this.kinds.iter().for_each(|kin| kin.watch(this.clone(), watch));
    }

    /// The object a key of the collector's queue means.
    pub fn find(&self, key: &Key) -> Option<Item> {
        let (kind, name) = key.name.split_once('/')?;
        let (plural, group) = kind.split_once('.')?;
        let kin = self.kinds().find(|kin| kin.names().plural == plural && kin.names().group == group)?;
        kin.get(&Key::new(key.namespace.clone(), name))
    }

    /// Where the owner that `item` refers to must be. None if that cannot be told: the kind is not known here, or a
    /// cluster-wide object claims an owner in a namespace.
    pub fn owner(&self, item: &Item, reference: &OwnerReference) -> Option<(&dyn Kin, Key)> {
        let is_it = |kin: &&dyn Kin| {
            kin.names().kind == reference.kind && kin.names().api_version == reference.api_version
        };
        let kin = self.kinds().find(is_it)?;
        let namespace = match (kin.is_namespaced(), item.meta().namespace.as_deref()) {
            (false, _) => "",
            (true, Some(namespace)) if !namespace.is_empty() => namespace,
            (true, _) => return None,
        };
        Some((kin, Key::new(namespace, reference.name.clone())))
    }

    /// Whether the uid belongs to an object of that kind that is not where it was looked for.
    pub fn is_in_another_namespace(&self, kin: &dyn Kin, key: &Key, uid: &str) -> bool {
        !key.namespace.is_empty() && kin.has(uid)
    }

    /// What has `owner` as an owner, where such a reference is valid: in the same namespace, or anywhere if the owner
    /// is cluster-wide.
    pub fn dependents_of(&self, owner: &Item) -> Vec<Item> {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        let mut dependents = self.with_reference_to(owner.uid());
        dependents.retain(|item| namespace.is_empty() || item.meta().namespace.as_deref() == Some(namespace));
        dependents
    }

    fn with_reference_to(&self, uid: &str) -> Vec<Item> {
        self.kinds().flat_map(|kin| kin.owned_by(uid)).collect()
    }

    /// Wakes those whose fate a change may decide.
    pub fn wake(&self, old: Option<Item>, new: Option<Item>, wake: &mut dyn FnMut(Key)) {
        match (old, new) {
            (Some(old), None) => self.wake_for_end(&old, wake),
            (Some(old), Some(new)) if !new.is(old.uid()) => {
                self.wake_for_end(&old, wake);
                self.wake_for_change(None, &new, wake);
            }
            (old, Some(new)) => self.wake_for_change(old.as_ref(), &new, wake),
            (None, None) => {}
        }
    }

    fn wake_for_end(&self, item: &Item, wake: &mut dyn FnMut(Key)) {
        let dependents = self.with_reference_to(item.uid());
        if !dependents.is_empty() {
            self.gone.insert(Identity::new(item.kind, &item.key(), item.uid()));
        }
        dependents.iter().for_each(|dependent| wake(dependent.queue_key()));
        self.wake_waiting_owners(item, wake);
    }

    fn wake_for_change(&self, old: Option<&Item>, new: &Item, wake: &mut dyn FnMut(Key)) {
        if old.is_none_or(|old| old.meta().owner_references != new.meta().owner_references) {
            if !self.is_safe(new) {
                wake(new.queue_key());
            }
            old.into_iter().for_each(|old| self.wake_waiting_owners(old, wake));
        }
        let begins = |is: fn(&Item) -> bool| is(new) && !old.is_some_and(is);
        if begins(Item::is_deleting_dependents) {
            self.dependents_of(new).iter().for_each(|dependent| wake(dependent.queue_key()));
            wake(new.queue_key());
        }
        if begins(Item::is_orphaning) {
            wake(new.queue_key());
        }
    }

    /// Owners that may have waited for `item` to go or to let them go.
    fn wake_waiting_owners(&self, item: &Item, wake: &mut dyn FnMut(Key)) {
        for reference in references_of(item.meta()) {
            let Some((kin, key)) = self.owner(item, reference) else { continue };
            let owner = kin.get(&key).filter(|owner| owner.is(&reference.uid));
            if let Some(owner) = owner.filter(Item::is_deleting_dependents) {
                wake(owner.queue_key());
            }
        }
    }

    /// Whether the caches show that all its owners live on, so that there is nothing to look at.
    fn is_safe(&self, item: &Item) -> bool {
        references_of(item.meta()).all(|reference| {
            let Some((kin, key)) = self.owner(item, reference) else { return false };
            kin.get(&key).is_some_and(|owner| owner.is(&reference.uid) && !owner.is_deleting_dependents())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Node};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn config_map(namespace: &str, name: &str, owners: &[&str]) -> ConfigMap {
        let owner = |uid: &&str| OwnerReference {
            api_version: "v1".into(),
            kind: if uid.starts_with("node") { "Node" } else { "ConfigMap" }.into(),
            name: uid.to_string(),
            uid: uid.to_string(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(name.into());
        object.metadata.owner_references = Some(owners.iter().map(owner).collect());
        object
    }

    fn foreground(mut object: ConfigMap) -> ConfigMap {
        object.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        object.metadata.finalizers = Some(vec![FOREGROUND.into()]);
        object
    }

    fn graph() -> (Caches, Graph) {
        let caches = Caches::default();
        let graph = Graph::new(&caches, Arc::default());
        (caches, graph)
    }

    /// Applies the change to the cache and tells who is woken.
    fn woken(caches: &Caches, graph: &Graph, new: Option<ConfigMap>, name: &str) -> Vec<String> {
        let old = caches.config_maps.get(&Key::new("default", name));
        match &new {
            Some(new) => caches.config_maps.upsert(new.clone()),
            None => caches.config_maps.remove(old.as_ref().unwrap()),
        }
        let mut woken = Vec::new();
        graph.wake(old.map(Item::new), new.map(|new| Item::new(Arc::new(new))), &mut |key| {
            assert!(graph.find(&key).is_some() || key.name.ends_with(name), "{key}");
            woken.push(key.name.rsplit('/').next().unwrap().to_owned());
        });
        woken.sort();
        woken
    }

    #[test]
    fn every_served_kind_but_events_is_collected() {
        let (_, graph) = graph();
        for kind in sagong_api::kinds::registry() {
            let identity = kind.identity();
            let known = graph.kinds().find(|kin| kin.names().kind == identity.kind);
            match known {
                None => assert_eq!(identity.kind, "Event"),
                Some(kin) => assert_eq!(
                    (kin.names().plural, kin.names().group, kin.is_namespaced()),
                    (identity.plural, identity.group, identity.namespaced)
                ),
            }
        }
    }

    #[test]
    fn an_object_whose_owners_live_wakes_nobody() {
        let (caches, graph) = graph();
        caches.config_maps.upsert(config_map("default", "owner", &[]));
        assert!(woken(&caches, &graph, Some(config_map("default", "a", &["owner"])), "a").is_empty());
        assert!(woken(&caches, &graph, Some(config_map("default", "b", &[])), "b").is_empty());
    }

    #[test]
    fn an_object_whose_owner_is_not_known_is_looked_at() {
        let (caches, graph) = graph();
        assert_eq!(woken(&caches, &graph, Some(config_map("default", "a", &["nobody"])), "a"), ["a"]);
    }

    #[test]
    fn the_end_of_an_owner_wakes_its_dependents_and_is_remembered() {
        let (caches, graph) = graph();
        caches.config_maps.upsert(config_map("default", "owner", &[]));
        caches.config_maps.upsert(config_map("default", "a", &["owner"]));
        caches.config_maps.upsert(config_map("default", "b", &["owner"]));
        assert_eq!(woken(&caches, &graph, None, "owner"), ["a", "b"]);
        let kind = KindRef::of::<ConfigMap>();
        assert!(graph.gone.contains(&Identity::new(kind, &Key::new("default", "owner"), "owner")));
    }

    #[test]
    fn foreground_deletion_wakes_the_owner_and_its_dependents_and_the_end_of_each_wakes_the_owner() {
        let (caches, graph) = graph();
        caches.config_maps.upsert(config_map("default", "owner", &[]));
        caches.config_maps.upsert(config_map("default", "a", &["owner"]));
        caches.config_maps.upsert(config_map("elsewhere", "b", &["owner"]));
        let deleting = foreground(config_map("default", "owner", &[]));
        assert_eq!(woken(&caches, &graph, Some(deleting.clone()), "owner"), ["a", "owner"]);
        assert!(woken(&caches, &graph, Some(deleting), "owner").is_empty(), "only the transition matters");
        assert_eq!(woken(&caches, &graph, None, "a"), ["owner"]);
    }

    #[test]
    fn an_owner_of_a_namespaced_kind_is_looked_for_beside_its_dependent_and_a_node_cluster_wide() {
        let (caches, graph) = graph();
        let item = Item::new(Arc::new(config_map("default", "a", &["owner", "node-1"])));
        let references = item.meta().owner_references.clone().unwrap();
        let where_is = |index: usize| graph.owner(&item, &references[index]).map(|(_, key)| key);
        assert_eq!(where_is(0), Some(Key::new("default", "owner")));
        assert_eq!(where_is(1), Some(Key::new("", "node-1")));
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        assert!(graph.owner(&Item::new(Arc::new(node)), &references[0]).is_none());
        caches.config_maps.upsert(config_map("elsewhere", "owner", &[]));
        let (kin, key) = graph.owner(&item, &references[0]).unwrap();
        assert!(graph.is_in_another_namespace(kin, &key, "owner"));
        assert!(!graph.is_in_another_namespace(kin, &key, "never"));
    }
}
