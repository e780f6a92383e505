//! JSONPath as text, taken apart.

use super::{Node, Operand, Step};
use serde_json::Value;

/// `x.y`, `.x.y` and `{.x.y}` all mean `{.x.y}`.
///
/// # Errors
/// It is none of them.
pub(crate) fn relax(text: &str) -> Result<String, String> {
    let bad = || {
        "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'".to_owned()
    };
    if text.is_empty() {
        return Ok(String::new());
    }
    let inner = match (text.strip_prefix('{'), text.strip_suffix('}')) {
        (Some(inner), Some(_)) => inner.strip_suffix('}').unwrap_or(inner),
        (None, None) => text,
        _ => return Err(bad()),
    };
    if inner.contains(['{', '}']) && !inner.contains('[') {
        return Err(bad());
    }
    Ok(format!("{{.{}}}", inner.strip_prefix('.').unwrap_or(inner)))
}

pub(super) fn closing(text: &str) -> Option<usize> {
    let mut quoted: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quoted {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quoted = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quoted = Some(c),
            None if c == '}' => return Some(at),
            None => {}
        }
    }
    None
}

pub(super) fn action(
    text: &str,
    stack: &mut Vec<(Vec<Step>, Vec<Node>)>,
    nodes: &mut Vec<Node>,
) -> Result<(), String> {
    if text == "end" {
        if let Some((path, mut outer)) = stack.pop() {
            outer.push(Node::Range(path, std::mem::take(nodes)));
            *nodes = outer;
            return Ok(());
        }
        return Err("not in range, nothing to end".into());
    }
    if let Some(path) = text.strip_prefix("range").filter(|rest| rest.starts_with([' ', '\t'])) {
        let path = steps(path.trim())?;
        stack.push((path, std::mem::take(nodes)));
        return Ok(());
    }
    if text.is_empty() {
        return Ok(());
    }
    nodes.push(Node::Path(steps(text)?));
    Ok(())
}

/// A path: `.a['b'][0:2]..c`, `@`, `$`, or a quoted text.
fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            ' ' | '\t' | '\n' => at += 1,
            '$' => {
                steps.push(Step::Root);
                at += 1;
            }
            '@' => {
                steps.push(Step::Here);
                at += 1;
            }
            '"' | '\'' => {
                let (literal, next) = string(&chars, at)?;
                steps.push(Step::Literal(literal.into()));
                at = next;
            }
            '[' => {
                let end = bracket(&chars, at).ok_or("unterminated array")?;
                let inner: String = chars[at + 1..end].iter().collect();
                steps.push(subscript(inner.trim())?);
                at = end + 1;
            }
            '.' if chars.get(at + 1) == Some(&'.') => {
                steps.push(Step::Recursive);
                at += if chars.get(at + 2) == Some(&'[') { 2 } else { 1 };
                if chars.get(at) == Some(&'.') {
                    at += 1;
                    let (name, next) = field(&chars, at);
                    if !name.is_empty() {
                        steps.push(if name == "*" { Step::Wildcard } else { Step::Field(name) });
                    }
                    at = next;
                }
            }
            '.' => {
                let (name, next) = field(&chars, at + 1);
                if name == "*" {
                    steps.push(Step::Wildcard);
                } else if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
                at = next;
            }
            '*' => {
                steps.push(Step::Wildcard);
                at += 1;
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => {
                let (name, next) = field(&chars, at);
                let parsed: Option<Value> = serde_json::from_str(&name).ok();
                steps.push(Step::Literal(parsed.ok_or(format!("cannot parse number {name}"))?));
                at = next;
            }
            c if c.is_alphabetic() || c == '_' => {
                let (name, next) = field(&chars, at);
                match name.as_str() {
                    "true" => steps.push(Step::Literal(true.into())),
                    "false" => steps.push(Step::Literal(false.into())),
                    _ => return Err(format!("unrecognized identifier {name}")),
                }
                at = next;
            }
            c => return Err(format!("unrecognized character in action: {}", codepoint(c))),
        }
    }
    Ok(steps)
}

fn codepoint(c: char) -> String {
    format!("U+{:04X} '{c}'", c as u32)
}

fn field(chars: &[char], mut at: usize) -> (String, usize) {
    let mut name = String::new();
    while let Some(c) = chars.get(at) {
        if *c == '\\' && at + 1 < chars.len() {
            name.push(chars[at + 1]);
            at += 2;
            continue;
        }
        if matches!(c, '.' | '[' | ']' | ' ' | '\t' | '\n' | '@' | '$' | ',' | ')' | '=' | '!' | '<' | '>') {
            break;
        }
        name.push(*c);
        at += 1;
    }
    (name, at)
}

fn string(chars: &[char], at: usize) -> Result<(String, usize), String> {
    let quote = chars[at];
    let mut text = String::new();
    let mut next = at + 1;
    while let Some(c) = chars.get(next) {
        if *c == quote {
            return Ok((text, next + 1));
        }
        if *c == '\\' {
            next += 1;
            match chars.get(next) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(other) => text.push(*other),
                None => break,
            }
        } else {
            text.push(*c);
        }
        next += 1;
    }
    Err("unterminated quoted string".into())
}

fn bracket(chars: &[char], open: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = open;
    while at < chars.len() {
        match chars[at] {
            '"' | '\'' => at = string(chars, at).ok()?.1 - 1,
            '[' => depth += 1,
            ']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn subscript(text: &str) -> Result<Step, String> {
    if text == "*" || text.is_empty() {
        return Ok(Step::Wildcard);
    }
    if let Some(filter) = text.strip_prefix("?(") {
        let filter = filter.strip_suffix(')').ok_or("unterminated filter")?;
        return comparison(filter.trim());
    }
    let parts = split_commas(text);
    if parts.len() > 1 {
        let each = parts.iter().map(|part| subscript(part.trim()).map(|step| vec![step]));
        return Ok(Step::Union(each.collect::<Result<_, _>>()?));
    }
    let chars: Vec<char> = text.chars().collect();
    if chars[0] == '\'' || chars[0] == '"' {
        let (name, end) = string(&chars, 0)?;
        if end == chars.len() {
            return Ok(Step::Field(name));
        }
    }
    if text.chars().all(|c| c.is_ascii_digit() || c == ':' || c == '-') {
        let parts: Vec<&str> = text.split(':').collect();
        let number = |index: usize| {
            parts
                .get(index)
                .filter(|p| !p.is_empty())
                .map(|p| p.parse::<i64>().map_err(|_| format!("array index {p} is not a number")))
                .transpose()
        };
        let single = parts.len() == 1;
        return Ok(Step::Slice(number(0)?, number(1)?, number(2)?, single));
    }
    Err(format!("invalid array index {text}"))
}

fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = None;
    for c in text.chars() {
        match quoted {
            Some(q) if c == q => quoted = None,
            None if c == '\'' || c == '"' => quoted = Some(c),
            None if c == ',' => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn comparison(text: &str) -> Result<Step, String> {
    let mut quoted = None;
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    for (index, (at, c)) in chars.iter().enumerate() {
        match quoted {
            Some(q) if *c == q => quoted = None,
            Some(_) => {}
            None if *c == '\'' || *c == '"' => quoted = Some(*c),
            None if matches!(c, '=' | '!' | '<' | '>') => {
                let two = chars.get(index + 1).is_some_and(|(_, next)| *next == '=');
                let operator = &text[*at..at + 1 + usize::from(two)];
                if operator == "=" || operator == "!" {
                    continue;
                }
                let right = &text[at + operator.len()..];
                return Ok(Step::Filter(operand(&text[..*at])?, operator.into(), operand(right)?));
            }
            None => {}
        }
    }
    Ok(Step::Filter(operand(text)?, "exists".into(), Operand::None))
}

fn operand(text: &str) -> Result<Operand, String> {
    let path = steps(text.trim())?;
    Ok(match path.as_slice() {
        [Step::Literal(value)] => Operand::Value(value.clone()),
        _ => Operand::Path(path),
    })
}
