//! An API server in memory: objects, resource versions, conflicts, finalizers, deletion timestamps, and a log of events
//! per kind that watchers read at their own pace. Defaults, validation and patches are the real ones.

use crate::choices::splitmix;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, PodCondition, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use sagong_api::error::ApiError;
use sagong_api::field::Path;
use sagong_api::kind::{Identity, Object, Part, ServedKind};
use sagong_api::kinds;
use sagong_api::meta::{self, FOREGROUND, ORPHAN};
use sagong_api::patch;
use sagong_controllers::cache::Key;
use sagong_controllers::plan::{Deletion, KindRef, PatchKind};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

static KINDS: LazyLock<Vec<Box<dyn ServedKind>>> = LazyLock::new(kinds::registry);

/// An object as stored.
pub(crate) type Stored = Arc<dyn Object>;
/// What became of a request.
pub(crate) type Answer<T = Stored> = Result<T, ApiError>;

/// One change, as watchers get it.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) object: Stored,
    pub(crate) deleted: bool,
}

/// One change, as whoever judges the run sees it: at once.
pub(crate) struct Change {
    pub(crate) plural: &'static str,
    pub(crate) old: Option<Stored>,
    /// None when the object was removed.
    pub(crate) new: Option<Stored>,
}

/// All objects of one kind, and everything that ever happened to them.
pub(crate) struct Table {
    kind: &'static dyn ServedKind,
    id: Identity,
    pub(crate) objects: BTreeMap<Key, Stored>,
    pub(crate) log: Vec<Event>,
}

/// The API server.
pub(crate) struct Api {
    pub(crate) now: Timestamp,
    pub(crate) revision: u64,
    /// What changed since somebody last took it.
    pub(crate) changes: Vec<Change>,
    tables: BTreeMap<&'static str, Table>,
    random: u64,
}

impl Api {
    pub(crate) fn new(now: Timestamp) -> Self {
        let table = |kind: &'static dyn ServedKind| {
            let id = kind.identity();
            (id.plural, Table { kind, id, objects: BTreeMap::new(), log: Vec::new() })
        };
        Self {
            now,
            revision: 0,
            changes: Vec::new(),
            tables: KINDS.iter().map(|kind| table(&**kind)).collect(),
            random: 7,
        }
    }

    /// The objects and events of a kind, by its plural name.
    pub(crate) fn table(&self, plural: &str) -> &Table {
        &self.tables[plural]
    }

    /// The objects of a kind, typed, in the order of their names.
    pub(crate) fn list<K: k8s_openapi::Resource + 'static>(&self) -> impl Iterator<Item = &K> {
        self.table(K::URL_PATH_SEGMENT).objects.values().filter_map(|object| object.as_any().downcast_ref())
    }

    /// One object, typed.
    pub(crate) fn get<K: k8s_openapi::Resource + 'static>(&self, key: &Key) -> Option<&K> {
        self.table(K::URL_PATH_SEGMENT).objects.get(key)?.as_any().downcast_ref()
    }

    /// POST.
    pub(crate) fn create(&mut self, plural: &str, mut object: Box<dyn Object>) -> Answer {
        let (id, kind) = self.kind(plural)?;
        self.begin(&id, object.metadata_mut());
        allocate(object.as_mut(), self.revision);
        kind.default(object.as_mut());
        kind.prepare_create(object.as_mut());
        let path = Path::new("metadata");
        let mut errors = meta::validate_meta(object.metadata(), id.namespaced, kind.name_rule(), &path);
        errors.extend(kind.validate_create(object.as_ref()));
        let key = Key::of(object.metadata());
        if !errors.is_empty() {
            return Err(ApiError::Invalid { kind: id.qualified_kind(), name: key.name, errors });
        }
        if self.table(plural).objects.contains_key(&key) {
            return Err(ApiError::AlreadyExists { resource: id.qualified_resource(), name: key.name });
        }
        Ok(self.put(plural, key, object))
    }

    /// PUT of the object or its status.
    pub(crate) fn update(&mut self, plural: &str, object: Box<dyn Object>, part: Part) -> Answer {
        let key = Key::of(object.metadata());
        let old = self.find(plural, &key)?;
        self.change(plural, &key, &old, object, part)
    }

    /// PATCH of the object or its status.
    pub(crate) fn patch(
        &mut self,
        plural: &str,
        key: &Key,
        how: PatchKind,
        body: &serde_json::Value,
        part: Part,
    ) -> Answer {
        let (id, kind) = self.kind(plural)?;
        let old = self.find(plural, key)?;
        let (tree, body) = (old.to_value(), body.to_string().into_bytes());
        let patched = match how {
            PatchKind::Json => patch::json(&tree, &body),
            PatchKind::Merge => patch::merge(&tree, &body),
            PatchKind::Strategic => patch::strategic(&id, tree, &body),
        }
        .map_err(ApiError::from)?;
        let json = patched.to_string().into_bytes();
        let new = kind.decode_stored(&json).map_err(|error| ApiError::BadRequest(error.to_string()))?;
        self.change(plural, key, &old, new, part)
    }

    /// DELETE. The object as it is now, or was when it was removed.
    pub(crate) fn delete(&mut self, plural: &str, key: &Key, options: &Deletion) -> Answer {
        let (id, kind) = self.kind(plural)?;
        let old = self.find(plural, key)?;
        check_preconditions(&id, old.metadata(), options)?;
        let mut new = old.boxed_clone();
        let grace = kind.deletion_grace_period(new.as_ref(), options.grace_period).unwrap_or(0);
        apply_propagation(new.metadata_mut(), options.propagation);
        mark(new.metadata_mut(), grace, self.now);
        if is_finished(new.as_ref()) {
            return Ok(self.remove(plural, key, new));
        }
        if same(new.as_ref(), old.as_ref()) {
            return Ok(old);
        }
        Ok(self.put(plural, key.clone(), new))
    }

    /// POST of a binding: puts a pod on a node.
    pub(crate) fn bind(&mut self, key: &Key, uid: &str, node: &str) -> Answer {
        let old = self.find("pods", key)?;
        let refuse = |detail: &str| ApiError::Conflict {
            resource: "pods/binding".into(),
            name: key.name.clone(),
            detail: detail.into(),
        };
        let Some(pod) = old.as_any().downcast_ref::<Pod>() else { return Err(refuse("not a pod")) };
        let mut pod = pod.clone();
        if pod.metadata.uid.as_deref() != Some(uid) {
            return Err(refuse("another pod of that name"));
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return Err(refuse("being deleted, cannot be assigned to a host"));
        }
        let spec = pod.spec.get_or_insert_default();
        if spec.node_name.as_deref().is_some_and(|node| !node.is_empty()) {
            return Err(refuse("already assigned to a node"));
        }
        spec.node_name = Some(node.to_owned());
        let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != "PodScheduled");
        conditions.push(PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            last_transition_time: Some(Time(self.now)),
            ..PodCondition::default()
        });
        Ok(self.put("pods", key.clone(), Box::new(pod)))
    }

    /// GET.
    pub(crate) fn find(&self, plural: &str, key: &Key) -> Answer {
        let (id, _) = self.kind(plural)?;
        let found = self.table(plural).objects.get(key).cloned();
        found.ok_or_else(|| ApiError::NotFound { resource: id.qualified_resource(), name: key.name.clone() })
    }

    fn kind(&self, plural: &str) -> Answer<(Identity, &'static dyn ServedKind)> {
        self.tables.get(plural).map(|table| (table.id, table.kind)).ok_or(ApiError::UnknownResource)
    }

    fn change(
        &mut self,
        plural: &str,
        key: &Key,
        old: &Stored,
        mut new: Box<dyn Object>,
        part: Part,
    ) -> Answer {
        let (id, kind) = self.kind(plural)?;
        carry_over(&id, old.metadata(), new.metadata_mut())?;
        kind.default(new.as_mut());
        kind.prepare_update(new.as_mut(), old.as_ref(), part);
        let generation = old.metadata().generation;
        let grown = part == Part::Main && kind.spec_changed(new.as_ref(), old.as_ref());
        new.metadata_mut().generation = if grown { generation.map(|g| g + 1) } else { generation };
        let path = Path::new("metadata");
        let mut errors = meta::validate_meta_update(new.metadata(), old.metadata(), &path);
        errors.extend(kind.validate_update(new.as_ref(), old.as_ref(), part));
        if !errors.is_empty() {
            return Err(ApiError::Invalid { kind: id.qualified_kind(), name: key.name.clone(), errors });
        }
        if is_finished(new.as_ref()) {
            return Ok(self.remove(plural, key, new));
        }
        if same(new.as_ref(), old.as_ref()) {
            return Ok(old.clone());
        }
        Ok(self.put(plural, key.clone(), new))
    }

    fn begin(&mut self, id: &Identity, meta: &mut ObjectMeta) {
        let random = splitmix(&mut self.random);
        meta.uid = Some(format!("{random:016x}"));
        meta.creation_timestamp = Some(Time(self.now));
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        let counts = !id.group.is_empty() || matches!(id.plural, "pods" | "replicationcontrollers");
        meta.generation = counts.then_some(1);
        let base = meta.generate_name.clone().unwrap_or_default();
        if meta.name.as_deref().unwrap_or_default().is_empty() && !base.is_empty() {
            let below = |bound: usize| usize::try_from(splitmix(&mut self.random) >> 33).unwrap_or(0) % bound;
            meta.name = Some(meta::generate_name(&base, below));
        }
    }

    fn put(&mut self, plural: &str, key: Key, object: Box<dyn Object>) -> Stored {
        let object = self.stamp(object);
        if let Some(table) = self.tables.get_mut(plural) {
            let old = table.objects.insert(key, object.clone());
            table.log.push(Event { object: object.clone(), deleted: false });
            self.changes.push(Change { plural: table.id.plural, old, new: Some(object.clone()) });
        }
        object
    }

    fn remove(&mut self, plural: &str, key: &Key, last: Box<dyn Object>) -> Stored {
        let object = self.stamp(last);
        if let Some(table) = self.tables.get_mut(plural) {
            let old = table.objects.remove(key);
            table.log.push(Event { object: object.clone(), deleted: true });
            self.changes.push(Change { plural: table.id.plural, old, new: None });
        }
        object
    }

    fn stamp(&mut self, mut object: Box<dyn Object>) -> Stored {
        self.revision += 1;
        let meta = object.metadata_mut();
        meta.resource_version = Some(self.revision.to_string());
        // The wire form has whole seconds, and everybody but the writer sees that.
        for time in [&mut meta.creation_timestamp, &mut meta.deletion_timestamp].into_iter().flatten() {
            time.0 = whole_seconds(time.0);
        }
        whole_seconds_in(object.as_mut());
        Arc::from(object)
    }
}

impl Table {
    /// The names under which plans know it.
    pub(crate) fn kind_ref(&self) -> KindRef {
        let api_version = match (self.id.group, self.id.version) {
            ("", _) => "v1",
            ("apps", _) => "apps/v1",
            ("discovery.k8s.io", _) => "discovery.k8s.io/v1",
            (_, version) => version,
        };
        KindRef { group: self.id.group, api_version, kind: self.id.kind, plural: self.id.plural }
    }
}

/// Cut like the wire form does.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The times in statuses that controllers and kubelets write.
fn whole_seconds_in(object: &mut dyn Object) {
    let cut = |time: &mut Option<Time>| {
        if let Some(time) = time {
            time.0 = whole_seconds(time.0);
        }
    };
    let object = object.as_any_mut();
    if let Some(pod) = object.downcast_mut::<Pod>() {
        let conditions = pod.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        conditions.for_each(|condition| cut(&mut condition.last_transition_time));
    } else if let Some(set) = object.downcast_mut::<ReplicaSet>() {
        let conditions = set.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        conditions.for_each(|condition| cut(&mut condition.last_transition_time));
    } else if let Some(deployment) = object.downcast_mut::<Deployment>() {
        let status = deployment.status.iter_mut();
        status.flat_map(|status| status.conditions.iter_mut().flatten()).for_each(|condition| {
            cut(&mut condition.last_transition_time);
            cut(&mut condition.last_update_time);
        });
    }
}

/// Whether a write changes nothing; both have the same resource version.
fn same(a: &dyn Object, b: &dyn Object) -> bool {
    fn typed<K: PartialEq + 'static>(a: &dyn Object, b: &dyn Object) -> Option<bool> {
        Some(a.as_any().downcast_ref::<K>()? == b.as_any().downcast_ref::<K>()?)
    }
    typed::<Pod>(a, b)
        .or_else(|| typed::<ReplicaSet>(a, b))
        .or_else(|| typed::<Deployment>(a, b))
        .or_else(|| typed::<EndpointSlice>(a, b))
        .or_else(|| typed::<Endpoints>(a, b))
        .unwrap_or_else(|| a.encode() == b.encode())
}

/// Services get their address from the API server.
fn allocate(object: &mut dyn Object, serial: u64) {
    if let Some(service) = object.as_any_mut().downcast_mut::<Service>() {
        let spec = service.spec.get_or_insert_default();
        let address = format!("10.96.{}.{}", serial / 250 % 250, serial % 250 + 1);
        spec.cluster_ips.get_or_insert_with(|| vec![address.clone()]);
        spec.cluster_ip.get_or_insert(address);
    }
}

fn carry_over(id: &Identity, old: &ObjectMeta, new: &mut ObjectMeta) -> Answer<()> {
    let conflict = |detail: &str| ApiError::Conflict {
        resource: id.qualified_resource(),
        name: old.name.clone().unwrap_or_default(),
        detail: detail.to_owned(),
    };
    match new.resource_version.as_deref() {
        None | Some("" | "0") => new.resource_version.clone_from(&old.resource_version),
        given if given == old.resource_version.as_deref() => {}
        Some(_) => return Err(conflict("the object has been modified")),
    }
    if new.uid.as_deref().unwrap_or_default().is_empty() {
        new.uid.clone_from(&old.uid);
    } else if new.uid != old.uid {
        return Err(conflict("Precondition failed: UID"));
    }
    if new.creation_timestamp.is_none() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    if new.generate_name.is_none() {
        new.generate_name.clone_from(&old.generate_name);
    }
    Ok(())
}

fn check_preconditions(id: &Identity, meta: &ObjectMeta, options: &Deletion) -> Answer<()> {
    let is_other = |asked: &Option<String>, actual: &Option<String>| asked.is_some() && asked != actual;
    if is_other(&options.uid, &meta.uid) || is_other(&options.resource_version, &meta.resource_version) {
        return Err(ApiError::Conflict {
            resource: id.qualified_resource(),
            name: meta.name.clone().unwrap_or_default(),
            detail: "Precondition failed".into(),
        });
    }
    Ok(())
}

fn apply_propagation(meta: &mut ObjectMeta, policy: Option<&str>) {
    let Some(policy) = policy else { return };
    let mut finalizers = meta.finalizers.take().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match policy {
        "Orphan" => finalizers.push(ORPHAN.to_owned()),
        "Foreground" => finalizers.push(FOREGROUND.to_owned()),
        _ => {}
    }
    meta.finalizers = Some(finalizers).filter(|finalizers| !finalizers.is_empty());
}

/// A grace period may be shortened, never prolonged.
fn mark(meta: &mut ObjectMeta, grace: i64, now: Timestamp) {
    let seconds = SignedDuration::from_secs(grace.clamp(0, 86_400));
    match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds.unwrap_or(0)) {
        (None, _) => {
            meta.deletion_timestamp = Some(Time(now + seconds));
            meta.deletion_grace_period_seconds = Some(grace);
            meta.generation = meta.generation.map(|generation| generation + 1);
        }
        (Some(Time(at)), current) if grace < current => {
            meta.deletion_timestamp = Some(Time(*at - SignedDuration::from_secs(current - grace)));
            meta.deletion_grace_period_seconds = Some(grace);
        }
        _ => {}
    }
}

fn is_finished(object: &dyn Object) -> bool {
    let meta = object.metadata();
    meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && meta.finalizers.as_deref().unwrap_or_default().is_empty()
}
