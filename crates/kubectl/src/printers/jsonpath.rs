//! kubectl's dialect of JSONPath: text with `{expressions}`, `{range …}{end}`, filters, slices, `..`.

mod parse;
mod walk;

use super::go_template::go_value;
use super::json;
use serde_json::Value;
use std::borrow::Cow;
use walk::{Found, Ranges, Walker};

pub(crate) use parse::relax;

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    /// What is between braces.
    Action(Vec<Node>),
}

/// A step of a path.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Constant(Value),
    Identifier(String),
    Field(String),
    Wildcard,
    Recursive,
    /// From, to, step.
    Slice([Bound; 3]),
    Filter {
        left: Vec<Node>,
        operator: String,
        right: Vec<Node>,
    },
    Union(Vec<Vec<Node>>),
}

/// An end of a slice, or its step.
#[derive(Clone, Copy, Debug)]
enum Bound {
    At(i64),
    Open,
    /// The one after the first: an index is a slice of one.
    Next,
}

impl Bound {
    fn known(self) -> Option<i64> {
        match self {
            Bound::At(at) => Some(at),
            Bound::Open | Bound::Next => None,
        }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::template(text).map(|parts| Self { parts })
    }

    /// The template filled in.
    ///
    /// # Errors
    /// A field is missing (if `strict`), an index is out of bounds, or a word is unknown.
    pub(crate) fn show(&self, object: &Value, strict: bool, as_json: bool) -> Result<String, String> {
        let mut text = String::new();
        for found in self.groups(object, strict)? {
            if as_json {
                let all: Vec<Value> = found.into_iter().map(Cow::into_owned).collect();
                text.push_str(&json::pretty(&Value::Array(all)));
                text.push('\n');
            } else {
                text.push_str(&found.iter().map(|value| plain(value)).collect::<Vec<_>>().join(" "));
            }
        }
        Ok(text)
    }

    /// Everything that it finds.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub(crate) fn find(&self, object: &Value, strict: bool) -> Result<Vec<Value>, String> {
        Ok(self.groups(object, strict)?.into_iter().flatten().map(Cow::into_owned).collect())
    }

    /// What each part finds.
    fn groups<'a>(&self, object: &'a Value, strict: bool) -> Result<Vec<Found<'a>>, String> {
        let mut run = Run { parts: &self.parts, strict, ranges: Ranges::default(), last_end: None };
        run.from(0, Cow::Borrowed(object))
    }
}

/// A value as templates print it.
fn plain(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => json::compact(value),
        other => go_value(other),
    }
}

/// Ranges are found while running, not while reading: one that is never ended goes on to the end of the text, for
/// each value, and what comes after it is then shown once more.
struct Run<'t> {
    parts: &'t [Part],
    strict: bool,
    ranges: Ranges,
    /// Where the range that was ended last has its end.
    last_end: Option<usize>,
}

impl Run<'_> {
    fn from<'a>(&mut self, first: usize, here: Cow<'a, Value>) -> Result<Vec<Found<'a>>, String> {
        let mut groups = Vec::new();
        let mut at = first;
        while let Some(part) = self.parts.get(at) {
            let found = match part {
                Part::Text(text) => vec![Cow::Owned(text.as_str().into())],
                Part::Action(nodes) => {
                    let mut walker = Walker { strict: self.strict, ranges: &mut self.ranges };
                    walker.list(nodes, vec![here.clone()]).map_err(|stop| stop.error)?
                }
            };
            if self.ranges.ended > 0 && self.ranges.ended <= self.ranges.inside {
                self.ranges.ended -= 1;
                self.last_end = Some(at);
                break;
            }
            if self.ranges.begun > 0 {
                groups.extend(self.range(at, found)?);
                at = self.last_end.filter(|end| *end > at).unwrap_or(at);
            } else {
                groups.push(found);
            }
            at += 1;
        }
        Ok(groups)
    }

    /// What follows `at`, for each value; once for nothing if there is none, to learn where the range ends.
    fn range<'a>(&mut self, at: usize, values: Found<'a>) -> Result<Vec<Found<'a>>, String> {
        self.ranges.begun -= 1;
        self.ranges.inside += 1;
        let mut groups = Vec::new();
        if values.is_empty() {
            self.from(at + 1, Cow::Owned(Value::Null))?;
        }
        for value in values {
            groups.extend(self.from(at + 1, value)?);
        }
        self.ranges.inside -= 1;
        Ok(groups)
    }
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
    #[case("{.a['c\\.d/e']} and {.no}", "true and ")]
    #[case("{.l[*]['n', 's']}", "1 2 3 q")]
    #[case("{range .l[*]}{.n}", "123")]
    #[case("{range .none[*]}{.n}{end}!", "!")]
    #[case("{range .l[*]}{range .m}{.n}{end}-{end}", "---")]
    #[case("{.l[?(@.s in \"x\")].n}", "2")]
    #[case("{.l[::2].n} {.l[3:3].n}", "1 3 ")]
    #[case("{true}{1}{1.5}{-3}{\"\\u00e9\"}{'x'}", "true11.5-3éx")]
    fn a_template_prints_what_kubectl_prints(#[case] template: &str, #[case] text: &str) {
        let object = json!({"a": {"b": "x", "c.d/e": true}, "l": [{"n": 1}, {"n": 2, "s": "q"}, {"n": 3}]});
        assert_eq!(
            Template::parse(template).and_then(|t| t.show(&object, false, false)).as_deref(),
            Ok(text)
        );
    }

    #[rstest]
    #[case("{.a", "unclosed action")]
    #[case("{.a}{\"x", "unterminated quoted string")]
    #[case("{.l[\"n\",\"s\"]}", "invalid array index \"n\"")]
    #[case("{.l[0}", "unterminated array")]
    #[case("{.l[?(@.n}", "unterminated filter")]
    #[case("{.....a}", "invalid multiple recursive descent")]
    #[case("{%}", "unrecognized character in action: U+0025 '%'")]
    #[case("{a}", "unrecognized identifier a")]
    #[case("{end}", "not in range, nothing to end")]
    #[case("{.l[9].n}", "array index out of bounds: index 9, length 3")]
    #[case("{.l[0:9].n}", "array index out of bounds: index 8, length 3")]
    #[case("{.l[2:1].n}", "starting index 2 is greater than ending index 1")]
    #[case("{.l[::0].n}", "step must be > 0")]
    #[case("{.a[0]}", "map[string]interface {} is not array or slice")]
    #[case("{.l[?(@.n==\"x\")]}", "incompatible types for comparison")]
    #[case("{.l[?(@.n==x)]}", "unrecognized identifier x")]
    #[case("{.l[?(@.n=1)]}", "unrecognized filter operator =")]
    fn what_is_wrong_is_told_as_kubectl_tells_it(#[case] template: &str, #[case] error: &str) {
        let object = json!({"a": {"b": "x"}, "l": [{"n": 1}, {"n": 2}, {"n": 3}]});
        assert_eq!(Template::parse(template).and_then(|t| t.show(&object, false, false)).unwrap_err(), error);
    }
}
