//! `-o go-template`: the part of Go's text templates that people use on objects.

use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Print(Pipe),
    Assign(String, Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Vec<String>, Pipe, Vec<Node>, Vec<Node>),
}

type Pipe = Vec<Vec<Term>>;

#[derive(Clone, Debug)]
enum Term {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Group(Pipe, Vec<String>),
}

enum Piece {
    Text(String),
    Action(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = pieces(text)?.into_iter();
        let (nodes, end) = block(&mut pieces)?;
        match end {
            Some(word) => Err(format!("template: output:1: unexpected {{{{{word}}}}}")),
            None => Ok(Self { nodes }),
        }
    }

    /// The template filled in.
    ///
    /// # Errors
    /// A function is unknown or gets the wrong arguments.
    pub(crate) fn show(&self, object: &Value) -> Result<String, String> {
        let mut run = Run { variables: vec![("$".into(), object.clone())], out: String::new() };
        run.nodes(&self.nodes, object)?;
        Ok(run.out)
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut all = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(open) = rest.find("{{") {
        let mut before = &rest[..open];
        if trim {
            before = before.trim_start();
        }
        let mut inner = &rest[open + 2..];
        if inner.starts_with("- ") || inner.starts_with("-\n") {
            before = before.trim_end();
            inner = &inner[1..];
        }
        all.push(Piece::Text(before.to_owned()));
        let close = inner.find("}}").ok_or("template: output:1: unclosed action")?;
        let mut body = &inner[..close];
        trim = body.ends_with(" -");
        if trim {
            body = &body[..body.len() - 1];
        }
        let body = body.trim();
        if !body.starts_with("/*") {
            all.push(Piece::Action(body.to_owned()));
        }
        rest = &inner[close + 2..];
    }
    all.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(all)
}

/// Nodes up to `end` or `else …`, which is returned.
fn block(pieces: &mut impl Iterator<Item = Piece>) -> Result<(Vec<Node>, Option<String>), String> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "end" | "else" => return Ok((nodes, Some(action.clone()))),
            "if" | "with" | "range" => nodes.push(branch(word, rest.trim(), pieces)?),
            _ => match assignment(&action) {
                Some((name, value)) => nodes.push(Node::Assign(name, pipe(value)?)),
                None => nodes.push(Node::Print(pipe(&action)?)),
            },
        }
    }
    Ok((nodes, None))
}

fn assignment(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once(":=").or_else(|| text.split_once(" = "))?;
    let name = name.trim();
    (name.starts_with('$') && !name.contains(char::is_whitespace)).then(|| (name.to_owned(), value.trim()))
}

fn branch(word: &str, rest: &str, pieces: &mut impl Iterator<Item = Piece>) -> Result<Node, String> {
    let (then, end) = block(pieces)?;
    let otherwise = match end.as_deref() {
        Some("end") => Vec::new(),
        Some("else") => match block(pieces)? {
            (nodes, Some(end)) if end == "end" => nodes,
            _ => return Err("template: output:1: unexpected EOF".into()),
        },
        Some(other) if other.starts_with("else ") => {
            let inner = other["else ".len()..].trim();
            let (word, rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
            vec![branch(word, rest.trim(), pieces)?]
        }
        _ => return Err("template: output:1: unexpected EOF".into()),
    };
    Ok(match word {
        "if" => Node::If(pipe(rest)?, then, otherwise),
        "with" => Node::With(pipe(rest)?, then, otherwise),
        _ => match rest.split_once(":=") {
            Some((names, value)) => {
                let names = names.split(',').map(|n| n.trim().to_owned()).collect();
                Node::Range(names, pipe(value.trim())?, then, otherwise)
            }
            None => Node::Range(Vec::new(), pipe(rest)?, then, otherwise),
        },
    })
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    let pipe = pipe_until(&chars, &mut at, false)?;
    Ok(pipe)
}

fn pipe_until(chars: &[char], at: &mut usize, grouped: bool) -> Result<Pipe, String> {
    let mut commands: Pipe = vec![Vec::new()];
    while *at < chars.len() {
        match chars[*at] {
            c if c.is_whitespace() => *at += 1,
            '|' => {
                commands.push(Vec::new());
                *at += 1;
            }
            ')' if grouped => {
                *at += 1;
                return Ok(commands);
            }
            _ => {
                let term = term(chars, at)?;
                if let Some(last) = commands.last_mut() {
                    last.push(term);
                }
            }
        }
    }
    if grouped {
        return Err("template: output:1: unclosed left paren".into());
    }
    Ok(commands)
}

fn term(chars: &[char], at: &mut usize) -> Result<Term, String> {
    match chars[*at] {
        '(' => {
            *at += 1;
            let inner = pipe_until(chars, at, true)?;
            Ok(Term::Group(inner, fields(chars, at)))
        }
        '"' => {
            let start = *at;
            *at += 1;
            while *at < chars.len() && chars[*at] != '"' {
                *at += if chars[*at] == '\\' { 2 } else { 1 };
            }
            *at += 1;
            let raw: String = chars[start..(*at).min(chars.len())].iter().collect();
            let text = serde_json::from_str::<Value>(&raw)
                .map_err(|_| "template: output:1: unterminated quoted string")?;
            Ok(Term::Literal(text))
        }
        '`' => {
            let start = *at + 1;
            let end =
                chars[start..].iter().position(|c| *c == '`').ok_or("unterminated raw quoted string")?;
            *at = start + end + 1;
            Ok(Term::Literal(chars[start..start + end].iter().collect::<String>().into()))
        }
        '.' => {
            let path = fields(chars, at);
            if path.is_empty() {
                *at += 1;
            }
            Ok(Term::Field(path))
        }
        '$' => {
            let start = *at;
            *at += 1;
            while *at < chars.len() && (chars[*at].is_alphanumeric() || chars[*at] == '_') {
                *at += 1;
            }
            let name = chars[start..*at].iter().collect();
            Ok(Term::Variable(name, fields(chars, at)))
        }
        _ => {
            let start = *at;
            while *at < chars.len() && !chars[*at].is_whitespace() && !matches!(chars[*at], '|' | ')' | '(') {
                *at += 1;
            }
            let word: String = chars[start..*at].iter().collect();
            if word == "nil" {
                return Ok(Term::Literal(Value::Null));
            }
            match serde_json::from_str::<Value>(&word) {
                Ok(value) => Ok(Term::Literal(value)),
                Err(_) if FUNCTIONS.contains(&word.as_str()) => Ok(Term::Function(word)),
                Err(_) => Err(format!("template: output:1: function \"{word}\" not defined")),
            }
        }
    }
}

const FUNCTIONS: [&str; 19] = [
    "and",
    "or",
    "not",
    "len",
    "index",
    "print",
    "printf",
    "println",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "exists",
    "base64decode",
    "html",
    "urlquery",
    "slice",
];

/// `.a.b` from here on.
fn fields(chars: &[char], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while chars.get(*at) == Some(&'.') && chars.get(*at + 1).is_some_and(|c| c.is_alphanumeric() || *c == '_')
    {
        let start = *at + 1;
        let mut end = start;
        while end < chars.len() && (chars[end].is_alphanumeric() || chars[end] == '_') {
            end += 1;
        }
        path.push(chars[start..end].iter().collect());
        *at = end;
    }
    path
}

struct Run {
    variables: Vec<(String, Value)>,
    out: String,
}

/// What printing a missing field gives.
const NO_VALUE: &str = "<no value>";

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let known = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(known.max(1));
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                let shown = value.map_or(NO_VALUE.to_owned(), |value| match value {
                    Value::Null => NO_VALUE.to_owned(),
                    other => go_value(&other),
                });
                self.out.push_str(&shown);
            }
            Node::Assign(name, pipe) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                self.variables.push((name.clone(), value));
            }
            Node::If(pipe, then, otherwise) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                self.nodes(if truth(&value) { then } else { otherwise }, dot)?;
            }
            Node::With(pipe, then, otherwise) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                if truth(&value) { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range(names, pipe, then, otherwise) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                self.range(names, &value, then, otherwise, dot)?;
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        names: &[String],
        value: &Value,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let entries: Vec<(Value, Value)> = match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| (index.into(), item.clone())).collect()
            }
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone().into(), v.clone())).collect(),
            Value::Null => Vec::new(),
            other => return Err(format!("range can't iterate over {}", go_value(other))),
        };
        if entries.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in entries {
            let known = self.variables.len();
            match names {
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                _ => {}
            }
            self.nodes(then, &item)?;
            self.variables.truncate(known);
        }
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: &Value) -> Result<Option<Value>, String> {
        let mut last: Option<Option<Value>> = None;
        for command in pipe {
            let value = self.command(command, dot, last)?;
            last = Some(value);
        }
        Ok(last.flatten())
    }

    fn command(
        &self,
        command: &[Term],
        dot: &Value,
        piped: Option<Option<Value>>,
    ) -> Result<Option<Value>, String> {
        let Some(first) = command.first() else { return Err("missing value for command".into()) };
        if let Term::Function(name) = first {
            let mut arguments = Vec::new();
            for term in &command[1..] {
                arguments.push(self.term(term, dot)?.unwrap_or_default());
            }
            if let Some(value) = piped {
                arguments.push(value.unwrap_or_default());
            }
            return call(name, &arguments).map(Some);
        }
        self.term(first, dot)
    }

    fn term(&self, term: &Term, dot: &Value) -> Result<Option<Value>, String> {
        match term {
            Term::Field(path) => follow(dot, path),
            Term::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or(format!("undefined variable \"{name}\""))?;
                follow(value, path)
            }
            Term::Literal(value) => Ok(Some(value.clone())),
            Term::Function(name) => call(name, &[]).map(Some),
            Term::Group(pipe, path) => {
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                follow(&value, path)
            }
        }
    }
}

fn follow(value: &Value, path: &[String]) -> Result<Option<Value>, String> {
    let mut at = Some(value);
    for field in path {
        at = match at {
            Some(Value::Object(map)) => map.get(field),
            None | Some(Value::Null) => None,
            Some(other) => {
                let kind = match other {
                    Value::Array(_) => "[]interface {}",
                    Value::String(_) => "string",
                    Value::Number(_) => "int64",
                    _ => "bool",
                };
                return Err(format!("can't evaluate field {field} in type {kind}"));
            }
        };
    }
    Ok(at.cloned())
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("{{.a}}", "x")]
    #[case("{{.no}}", "<no value>")]
    #[case("{{range .l}}{{.}},{{end}}", "1,2,")]
    #[case("{{range $i, $e := .l}}{{$i}}={{$e}} {{end}}", "0=1 1=2 ")]
    #[case("{{if eq .a \"x\"}}yes{{else}}no{{end}}", "yes")]
    #[case("{{with .no}}a{{else}}b{{end}}", "b")]
    #[case("{{len .l | printf \"%d items\"}}", "2 items")]
    #[case("{{index .m \"k.k\"}}", "v")]
    #[case("{{.m}}", "map[k.k:v]")]
    #[case("a {{- .a -}} b", "axb")]
    fn a_template_prints_what_go_prints(#[case] template: &str, #[case] text: &str) {
        let object = json!({"a": "x", "l": [1, 2], "m": {"k.k": "v"}});
        assert_eq!(Template::parse(template).and_then(|t| t.show(&object)).as_deref(), Ok(text));
    }
}
