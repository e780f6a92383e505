//! JSON as Go writes it.

use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Indented by four, without a last newline.
pub(crate) fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    // Writing JSON to memory cannot fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    escape(&String::from_utf8_lossy(&bytes))
}

/// On one line.
pub(crate) fn compact(value: &Value) -> String {
    escape(&value.to_string())
}

/// `<`, `>` and `&` can only stand in strings; Go escapes them there.
fn escape(text: &str) -> String {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text.to_owned();
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
