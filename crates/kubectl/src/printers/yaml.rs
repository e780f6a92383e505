//! YAML as kubectl writes it: keys sorted, lists not indented below their key, strings quoted only when they
//! would be read as something else, long ones folded.

use serde_json::Value;

/// Where a line may be folded.
const WIDTH: usize = 80;

/// A document, with its last newline.
pub(crate) fn document(value: &Value) -> String {
    let mut writer = Writer { out: String::new() };
    match value {
        Value::Object(map) if !map.is_empty() => writer.map(value, 0),
        Value::Array(list) if !list.is_empty() => writer.list(value, 0),
        scalar => {
            writer.scalar(scalar, 0, false);
            writer.out.push('\n');
        }
    }
    writer.out
}

struct Writer {
    out: String,
}

impl Writer {
    fn column(&self) -> usize {
        let line = self.out.rfind('\n').map_or(0, |at| at + 1);
        self.out[line..].chars().count()
    }

    fn indent(&mut self, depth: usize) {
        self.out.extend(std::iter::repeat_n(' ', depth));
    }

    fn map(&mut self, value: &Value, depth: usize) {
        for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
            if index > 0 {
                self.indent(depth);
            }
            self.entry(key, value, depth);
        }
    }

    fn entry(&mut self, key: &str, value: &Value, depth: usize) {
        if key.contains('\n') || key.chars().count() > 128 {
            self.out.push_str("? ");
            self.text(key, depth, true);
            self.out.push('\n');
            self.indent(depth);
        } else {
            self.text(key, depth, true);
        }
        self.out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.out.push('\n');
                self.indent(depth + 2);
                self.map(value, depth + 2);
            }
            Value::Array(list) if !list.is_empty() => {
                self.out.push('\n');
                self.indent(depth);
                self.list(value, depth);
            }
            scalar => {
                self.out.push(' ');
                self.scalar(scalar, depth, false);
                self.out.push('\n');
            }
        }
    }

    fn list(&mut self, value: &Value, depth: usize) {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if index > 0 {
                self.indent(depth);
            }
            self.out.push_str("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(item, depth + 2),
                Value::Array(list) if !list.is_empty() => self.list(item, depth + 2),
                scalar => {
                    self.scalar(scalar, depth, false);
                    self.out.push('\n');
                }
            }
        }
    }

    fn scalar(&mut self, value: &Value, depth: usize, key: bool) {
        match value {
            Value::String(text) => self.text(text, depth, key),
            Value::Object(_) => self.out.push_str("{}"),
            Value::Array(_) => self.out.push_str("[]"),
            other => self.out.push_str(&other.to_string()),
        }
    }

    fn text(&mut self, text: &str, depth: usize, key: bool) {
        let special = text.chars().any(|c| c != '\n' && unprintable(c));
        if special || (key && text.contains('\n')) {
            return self.double(text, depth, key);
        }
        if text.contains('\n') {
            // Spaces before a break, or at the very end, would get lost.
            if text.contains(" \n") || text.ends_with(' ') {
                return self.double(text, depth, key);
            }
            return self.literal(text, depth);
        }
        if resolves_otherwise(text) {
            return self.double(text, depth, key);
        }
        if !plain_allowed(text) {
            if text.contains('\t') && text.starts_with('\t') {
                return self.double(text, depth, key);
            }
            return self.single(text, depth, key);
        }
        self.plain(text, depth, key);
    }

    fn literal(&mut self, text: &str, depth: usize) {
        self.out.push('|');
        if text.starts_with([' ', '\n']) {
            self.out.push('2');
        }
        if !text.ends_with('\n') {
            self.out.push('-');
        } else if text.ends_with("\n\n") || text == "\n" {
            self.out.push('+');
        }
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            self.out.push('\n');
            if !line.is_empty() {
                self.indent(depth + 2);
                self.out.push_str(line);
            }
        }
    }

    fn plain(&mut self, text: &str, depth: usize, key: bool) {
        self.folding(text, depth, key, |_| None);
    }

    fn single(&mut self, text: &str, depth: usize, key: bool) {
        self.out.push('\'');
        self.folding(text, depth, key, |c| (c == '\'').then_some("''"));
        self.out.push('\'');
    }

    /// Writes text, breaking the line at a space once it is too wide.
    fn folding(&mut self, text: &str, depth: usize, key: bool, escape: fn(char) -> Option<&'static str>) {
        let chars: Vec<char> = text.chars().collect();
        let mut column = self.column();
        let mut after_space = false;
        for (index, c) in chars.iter().enumerate() {
            if *c == ' ' {
                let next = chars.get(index + 1);
                let inside = index > 0 && next.is_some();
                if !key && inside && !after_space && column > WIDTH && next != Some(&' ') {
                    self.out.push('\n');
                    self.indent(depth + 2);
                    column = depth + 2;
                } else {
                    self.out.push(' ');
                    column += 1;
                }
                after_space = true;
                continue;
            }
            match escape(*c) {
                Some(escaped) => {
                    self.out.push_str(escaped);
                    column += escaped.len();
                }
                None => {
                    self.out.push(*c);
                    column += 1;
                }
            }
            after_space = false;
        }
    }

    fn double(&mut self, text: &str, depth: usize, key: bool) {
        self.out.push('"');
        let chars: Vec<char> = text.chars().collect();
        let mut column = self.column();
        let mut after_space = false;
        for (index, c) in chars.iter().enumerate() {
            let mut piece = String::new();
            match c {
                '"' => piece.push_str("\\\""),
                '\\' => piece.push_str("\\\\"),
                '\n' => piece.push_str("\\n"),
                '\t' => piece.push_str("\\t"),
                '\r' => piece.push_str("\\r"),
                '\0' => piece.push_str("\\0"),
                '\u{7}' => piece.push_str("\\a"),
                '\u{8}' => piece.push_str("\\b"),
                '\u{b}' => piece.push_str("\\v"),
                '\u{c}' => piece.push_str("\\f"),
                '\u{1b}' => piece.push_str("\\e"),
                '\u{85}' => piece.push_str("\\N"),
                '\u{a0}' => piece.push_str("\\_"),
                '\u{2028}' => piece.push_str("\\L"),
                '\u{2029}' => piece.push_str("\\P"),
                c if unprintable(*c) && (*c as u32) >= 0x10000 => {
                    piece.push_str(&format!("\\U{:08X}", *c as u32));
                }
                c if unprintable(*c) && (*c as u32) < 256 => piece.push_str(&format!("\\x{:02X}", *c as u32)),
                c if unprintable(*c) => piece.push_str(&format!("\\u{:04X}", *c as u32)),
                ' ' if !key && !after_space && column > WIDTH && index > 0 && index + 1 < chars.len() => {
                    self.out.push('\n');
                    self.indent(depth + 2);
                    column = depth + 2;
                    if chars[index + 1] == ' ' {
                        self.out.push('\\');
                        column += 1;
                    }
                    after_space = true;
                    continue;
                }
                c => piece.push(*c),
            }
            after_space = *c == ' ';
            column += piece.chars().count();
            self.out.push_str(&piece);
        }
        self.out.push('"');
    }
}

fn unprintable(c: char) -> bool {
    let code = c as u32;
    !(code == 0x0A
        || (0x20..=0x7E).contains(&code)
        || (0xA1..=0xD7FF).contains(&code) && code != 0x2028 && code != 0x2029
        || (0xE000..=0xFFFD).contains(&code) && code != 0xFEFF)
}

/// Whether a reader would take the plain text for something that is no string.
fn resolves_otherwise(text: &str) -> bool {
    const WORDS: [&str; 33] = [
        "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "true",
        "True", "TRUE", "false", "False", "FALSE", "on", "On", "ON", "off", "Off", "OFF", ".nan", ".NaN",
        ".NAN", ".inf", ".Inf", ".INF",
    ];
    if WORDS.contains(&text) || matches!(text, "+.inf" | "-.inf" | "+.Inf" | "-.Inf" | "+.INF" | "-.INF") {
        return true;
    }
    is_number(text) || is_timestamp(text) || is_base60(text)
}

fn is_number(text: &str) -> bool {
    let clean = text.replace('_', "");
    let digits = clean.strip_prefix(['+', '-']).unwrap_or(&clean);
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    let radix = |prefix: &str, radix| {
        digits.strip_prefix(prefix).is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
    };
    if radix("0x", 16) || radix("0b", 2) || radix("0o", 8) || radix("0X", 16) {
        return true;
    }
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        return true;
    }
    is_float(digits)
}

/// `[0-9]*(\.[0-9]*)?([eE][-+]?[0-9]+)?` with a digit somewhere before the exponent.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.is_empty() && fraction.is_empty() {
        return false;
    }
    exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    })
}

/// `2006-01-02` and fuller forms.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits != 4 || bytes.get(4) != Some(&b'-') {
        return false;
    }
    let parts: Vec<&str> = text.splitn(3, '-').collect();
    if parts.len() != 3 {
        return false;
    }
    let day: String = parts[2].chars().take_while(char::is_ascii_digit).collect();
    let number =
        |text: &str, max: u32| text.len() <= 2 && text.parse::<u32>().is_ok_and(|n| n >= 1 && n <= max);
    if !number(parts[1], 12) || !number(&day, 31) {
        return false;
    }
    let rest = &parts[2][day.len()..];
    if rest.is_empty() {
        return parts[1].len() == 2 && day.len() == 2;
    }
    let Some(time) = rest.strip_prefix(['T', 't', ' ']) else { return false };
    let zone = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone);
    let clock_ok = clock.split(':').count() == 3
        && clock.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.'))
        && clock.split(':').all(|part| !part.is_empty());
    let zoned = zone == "Z" || zone.len() == 6 && zone.as_bytes()[3] == b':';
    clock_ok && (zoned || zone.is_empty() && rest.starts_with(' '))
}

/// `12:30:45`: a number to base 60 for old readers.
fn is_base60(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = digits.split(':');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    !rest.is_empty()
        && first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_')
        && rest.iter().enumerate().all(|(index, part)| {
            let (whole, fraction) = match part.split_once('.') {
                Some((whole, fraction)) if index + 1 == rest.len() => (whole, fraction),
                Some(_) => return false,
                None => (*part, ""),
            };
            (whole.len() == 1 || whole.len() == 2 && whole.as_bytes()[0] < b'6')
                && whole.chars().all(|c| c.is_ascii_digit())
                && fraction.chars().all(|c| c.is_ascii_digit() || c == '_')
        })
}

/// Whether text may stand without quotes in block context.
fn plain_allowed(text: &str) -> bool {
    if text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    let chars: Vec<char> = text.chars().collect();
    if chars[0] == ' ' || chars[chars.len() - 1] == ' ' || text.contains('\t') {
        return false;
    }
    for (index, c) in chars.iter().enumerate() {
        let followed = chars.get(index + 1).is_none_or(|next| matches!(next, ' ' | '\t' | '\n'));
        let preceded = index > 0 && matches!(chars[index - 1], ' ' | '\t' | '\n');
        let indicator = if index == 0 {
            match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`' => true,
                '?' | ':' | '-' => followed,
                _ => false,
            }
        } else {
            match c {
                ':' => followed,
                '#' => preceded,
                _ => false,
            }
        };
        if indicator {
            return false;
        }
    }
    true
}
