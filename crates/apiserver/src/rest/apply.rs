//! PATCH with `application/apply-patch+yaml`: server-side apply (KEP-555).
//!
//! A client states the fields it cares about. They become its own; fields it stated before and no longer
//! does go, unless others own them; stating a different value for a field that somebody else owns is a
//! conflict, unless forced. [`shape`] knows what is owned how, [`tree`] walks objects, [`field_set`] and
//! [`managers`] keep the books.

mod field_set;
pub(crate) mod managers;
mod shape;
mod tree;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::rest::create;
use crate::rest::input::{self, FieldValidation};
use crate::rest::modify::{Change, modify};
use field_set::FieldSet;
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use managers::{Manager, Managers, owned, root};
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_api::kind::{Object, Part};
use serde_json::{Value, json};

/// What is applied, by whom.
struct Application {
    object: Value,
    fields: FieldSet,
    manager: Manager,
    force: bool,
    warnings: Vec<String>,
}

/// Applies the body: creates the object or changes it.
pub(crate) async fn apply(context: &Context, part: Part) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let dry_run = context.dry_run("PatchOptions", None)?;
    let application = read(context, part)?;
    let resource = &context.resource;
    let namespace = context.namespace.as_deref();
    let exists = context.core.store.get(&context.key()).await?.is_some();
    if !exists && part == Part::Main && application.object["metadata"]["uid"].is_null() {
        let created = first(resource, &application)?;
        match create::new_object(&context.core, resource, created, dry_run).await {
            // Somebody was faster: it is there to be changed now.
            Err(failure) if failure.code() == 409 => {}
            made => {
                let response =
                    answer::object(StatusCode::CREATED, wanted, context.include()?, resource, &made?)?;
                return Ok(answer::with_warnings(response, &application.warnings));
            }
        }
    }
    let change = Change { part, manager: None, dry_run };
    let done = modify(&context.core, resource, namespace, context.name(), change, |before, old| {
        let mut live = old.to_value();
        live["metadata"]["resourceVersion"] = json!(before.revision.to_string());
        next(resource, &application, old, &live)
    })
    .await?;
    let response = answer::object(StatusCode::OK, wanted, context.include()?, resource, &done.stored)?;
    Ok(answer::with_warnings(response, &application.warnings))
}

/// Reads and checks the body and the options.
fn read(context: &Context, part: Part) -> Outcome<Application> {
    let resource = &context.resource;
    let Some(manager) = context.query.get("fieldManager") else {
        let path = field::Path::new("fieldManager");
        let errors = vec![field::required(&path, "is required for apply patch")];
        return Err(ApiError::Invalid {
            kind: "PatchOptions.meta.k8s.io".into(),
            name: String::new(),
            errors,
        }
        .into());
    };
    let validation = FieldValidation::parse(context.query.get("fieldValidation"), "PatchOptions")?;
    let json = input::yaml_to_json(&context.body)?;
    let (mut typed, warnings) = input::decode(resource, &json, validation)?;
    input::settle_namespace(typed.as_mut(), resource, context.namespace.as_deref())?;
    crate::rest::update::check_name(typed.as_mut(), context.name())?;
    let mut object: Value = serde_json::from_slice(&json).unwrap_or_default();
    if !object["metadata"]["managedFields"].is_null() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(resource.id.kind);
    object["metadata"]["name"] = json!(typed.metadata().name);
    object["metadata"]["namespace"] = json!(typed.metadata().namespace);
    let mut fields = owned(tree::fields(root(resource), &object));
    if resource.kind().subresources().status {
        fields.children.retain(|element, _| (element == "f:status") == (part == Part::Status));
    }
    let subresource = if part == Part::Status { "status" } else { "" };
    let manager = Manager { name: manager.to_owned(), subresource: subresource.into() };
    Ok(Application { object, fields, manager, force: context.query.flag("force"), warnings })
}

/// The object when nothing is there yet.
fn first(resource: &Resource, application: &Application) -> Outcome<Box<dyn Object>> {
    let mut managers = Managers::nobody();
    managers.set_applied(&application.manager, resource, application.fields.clone(), Timestamp::now());
    typed(resource, &application.object, managers.write())
}

/// The object with what is applied to it.
fn next(
    resource: &Resource,
    application: &Application,
    old: &dyn Object,
    live: &Value,
) -> Outcome<Box<dyn Object>> {
    let Application { object, fields, manager, force, .. } = application;
    let now = Timestamp::now();
    let node = root(resource);
    let mut managers = Managers::read_or_begin(old.metadata().managed_fields.as_deref(), resource, live, now);
    let mut merged = tree::merge(node, live, object);
    let (changed, _) = tree::compare(node, live, &merged);
    let changed = owned(changed).intersection(fields);
    if *force {
        managers.take_from_others(manager, &changed);
    } else {
        managers.check_conflicts(manager, &changed)?;
    }
    let dropped = managers.applied(manager).difference(fields).difference_below(&managers.others(manager));
    tree::remove(node, &mut merged, &dropped.difference_below(fields));
    managers.set_applied(manager, resource, fields.clone(), now);
    typed(resource, &merged, managers.write())
}

fn typed(resource: &Resource, value: &Value, managers: Vec<ManagedFieldsEntry>) -> Outcome<Box<dyn Object>> {
    let decoded = resource.kind().decode(value.to_string().as_bytes());
    let (mut object, _) = decoded.map_err(|error| input::cannot_be_handled(resource, &error.to_string()))?;
    object.metadata_mut().managed_fields = Some(managers);
    Ok(object)
}

#[cfg(test)]
mod tests;
