//! PATCH: JSON patch, merge patch and strategic merge patch.

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::rest::apply;
use crate::rest::input::{self, FieldValidation};
use crate::rest::modify::modify;
use crate::wire::Stored;
use http::{Response, StatusCode};
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_api::kind::{Identity, Object, Part};
use sagong_api::patch::{self, PatchError};
use serde_json::Value;

/// The media types of patches that are served.
const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
/// The media type of server-side apply.
const APPLY: &str = "application/apply-patch+yaml";

/// How a patch is to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Json,
    Merge,
    Strategic,
}

impl Method {
    /// From the media type of the request.
    pub(crate) fn of(context: &Context) -> Outcome<Self> {
        match input::media_type(&context.headers) {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Err(ApiError::UnsupportedMediaType(ACCEPTED.into()).into()),
        }
    }

    /// The patched tree.
    pub(crate) fn apply(self, kind: &Identity, original: Value, body: &[u8]) -> Outcome<Value> {
        let patched = match self {
            Self::Json => patch::json(&original, body),
            Self::Merge => patch::merge(&original, body),
            Self::Strategic => patch::strategic(kind, original, body),
        };
        patched.map_err(refusal)
    }
}

fn refusal(error: PatchError) -> Failure {
    match error {
        PatchError::Malformed(message) => Failure::bad_request(message),
        PatchError::Unprocessable(message) => unprocessable(&message),
    }
}

/// A 422 that is about the patch as a whole.
fn unprocessable(message: &str) -> Failure {
    let error = ApiError::Invalid { kind: String::new(), name: String::new(), errors: Vec::new() };
    let mut failure = Failure::from(error);
    failure.0.message = Some(message.to_owned());
    failure.0.details = None;
    failure
}

/// A 422 that quotes the patch, as upstream answers when the patched object cannot be read.
fn unreadable(body: &[u8], detail: &str) -> Failure {
    let quoted = String::from_utf8_lossy(body);
    let errors = vec![field::invalid(&field::Path::new("patch"), quoted, detail)];
    ApiError::Invalid { kind: String::new(), name: String::new(), errors }.into()
}

/// The object as it is with the patch applied, and warnings.
pub(crate) fn patched(
    resource: &Resource,
    method: Method,
    before: &Stored,
    body: &[u8],
    validation: FieldValidation,
) -> Outcome<(Box<dyn Object>, Vec<String>)> {
    let original: Value = serde_json::from_slice(&before.to_wire())
        .map_err(|e| Failure::internal(format!("stored {} is unreadable: {e}", resource.id.kind)))?;
    let tree = method.apply(&resource.id, original, body)?;
    if tree["apiVersion"] != resource.api_version || tree["kind"] != resource.id.kind {
        input::check_type(tree.to_string().as_bytes(), &resource.api_version, resource.id.kind)?;
    }
    let (object, issues) =
        resource.kind().decode_tree(&tree).map_err(|e| unreadable(body, &e.to_string()))?;
    let texts: Vec<String> = issues.iter().map(ToString::to_string).collect();
    match validation {
        FieldValidation::Strict if !texts.is_empty() => {
            Err(unreadable(body, &format!("strict decoding error: {}", texts.join(", "))))
        }
        FieldValidation::Ignore => Ok((object, Vec::new())),
        _ => Ok((object, texts)),
    }
}

/// Patches the object, or the part of it.
pub(crate) async fn patch(context: &Context, part: Part) -> Outcome<Response<Body>> {
    if input::media_type(&context.headers) == APPLY {
        return apply::apply(context, part).await;
    }
    let wanted = context.wanted()?;
    let dry_run = context.dry_run("PatchOptions", None)?;
    let method = Method::of(context)?;
    let validation = FieldValidation::parse(context.query.get("fieldValidation"), "PatchOptions")?;
    let mut warnings = Vec::new();
    let done = modify(
        &context.core,
        &context.resource,
        context.namespace.as_deref(),
        context.name(),
        context.change(part, dry_run),
        |before, old| {
            let (mut object, issues) = patched(&context.resource, method, before, &context.body, validation)?;
            keep_identity(object.as_mut(), old)?;
            warnings = issues;
            warnings.extend(input::warnings(&context.resource, object.as_ref()));
            Ok(object)
        },
    )
    .await?;
    let response =
        answer::object(StatusCode::OK, wanted, context.include()?, &context.resource, &done.stored)?;
    Ok(answer::with_warnings(response, &warnings))
}

/// A patch may not rename or move an object.
fn keep_identity(new: &mut dyn Object, old: &dyn Object) -> Outcome<()> {
    let (meta, old) = (new.metadata_mut(), old.metadata());
    if meta.name != old.name {
        let given = meta.name.clone().unwrap_or_default();
        return Err(Failure::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            old.name.clone().unwrap_or_default()
        )));
    }
    if meta.namespace != old.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
