//! JSONPath as text, taken apart.

use super::super::unquote::unquote;
use super::{Bound, Node, Part};
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

/// A whole template.
pub(super) fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        let mut parser = Parser { rest: &rest[open + 1..] };
        parts.push(Part::Action(parser.action()?));
        rest = parser.rest;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// A piece of an action, as if it were one.
fn piece(text: &str) -> Result<Vec<Node>, String> {
    let whole = format!("{text}}}");
    Parser { rest: &whole }.action()
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    /// Up to and with the brace that closes it.
    fn action(&mut self) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        loop {
            let Some(first) = self.rest.chars().next() else { return Err("unclosed action".into()) };
            match first {
                '}' => {
                    self.skip(1);
                    return Ok(nodes);
                }
                _ if self.rest.starts_with("[?(") => nodes.push(self.filter()?),
                _ if self.rest.starts_with("..") => self.recursive(&mut nodes)?,
                '\r' | '\n' => return Err("unclosed action".into()),
                ' ' | '@' | '$' => self.skip(1),
                '[' => self.array(&mut nodes)?,
                '"' | '\'' => nodes.push(self.quoted(first)?),
                '.' => {
                    self.skip(1);
                    nodes.push(self.field());
                }
                '+' | '-' => nodes.push(self.number()?),
                c if c.is_ascii_digit() => nodes.push(self.number()?),
                c if word(c) => nodes.push(self.identifier()),
                c => return Err(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Takes what comes before the first character that is so, or everything.
    fn until(&mut self, stop: impl Fn(char) -> bool) -> &'t str {
        let (taken, rest) = self.rest.split_at(self.rest.find(stop).unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn identifier(&mut self) -> Node {
        match self.until(terminates) {
            "true" => Node::Constant(true.into()),
            "false" => Node::Constant(false.into()),
            name => Node::Identifier(name.to_owned()),
        }
    }

    fn recursive(&mut self, nodes: &mut Vec<Node>) -> Result<(), String> {
        if matches!(nodes.last(), Some(Node::Recursive)) {
            return Err("invalid multiple recursive descent".into());
        }
        self.skip(2);
        nodes.push(Node::Recursive);
        if self.rest.starts_with(word) {
            nodes.push(self.field());
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Node, String> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let digits = self.rest[sign..].find(|c: char| c != '.' && !c.is_ascii_digit());
        let (text, rest) = self.rest.split_at(digits.map_or(self.rest.len(), |end| end + sign));
        self.rest = rest;
        let whole = text.parse::<i64>().ok().map(Value::from);
        let number = whole.or_else(|| text.parse::<f64>().ok().map(Value::from));
        number.map(Node::Constant).ok_or_else(|| format!("cannot parse number {text}"))
    }

    fn field(&mut self) -> Node {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let stops = !escaped && terminates(c);
            escaped = !escaped && c == '\\';
            stops
        });
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if name == "*" { Node::Wildcard } else { Node::Field(name.replace('\\', "")) }
    }

    fn quoted(&mut self, quote: char) -> Result<Node, String> {
        let mut before = None;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '\n' || *c == quote && before != Some('\\');
            before = Some(*c);
            ends
        });
        let Some((end, _)) = end.filter(|(_, c)| *c == quote) else {
            return Err("unterminated quoted string".into());
        };
        let (text, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        let inner = unquote(text).ok_or_else(|| format!("unquote string {text} error invalid syntax"))?;
        Ok(Node::Text(inner))
    }

    /// `[…]`: a wildcard, a union, a key, an index or a slice.
    fn array(&mut self, nodes: &mut Vec<Node>) -> Result<(), String> {
        let Some(end) = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']')) else {
            return Err("unterminated array".into());
        };
        let text = &self.rest[1..end];
        self.skip(end + 1);
        if text.contains(',') {
            let each = text.split(',').map(|part| piece(&format!("[{}]", part.trim_matches(' '))));
            nodes.push(Node::Union(each.collect::<Result<_, _>>()?));
            return Ok(());
        }
        let key = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        if let Some(key) = key.filter(|key| !key.contains('\'')) {
            nodes.extend(piece(&format!(".{key}"))?);
            return Ok(());
        }
        nodes.push(Node::Slice(bounds(if text == "*" { ":" } else { text })?));
        Ok(())
    }

    /// `[?(@.a=="b")]`.
    fn filter(&mut self) -> Result<Node, String> {
        self.skip("[?(".len());
        let (mut open, mut ended, mut before) = (None, false, ' ');
        let end = self.rest.char_indices().find(|(_, c)| {
            match c {
                '\n' => return true,
                '"' | '\'' => match open {
                    None => open = Some(*c),
                    Some(quote) if before != '\\' && quote == *c => ended = true,
                    Some(_) => {}
                },
                ')' if open.is_some() == ended => return true,
                _ => {}
            }
            before = *c;
            false
        });
        let Some((end, _)) = end.filter(|(_, c)| *c == ')') else {
            return Err("unterminated filter".into());
        };
        let text = &self.rest[..end];
        self.skip(end + 1);
        if !self.rest.starts_with(']') {
            return Err("unclosed array expect ]".into());
        }
        self.skip(1);
        let (left, operator, right) = comparison(text).unwrap_or((text, "exists", ""));
        Ok(Node::Filter { left: piece(left)?, operator: operator.to_owned(), right: piece(right)? })
    }
}

/// Both sides and what is between them, if there is anything of the kind.
fn comparison(text: &str) -> Option<(&str, &str, &str)> {
    let operates = |c: char| matches!(c, '!' | '<' | '>' | '=');
    let start = text.find(operates).filter(|start| *start > 0)?;
    let length = text[start..].find(|c| !operates(c))?;
    Some((&text[..start], &text[start..start + length], &text[start + length..]))
}

/// From, to and step.
fn bounds(text: &str) -> Result<[Bound; 3], String> {
    let invalid = || format!("invalid array index {text}");
    let parts: Vec<&str> = text.split(':').collect();
    let digits = |part: &&str| part.strip_prefix('-').unwrap_or(part).chars().all(|c| c.is_ascii_digit());
    if parts.len() > 3 || !parts.iter().all(digits) {
        return Err(invalid());
    }
    let number = |part: &str| match part {
        "" => Ok(Bound::Open),
        part => part.parse().map(Bound::At).map_err(|_| format!("array index {part} is not a number")),
    };
    let mut bounds = [Bound::Open, Bound::Open, Bound::Open];
    for (bound, part) in bounds.iter_mut().zip(&parts) {
        *bound = number(part)?;
    }
    if parts.len() == 1 {
        bounds[1] = Bound::Next;
    }
    Ok(bounds)
}

fn word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn terminates(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}
