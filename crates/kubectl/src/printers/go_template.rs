//! `-o go-template`: the part of Go's text templates that people use on objects.

mod functions;
mod parse;

use functions::{call, truth};
pub(crate) use functions::{go_syntax, go_value};
use parse::{block, pieces};
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
