//! Writes: what all commands that change objects share.

use crate::builder::Info;
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::printers::json;
use http::Method;
use serde_json::{Value, json};

/// The bodies of patches.
pub(crate) const MERGE: &str = "application/merge-patch+json";
/// Kubernetes' own kind.
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// RFC 6902.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// Where `apply` remembers what it was given.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Where `--record` puts the command.
pub(crate) const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// `--record`.
pub(crate) const RECORD: Flag =
    flag("record", Takes::Bool, "false", "Record the command in the annotation kubernetes.io/change-cause");
/// `--field-manager`.
pub(crate) const fn manager(default: &'static str) -> Flag {
    flag("field-manager", Takes::Text, default, "Name of who owns the fields written")
}
/// `--validate`.
pub(crate) const VALIDATE: Flag =
    flag("validate", Takes::Maybe("strict"), "strict", "strict, warn or ignore: what unknown fields do");
/// `--local`.
pub(crate) const LOCAL: Flag = flag("local", Takes::Bool, "false", "Ask nothing of the server");
/// `--save-config`.
pub(crate) const SAVE_CONFIG: Flag =
    flag("save-config", Takes::Bool, "false", "Remember the configuration for a later apply");

/// What `--validate` makes of `fieldValidation`.
///
/// # Errors
/// It is none of the known words.
pub(crate) fn validation(context: &Context) -> Outcome<&'static str> {
    match context.flags.text("validate") {
        "strict" | "true" | "" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => fail(format!(
            "invalid - validate option \"{other}\"; must be one of: strict (or true), warn, ignore (or false)"
        )),
    }
}

/// The command line as `--record` keeps it, if it is to be kept.
pub(crate) fn cause(context: &Context) -> Option<String> {
    if !context.flags.on("record") {
        return None;
    }
    let mut text = context.command.clone();
    for arg in &context.flags.args {
        text.push(' ');
        text.push_str(arg);
    }
    for (name, value) in &context.flags.order {
        text.push_str(&format!(
            " --{name}={}",
            if *name == "token" || *name == "password" { "CENSORED" } else { value }
        ));
    }
    Some(text)
}

/// Puts the cause into an object.
pub(crate) fn record(context: &Context, object: &mut Value) {
    if let Some(cause) = cause(context) {
        annotate(object, CHANGE_CAUSE, &cause);
    }
}

/// Sets an annotation.
pub(crate) fn annotate(object: &mut Value, key: &str, value: &str) {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][key] = value.into();
}

/// The object as `apply` remembers it: without the memory itself, on one line.
pub(crate) fn configuration(object: &Value) -> String {
    let mut object = object.clone();
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    json::compact(&object) + "\n"
}

/// Creates an object.
///
/// # Errors
/// The server refuses.
pub(crate) async fn create(context: &Context, info: &Info, query: &[(&str, String)]) -> Outcome<Value> {
    let query = borrowed(query);
    let path = info.mapping.collection(&info.namespace);
    context.client().await?.call(Method::POST, &path, &query, Some((crate::client::JSON, &info.object))).await
}

/// Replaces an object or, with `subresource`, a part of it.
///
/// # Errors
/// The server refuses.
pub(crate) async fn replace(
    context: &Context,
    info: &Info,
    query: &[(&str, String)],
    subresource: &str,
) -> Outcome<Value> {
    let query = borrowed(query);
    let path = match subresource {
        "" => info.path(),
        part => format!("{}/{part}", info.path()),
    };
    context.client().await?.call(Method::PUT, &path, &query, Some((crate::client::JSON, &info.object))).await
}

/// Patches an object or, with `subresource`, a part of it.
///
/// # Errors
/// The server refuses.
pub(crate) async fn patch(
    context: &Context,
    info: &Info,
    kind: &str,
    body: &Value,
    query: &[(&str, String)],
    subresource: &str,
) -> Outcome<Value> {
    patch_bytes(context, info, kind, body.to_string().into_bytes(), query, subresource).await
}

/// The same for a patch that was not parsed.
///
/// # Errors
/// The server refuses.
pub(crate) async fn patch_bytes(
    context: &Context,
    info: &Info,
    kind: &str,
    body: Vec<u8>,
    query: &[(&str, String)],
    subresource: &str,
) -> Outcome<Value> {
    let query = borrowed(query);
    let mut path = info.path();
    if !subresource.is_empty() {
        path = format!("{path}/{subresource}");
    }
    let client = context.client().await?;
    let bytes = client.bytes(Method::PATCH, &path, &query, Some((kind, body)), crate::client::JSON).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Message(format!("the server's answer is no JSON: {error}")))
}

fn borrowed<'a>(query: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    query.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// The merge patch (RFC 7386) that makes `new` of `old`.
pub(crate) fn merge_diff(old: &Value, new: &Value) -> Value {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let mut patch = serde_json::Map::new();
    for (key, value) in after {
        match before.get(key) {
            Some(same) if same == value => {}
            Some(Value::Object(inner)) if value.is_object() => {
                let inner = merge_diff(&Value::Object(inner.clone()), value);
                patch.insert(key.clone(), inner);
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Where the pod template of a kind is; None if it has none.
pub(crate) fn pod_spec(object: &Value) -> Option<&'static str> {
    match crate::object::text(object, "/kind") {
        "Pod" => Some("/spec"),
        "CronJob" => Some("/spec/jobTemplate/spec/template/spec"),
        "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" | "DaemonSet" | "Job" => {
            Some("/spec/template/spec")
        }
        _ => None,
    }
}

/// As Go shows an object that it read into a type: what is always written there is written here too.
pub(crate) fn typed(object: &Value) -> Value {
    let mut object = object.clone();
    let missing = |value: &mut Value, field: &str, default: Value| {
        if value.is_object() && value.get(field).is_none() {
            value[field] = default;
        }
    };
    let kind = crate::object::text(&object, "/kind").to_owned();
    missing(&mut object["metadata"], "creationTimestamp", Value::Null);
    if kind == "Deployment" {
        missing(&mut object["spec"], "strategy", json!({}));
    }
    let counted = matches!(kind.as_str(), "ReplicationController" | "ReplicaSet");
    missing(&mut object, "status", if counted { json!({"replicas": 0}) } else { json!({}) });
    if let Some(metadata) = object.pointer_mut("/spec/template/metadata") {
        missing(metadata, "creationTimestamp", Value::Null);
    }
    if let Some(spec) = pod_spec(&object).and_then(|pointer| object.pointer_mut(pointer)) {
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                missing(container, "resources", json!({}));
            }
        }
    }
    object
}

/// A failure for a kind without pod template.
pub(crate) fn no_template(info: &Info) -> Failure {
    Failure::Message(format!(
        "{}/{} the object is not a pod or does not have a pod template: *{}.{}",
        // What comes from a file goes by its kind.
        if info.source.is_empty() { info.mapping.plural.clone() } else { info.mapping.kind.to_lowercase() },
        info.name,
        info.mapping.version,
        info.mapping.kind
    ))
}
