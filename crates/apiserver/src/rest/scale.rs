//! The `/scale` subresource: an `autoscaling/v1 Scale` view of any kind that has replicas.

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::rest::input;
use crate::rest::modify::{Change, modify};
use crate::rest::patch::Method;
use crate::wire::Stored;
use http::{Response, StatusCode};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_api::kind::{Identity, Object, Part};

const API_VERSION: &str = "autoscaling/v1";

/// The identity of Scale, for the strategic merge patch, which for it is a plain merge.
const IDENTITY: Identity = Identity {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    plural: "scales",
    singular: "scale",
    short_names: &[],
    categories: &[],
    namespaced: true,
};

/// Shows the scale of the object.
pub(crate) async fn get(context: &Context) -> Outcome<Response<Body>> {
    let entry = context.core.store.get(&context.key()).await?;
    let entry = entry.ok_or_else(|| context.resource.not_found(context.name()))?;
    let stored = Stored::from(&entry);
    let object = context.resource.decode_stored(&stored)?;
    respond(context, &view(&context.resource, &stored, object.as_ref())?)
}

/// Replaces the number of replicas.
pub(crate) async fn update(context: &Context) -> Outcome<Response<Body>> {
    let json = input::to_json(&context.headers, &context.body)?;
    input::check_type(&json, API_VERSION, "Scale")?;
    let scale = parse(&json)?;
    let given = scale.metadata.name.as_deref().unwrap_or_default();
    if !given.is_empty() && given != context.name() {
        return Err(Failure::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            context.name()
        )));
    }
    change(context, |_| Ok(scale.clone()), "UpdateOptions").await
}

/// Patches the number of replicas.
pub(crate) async fn patch(context: &Context) -> Outcome<Response<Body>> {
    let method = Method::of(context)?;
    let patched = |current: &Scale| {
        let original = serde_json::to_value(current).unwrap_or_default();
        let value = method.apply(&IDENTITY, original, &context.body)?;
        parse(value.to_string().as_bytes())
    };
    change(context, patched, "PatchOptions").await
}

fn parse(json: &[u8]) -> Outcome<Scale> {
    serde_json::from_slice(json).map_err(|error| {
        Failure::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {error}"))
    })
}

async fn change(
    context: &Context,
    make: impl Fn(&Scale) -> Outcome<Scale> + Send + Sync,
    options: &str,
) -> Outcome<Response<Body>> {
    let dry_run = context.dry_run(options, None)?;
    let resource = &context.resource;
    let done = modify(
        &context.core,
        resource,
        context.namespace.as_deref(),
        context.name(),
        Change { part: Part::Main, manager: Some(context.manager("scale")), dry_run },
        |before, old| {
            let wanted = make(&view(resource, before, old)?)?;
            let replicas = wanted.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
            check(context.name(), replicas)?;
            let mut object = old.boxed_clone();
            object.metadata_mut().resource_version = wanted.metadata.resource_version;
            object.metadata_mut().uid = wanted.metadata.uid.or(object.metadata().uid.clone());
            resource.kind().set_replicas(object.as_mut(), replicas);
            Ok(object)
        },
    )
    .await?;
    let object = resource.decode_stored(&done.stored)?;
    respond(context, &view(resource, &done.stored, object.as_ref())?)
}

fn check(name: &str, replicas: i32) -> Outcome<()> {
    if replicas >= 0 {
        return Ok(());
    }
    let path = field::Path::new("spec.replicas");
    let errors = vec![field::invalid(&path, replicas, "must be greater than or equal to 0")];
    Err(ApiError::Invalid { kind: "Scale.autoscaling".into(), name: name.into(), errors }.into())
}

fn view(resource: &Resource, stored: &Stored, object: &dyn Object) -> Outcome<Scale> {
    let scale = resource.kind().scale(object).ok_or(ApiError::UnknownResource)?;
    let meta = object.metadata();
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: Some(stored.revision.to_string()),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(scale.replicas) }),
        status: Some(ScaleStatus { replicas: scale.current, selector: Some(scale.selector) }),
    })
}

fn respond(context: &Context, scale: &Scale) -> Outcome<Response<Body>> {
    let json = serde_json::to_vec(scale).unwrap_or_default();
    answer::encoded(StatusCode::OK, context.wanted()?.encoding, json)
}
