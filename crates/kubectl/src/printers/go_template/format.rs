//! Values as Go prints them.

use serde_json::Value;

/// The name of a value's type in Go.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%v` prints it.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
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
        Value::String(text) => crate::failure::quote(text),
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

/// Values one after the other, with a space between two of which neither is text.
pub(super) fn print(values: &[Value]) -> String {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 && !value.is_string() && !values[index - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&go_value(value));
    }
    text
}

/// What stands between `%` and its verb.
#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    blank: bool,
    width: usize,
    precision: Option<usize>,
}

/// The widest that is padded to.
const WIDEST: usize = 10_000;

/// Go's `Sprintf`, as far as JSON has values for it.
pub(super) fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = arguments.iter();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        let (flags, after) = flags(&rest[percent + 1..]);
        let mut chars = after.chars();
        let verb = chars.next();
        rest = chars.as_str();
        match verb {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match next.next() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => out.push_str(&padded(shown(value, verb, &flags), value, verb, &flags)),
            },
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = next.map(typed).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn typed(value: &Value) -> String {
    if value.is_null() { "<nil>".into() } else { format!("{}={}", go_type(value), go_value(value)) }
}

fn flags(text: &str) -> (Flags, &str) {
    let mut flags = Flags::default();
    let signs = text.find(|c| !matches!(c, '-' | '+' | '#' | '0' | ' ')).unwrap_or(text.len());
    for c in text[..signs].chars() {
        match c {
            '-' => flags.left = true,
            '+' => flags.plus = true,
            '#' => flags.sharp = true,
            '0' => flags.zero = true,
            _ => flags.blank = true,
        }
    }
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        (text[..end].parse::<usize>().ok().map(|number| number.min(WIDEST)), end)
    };
    let mut rest = &text[signs..];
    let (width, end) = number(rest);
    flags.width = width.unwrap_or(0);
    rest = &rest[end..];
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, end) = number(after);
        flags.precision = Some(precision.unwrap_or(0));
        rest = &after[end..];
    }
    (flags, rest)
}

fn shown(value: &Value, verb: char, flags: &Flags) -> String {
    let signed = |text: String| {
        let sign = if flags.plus {
            "+"
        } else if flags.blank {
            " "
        } else {
            ""
        };
        if text.starts_with('-') { text } else { format!("{sign}{text}") }
    };
    let cut = |text: &str| text.chars().take(flags.precision.unwrap_or(usize::MAX)).collect::<String>();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (verb, value) {
        ('v', value) if flags.sharp => go_syntax(value),
        ('v', Value::Number(_)) => signed(go_value(value)),
        ('v', value) => go_value(value),
        ('T', value) => go_type(value).to_owned(),
        ('s', Value::String(text)) => cut(text),
        ('q', Value::String(text)) => crate::failure::quote(&cut(text)),
        ('x', Value::String(text)) => hex(cut(text).as_bytes()),
        ('X', Value::String(text)) => hex(cut(text).as_bytes()).to_uppercase(),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'q', Value::Number(number)) if number.is_i64() => {
            let number = number.as_i64().unwrap_or(0);
            whole(number, verb).map_or_else(|| wrong(value, verb), signed)
        }
        ('f' | 'F' | 'e' | 'g', Value::Number(number)) if number.is_f64() => {
            let number = number.as_f64().unwrap_or(0.0);
            let precision = flags.precision;
            signed(match verb {
                'g' => number.to_string(),
                'e' => exponent(number, precision.unwrap_or(6)),
                _ => format!("{number:.*}", precision.unwrap_or(6)),
            })
        }
        ('s' | 'd' | 'q', Value::Array(items)) => {
            let inner: Vec<String> = items.iter().map(|item| shown(item, verb, flags)).collect();
            format!("[{}]", inner.join(" "))
        }
        ('s' | 'd' | 'q', Value::Object(map)) => {
            let name = |key: &String| shown(&Value::String(key.clone()), verb, flags);
            let inner: Vec<String> =
                map.iter().map(|(key, item)| format!("{}:{}", name(key), shown(item, verb, flags))).collect();
            format!("map[{}]", inner.join(" "))
        }
        (verb, value) => wrong(value, verb),
    }
}

fn wrong(value: &Value, verb: char) -> String {
    format!("%!{verb}({})", typed(value))
}

/// A number in a base; `None` if it is no character that was asked for.
fn whole(number: i64, verb: char) -> Option<String> {
    let (sign, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let character = || u32::try_from(number).ok().and_then(char::from_u32);
    Some(match verb {
        'b' => format!("{sign}{size:b}"),
        'o' => format!("{sign}{size:o}"),
        'x' => format!("{sign}{size:x}"),
        'X' => format!("{sign}{size:X}"),
        'c' => character()?.to_string(),
        'q' => format!("'{}'", character()?),
        _ => number.to_string(),
    })
}

/// `1.500000e+00`: two digits at least, and a sign.
fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

fn padded(text: String, value: &Value, verb: char, flags: &Flags) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    let numeric = value.is_number() && !matches!(verb, 's' | 'T' | 'q' | 'c');
    if flags.left {
        return text + &" ".repeat(missing);
    }
    if flags.zero && numeric {
        let digits = text.trim_start_matches(['+', '-', ' ']);
        let sign = &text[..text.len() - digits.len()];
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}
