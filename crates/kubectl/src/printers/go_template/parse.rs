//! A template as text, taken apart.

use super::{Node, Piece, Pipe, Term};
use serde_json::Value;

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
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
pub(super) fn block(pieces: &mut impl Iterator<Item = Piece>) -> Result<(Vec<Node>, Option<String>), String> {
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

pub(super) fn pipe(text: &str) -> Result<Pipe, String> {
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

pub(super) fn term(chars: &[char], at: &mut usize) -> Result<Term, String> {
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
