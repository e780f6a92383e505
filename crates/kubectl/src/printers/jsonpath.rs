//! kubectl's dialect of JSONPath: text with `{expressions}`, `{range …}{end}`, filters, slices, `..`.

mod parse;
mod walk;

use super::json;
use parse::{action, closing};
use serde_json::Value;
use walk::{plain, walk};

pub(crate) use parse::relax;

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
