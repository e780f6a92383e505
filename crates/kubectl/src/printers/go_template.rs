//! `-o go-template`: Go's text templates on objects.

mod format;
mod functions;
mod lex;
mod parse;
mod run;
mod shown;

pub(crate) use format::{go_syntax, go_type, go_value};
use serde_json::Value;
use std::collections::BTreeMap;

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// Its source, for the place of an error.
    text: String,
    nodes: Vec<Node>,
    /// What `define` and `block` name.
    defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Action(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    Break,
    Continue,
    Template { position: usize, name: String, pipe: Option<Pipe> },
}

/// Commands, each given what the one before it found, and the variables that get the last one's.
#[derive(Clone, Debug)]
struct Pipe {
    position: usize,
    /// Whether the variables are there already.
    assigns: bool,
    variables: Vec<String>,
    commands: Vec<Command>,
}

#[derive(Clone, Debug)]
struct Command {
    position: usize,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    /// Bytes from the beginning of the template; of the last field, if there are any.
    position: usize,
    operand: Operand,
}

#[derive(Clone, Debug)]
enum Operand {
    Dot,
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    /// With its source.
    Constant(Value, String),
    Group(Pipe),
    Chain(Box<Term>, Vec<String>),
}

/// A template that could not be filled in.
#[derive(Debug)]
pub(crate) struct Unfilled {
    /// What was shown before.
    pub(crate) shown: String,
    pub(crate) error: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::template(text)
    }

    /// The template filled in.
    ///
    /// # Errors
    /// A function gets the wrong arguments, or a field is missing and that matters (`strict`).
    pub(crate) fn show(&self, object: &Value, strict: bool) -> Result<String, Unfilled> {
        let mut run = run::Run {
            template: self,
            strict,
            variables: vec![("$".into(), object.clone())],
            out: String::new(),
            name: "output".into(),
            depth: 0,
        };
        match run.nodes(&self.nodes, object) {
            Ok(_) => Ok(run.out),
            Err(error) => Err(Unfilled { shown: run.out, error }),
        }
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
    #[case("{{/* no */ -}} {{ .a }}", "x")]
    #[case("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2")]
    #[case("{{define \"T\"}}[{{.}}]{{end}}{{template \"T\" .a}}{{block \"U\" 1}}{{.}}{{end}}", "[x]1")]
    #[case("{{range .l}}{{if eq . 1}}{{continue}}{{end}}{{.}}{{break}}{{end}}", "2")]
    #[case("{{range 3}}{{.}}{{end}}", "012")]
    #[case("{{(index .l 1)}} {{(printf \"%v\" .m) | len}} {{(.m)}}", "2 10 map[k.k:v]")]
    #[case("{{or .no \"d\"}} {{and 1 0 .no.no}} {{not .no}}", "d 0 true")]
    #[case(
        "{{printf \"%05d|%-4s|%4s|%q|%x|%t|%.2f|%+d|%%\" 42 \"a\" \"b\" \"c\" 255 true 1.5 3}}",
        "00042|a   |   b|\"c\"|ff|true|1.50|+3|%"
    )]
    #[case(
        "{{printf \"%s %d %s\" 3 \"x\"}}{{printf \"a\" 1}}",
        "%!s(int64=3) %!d(string=x) %!s(MISSING)a%!(EXTRA int64=1)"
    )]
    #[case(
        "{{html \"<a'>\"}} {{js \"a\\\"=b\"}} {{urlquery \"a b&c\"}} {{print 1 2 \"x\" 3}}",
        "&lt;a&#39;&gt; a\\\"\\u003Db a+b%26c 1 2x3"
    )]
    #[case("{{slice .a 0 1}} {{slice .l 1}} {{if .no}}{{else if .a}}y{{end}}", "x [2] y")]
    fn a_template_prints_what_go_prints(#[case] template: &str, #[case] text: &str) {
        let object = json!({"a": "x", "l": [1, 2], "m": {"k.k": "v"}});
        assert_eq!(
            Template::parse(template).map(|t| t.show(&object, false).map_err(|u| u.error)),
            Ok(Ok(text.to_owned()))
        );
    }

    #[rstest]
    #[case("{{.a", "template: output:1: unclosed action")]
    #[case("x\n{{end}}", "template: output:2: unexpected {{end}}")]
    #[case("{{if .a}}", "template: output:1: unexpected EOF")]
    #[case("{{foo}}", "template: output:1: function \"foo\" not defined")]
    #[case("{{$x}}", "template: output:1: undefined variable \"$x\"")]
    #[case("{{break}}", "template: output:1: {{break}} outside {{range}}")]
    #[case("{{if}}x{{end}}", "template: output:1: missing value for if")]
    #[case("{{(.a}}", "template: output:1: unclosed left paren")]
    #[case("{{\"a}}", "template: output:1: unterminated quoted string")]
    #[case("{{.a | 1}}", "template: output:1: non executable command in pipeline stage 2")]
    #[case("{{%}}", "template: output:1: unrecognized character in action: U+0025 '%'")]
    #[case("{{.no}}", "template: output:1:2: executing \"output\" at <.no>: map has no entry for key \"no\"")]
    #[case(
        "{{.a.b}}",
        "template: output:1:4: executing \"output\" at <.a.b>: can't evaluate field b in type interface {}"
    )]
    #[case(
        "{{index .l 2}}",
        "template: output:1:2: executing \"output\" at <index .l 2>: error calling index: reflect: slice index out of range"
    )]
    #[case(
        "{{index .l \"x\"}}",
        "template: output:1:2: executing \"output\" at <index .l \"x\">: error calling index: cannot index slice/array with type string"
    )]
    #[case(
        "{{len 3}}",
        "template: output:1:2: executing \"output\" at <len 3>: error calling len: len of type int64"
    )]
    #[case(
        "{{eq .a 1}}",
        "template: output:1:2: executing \"output\" at <eq .a 1>: error calling eq: incompatible types for comparison"
    )]
    #[case(
        "{{.a 1}}",
        "template: output:1:2: executing \"output\" at <.a>: a is not a method but has arguments"
    )]
    #[case(
        "{{len}}",
        "template: output:1:2: executing \"output\" at <len>: wrong number of args for len: want 1 got 0"
    )]
    #[case(
        "{{define \"T\"}}{{template \"T\"}}{{end}}{{template \"T\"}}",
        "template: output:1:24: executing \"T\" at <{{template \"T\"}}>: exceeded maximum template depth (64)"
    )]
    fn what_is_wrong_is_told_as_go_tells_it(#[case] template: &str, #[case] error: &str) {
        let object = json!({"a": "x", "l": [1, 2]});
        let told = match Template::parse(template) {
            Ok(template) => template.show(&object, true).unwrap_err().error,
            Err(error) => error,
        };
        assert_eq!(told, error);
    }
}
