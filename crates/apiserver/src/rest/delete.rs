//! DELETE of an object or a collection.

use crate::allocator::Reservation;
use crate::answer::{self, ListMeta};
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::rest::input;
use crate::rest::modify::{Done, Next, raw};
use crate::rest::removal::{self, Verdict};
use crate::rest::selection::Selection;
use crate::state::Core;
use crate::wire::Stored;
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use sagong_api::status;

/// The options, from the body or else from the query.
pub(crate) fn options(context: &Context) -> Outcome<DeleteOptions> {
    let mut options = if context.body.iter().all(u8::is_ascii_whitespace) {
        DeleteOptions::default()
    } else {
        let json = input::to_json(&context.headers, &context.body)?;
        serde_json::from_slice(&json)
            .map_err(|error| Failure::bad_request(format!("DeleteOptions cannot be read: {error}")))?
    };
    if let Some(seconds) = context.number("gracePeriodSeconds")? {
        options.grace_period_seconds.get_or_insert(seconds);
    }
    if let Some(policy) = context.query.get("propagationPolicy") {
        options.propagation_policy.get_or_insert_with(|| policy.to_owned());
    }
    if context.query.has("orphanDependents") {
        options.orphan_dependents.get_or_insert(context.query.flag("orphanDependents"));
    }
    removal::validate_options(&options)?;
    Ok(options)
}

/// Deletes the object, or begins to.
pub(crate) async fn delete(context: &Context) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let options = options(context)?;
    let dry_run = context.dry_run("DeleteOptions", options.dry_run.as_deref())?;
    let (core, resource) = (&context.core, &context.resource);
    let done =
        remove(core, resource, context.namespace.as_deref(), context.name(), &options, dry_run).await?;
    if done.removed && !returns_object(resource) {
        let uid = resource.decode_stored(&done.stored)?.metadata().uid.clone().unwrap_or_default();
        return Ok(answer::json_value(StatusCode::OK, &status::deleted(&resource.id, context.name(), &uid)));
    }
    answer::object(StatusCode::OK, wanted, context.include()?, resource, &done.stored)
}

/// The kinds whose deletion answers with the object as it last was.
fn returns_object(resource: &Resource) -> bool {
    matches!(resource.qualified.as_str(), "pods" | "services" | "serviceaccounts")
}

/// Carries out a deletion with these options.
pub(crate) async fn remove(
    core: &Core,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
    options: &DeleteOptions,
    dry_run: bool,
) -> Outcome<Done> {
    crate::namespaces::check_deletable(resource, name)?;
    let now = Timestamp::now();
    raw(core, resource, namespace, name, dry_run, |before, object| {
        Ok(match removal::plan(resource, before, object, options, now)? {
            Verdict::Remove => Next::Remove,
            Verdict::Mark(object) => Next::Put(object, Reservation::default()),
            Verdict::Pending => Next::Keep,
        })
    })
    .await
}

/// Deletes every selected object of the collection and answers with them.
pub(crate) async fn delete_collection(context: &Context) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let options = options(context)?;
    let dry_run = context.dry_run("DeleteOptions", options.dry_run.as_deref())?;
    let selection = Selection::parse(&context.query, &context.resource)?;
    let (core, resource) = (&context.core, &context.resource);
    let page = core.store.list(&resource.prefix(context.namespace.as_deref()), None, 0).await?;
    let mut deleted = Vec::new();
    for entry in page.entries.iter().filter(|entry| selection.matches(resource, entry)) {
        let meta = resource.decode_stored(&Stored::from(entry))?.metadata().clone();
        // The object that was selected is meant, not one made under its name meanwhile.
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: meta.uid,
                resource_version: options.preconditions.as_ref().and_then(|p| p.resource_version.clone()),
            }),
            ..options.clone()
        };
        let name = meta.name.unwrap_or_default();
        match remove(core, resource, meta.namespace.as_deref(), &name, &options, dry_run).await {
            Ok(done) => deleted.push(done.stored),
            Err(failure) if matches!(failure.code(), 404 | 409) => {}
            Err(failure) => return Err(failure),
        }
    }
    let meta = ListMeta { revision: core.store.revision(), ..ListMeta::default() };
    let size = deleted.iter().map(|stored: &Stored| stored.bytes.len()).sum();
    answer::list(wanted, context.include()?, resource, &meta, size, deleted.into_iter())
}
