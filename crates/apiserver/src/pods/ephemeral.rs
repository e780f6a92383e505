//! `/pods/NAME/ephemeralcontainers`: containers added to a pod that runs, as `kubectl debug` does.

use crate::allocator::Reservation;
use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::input::{self, FieldValidation};
use crate::rest::modify::{MODIFIED, Next, raw, track, uid_mismatch};
use crate::rest::patch::{Method, patched};
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use sagong_api::error::ApiError;
use sagong_api::kind::Object;
use sagong_api::pod::validate::validate_ephemeral_update;

/// PUT: the pod in the body, of which only the ephemeral containers count.
pub(crate) async fn update(context: &Context) -> Outcome<Response<Body>> {
    let (object, warnings) = input::object(context, "UpdateOptions")?;
    change(context, "UpdateOptions", warnings, |_, _| Ok(object.boxed_clone())).await
}

/// PATCH of the pod, of which only what it does to the ephemeral containers counts.
pub(crate) async fn patch(context: &Context) -> Outcome<Response<Body>> {
    let method = Method::of(context)?;
    let validation = FieldValidation::parse(context.query.get("fieldValidation"), "PatchOptions")?;
    change(context, "PatchOptions", Vec::new(), |before, warnings| {
        let (object, issues) = patched(&context.resource, method, before, &context.body, validation)?;
        *warnings = issues;
        Ok(object)
    })
    .await
}

async fn change(
    context: &Context,
    options: &str,
    mut warnings: Vec<String>,
    mut make: impl FnMut(&crate::wire::Stored, &mut Vec<String>) -> Outcome<Box<dyn Object>> + Send,
) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let dry_run = context.dry_run(options, None)?;
    let namespace = context.namespace.as_deref();
    let manager = context.manager("ephemeralcontainers");
    let done = raw(&context.core, &context.resource, namespace, context.name(), dry_run, |before, old| {
        let given = make(before, &mut warnings)?;
        let version = given.metadata().resource_version.as_deref().unwrap_or_default();
        if !matches!(version, "" | "0") && version != before.revision.to_string() {
            return Err(context.resource.conflict(context.name(), MODIFIED).into());
        }
        let (uid, own) = (given.metadata().uid.as_deref(), old.metadata().uid.as_deref());
        if uid.is_some_and(|uid| !uid.is_empty() && Some(uid) != own) {
            return Err(uid_mismatch(&context.resource, context.name(), uid, own));
        }
        let pod = |object: &dyn Object| object.as_any().downcast_ref::<Pod>().cloned();
        let (Some(given), Some(old)) = (pod(given.as_ref()), pod(old.as_ref())) else {
            return Err(Failure::internal("a pod is not one"));
        };
        let mut new = merged(context, &given, &old)?;
        track(&context.resource, &manager, &old, &mut new);
        Ok(Next::Put(Box::new(new), Reservation::default()))
    })
    .await?;
    let response =
        answer::object(StatusCode::OK, wanted, context.include()?, &context.resource, &done.stored)?;
    Ok(answer::with_warnings(response, &warnings))
}

/// The pod as it was, with the ephemeral containers as given.
fn merged(context: &Context, given: &Pod, old: &Pod) -> Outcome<Pod> {
    let mut new = old.clone();
    let containers = given.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone());
    if let Some(spec) = new.spec.as_mut() {
        spec.ephemeral_containers = containers;
    }
    context.resource.kind().default(&mut new);
    let errors = validate_ephemeral_update(&new, old);
    if !errors.is_empty() {
        let kind = context.resource.qualified_kind.clone();
        return Err(ApiError::Invalid { kind, name: context.name().to_owned(), errors }.into());
    }
    if new.spec != old.spec {
        new.metadata.generation = old.metadata.generation.map(|generation| generation + 1);
    }
    Ok(new)
}
