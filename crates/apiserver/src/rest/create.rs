//! POST to a collection.

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::rest::input;
use crate::rest::modify::to_stored_bytes;
use crate::state::Core;
use crate::wire::Stored;
use crate::{admission, namespaces};
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rand::Rng;
use sagong_api::error::ApiError;
use sagong_api::kind::Object;
use sagong_api::{field, meta};
use sagong_store::{Expect, Outcome as Committed, Write};

/// How many generated names are tried (KEP-4420).
const NAME_ATTEMPTS: usize = 8;

/// Creates the object in the body.
pub(crate) async fn create(context: &Context) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let dry_run = context.dry_run("CreateOptions", None)?;
    let (mut object, mut warnings) = input::object(context, "CreateOptions")?;
    input::settle_namespace(object.as_mut(), &context.resource, context.namespace.as_deref())?;
    warnings.extend(input::warnings(&context.resource, object.as_ref()));
    object.metadata_mut().managed_fields = None;
    let stored = new_object(&context.core, &context.resource, object, dry_run).await?;
    let response =
        answer::object(StatusCode::CREATED, wanted, context.include()?, &context.resource, &stored)?;
    Ok(answer::with_warnings(response, &warnings))
}

/// Applies all rules for new objects and stores it.
pub(crate) async fn new_object(
    core: &Core,
    resource: &Resource,
    mut object: Box<dyn Object>,
    dry_run: bool,
) -> Outcome<Stored> {
    let given_version = object.metadata().resource_version.as_deref().unwrap_or_default();
    if !matches!(given_version, "" | "0") {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let generated = object.metadata().name.as_deref().unwrap_or_default().is_empty();
    for attempt in 1.. {
        let mut candidate = object.boxed_clone();
        begin(candidate.metadata_mut(), Timestamp::now());
        match store_new(core, resource, candidate.as_mut(), dry_run).await? {
            Some(stored) => return Ok(stored),
            None if generated && attempt < NAME_ATTEMPTS => {}
            None => {
                object = candidate;
                break;
            }
        }
    }
    let name = object.metadata().name.clone().unwrap_or_default();
    Err(ApiError::AlreadyExists { resource: resource.qualified.clone(), name }.into())
}

/// Fills in what only the server sets.
fn begin(meta: &mut ObjectMeta, now: Timestamp) {
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.creation_timestamp = Some(Time(now));
    meta.generation = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.resource_version = None;
    let base = meta.generate_name.as_deref().unwrap_or_default();
    if meta.name.as_deref().unwrap_or_default().is_empty() && !base.is_empty() {
        meta.name = Some(meta::generate_name(base, |below| rand::rng().random_range(0..below)));
    }
}

/// None: the name is taken.
async fn store_new(
    core: &Core,
    resource: &Resource,
    object: &mut dyn Object,
    dry_run: bool,
) -> Outcome<Option<Stored>> {
    let kind = resource.kind();
    let namespace = object.metadata().namespace.clone();
    if let Some(namespace) = namespace.as_deref().filter(|_| resource.id.namespaced) {
        namespaces::check_open(core, resource, object, namespace).await?;
    }
    kind.default(object);
    kind.prepare_create(object);
    if has_generation(resource) {
        object.metadata_mut().generation = Some(1);
    }
    admission::create(core, resource, object).await?;
    validate(resource, object)?;
    let reservation = core.allocators.create(resource, object)?;
    let name = object.metadata().name.clone().unwrap_or_default();
    let key = resource.key(namespace.as_deref(), &name);
    let bytes = to_stored_bytes(object);
    if dry_run {
        let taken = core.store.get(&key).await?.is_some();
        return Ok((!taken).then_some(Stored { bytes, revision: 0 }));
    }
    let write = Write { key, expect: Expect::Absent, value: Some(bytes.clone()) };
    match core.store.commit(vec![write]).await? {
        Committed::Committed(revision) => {
            reservation.keep();
            Ok(Some(Stored { bytes, revision }))
        }
        Committed::Refused { .. } => Ok(None),
    }
}

/// Whether upstream counts generations of this kind: all but the older core kinds, leases and events.
fn has_generation(resource: &Resource) -> bool {
    match resource.id.group {
        "" => matches!(resource.id.plural, "pods" | "replicationcontrollers"),
        "coordination.k8s.io" | "events.k8s.io" => false,
        _ => true,
    }
}

fn validate(resource: &Resource, object: &dyn Object) -> Outcome<()> {
    let kind = resource.kind();
    let path = field::Path::new("metadata");
    let mut errors = meta::validate_meta(object.metadata(), resource.id.namespaced, kind.name_rule(), &path);
    errors.extend(kind.validate_create(object));
    if errors.is_empty() {
        return Ok(());
    }
    let name = object.metadata().name.clone().unwrap_or_default();
    Err(ApiError::Invalid { kind: resource.qualified_kind.clone(), name, errors }.into())
}
