//! Tokens, put together to a tree.

use super::functions::FUNCTIONS;
use super::lex::{Kind, Token, tokens};
use super::{Command, Node, Operand, Pipe, Template, Term};
use crate::printers::unquote::unquote;
use serde_json::Value;
use std::collections::BTreeMap;

/// How deep parentheses and blocks may be nested.
const DEPTH: usize = 100;

/// Reads a template and those that it defines.
///
/// # Errors
/// What is wrong, as Go tells it.
pub(super) fn template(text: &str) -> Result<Template, String> {
    let line = |position: usize| 1 + text[..position].matches('\n').count();
    let wrong = |(what, position): (String, usize)| format!("template: output:{}: {what}", line(position));
    let tokens = tokens(text).map_err(wrong)?;
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        variables: vec!["$".to_owned()],
        defined: BTreeMap::new(),
        ranges: 0,
        depth: 0,
    };
    let nodes = parser.top().map_err(|what| {
        let position = tokens.get(parser.at.min(tokens.len() - 1)).map_or(0, |token| token.position);
        wrong((what, position))
    })?;
    Ok(Template { text: text.to_owned(), nodes, defined: parser.defined })
}

struct Parser<'p, 't> {
    tokens: &'p [Token<'t>],
    at: usize,
    variables: Vec<String>,
    defined: BTreeMap<String, Vec<Node>>,
    /// Ranges around here.
    ranges: usize,
    depth: usize,
}

/// What ended a list of nodes.
#[derive(PartialEq, Eq)]
enum Ended {
    End,
    Else,
    Text,
}

impl<'t> Parser<'_, 't> {
    fn peek(&self) -> Token<'t> {
        let end = Token { kind: Kind::End, text: "", position: 0 };
        self.tokens.get(self.at).or(self.tokens.last()).copied().unwrap_or(end)
    }

    fn next(&mut self) -> Token<'t> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn next_word(&mut self) -> Token<'t> {
        self.skip_space();
        self.next()
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token<'t>, String> {
        let token = self.next_word();
        if token.kind == kind {
            return Ok(token);
        }
        Err(format!("unexpected {} in {context}", token.shown()))
    }

    fn top(&mut self) -> Result<Vec<Node>, String> {
        match self.list()? {
            (nodes, Ended::Text) => Ok(nodes),
            (_, Ended::End) => Err("unexpected {{end}}".into()),
            (_, Ended::Else) => Err("unexpected {{else}}".into()),
        }
    }

    /// Nodes up to the end of the text, `{{end}}` or `{{else`.
    fn list(&mut self) -> Result<(Vec<Node>, Ended), String> {
        if self.depth >= DEPTH {
            return Err("too deeply nested".into());
        }
        self.depth += 1;
        let known = self.variables.len();
        let mut nodes = Vec::new();
        let ended = loop {
            let token = self.next();
            match token.kind {
                Kind::Text => nodes.push(Node::Text(token.text.to_owned())),
                Kind::Left => {
                    if let Some(ended) = self.action(&mut nodes)? {
                        break ended;
                    }
                }
                _ => break Ended::Text,
            }
        };
        self.variables.truncate(known);
        self.depth -= 1;
        Ok((nodes, ended))
    }

    /// One action; whether it ended the list.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<Option<Ended>, String> {
        self.skip_space();
        let word = self.peek();
        if word.kind != Kind::Keyword {
            nodes.push(Node::Action(self.pipeline("command", Kind::Right)?));
            return Ok(None);
        }
        self.at += 1;
        match word.text {
            "end" => {
                self.expect(Kind::Right, "end")?;
                return Ok(Some(Ended::End));
            }
            "else" => {
                self.skip_space();
                if !matches!((self.peek().kind, self.peek().text), (Kind::Keyword, "if" | "with")) {
                    self.expect(Kind::Right, "else")?;
                }
                return Ok(Some(Ended::Else));
            }
            "break" | "continue" => {
                self.expect(Kind::Right, &format!("{{{{{}}}}}", word.text))?;
                if self.ranges == 0 {
                    return Err(format!("{{{{{}}}}} outside {{{{range}}}}", word.text));
                }
                nodes.push(if word.text == "break" { Node::Break } else { Node::Continue });
            }
            "define" => self.define()?,
            "template" | "block" => {
                let node = self.call(word.text)?;
                nodes.push(node);
            }
            _ => nodes.push(self.branch(word.text)?),
        }
        Ok(None)
    }

    fn name(&mut self, context: &str) -> Result<String, String> {
        let token = self.next_word();
        text_of(&token).ok_or_else(|| format!("unexpected {} in {context}", token.shown()))
    }

    fn define(&mut self) -> Result<(), String> {
        let name = self.name("define clause")?;
        self.expect(Kind::Right, "define clause")?;
        self.body(name, "define clause")
    }

    /// A template's nodes, up to its end.
    fn body(&mut self, name: String, context: &str) -> Result<(), String> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, ended) = self.list()?;
        match ended {
            Ended::End => {}
            Ended::Else => return Err(format!("unexpected {{{{else}}}} in {context}")),
            Ended::Text => return Err("unexpected EOF".into()),
        }
        (self.variables, self.ranges) = (outer, ranges);
        self.defined.insert(name, nodes);
        Ok(())
    }

    fn call(&mut self, word: &str) -> Result<Node, String> {
        let position = self.peek().position;
        let context = if word == "block" { "block clause" } else { "template clause" };
        let name = self.name(context)?;
        self.skip_space();
        let pipe = if word == "template" && self.peek().kind == Kind::Right {
            self.at += 1;
            None
        } else {
            Some(self.pipeline(context, Kind::Right)?)
        };
        if word == "block" {
            self.body(name.clone(), context)?;
        }
        Ok(Node::Template { position, name, pipe })
    }

    fn branch(&mut self, word: &str) -> Result<Node, String> {
        let known = self.variables.len();
        let pipe = self.pipeline(word, Kind::Right)?;
        self.ranges += usize::from(word == "range");
        let (then, ended) = self.list()?;
        let otherwise = match ended {
            Ended::End => Vec::new(),
            Ended::Text => return Err("unexpected EOF".into()),
            Ended::Else => self.otherwise(word)?,
        };
        self.ranges -= usize::from(word == "range");
        self.variables.truncate(known);
        Ok(match word {
            "if" => Node::If(pipe, then, otherwise),
            "with" => Node::With(pipe, then, otherwise),
            _ => Node::Range(pipe, then, otherwise),
        })
    }

    fn otherwise(&mut self, word: &str) -> Result<Vec<Node>, String> {
        let next = self.peek();
        if next.kind == Kind::Keyword && next.text == word {
            self.at += 1;
            return Ok(vec![self.branch(word)?]);
        }
        match self.list()? {
            (nodes, Ended::End) => Ok(nodes),
            (_, Ended::Else) => Err("expected end; found {{else}}".into()),
            (_, Ended::Text) => Err("unexpected EOF".into()),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, String> {
        self.skip_space();
        let mut pipe = Pipe {
            position: self.peek().position,
            assigns: false,
            variables: Vec::new(),
            commands: Vec::new(),
        };
        self.declarations(&mut pipe, context)?;
        loop {
            self.skip_space();
            let token = self.peek();
            if token.kind == end {
                self.at += 1;
                break;
            }
            if !starts_operand(token.kind) {
                return Err(format!("unexpected {} in {context}", token.shown()));
            }
            pipe.commands.push(self.command()?);
        }
        if pipe.commands.is_empty() {
            return Err(format!("missing value for {context}"));
        }
        let constant = |command: &Command| {
            let first = command.terms.first().map(|term| &term.operand);
            matches!(first, Some(Operand::Constant(..) | Operand::Dot))
        };
        match pipe.commands.iter().skip(1).position(constant) {
            Some(stage) => Err(format!("non executable command in pipeline stage {}", stage + 2)),
            None => Ok(pipe),
        }
    }

    /// `$x :=`, `$x =` and `$i, $x :=`.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Result<(), String> {
        loop {
            self.skip_space();
            let (start, variable) = (self.at, self.peek());
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            self.at += 1;
            let next = self.next_word();
            match next.kind {
                Kind::Declare | Kind::Assign => {
                    pipe.assigns = next.kind == Kind::Assign;
                    self.declare(pipe, variable.text);
                    return Ok(());
                }
                Kind::Comma => {
                    self.declare(pipe, variable.text);
                    if context != "range" || pipe.variables.len() >= 2 {
                        return Err(format!("too many declarations in {context}"));
                    }
                    self.skip_space();
                    if !matches!(self.peek().kind, Kind::Variable | Kind::Right | Kind::RightParen) {
                        return Err("range can only initialize variables".into());
                    }
                }
                _ => {
                    self.at = start;
                    return Ok(());
                }
            }
        }
    }

    fn declare(&mut self, pipe: &mut Pipe, name: &str) {
        pipe.variables.push(name.to_owned());
        self.variables.push(name.to_owned());
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut command = Command { position: self.peek().position, terms: Vec::new() };
        loop {
            self.skip_space();
            if let Some(term) = self.operand()? {
                command.terms.push(term);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::Right | Kind::RightParen => self.at -= 1,
                Kind::Pipe => {}
                _ => return Err(format!("unexpected {} in operand", token.shown())),
            }
            if command.terms.is_empty() {
                return Err("empty command".into());
            }
            return Ok(command);
        }
    }

    /// A term with the fields that follow it.
    fn operand(&mut self) -> Result<Option<Term>, String> {
        let Some(mut term) = self.term()? else { return Ok(None) };
        let position = self.peek().position;
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(self.next().text[1..].to_owned());
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        match &mut term.operand {
            Operand::Field(path) | Operand::Variable(_, path) => path.append(&mut fields),
            Operand::Constant(..) | Operand::Dot => {
                return Err(format!("unexpected . after term {}", crate::failure::quote(&term.to_string())));
            }
            _ => term = Term { position, operand: Operand::Chain(Box::new(term), fields) },
        }
        term.position = position;
        Ok(Some(term))
    }

    fn term(&mut self) -> Result<Option<Term>, String> {
        let token = self.peek();
        if !starts_operand(token.kind) {
            return Ok(None);
        }
        self.at += 1;
        let source = || token.text.to_owned();
        let operand = match token.kind {
            Kind::Dot => Operand::Dot,
            Kind::Field => Operand::Field(vec![token.text[1..].to_owned()]),
            Kind::Variable if self.variables.iter().any(|known| known == token.text) => {
                Operand::Variable(source(), Vec::new())
            }
            Kind::Variable => {
                return Err(format!("undefined variable {}", crate::failure::quote(token.text)));
            }
            Kind::Identifier if FUNCTIONS.contains(&token.text) => Operand::Function(source()),
            Kind::Identifier => {
                return Err(format!("function {} not defined", crate::failure::quote(token.text)));
            }
            Kind::LeftParen => {
                if self.depth >= DEPTH {
                    return Err("too deeply nested".into());
                }
                self.depth += 1;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                Operand::Group(pipe)
            }
            Kind::Number => Operand::Constant(number(token.text)?, source()),
            Kind::Constant => {
                Operand::Constant(serde_json::from_str(token.text).unwrap_or(Value::Null), source())
            }
            _ => {
                let text = text_of(&token).ok_or("invalid syntax")?;
                Operand::Constant(text.into(), source())
            }
        };
        Ok(Some(Term { position: token.position, operand }))
    }
}

fn starts_operand(kind: Kind) -> bool {
    use Kind::{Constant, Dot, Field, Identifier, LeftParen, Number, Quoted, Raw, Variable};
    matches!(kind, Constant | Dot | Field | Identifier | LeftParen | Number | Quoted | Raw | Variable)
}

/// What is between quotes.
fn text_of(token: &Token<'_>) -> Option<String> {
    match token.kind {
        Kind::Quoted => unquote(token.text),
        Kind::Raw => Some(token.text.trim_matches('`').to_owned()),
        _ => None,
    }
}

fn number(text: &str) -> Result<Value, String> {
    let plain = text.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']).to_lowercase();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    let based = radix.iter().find_map(|(prefix, radix)| {
        i64::from_str_radix(digits.strip_prefix(prefix)?, *radix)
            .ok()
            .map(|n| if plain.starts_with('-') { -n } else { n })
    });
    let whole = based.or_else(|| plain.parse().ok()).map(Value::from);
    let number = whole.or_else(|| plain.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from));
    number.ok_or_else(|| format!("bad number syntax: {}", crate::failure::quote(text)))
}
