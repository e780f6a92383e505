//! The functions of templates.

use super::{go_type, go_value};
use base64::Engine;
use serde_json::Value;
use std::cmp::Ordering;

/// A value, or what a map does not have.
pub(super) type Argument = Option<Value>;

/// Go's, and those that kubectl adds.
pub(super) const FUNCTIONS: [&str; 20] = [
    "and",
    "base64decode",
    "eq",
    "exists",
    "ge",
    "gt",
    "html",
    "index",
    "js",
    "le",
    "len",
    "lt",
    "ne",
    "not",
    "or",
    "print",
    "printf",
    "println",
    "slice",
    "urlquery",
];

/// How many arguments it takes: at least, and at most.
pub(super) fn arity(name: &str) -> (usize, Option<usize>) {
    match name {
        "ge" | "gt" | "le" | "lt" | "ne" => (2, Some(2)),
        "base64decode" | "len" | "not" => (1, Some(1)),
        "html" | "js" | "print" | "println" | "urlquery" => (0, None),
        _ => (1, None),
    }
}

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What a function gives.
///
/// # Errors
/// It does not take these arguments.
pub(super) fn call(name: &str, arguments: &[Argument]) -> Result<Value, String> {
    let values: Vec<Value> = arguments.iter().map(|value| value.clone().unwrap_or_default()).collect();
    let first = values.first().cloned().unwrap_or_default();
    let rest = values.get(1..).unwrap_or_default();
    let second = rest.first().cloned().unwrap_or_default();
    Ok(match name {
        "and" => values.iter().find(|value| !truth(value)).or(values.last()).cloned().unwrap_or_default(),
        "or" => values.iter().find(|value| truth(value)).or(values.last()).cloned().unwrap_or_default(),
        "not" => (!truth(&first)).into(),
        "len" => match &first {
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            Value::String(text) => text.len().into(),
            Value::Null => return Err("reflect: call of reflect.Value.Type on zero Value".into()),
            other => return Err(format!("len of type {}", go_type(other))),
        },
        "index" => rest.iter().try_fold(first, |at, key| index(&at, key))?,
        "slice" => slice(&first, rest)?,
        "print" => super::format::print(&values).into(),
        "println" => {
            let shown: Vec<String> = values.iter().map(go_value).collect();
            (shown.join(" ") + "\n").into()
        }
        "printf" => super::format::printf(first.as_str().unwrap_or_default(), rest).into(),
        "eq" => equal(&first, rest)?.into(),
        "ne" => (!equal(&first, rest)?).into(),
        "lt" => (order(&first, &second)? == Some(Ordering::Less)).into(),
        "le" => matches!(order(&first, &second)?, Some(Ordering::Less | Ordering::Equal)).into(),
        "gt" => (order(&first, &second)? == Some(Ordering::Greater)).into(),
        "ge" => matches!(order(&first, &second)?, Some(Ordering::Greater | Ordering::Equal)).into(),
        "exists" => {
            let found = rest.iter().try_fold(first, |at, key| index(&at, key));
            found.is_ok_and(|value| !value.is_null()).into()
        }
        "base64decode" => {
            let text = first.as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _)
                    | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    base64::DecodeError::InvalidLength(length) => length / 4 * 4,
                    base64::DecodeError::InvalidPadding => text.trim_end_matches('=').len(),
                };
                format!("base64 decode failed: illegal base64 data at input byte {at}")
            })?;
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        "html" => html(&super::format::print(&values)).into(),
        "js" => javascript(&super::format::print(&values)).into(),
        _ => {
            let text = super::format::print(&values);
            form_urlencoded(&text).into()
        }
    })
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Null, _) => Err("index of untyped nil".into()),
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_default()),
        (Value::Object(_), Value::Null) => Err("value is nil; should be of type string".into()),
        (Value::Object(_), key) => Err(format!("value has type {}; should be string", go_type(key))),
        (Value::Array(items), key) => {
            let at = position(key, items.len())?;
            items.get(at).cloned().ok_or_else(|| "reflect: slice index out of range".to_owned())
        }
        (Value::String(text), key) => {
            let at = position(key, text.len())?;
            let byte = text.as_bytes().get(at).ok_or("reflect: string index out of range")?;
            Ok((*byte).into())
        }
        (other, _) => Err(format!("can't index item of type {}", go_type(other))),
    }
}

/// A place among so many, or right behind them.
fn position(key: &Value, length: usize) -> Result<usize, String> {
    match key {
        Value::Number(number) => {
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok()).filter(|at| *at <= length);
            at.ok_or_else(|| format!("index out of range: {number}"))
        }
        Value::Null => Err("cannot index slice/array with nil".into()),
        other => Err(format!("cannot index slice/array with type {}", go_type(other))),
    }
}

fn slice(value: &Value, keys: &[Value]) -> Result<Value, String> {
    if keys.len() > 3 {
        return Err(format!("too many slice indexes: {}", keys.len()));
    }
    let length = match value {
        Value::Null => return Err("slice of untyped nil".into()),
        Value::String(_) if keys.len() == 3 => return Err("cannot 3-index slice a string".into()),
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", go_type(other))),
    };
    let places: Vec<usize> = keys.iter().map(|key| position(key, length)).collect::<Result<_, _>>()?;
    let (from, to) = (places.first().copied().unwrap_or(0), places.get(1).copied().unwrap_or(length));
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Array(items) => items[from..to].to_vec().into(),
        other => {
            let bytes = other.as_str().unwrap_or_default().as_bytes();
            String::from_utf8_lossy(&bytes[from..to]).into_owned().into()
        }
    })
}

/// Whether it equals any of them.
fn equal(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".into());
    }
    for other in others {
        match (first, other) {
            (Value::Array(_) | Value::Object(_), Value::Array(_) | Value::Object(_)) => {
                return Err(format!("non-comparable type {}: {}", go_value(first), go_type(first)));
            }
            (Value::Null, _) | (_, Value::Null) => {}
            (a, b) if go_type(a) != go_type(b) => return Err("incompatible types for comparison".into()),
            _ => {}
        }
        if first == other {
            return Ok(true);
        }
    }
    Ok(false)
}

fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_)) => Err("invalid type for comparison".into()),
        (a, b) if go_type(a) != go_type(b) => Err("incompatible types for comparison".into()),
        (Value::Number(a), Value::Number(b)) => Ok(match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64().partial_cmp(&b.as_f64()),
        }),
        (Value::String(a), Value::String(b)) => Ok(Some(a.cmp(b))),
        _ => Err("invalid type for comparison".into()),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn javascript(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\0'..' ' | '\u{7f}'..'\u{a0}' => {
                out.push_str(&format!("\\u{:04X}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

/// As in the query of an address: a space is a plus.
fn form_urlencoded(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string().replace(' ', "+")
}
