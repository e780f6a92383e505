//! The functions of templates, and values as Go prints them.

use serde_json::Value;

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let first = arguments.first().cloned().unwrap_or_default();
    Ok(match name {
        "and" => arguments.iter().find(|v| !truth(v)).or(arguments.last()).cloned().unwrap_or_default(),
        "or" => arguments.iter().find(|v| truth(v)).or(arguments.last()).cloned().unwrap_or_default(),
        "not" => (!truth(&first)).into(),
        "len" => match &first {
            Value::Array(a) => a.len().into(),
            Value::Object(o) => o.len().into(),
            Value::String(s) => s.len().into(),
            _ => return Err("error calling len: len of untyped nil".into()),
        },
        "index" => {
            let mut at = first;
            for key in &arguments[1..] {
                at = match (&at, key) {
                    (Value::Array(items), Value::Number(n)) => {
                        let index = n.as_u64().unwrap_or(u64::MAX) as usize;
                        items.get(index).cloned().ok_or(format!(
                            "error calling index: reflect: slice index out of range: {index}"
                        ))?
                    }
                    (Value::Object(map), Value::String(key)) => map.get(key).cloned().unwrap_or_default(),
                    (Value::Null, _) => return Err("error calling index: index of untyped nil".into()),
                    _ => return Err("error calling index: cannot index slice/array with that type".into()),
                };
            }
            at
        }
        "print" | "println" => {
            let mut text = String::new();
            for (index, value) in arguments.iter().enumerate() {
                let spaced =
                    name == "println" || index > 0 && !value.is_string() && !arguments[index - 1].is_string();
                if index > 0 && spaced {
                    text.push(' ');
                }
                text.push_str(&go_value(value));
            }
            if name == "println" {
                text.push('\n');
            }
            text.into()
        }
        "printf" => printf(first.as_str().unwrap_or_default(), arguments.get(1..).unwrap_or_default()).into(),
        "eq" => arguments[1.min(arguments.len())..].contains(&first).into(),
        "ne" => (arguments.get(1) != Some(&first)).into(),
        "lt" | "le" | "gt" | "ge" => {
            use std::cmp::Ordering::{Equal, Greater, Less};
            let second = arguments.get(1).cloned().unwrap_or_default();
            let order = match (&first, &second) {
                (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
                (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
                _ => return Err(format!("error calling {name}: incompatible types for comparison")),
            };
            match name {
                "lt" => order == Some(Less),
                "le" => matches!(order, Some(Less | Equal)),
                "gt" => order == Some(Greater),
                _ => matches!(order, Some(Greater | Equal)),
            }
            .into()
        }
        "exists" => {
            let mut at = Some(&first);
            for key in &arguments[1.min(arguments.len())..] {
                at = match (at, key) {
                    (Some(Value::Object(map)), Value::String(key)) => map.get(key),
                    (Some(Value::Array(items)), Value::Number(n)) => {
                        items.get(n.as_u64().unwrap_or(u64::MAX) as usize)
                    }
                    _ => None,
                };
            }
            at.is_some_and(|v| !v.is_null()).into()
        }
        "base64decode" => {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(first.as_str().unwrap_or_default())
                .map_err(|error| format!("error calling base64decode: base64 decode failed: {error}"))?;
            String::from_utf8_lossy(&bytes).into_owned().into()
        }
        "html" => go_value(&first)
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;")
            .into(),
        "urlquery" => {
            percent_encoding::utf8_percent_encode(&go_value(&first), percent_encoding::NON_ALPHANUMERIC)
                .to_string()
                .into()
        }
        _ => return Err(format!("function \"{name}\" is not supported")),
    })
}

fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(f) =
            chars.peek().copied().filter(|f| f.is_ascii_digit() || matches!(f, '-' | '+' | '.' | '#' | ' '))
        {
            flags.push(f);
            chars.next();
        }
        let verb = chars.next().unwrap_or('%');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = next.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let shown = match verb {
            'q' => crate::failure::quote(&go_value(value)),
            _ => go_value(value),
        };
        let width: usize = flags
            .trim_start_matches(['-', '+', '#', ' '])
            .split('.')
            .next()
            .and_then(|w| w.parse().ok())
            .unwrap_or(0);
        let pad = " ".repeat(width.saturating_sub(shown.chars().count()));
        out.push_str(&if flags.starts_with('-') { shown + &pad } else { pad + &shown });
    }
    out
}

/// A value as Go's `%v` prints it.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_value(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// A value as Go's `%#v` prints it.
pub(crate) fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(s) => crate::failure::quote(s),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(k, v)| format!("{}:{}", crate::failure::quote(k), go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
