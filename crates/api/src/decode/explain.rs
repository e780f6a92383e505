//! Decoding errors in the words of upstream's decoder, which scripts and people know.

use super::PathError;
use crate::kind::DecodeError;
use crate::types::{Shape, Types};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub(super) fn explain(error: &PathError, root: Option<&str>) -> DecodeError {
    let text = error.inner().to_string();
    let message = match error.inner().classify() {
        Category::Syntax | Category::Eof | Category::Io => format!("json parse error: {text}"),
        Category::Data => {
            let place = place(error.path(), root);
            let text = text.split(" at line ").next().unwrap_or(&text);
            wrong_type(text, &place).unwrap_or_else(|| match place.as_str() {
                "" => text.to_owned(),
                place => format!("{place}: {text}"),
            })
        }
    };
    DecodeError { message }
}

/// A type mismatch, or None if the error is of another sort.
fn wrong_type(text: &str, place: &str) -> Option<String> {
    let detail = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "))?;
    let (found, expected) = detail.rsplit_once(", expected ")?;
    let type_ = go_type(expected)?;
    let found = go_value(found, &type_)?;
    let target = if place.is_empty() { "value".to_owned() } else { format!("struct field {place}") };
    Some(format!("json: cannot unmarshal {found} into Go {target} of type {type_}"))
}

fn go_type(expected: &str) -> Option<String> {
    Some(match expected {
        "i32" | "u32" => "int32".to_owned(),
        "i64" | "u64" => "int64".to_owned(),
        "f64" => "float64".to_owned(),
        "a boolean" => "bool".to_owned(),
        "a string" => "string".to_owned(),
        "a sequence" => "[]string".to_owned(),
        "a map" => "map[string]string".to_owned(),
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains(' ') => {
            format!("v1.{name}")
        }
        _ => return None,
    })
}

/// What was found: its JSON type, and for a number that does not fit also which.
fn go_value(found: &str, type_: &str) -> Option<String> {
    let number = found.strip_prefix("integer `").or_else(|| found.strip_prefix("floating point `"));
    if let Some(number) = number {
        let number = number.trim_end_matches('`');
        let numeric = type_.starts_with("int") || type_.starts_with("float");
        return Some(if numeric { format!("number {number}") } else { "number".to_owned() });
    }
    let word = found.split([' ', ':']).next()?;
    match word {
        "string" => Some("string".to_owned()),
        "boolean" => Some("bool".to_owned()),
        "map" => Some("object".to_owned()),
        "sequence" => Some("array".to_owned()),
        "null" => Some("null".to_owned()),
        _ => None,
    }
}

/// `DeploymentSpec.spec.replicas`: the struct the field is in, then the path without indices and map keys.
fn place(path: &Path, root: Option<&str>) -> String {
    let mut keys: Vec<&str> = Vec::new();
    let mut type_: Option<&str> = root;
    let mut owner: Option<&str> = root;
    let mut in_map = false;
    for segment in path.iter() {
        let Segment::Map { key } = segment else { continue };
        if std::mem::take(&mut in_map) {
            continue;
        }
        keys.push(key);
        owner = type_;
        match type_.map(|type_| Types::get().shape(type_, key)) {
            Some(Shape::Object(next) | Shape::List(Some(next))) => type_ = Some(next),
            Some(Shape::Map(next)) => {
                in_map = true;
                type_ = next.as_deref();
            }
            Some(Shape::Leaf | Shape::List(None)) | None => type_ = None,
        }
    }
    let path = keys.join(".");
    let struct_ = owner.and_then(|owner| owner.rsplit('.').next());
    match struct_ {
        Some(struct_) if !path.is_empty() => format!("{struct_}.{path}"),
        _ => path,
    }
}
