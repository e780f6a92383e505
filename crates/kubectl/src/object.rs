//! Fields that every object has.

use serde_json::Value;
use std::collections::BTreeMap;

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// A text by JSON pointer; empty if it is not there.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number by JSON pointer; 0 if it is not there.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A list by JSON pointer; empty if it is not there.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A map of strings by JSON pointer.
pub(crate) fn strings(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// `metadata.labels`.
pub(crate) fn labels(object: &Value) -> BTreeMap<String, String> {
    strings(object, "/metadata/labels")
}

/// `a=b,c=d`.
pub(crate) fn joined(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The controller among the owners.
pub(crate) fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true)
}

/// A label selector as text: `app=kubia`, `<none>`.
pub(crate) fn selector_text(selector: &Value) -> String {
    if selector.is_null() {
        return "<none>".into();
    }
    let parsed = serde_json::from_value(selector.clone());
    let parsed: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector = match parsed {
        Ok(parsed) => parsed,
        Err(_) => return "<error>".into(),
    };
    match sagong_api::selector::Selector::from_label_selector(&parsed) {
        Ok(selector) => {
            let text = selector.to_string();
            if text.is_empty() { "<none>".into() } else { text }
        }
        Err(_) => "<error>".into(),
    }
}
