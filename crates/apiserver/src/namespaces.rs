//! What upstream's registry has specially for namespaces: the finalizer in `spec`, the `Terminating` phase,
//! and the rule that nothing is created in a namespace that is missing or on its way out.

use crate::allocator::Reservation;
use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::Outcome;
use crate::resources::Resource;
use crate::rest::input;
use crate::rest::modify::{Next, is_finished, raw};
use crate::state::Core;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Namespace;
use sagong_api::kind::Object;
use serde::Deserialize;

/// The namespaces that cannot be deleted.
pub(crate) const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

fn typed(object: &dyn Object) -> Option<&Namespace> {
    object.as_any().downcast_ref()
}

/// Just enough of a stored namespace to know whether it is open.
#[derive(Deserialize)]
struct Shell {
    metadata: ShellMeta,
}

#[derive(Deserialize)]
struct ShellMeta {
    #[serde(rename = "deletionTimestamp", default)]
    deletion_timestamp: Option<String>,
}

/// Refuses the creation of `object` when its namespace does not exist or is being deleted.
pub(crate) async fn check_open(
    core: &Core,
    resource: &Resource,
    object: &dyn Object,
    namespace: &str,
) -> Outcome<()> {
    let namespaces = core.resources.core("namespaces")?;
    let Some(entry) = core.store.get(&namespaces.key(None, namespace)).await? else {
        return Err(namespaces.not_found(namespace).into());
    };
    let terminating = serde_json::from_slice::<Shell>(&entry.value())
        .is_ok_and(|shell| shell.metadata.deletion_timestamp.is_some());
    if !terminating {
        return Ok(());
    }
    let name = object.metadata().name.as_deref().unwrap_or_default();
    let detail =
        format!("unable to create new content in namespace {namespace} because it is being terminated");
    let failure = crate::failure::Failure::from(resource.forbidden(name, detail));
    let message = format!("namespace {namespace} is being terminated");
    Err(failure.with_cause("NamespaceTerminating", "metadata.namespace", &message))
}

/// Refuses the deletion of the namespaces every cluster has.
pub(crate) fn check_deletable(resource: &Resource, name: &str) -> Outcome<()> {
    if resource.qualified == "namespaces" && IMMORTAL.contains(&name) {
        return Err(resource.forbidden(name, "this namespace may not be deleted").into());
    }
    Ok(())
}

/// Whether nothing in a namespace's `spec.finalizers` holds it; always so for other kinds.
pub(crate) fn is_finalized(resource: &Resource, object: &dyn Object) -> bool {
    let Some(namespace) = typed(object).filter(|_| resource.qualified == "namespaces") else { return true };
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_none_or(Vec::is_empty)
}

/// Shows that a namespace is on its way out.
pub(crate) fn mark_terminating(resource: &Resource, object: &mut dyn Object) {
    if resource.qualified != "namespaces" {
        return;
    }
    if let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>() {
        namespace.status.get_or_insert_default().phase = Some("Terminating".into());
    }
}

/// PUT of `/finalize`: replaces `spec.finalizers`. When none is left on a namespace that is being deleted, it
/// is gone.
pub(crate) async fn finalize(context: &Context) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let dry_run = context.dry_run("UpdateOptions", None)?;
    let (object, _) = input::object(context, "UpdateOptions")?;
    let resource = &context.resource;
    let given = typed(object.as_ref());
    let version = object.metadata().resource_version.clone().filter(|v| !v.is_empty());
    let finalizers = given.and_then(|n| n.spec.clone()).and_then(|s| s.finalizers);
    let done = raw(&context.core, resource, None, context.name(), dry_run, |before, mut old| {
        if version.as_ref().is_some_and(|v| *v != before.revision.to_string()) {
            return Err(resource.conflict(context.name(), crate::rest::modify::MODIFIED).into());
        }
        if let Some(namespace) = old.as_any_mut().downcast_mut::<Namespace>() {
            namespace.spec.get_or_insert_default().finalizers = finalizers.clone();
        }
        if is_finished(resource, old.as_ref()) {
            return Ok(Next::Remove);
        }
        Ok(Next::Put(old, Reservation::default()))
    })
    .await?;
    answer::object(StatusCode::OK, wanted, context.include()?, resource, &done.stored)
}
