//! Request bodies as objects.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::protobuf;
use crate::resources::Resource;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_api::kind::{FieldIssue, Object};
use serde::Deserialize;
use serde_json::Value;

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// Reads the parameter; upstream's default is to warn. `options` names the kind of options in the error.
    pub(crate) fn parse(value: Option<&str>, options: &str) -> Outcome<Self> {
        match value {
            None | Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => {
                let path = field::Path::new("fieldValidation");
                let errors = vec![field::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"])];
                let kind = format!("{options}.meta.k8s.io");
                Err(ApiError::Invalid { kind, name: String::new(), errors }.into())
            }
        }
    }
}

/// The media types bodies may have.
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type of a request, without parameters; JSON when not given.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    let bare = given.split(';').next().unwrap_or("").trim();
    if bare.is_empty() { "application/json" } else { bare }
}

/// A body as JSON bytes, whatever it is written in.
pub(crate) fn to_json(headers: &HeaderMap, body: &Bytes) -> Outcome<Bytes> {
    match media_type(headers) {
        "application/json" | "text/json" | "*/*" => Ok(body.clone()),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml_to_json(body),
        "application/vnd.kubernetes.protobuf" => {
            Ok(protobuf::to_json(body).map_err(|error| Failure::bad_request(error.to_string()))?)
        }
        _ => Err(ApiError::UnsupportedMediaType(ACCEPTED.into()).into()),
    }
}

/// YAML as JSON; the error names line and column.
pub(crate) fn yaml_to_json(body: &[u8]) -> Outcome<Bytes> {
    let value: Value = serde_saphyr::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    Ok(serde_json::to_vec(&value).unwrap_or_default().into())
}

/// The names an object gives itself.
#[derive(Debug, Default, Deserialize)]
struct TypeMeta {
    #[serde(rename = "apiVersion", default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// Checks that a body is of this kind and version. Either may be left out, as upstream allows.
pub(crate) fn check_type(json: &[u8], api_version: &str, kind: &str) -> Outcome<()> {
    let meta: TypeMeta = serde_json::from_slice(json).map_err(|error| {
        let message = format!("the object provided is unrecognized (must be of type {kind}): {error}");
        Failure::bad_request(message)
    })?;
    let given_version = meta.api_version.as_deref().filter(|v| !v.is_empty()).unwrap_or(api_version);
    let given_kind = meta.kind.as_deref().filter(|k| !k.is_empty()).unwrap_or(kind);
    if given_version != api_version {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if given_kind != kind {
        let short = api_version.rsplit('/').next().unwrap_or(api_version);
        return Err(Failure::bad_request(format!(
            "{given_kind} in version \"{short}\" cannot be handled as a {kind}: converting ({given_kind}) to \
             ({kind}): unknown conversion"
        )));
    }
    Ok(())
}

/// `Deployment in version "v1" cannot be handled as a Deployment: DETAIL`.
pub(crate) fn cannot_be_handled(resource: &Resource, detail: &str) -> Failure {
    let id = &resource.id;
    Failure::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {detail}",
        id.kind, id.version, id.kind
    ))
}

/// Turns the issues found by strict decoding into an error or into warnings.
pub(crate) fn judge(
    resource: &Resource,
    issues: &[FieldIssue],
    validation: FieldValidation,
) -> Outcome<Vec<String>> {
    let texts: Vec<String> = issues.iter().map(ToString::to_string).collect();
    match validation {
        _ if texts.is_empty() => Ok(texts),
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(texts),
        FieldValidation::Strict => {
            Err(cannot_be_handled(resource, &format!("strict decoding error: {}", texts.join(", "))))
        }
    }
}

/// Reads JSON as an object of the resource's kind, with the warnings it deserves.
pub(crate) fn decode(
    resource: &Resource,
    json: &[u8],
    validation: FieldValidation,
) -> Outcome<(Box<dyn Object>, Vec<String>)> {
    check_type(json, &resource.api_version, resource.id.kind)?;
    let (object, issues) =
        resource.kind().decode(json).map_err(|error| cannot_be_handled(resource, &error.to_string()))?;
    let warnings = judge(resource, &issues, validation)?;
    Ok((object, warnings))
}

/// The body of a create or update as an object.
pub(crate) fn object(context: &Context, options: &str) -> Outcome<(Box<dyn Object>, Vec<String>)> {
    let validation = FieldValidation::parse(context.query.get("fieldValidation"), options)?;
    let json = to_json(&context.headers, &context.body)?;
    decode(&context.resource, &json, validation)
}

/// The kind's warnings, which are about the object with its defaults, as upstream decodes it.
pub(crate) fn warnings(resource: &Resource, object: &dyn Object) -> Vec<String> {
    let mut defaulted = object.boxed_clone();
    resource.kind().default(defaulted.as_mut());
    resource.kind().warnings(defaulted.as_ref())
}

/// Makes the object's namespace the request's, or refuses when they differ.
pub(crate) fn settle_namespace(
    object: &mut dyn Object,
    resource: &Resource,
    namespace: Option<&str>,
) -> Outcome<()> {
    let meta = object.metadata_mut();
    if !resource.id.namespaced {
        meta.namespace = None;
        return Ok(());
    }
    let wanted = namespace.unwrap_or_default();
    match meta.namespace.as_deref() {
        None | Some("") => meta.namespace = Some(wanted.to_owned()),
        Some(given) if given == wanted => {}
        Some(_) => {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}
