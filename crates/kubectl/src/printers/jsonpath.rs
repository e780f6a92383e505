//! kubectl's dialect of JSONPath: text with `{expressions}`, `{range …}{end}`, filters, slices, `..`.

use super::go_template::go_value;
use super::json;
use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Clone, Debug)]
enum Step {
    Root,
    Here,
    Field(String),
    Wildcard,
    Recursive,
    Slice(Option<i64>, Option<i64>, Option<i64>, bool),
    Filter(Operand, String, Operand),
    Union(Vec<Vec<Step>>),
    Literal(Value),
}

#[derive(Clone, Debug)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
    None,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut stack: Vec<(Vec<Step>, Vec<Node>)> = Vec::new();
        let mut nodes = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                nodes.push(Node::Text(rest[..open].to_owned()));
            }
            let inner = &rest[open + 1..];
            let close = closing(inner).ok_or("unclosed action")?;
            action(inner[..close].trim(), &mut stack, &mut nodes)?;
            rest = &inner[close + 1..];
        }
        if !rest.is_empty() {
            nodes.push(Node::Text(rest.to_owned()));
        }
        while let Some((path, mut outer)) = stack.pop() {
            outer.push(Node::Range(path, nodes));
            nodes = outer;
        }
        Ok(Self { nodes })
    }

    /// The template filled in.
    ///
    /// # Errors
    /// A field is missing (if `strict`), or an index is out of bounds.
    pub(crate) fn show(&self, object: &Value, strict: bool, as_json: bool) -> Result<String, String> {
        let mut out = String::new();
        fill(&self.nodes, object, object, strict, as_json, &mut out)?;
        Ok(out)
    }

    /// Everything that the first path finds.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub(crate) fn find(&self, object: &Value, strict: bool) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        for node in &self.nodes {
            if let Node::Path(path) = node {
                found.extend(walk(path, object, object, strict)?);
            }
        }
        Ok(found)
    }
}

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

fn closing(text: &str) -> Option<usize> {
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

fn action(text: &str, stack: &mut Vec<(Vec<Step>, Vec<Node>)>, nodes: &mut Vec<Node>) -> Result<(), String> {
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

fn fill(
    nodes: &[Node],
    root: &Value,
    here: &Value,
    strict: bool,
    as_json: bool,
    out: &mut String,
) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let found = walk(path, root, here, strict)?;
                if as_json {
                    out.push_str(&json::pretty(&Value::Array(found)));
                    out.push('\n');
                } else {
                    out.push_str(&found.iter().map(plain).collect::<Vec<_>>().join(" "));
                }
            }
            Node::Range(path, inner) => {
                for value in walk(path, root, here, strict)? {
                    fill(inner, &value, &value, strict, as_json, out)?;
                }
            }
        }
    }
    Ok(())
}

/// A value as templates print it.
fn plain(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => json::compact(value),
        Value::Null => "<nil>".into(),
        other => go_value(other),
    }
}

fn walk(path: &[Step], root: &Value, here: &Value, strict: bool) -> Result<Vec<Value>, String> {
    let mut current = vec![here.clone()];
    for step in path {
        let mut next = Vec::new();
        for value in &current {
            one(step, root, value, strict, &mut next)?;
        }
        current = next;
    }
    Ok(current)
}

fn one(step: &Step, root: &Value, value: &Value, strict: bool, next: &mut Vec<Value>) -> Result<(), String> {
    match step {
        Step::Root => next.push(root.clone()),
        Step::Here => next.push(value.clone()),
        Step::Literal(literal) => next.push(literal.clone()),
        Step::Field(name) => match value.get(name.as_str()) {
            Some(inner) => next.push(inner.clone()),
            None if strict => return Err(format!("{name} is not found")),
            None => {}
        },
        Step::Wildcard => match value {
            Value::Array(items) => next.extend(items.iter().cloned()),
            Value::Object(map) => next.extend(map.values().cloned()),
            _ => {}
        },
        Step::Recursive => descend(value, next),
        Step::Slice(from, to, step, single) => match value {
            Value::Array(items) => slice(items, *from, *to, *step, *single, next)?,
            Value::Null => {}
            other => return Err(format!("{} is not array or slice", go_value(other))),
        },
        Step::Filter(left, operator, right) => {
            let Value::Array(items) = value else {
                return Err(format!("{} is not array or slice and cannot be filtered", go_value(value)));
            };
            for item in items {
                if holds(left, operator, right, root, item)? {
                    next.push(item.clone());
                }
            }
        }
        Step::Union(parts) => {
            for part in parts {
                next.extend(walk(part, root, value, strict)?);
            }
        }
    }
    Ok(())
}

fn descend(value: &Value, next: &mut Vec<Value>) {
    if !matches!(value, Value::Array(_) | Value::Object(_)) {
        return;
    }
    next.push(value.clone());
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, next)),
        Value::Object(map) => map.values().for_each(|item| descend(item, next)),
        _ => {}
    }
}

fn slice(
    items: &[Value],
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    single: bool,
    next: &mut Vec<Value>,
) -> Result<(), String> {
    let length = items.len() as i64;
    let absolute = |index: i64| if index < 0 { index + length } else { index };
    let start = absolute(from.unwrap_or(0));
    if single {
        if start < 0 || start >= length {
            return Err(format!("array index out of bounds: index {start}, length {length}"));
        }
        next.push(items[start as usize].clone());
        return Ok(());
    }
    let end = absolute(to.unwrap_or(length)).min(length);
    let step = step.unwrap_or(1);
    if start > end || step <= 0 {
        return if step <= 0 {
            Err("step must be > 0".into())
        } else {
            Err(format!("starting index {start} is greater than ending index {end}"))
        };
    }
    let mut at = start.max(0);
    while at < end {
        next.push(items[at as usize].clone());
        at += step;
    }
    Ok(())
}

fn holds(
    left: &Operand,
    operator: &str,
    right: &Operand,
    root: &Value,
    item: &Value,
) -> Result<bool, String> {
    let values = |operand: &Operand| match operand {
        Operand::Path(path) => walk(path, root, item, false),
        Operand::Value(value) => Ok(vec![value.clone()]),
        Operand::None => Ok(Vec::new()),
    };
    let lefts = values(left)?;
    if operator == "exists" {
        return Ok(!lefts.is_empty());
    }
    let rights = values(right)?;
    let (Some(left), Some(right)) = (lefts.first(), rights.first()) else { return Ok(false) };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => {
            return if operator == "==" || operator == "!=" {
                Ok(operator == "!=")
            } else {
                Err("incompatible types for comparison".into())
            };
        }
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match operator {
        "==" => order == Some(Equal),
        "!=" => order != Some(Equal),
        "<" => order == Some(Less),
        "<=" => matches!(order, Some(Less | Equal)),
        ">" => order == Some(Greater),
        ">=" => matches!(order, Some(Greater | Equal)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("{.a.b}", "x")]
    #[case("{.l[*].n}", "1 2 3")]
    #[case("{.l[-1].n}", "3")]
    #[case("{.l[0:2].n}", "1 2")]
    #[case("{.l[0,2].n}", "1 3")]
    #[case("{range .l[*]}{.n}{\"\\n\"}{end}", "1\n2\n3\n")]
    #[case("{.l[?(@.n>1)].n}", "2 3")]
    #[case("{.l[?(@.s==\"q\")].n}", "2")]
    #[case("{..n}", "1 2 3")]
    #[case("{.a}", "{\"b\":\"x\",\"c.d/e\":true}")]
    #[case("{.a.c\\.d/e}", "true")]
    #[case("{.a['c.d/e']} and {.no}", "true and ")]
    fn a_template_prints_what_kubectl_prints(#[case] template: &str, #[case] text: &str) {
        let object = json!({"a": {"b": "x", "c.d/e": true}, "l": [{"n": 1}, {"n": 2, "s": "q"}, {"n": 3}]});
        assert_eq!(
            Template::parse(template).and_then(|t| t.show(&object, false, false)).as_deref(),
            Ok(text)
        );
    }
}
