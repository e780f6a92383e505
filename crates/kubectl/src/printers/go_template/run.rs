//! A template, filled in.

use super::functions::{Argument, call, truth};
use super::{Command, Node, Operand, Pipe, Template, Term};
use crate::failure::quote;
use crate::printers::go_template::go_value;
use serde_json::Value;

/// How deep templates may call each other.
const DEPTH: usize = 64;

/// What is shown of nothing.
const NO_VALUE: &str = "<no value>";

/// Fills a template in.
pub(super) struct Run<'t> {
    pub(super) template: &'t Template,
    /// Whether a field that is not there is an error.
    pub(super) strict: bool,
    pub(super) variables: Vec<(String, Value)>,
    /// What was written until now, also if it then fails.
    pub(super) out: String,
    /// The template that runs.
    pub(super) name: String,
    pub(super) depth: usize,
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

impl Run<'_> {
    /// An error at a place in the template.
    fn wrong<T>(&self, position: usize, at: &dyn std::fmt::Display, what: &str) -> Result<T, String> {
        let before = &self.template.text[..position];
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(position, |newline| position - newline - 1);
        let place = format!("output:{line}:{column}: executing {} at <{at}>", quote(&self.name));
        Err(format!("template: {place}: {what}"))
    }

    pub(super) fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let known = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&match value.unwrap_or_default() {
                        Value::Null => NO_VALUE.to_owned(),
                        value => go_value(&value),
                    });
                }
            }
            Node::If(pipe, then, otherwise) | Node::With(pipe, then, otherwise) => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot)?.unwrap_or_default();
                let inner = if matches!(node, Node::With(..)) { &value } else { dot };
                let flow = if truth(&value) { self.nodes(then, inner) } else { self.nodes(otherwise, dot) };
                self.variables.truncate(known);
                return flow;
            }
            Node::Range(pipe, then, otherwise) => {
                let known = self.variables.len();
                let flow = self.range(pipe, then, otherwise, dot);
                self.variables.truncate(known);
                return flow;
            }
            Node::Template { position, name, pipe } => self.template(*position, name, pipe.as_ref(), dot)?,
        }
        Ok(Flow::Next)
    }

    fn template(
        &mut self,
        position: usize,
        name: &str,
        pipe: Option<&Pipe>,
        dot: &Value,
    ) -> Result<(), String> {
        let shown =
            format!("{{{{template {}{}}}}}", quote(name), pipe.map_or(String::new(), |p| format!(" {p}")));
        let Some(nodes) = self.template.defined.get(name) else {
            return self.wrong(position, &shown, &format!("template {} not defined", quote(name)));
        };
        if self.depth >= DEPTH {
            return self.wrong(position, &shown, &format!("exceeded maximum template depth ({DEPTH})"));
        }
        let value = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?.unwrap_or_default(),
            None => Value::Null,
        };
        let mut inner = Run {
            template: self.template,
            strict: self.strict,
            variables: vec![("$".into(), value.clone())],
            out: std::mem::take(&mut self.out),
            name: name.to_owned(),
            depth: self.depth + 1,
        };
        let done = inner.nodes(nodes, &value);
        self.out = inner.out;
        done.map(|_| ())
    }

    fn range(&mut self, pipe: &Pipe, then: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow, String> {
        let value = self.commands(pipe, dot)?.unwrap_or_default();
        let entries: Box<dyn Iterator<Item = (Value, Value)>> = match value {
            Value::Array(items) => {
                Box::new(items.into_iter().enumerate().map(|(at, item)| (at.into(), item)))
            }
            Value::Object(map) => Box::new(map.into_iter().map(|(key, item)| (key.into(), item))),
            Value::Null => Box::new(std::iter::empty()),
            Value::Number(count) if count.is_i64() => {
                Box::new((0..count.as_i64().unwrap_or(0)).map(|at| (at.into(), at.into())))
            }
            other => {
                let what = format!("range can't iterate over {}", go_value(&other));
                return self.wrong(pipe.position, pipe, &what);
            }
        };
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return self.nodes(otherwise, dot);
        }
        let known = self.variables.len();
        for (key, item) in entries {
            let values = match pipe.variables.len() {
                1 => vec![item.clone()],
                2 => vec![key, item.clone()],
                _ => Vec::new(),
            };
            for (name, value) in pipe.variables.iter().zip(values) {
                self.set(name, value, pipe.assigns);
            }
            let flow = self.nodes(then, &item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn set(&mut self, name: &str, value: Value, assigns: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| assigns && known == name);
        match known {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Argument, String> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.set(name, value.clone().unwrap_or_default(), pipe.assigns);
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Result<Argument, String> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.flatten())
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        piped: Option<Argument>,
    ) -> Result<Argument, String> {
        let Some((first, rest)) = command.terms.split_first() else { return Ok(None) };
        let has_arguments = !rest.is_empty() || piped.is_some();
        match &first.operand {
            Operand::Function(name) => self.function(name, first, command, dot, piped),
            Operand::Constant(Value::Null, _) => self.wrong(first.position, first, "nil is not a command"),
            Operand::Field(path) | Operand::Chain(_, path) if has_arguments => {
                let field = path.last().map_or("", String::as_str);
                self.wrong(first.position, first, &format!("{field} is not a method but has arguments"))
            }
            Operand::Variable(_, path) if has_arguments && !path.is_empty() => {
                let field = path.last().map_or("", String::as_str);
                self.wrong(first.position, first, &format!("{field} is not a method but has arguments"))
            }
            _ if has_arguments => {
                self.wrong(first.position, first, &format!("can't give argument to non-function {first}"))
            }
            _ => self.term(first, dot),
        }
    }

    fn function(
        &mut self,
        name: &str,
        term: &Term,
        command: &Command,
        dot: &Value,
        piped: Option<Argument>,
    ) -> Result<Argument, String> {
        let mut arguments = Vec::new();
        for term in &command.terms[1..] {
            let value = self.argument(term, dot)?;
            // The rest of `and` and `or` is not looked at once they are decided.
            let decided = value.as_ref().is_some_and(truth) == (name == "or") && matches!(name, "and" | "or");
            arguments.push(value);
            if decided {
                break;
            }
        }
        arguments.extend(piped);
        let count = arguments.len();
        let (least, most) = super::functions::arity(name);
        if count < least || most.is_some_and(|most| count > most) {
            let want = if most.is_some() { format!("{least}") } else { format!("at least {least}") };
            let what = format!("wrong number of args for {name}: want {want} got {count}");
            return self.wrong(term.position, term, &what);
        }
        match call(name, &arguments) {
            Ok(value) => Ok(Some(value)),
            Err(what) => self.wrong(command.position, command, &format!("error calling {name}: {what}")),
        }
    }

    fn argument(&mut self, term: &Term, dot: &Value) -> Result<Argument, String> {
        match &term.operand {
            Operand::Function(name) => {
                let command = Command { position: term.position, terms: vec![term.clone()] };
                self.function(name, term, &command, dot, None)
            }
            _ => self.term(term, dot),
        }
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Argument, String> {
        match &term.operand {
            Operand::Dot => Ok(Some(dot.clone())),
            Operand::Field(path) => self.follow(term, Some(dot), path),
            Operand::Variable(name, path) => {
                let value = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = value.map(|(_, value)| value.clone());
                self.follow(term, value.as_ref(), path)
            }
            Operand::Constant(value, _) => Ok(Some(value.clone())),
            Operand::Function(_) => self.argument(term, dot),
            Operand::Group(pipe) => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot);
                self.variables.truncate(known);
                value
            }
            Operand::Chain(inner, path) => {
                let value = self.argument(inner, dot)?;
                self.follow(term, value.as_ref(), path)
            }
        }
    }

    /// The field of a field. `None` where a map has no such key, as Go tells that from null.
    fn follow(&self, term: &Term, value: Option<&Value>, path: &[String]) -> Result<Argument, String> {
        let mut at = value;
        for field in path {
            at = match at {
                Some(Value::Object(map)) => match map.get(field) {
                    None if self.strict => {
                        let what = format!("map has no entry for key {}", quote(field));
                        return self.wrong(term.position, term, &what);
                    }
                    found => found,
                },
                None if self.strict => {
                    let what = format!("nil data; no entry for key {}", quote(field));
                    return self.wrong(term.position, term, &what);
                }
                None => None,
                Some(Value::Null) => {
                    let what = format!("nil pointer evaluating interface {{}}.{field}");
                    return self.wrong(term.position, term, &what);
                }
                Some(_) => {
                    // What a map holds has no type of its own in Go.
                    let what = format!("can't evaluate field {field} in type interface {{}}");
                    return self.wrong(term.position, term, &what);
                }
            };
        }
        Ok(at.cloned())
    }
}
