//! What a controller wants done, as a value: writes in order, the events to report, and when to look again.

use crate::cache::{Cached, Key};
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sagong_api::kind::{Object, TypedObject};
use serde_json::Value;
use std::sync::Arc;

/// The outcome of planning. The default does nothing and looks again only when something changes.
#[derive(Debug, Default)]
pub struct Plan {
    /// Steps in order; a failed step stops the ones after it.
    pub steps: Vec<Step>,
    /// When to plan again even if nothing changes.
    pub look_again: Option<Timestamp>,
    /// Events to report in any case, before the first step.
    pub notes: Vec<Note>,
}

impl Plan {
    /// Whether it neither writes nor reports anything.
    pub fn is_idle(&self) -> bool {
        self.steps.iter().all(|step| step.writes.is_empty()) && self.notes.is_empty()
    }

    /// Adds one write as a step of its own.
    pub fn then(&mut self, write: Write) {
        self.steps.push(Step::together(vec![write]));
    }

    /// Adds writes that may run at the same time; nothing when there are none.
    pub fn then_all(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.steps.push(Step::together(writes));
        }
    }

    /// Looks again at `when`, or earlier if an earlier time is already planned.
    pub fn look_again_at(&mut self, when: Timestamp) {
        self.look_again = Some(self.look_again.map_or(when, |planned| planned.min(when)));
    }

    /// All writes in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.steps.iter().flat_map(|step| &step.writes)
    }
}

/// Writes that belong together.
#[derive(Debug)]
pub struct Step {
    /// The writes.
    pub writes: Vec<Write>,
    /// How many of them run at once.
    pub pace: Pace,
    /// Checked against the API server, not the cache, before the first write.
    pub guard: Option<Guard>,
}

impl Step {
    /// Writes that may all run at the same time.
    pub fn together(writes: Vec<Write>) -> Self {
        Self { writes, pace: Pace::Together, guard: None }
    }

    /// Writes in batches of 1, 2, 4, …: a failed batch stops the rest, so that a request that must fail (a quota,
    /// say) is made once and not a thousand times.
    pub fn slow_start(writes: Vec<Write>) -> Self {
        Self { writes, pace: Pace::SlowStart, guard: None }
    }

    /// The same, made only if the guard holds.
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }
}

/// How many writes of a step run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As many as the applier allows.
    Together,
    /// 1, 2, 4, … as long as all of a batch succeed.
    SlowStart,
}

/// Holds if the object still exists with this uid and is not being deleted.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Its kind.
    pub kind: KindRef,
    /// Its namespace and name.
    pub key: Key,
    /// Its uid.
    pub uid: String,
}

impl Guard {
    /// The guard that `object` is still alive.
    pub fn alive<K: TypedObject>(object: &K) -> Self {
        let meta = object.metadata();
        Self { kind: KindRef::of::<K>(), key: Key::of(meta), uid: meta.uid.clone().unwrap_or_default() }
    }
}

/// The names under which a kind is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KindRef {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// `v1` or `apps/v1`.
    pub api_version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// `deployments`.
    pub plural: &'static str,
}

impl KindRef {
    /// The names of a kind.
    pub const fn of<K: Resource>() -> Self {
        Self { group: K::GROUP, api_version: K::API_VERSION, kind: K::KIND, plural: K::URL_PATH_SEGMENT }
    }
}

/// One write to the API server.
pub struct Write {
    /// The kind written to.
    pub kind: KindRef,
    /// Namespace and name; the name is empty when the API server generates it.
    pub key: Key,
    /// What is done to it.
    pub verb: Verb,
    /// HTTP error codes that count as success: the wish is already true, or no longer matters.
    pub tolerated: &'static [u16],
    /// Reported if the write succeeds.
    pub on_success: Option<Note>,
    /// Reported if it fails.
    pub on_failure: Option<Note>,
}

/// What a [`Write`] does.
pub enum Verb {
    /// POST.
    Create(Box<dyn Object>),
    /// PUT of everything but the status.
    Update(Box<dyn Object>),
    /// PUT to `/status`.
    UpdateStatus(Box<dyn Object>),
    /// PATCH of the object.
    Patch(PatchKind, Value),
    /// PATCH of `/status`.
    PatchStatus(PatchKind, Value),
    /// DELETE.
    Delete(Deletion),
}

/// How a patch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
}

/// The options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only the object at this version.
    pub resource_version: Option<String>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'static str>,
    /// Seconds; none for the object's own.
    pub grace_period: Option<i64>,
}

impl Write {
    /// Creates the object. Without a name the API server generates one from `generateName`.
    pub fn create<K: TypedObject>(object: K) -> Self {
        Self::at(KindRef::of::<K>(), Key::of(object.metadata()), Verb::Create(Box::new(object)))
    }

    /// Replaces the object, except its status. Fails with a conflict if it has changed since it was read.
    pub fn update<K: TypedObject>(object: K) -> Self {
        Self::at(KindRef::of::<K>(), Key::of(object.metadata()), Verb::Update(Box::new(object)))
    }

    /// Replaces the status, and the metadata that kind lets its status writers change.
    pub fn update_status<K: TypedObject>(object: K) -> Self {
        Self::at(KindRef::of::<K>(), Key::of(object.metadata()), Verb::UpdateStatus(Box::new(object)))
    }

    /// Patches the object.
    pub fn patch<K: Cached>(object: &K, kind: PatchKind, body: Value) -> Self {
        Self::new::<K>(object.metadata(), Verb::Patch(kind, body))
    }

    /// Patches the status.
    pub fn patch_status<K: Cached>(object: &K, kind: PatchKind, body: Value) -> Self {
        Self::new::<K>(object.metadata(), Verb::PatchStatus(kind, body))
    }

    /// Deletes this very object (by uid), with its own grace period. That it is already gone counts as success.
    pub fn delete<K: Cached>(object: &K) -> Self {
        let deletion = Deletion { uid: object.metadata().uid.clone(), ..Deletion::default() };
        Self::new::<K>(object.metadata(), Verb::Delete(deletion)).tolerating(&[404])
    }

    /// The same, only if nobody has changed the object since it was read: what a user has just taken aside, or another
    /// instance of the controllers has just found a use for, is not deleted on old news. Otherwise a conflict: look
    /// again.
    pub fn delete_unchanged<K: Cached>(object: &K) -> Self {
        let mut write = Self::delete(object);
        if let Verb::Delete(deletion) = &mut write.verb {
            deletion.resource_version.clone_from(&object.metadata().resource_version);
        }
        write
    }

    /// Counts these HTTP error codes as success.
    pub fn tolerating(mut self, codes: &'static [u16]) -> Self {
        self.tolerated = codes;
        self
    }

    /// Reports this event if the write succeeds.
    pub fn reporting(mut self, note: Note) -> Self {
        self.on_success = Some(note);
        self
    }

    /// Reports this event if the write fails.
    pub fn reporting_failure(mut self, note: Note) -> Self {
        self.on_failure = Some(note);
        self
    }

    /// The object that is created or put, if it is of this kind.
    pub fn object<K: TypedObject>(&self) -> Option<&K> {
        match &self.verb {
            Verb::Create(object) | Verb::Update(object) | Verb::UpdateStatus(object) => {
                object.as_any().downcast_ref()
            }
            Verb::Patch(..) | Verb::PatchStatus(..) | Verb::Delete(_) => None,
        }
    }

    fn new<K: Resource>(meta: &ObjectMeta, verb: Verb) -> Self {
        Self::at(KindRef::of::<K>(), Key::of(meta), verb)
    }

    /// A write of any kind, for those who know kinds only by name.
    pub fn at(kind: KindRef, key: Key, verb: Verb) -> Self {
        Self { kind, key, verb, tolerated: &[], on_success: None, on_failure: None }
    }
}

impl Verb {
    /// Its name, for logs and assertions.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(_) => "update",
            Self::UpdateStatus(_) => "update status",
            Self::Patch(..) => "patch",
            Self::PatchStatus(..) => "patch status",
            Self::Delete(_) => "delete",
        }
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.verb.name(), self.kind.plural, self.key)
    }
}

/// An event to report about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object the event is about.
    pub regarding: Arc<ObjectReference>,
    /// Whether it is a `Warning` and not `Normal`.
    pub warning: bool,
    /// Machine-readable reason, e.g. `SuccessfulCreate`.
    pub reason: &'static str,
    /// The sentence; what is only known after the write is appended as told by `append`.
    pub message: String,
    /// What to append to the message.
    pub append: Append,
}

/// What is appended to the message of a [`Note`] once its write is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// Nothing.
    Nothing,
    /// The name of the object written, which the API server may have generated.
    Name,
    /// The error.
    Error,
}

impl Note {
    /// A `Normal` event.
    pub fn normal(
        regarding: &Arc<ObjectReference>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let message = message.into();
        Self { regarding: regarding.clone(), warning: false, reason, message, append: Append::Nothing }
    }

    /// A `Warning` event.
    pub fn warning(
        regarding: &Arc<ObjectReference>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { warning: true, ..Self::normal(regarding, reason, message) }
    }

    /// The same with something appended to its message.
    pub fn append(mut self, append: Append) -> Self {
        self.append = append;
        self
    }
}

/// The reference to an object that events about it carry.
pub fn reference_to<K: Cached>(object: &K) -> Arc<ObjectReference> {
    let meta = object.metadata();
    Arc::new(ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    })
}

/// The first write of a plan that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `create`, `update`, … as [`Verb::name`] tells.
    pub verb: &'static str,
    /// The kind written to.
    pub kind: KindRef,
    /// Its namespace and name.
    pub key: Key,
    /// HTTP code; 0 if the API server did not answer.
    pub code: u16,
    /// The reason of the answer, e.g. `AlreadyExists`; empty if there was none.
    pub reason: String,
    /// The error in words.
    pub message: String,
}

impl Failure {
    /// Whether it created something perhaps, all the same: there was no answer, or only that it took too long.
    pub fn is_uncertain(&self) -> bool {
        self.verb == "create" && matches!(self.code, 0 | 504)
    }

    /// Whether somebody else changed the object in between: a fresh look will do.
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }
}
