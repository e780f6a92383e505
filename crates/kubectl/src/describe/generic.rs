//! Any other kind, field by field.

use super::{Writer, events};
use crate::context::Context;
use crate::failure::Outcome;
use crate::printers::go_template::go_value;
use serde_json::Value;

const SKIPPED: [&str; 5] = [
    ".metadata.name",
    ".metadata.namespace",
    ".metadata.labels",
    ".metadata.annotations",
    ".metadata.managedFields",
];

/// Describes an object of any kind.
pub(super) async fn describe(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.head(object);
    content(writer, 0, object, "");
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}

fn content(writer: &mut Writer, level: usize, object: &Value, path: &str) {
    for (field, value) in object.as_object().into_iter().flatten() {
        let path = format!("{path}.{field}");
        if SKIPPED.contains(&path.as_str()) {
            continue;
        }
        let label = label(field);
        match value {
            Value::Object(_) => {
                writer.line(level, &format!("{label}:"));
                content(writer, level + 1, value, &path);
            }
            Value::Array(items) => {
                writer.line(level, &format!("{label}:"));
                for item in items {
                    match item {
                        Value::Object(_) => content(writer, level + 1, item, &path),
                        other => writer.line(level + 1, &go_value(other)),
                    }
                }
            }
            other => writer.field(level, &label, go_value(other)),
        }
    }
}

/// `creationTimestamp` as `Creation Timestamp`.
fn label(field: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for c in field.chars() {
        let new = c.is_uppercase()
            && words.last().is_some_and(|w| w.chars().last().is_some_and(char::is_lowercase));
        if new || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    let each = words.iter().map(|word| {
        let upper = word.to_uppercase();
        if matches!(upper.as_str(), "API" | "URL" | "UID" | "OSB" | "GUID") {
            return upper;
        }
        let mut chars = word.chars();
        chars.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + chars.as_str())
    });
    each.collect::<Vec<_>>().join(" ")
}
