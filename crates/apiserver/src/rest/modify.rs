//! The read-change-write loop behind every change of an existing object.

use crate::allocator::Reservation;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::rest::apply::managers::{self, Manager};
use crate::state::Core;
use crate::wire::Stored;
use crate::{admission, namespaces};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sagong_api::error::ApiError;
use sagong_api::kind::{Object, Part};
use sagong_api::{field, meta};
use sagong_store::{Expect, Outcome as Committed, Write};

/// The message of every conflict of resource versions.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// How often a change that names no resource version is tried again on a newer state.
const ATTEMPTS: usize = 100;

/// What is to become of an object.
pub(crate) enum Next {
    /// Store this. The reservation is what it holds of shared things, kept if the write succeeds.
    Put(Box<dyn Object>, Reservation),
    /// Delete it.
    Remove,
    /// Leave it as it is.
    Keep,
}

/// What became of it.
pub(crate) struct Done {
    /// The object as it is now, or was when it was removed.
    pub(crate) stored: Stored,
    pub(crate) removed: bool,
}

/// An object's bytes as they are stored: without what the store knows better, or what is not kept.
pub(crate) fn to_stored_bytes(object: &mut dyn Object) -> Bytes {
    let meta = object.metadata_mut();
    meta.resource_version = None;
    meta.self_link = None;
    // A copy of the exact size: the buffer it was written to has up to twice the room, and would be kept with it.
    Bytes::copy_from_slice(&object.encode())
}

/// Reads the object, lets `plan` say what is to become of it, and writes that on the condition that nothing
/// changed in between; if something did, again. `plan` must not have side effects that outlive its result.
pub(crate) async fn raw(
    core: &Core,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
    dry_run: bool,
    mut plan: impl FnMut(&Stored, Box<dyn Object>) -> Outcome<Next> + Send,
) -> Outcome<Done> {
    let key = resource.key(namespace, name);
    let mut current = core.store.get(&key).await?;
    for _ in 0..ATTEMPTS {
        let Some(entry) = current else { return Err(resource.not_found(name).into()) };
        let before = Stored::from(&entry);
        let old = resource.decode_stored(&before)?;
        let (value, reservation) = match plan(&before, old)? {
            Next::Keep => return Ok(Done { stored: before, removed: false }),
            Next::Remove => (None, Reservation::default()),
            Next::Put(mut object, reservation) => {
                let bytes = to_stored_bytes(object.as_mut());
                if bytes == before.bytes {
                    return Ok(Done { stored: before, removed: false });
                }
                (Some(bytes), reservation)
            }
        };
        let removed = value.is_none();
        let after = value.clone().unwrap_or_else(|| before.bytes.clone());
        if dry_run {
            return Ok(Done { stored: Stored { bytes: after, revision: before.revision }, removed });
        }
        let write = Write { key: key.clone(), expect: Expect::Modified(before.revision), value };
        match core.store.commit(vec![write]).await? {
            Committed::Committed(revision) => {
                reservation.keep();
                if removed {
                    core.allocators.release(resource, &before);
                }
                return Ok(Done { stored: Stored { bytes: after, revision }, removed });
            }
            Committed::Refused { current: now, .. } => current = now,
        }
    }
    Err(resource.conflict(name, MODIFIED).into())
}

/// How an object is changed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) part: Part,
    /// Who owns the fields that change; None: the new object says so itself.
    pub(crate) manager: Option<Manager>,
    pub(crate) dry_run: bool,
}

/// Changes an object on behalf of a client: `make` gives what the client wants it to be, made from what it is.
/// All rules for updates are applied to the result.
pub(crate) async fn modify(
    core: &Core,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
    change: Change,
    mut make: impl FnMut(&Stored, &dyn Object) -> Outcome<Box<dyn Object>> + Send,
) -> Outcome<Done> {
    raw(core, resource, namespace, name, change.dry_run, |before, old| {
        let new = make(before, old.as_ref())?;
        prepare(core, resource, before, old.as_ref(), new, &change)
    })
    .await
}

/// Applies the rules for updates to `new`.
fn prepare(
    core: &Core,
    resource: &Resource,
    before: &Stored,
    old: &dyn Object,
    mut new: Box<dyn Object>,
    change: &Change,
) -> Outcome<Next> {
    let kind = resource.kind();
    let part = change.part;
    carry_over(resource, before, old.metadata(), new.metadata_mut())?;
    kind.default(new.as_mut());
    kind.prepare_update(new.as_mut(), old, part);
    let generation = old.metadata().generation;
    let grown = part == Part::Main && kind.spec_changed(new.as_ref(), old);
    new.metadata_mut().generation = if grown { generation.map(|g| g + 1) } else { generation };
    admission::update(resource, new.as_mut(), old)?;
    let mut errors =
        meta::validate_meta_update(new.metadata(), old.metadata(), &field::Path::new("metadata"));
    errors.extend(kind.validate_update(new.as_ref(), old, part));
    if !errors.is_empty() {
        let name = old.metadata().name.clone().unwrap_or_default();
        return Err(ApiError::Invalid { kind: resource.qualified_kind.clone(), name, errors }.into());
    }
    if is_finished(resource, new.as_ref()) {
        return Ok(Next::Remove);
    }
    let reservation = match part {
        Part::Main => core.allocators.update(resource, new.as_mut(), old)?,
        Part::Status => Reservation::default(),
    };
    if let Some(manager) = &change.manager {
        track(resource, manager, old, new.as_mut());
    }
    Ok(Next::Put(new, reservation))
}

/// Keeps the books of who owns which field, for objects that have any.
pub(crate) fn track(resource: &Resource, manager: &Manager, old: &dyn Object, new: &mut dyn Object) {
    let entries = old.metadata().managed_fields.clone();
    new.metadata_mut().managed_fields = match entries.filter(|entries| !entries.is_empty()) {
        None => None,
        Some(entries) => {
            let (before, after) = (old.to_value(), new.to_value());
            managers::after_update(resource, manager, Some(&entries), &before, &after, Timestamp::now())
        }
    };
}

/// Checks identity and version, and takes over what clients may leave out or may not set.
fn carry_over(resource: &Resource, before: &Stored, old: &ObjectMeta, new: &mut ObjectMeta) -> Outcome<()> {
    let name = old.name.as_deref().unwrap_or_default();
    let version = before.revision.to_string();
    match new.resource_version.as_deref() {
        None | Some("" | "0") => new.resource_version = Some(version),
        Some(given) if given == version => {}
        Some(given) if given.parse::<u64>().is_err() => {
            let path = field::Path::new("metadata.resourceVersion");
            let detail = format!("strconv.ParseUint: parsing {given:?}: invalid syntax");
            let errors = vec![field::invalid(&path, given, &detail)];
            let kind = resource.qualified_kind.clone();
            return Err(ApiError::Invalid { kind, name: name.into(), errors }.into());
        }
        Some(_) => return Err(resource.conflict(name, MODIFIED).into()),
    }
    let empty = |value: &Option<String>| value.as_deref().unwrap_or_default().is_empty();
    if empty(&new.uid) {
        new.uid = old.uid.clone();
    } else if new.uid != old.uid {
        return Err(uid_mismatch(resource, name, new.uid.as_deref(), old.uid.as_deref()));
    }
    if new.creation_timestamp.is_none() {
        new.creation_timestamp = old.creation_timestamp.clone();
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp = old.deletion_timestamp.clone();
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    if new.generate_name.is_none() {
        new.generate_name = old.generate_name.clone();
    }
    Ok(())
}

/// 409 for a uid that is not the object's.
pub(crate) fn uid_mismatch(
    resource: &Resource,
    name: &str,
    given: Option<&str>,
    actual: Option<&str>,
) -> Failure {
    let detail = format!(
        "Precondition failed: UID in precondition: {}, UID in object meta: {}",
        given.unwrap_or_default(),
        actual.unwrap_or_default()
    );
    resource.conflict(name, detail).into()
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(crate) fn is_finished(resource: &Resource, object: &dyn Object) -> bool {
    let meta = object.metadata();
    meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && meta.finalizers.as_deref().unwrap_or_default().is_empty()
        && namespaces::is_finalized(resource, object)
}
