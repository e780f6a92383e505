//! From a value to what a path finds in it.

use super::super::go_template::{go_type, go_value};
use super::{Bound, Node};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Values that a node found. Parts of the object are borrowed.
pub(super) type Found<'a> = Vec<Cow<'a, Value>>;

/// Why it stopped, and at what: a filter for presence does not mind.
pub(super) struct Stop<'a> {
    pub(super) error: String,
    at: Found<'a>,
}

pub(super) type Walked<'a> = Result<Found<'a>, Stop<'a>>;

/// How the path meets `{range …}` and `{end}`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ranges {
    /// Begun by the last action.
    pub(super) begun: usize,
    /// Around here.
    pub(super) inside: usize,
    /// Ended by the last action.
    pub(super) ended: usize,
}

/// Walks the steps of one action.
pub(super) struct Walker<'r> {
    /// Whether a field that nothing has is an error.
    pub(super) strict: bool,
    pub(super) ranges: &'r mut Ranges,
}

impl Walker<'_> {
    pub(super) fn list<'a>(&mut self, nodes: &[Node], input: Found<'a>) -> Walked<'a> {
        nodes.iter().try_fold(input, |input, node| self.node(node, input))
    }

    fn node<'a>(&mut self, node: &Node, input: Found<'a>) -> Walked<'a> {
        match node {
            Node::Text(text) => Ok(vec![Cow::Owned(text.as_str().into())]),
            Node::Constant(value) => Ok(input.iter().map(|_| Cow::Owned(value.clone())).collect()),
            Node::Identifier(name) => self.identifier(name, input),
            Node::Field(name) => self.field(name, input),
            Node::Wildcard => Ok(input.iter().flat_map(children).collect()),
            Node::Recursive => {
                let mut found = Vec::new();
                input.into_iter().for_each(|value| descend(value, &mut found));
                Ok(found)
            }
            Node::Slice(bounds) => slices(bounds, input),
            Node::Filter { left, operator, right } => self.filter(left, operator, right, input),
            Node::Union(parts) => {
                let mut found = Vec::new();
                for part in parts {
                    found.extend(self.list(part, input.clone())?);
                }
                Ok(found)
            }
        }
    }

    fn identifier<'a>(&mut self, name: &str, input: Found<'a>) -> Walked<'a> {
        match name {
            "range" => {
                self.ranges.begun += 1;
                Ok(input)
            }
            "end" if self.ranges.inside > 0 => {
                self.ranges.ended += 1;
                Ok(Vec::new())
            }
            "end" => Err(Stop { error: "not in range, nothing to end".into(), at: Vec::new() }),
            _ => Err(Stop { error: format!("unrecognized identifier {name}"), at: input }),
        }
    }

    fn field<'a>(&self, name: &str, input: Found<'a>) -> Walked<'a> {
        let found: Found = input.iter().filter_map(|value| child(value, |value| value.get(name))).collect();
        if found.is_empty() && !input.is_empty() && self.strict {
            return Err(Stop { error: format!("{name} is not found"), at: found });
        }
        Ok(found)
    }

    fn filter<'a>(&mut self, left: &[Node], operator: &str, right: &[Node], input: Found<'a>) -> Walked<'a> {
        let mut found = Vec::new();
        for value in &input {
            if !value.is_array() {
                let error = format!("{} is not array or slice and cannot be filtered", go_value(value));
                return Err(Stop { error, at: input });
            }
            for item in children(value) {
                match self.holds(left, operator, right, &item) {
                    Ok(true) => found.push(item),
                    Ok(false) => {}
                    Err(error) => return Err(Stop { error, at: input }),
                }
            }
        }
        Ok(found)
    }

    fn holds(&mut self, left: &[Node], operator: &str, right: &[Node], item: &Value) -> Result<bool, String> {
        let lefts = self.list(left, vec![Cow::Borrowed(item)]);
        if operator == "exists" {
            return Ok(!lefts.unwrap_or_else(|stop| stop.at).is_empty());
        }
        let lefts = lefts.map_err(|stop| stop.error)?;
        let many = || Err("can only compare one element at a time".to_owned());
        let left = match lefts.as_slice() {
            [] => return Ok(false),
            [one] => one,
            _ => return many(),
        };
        let rights = self.list(right, vec![Cow::Borrowed(item)]).map_err(|stop| stop.error)?;
        match rights.as_slice() {
            [] => Ok(false),
            [right] => compare(left, operator, right),
            _ => many(),
        }
    }
}

/// A part of a value, borrowed if the value is.
fn child<'a>(
    value: &Cow<'a, Value>,
    part: impl for<'v> FnOnce(&'v Value) -> Option<&'v Value>,
) -> Option<Cow<'a, Value>> {
    match value {
        Cow::Borrowed(value) => part(value).map(Cow::Borrowed),
        Cow::Owned(value) => part(value).cloned().map(Cow::Owned),
    }
}

/// Items of an array, values of an object.
fn children<'a>(value: &Cow<'a, Value>) -> Found<'a> {
    fn parts(value: &Value) -> Vec<&Value> {
        match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        }
    }
    match value {
        Cow::Borrowed(value) => parts(value).into_iter().map(Cow::Borrowed).collect(),
        Cow::Owned(value) => parts(value).into_iter().cloned().map(Cow::Owned).collect(),
    }
}

/// Everything that has parts, the outer before the inner.
fn descend<'a>(value: Cow<'a, Value>, found: &mut Found<'a>) {
    let inner = children(&value);
    if !inner.is_empty() {
        found.push(value);
        inner.into_iter().for_each(|part| descend(part, found));
    }
}

fn slices<'a>(bounds: &[Bound; 3], input: Found<'a>) -> Walked<'a> {
    let mut found = Vec::new();
    for value in &input {
        let taken = match value.as_ref() {
            Value::Null => continue,
            Value::Array(items) => indexes(bounds, items.len()),
            other => Err(format!("{} is not array or slice", go_type(other))),
        };
        match taken {
            Ok(taken) => found.extend(taken.filter_map(|index| child(value, |value| value.get(index)))),
            Err(error) => return Err(Stop { error, at: input }),
        }
    }
    Ok(found)
}

/// Which items of so many.
fn indexes(bounds: &[Bound; 3], length: usize) -> Result<impl Iterator<Item = usize>, String> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let [from, to, step] = bounds;
    let begin = from.known().unwrap_or(0);
    let mut start = begin;
    if start < 0 {
        start += length;
    }
    let mut end = match to {
        Bound::At(at) => *at,
        Bound::Open => length,
        Bound::Next => begin.saturating_add(1),
    };
    if end < 0 || end == 0 && matches!(to, Bound::Next) {
        end += length;
    }
    if start == end {
        return Ok((0..0).step_by(1));
    }
    let outside = |index: i64| Err(format!("array index out of bounds: index {index}, length {length}"));
    if start >= length || start < 0 {
        return outside(start);
    }
    if end > length || end < 0 {
        return outside(end - 1);
    }
    if start > end {
        return Err(format!("starting index {start} is greater than ending index {end}"));
    }
    let step = step.known().unwrap_or(1);
    let whole = |number: i64| usize::try_from(number).unwrap_or_default();
    if step <= 0 {
        return Err("step must be > 0".into());
    }
    Ok((whole(start)..whole(end)).step_by(whole(step)))
}

fn compare(left: &Value, operator: &str, right: &Value) -> Result<bool, String> {
    let incompatible = || Err("incompatible types for comparison".to_owned());
    let whole = |number: &serde_json::Number| number.is_i64() || number.is_u64();
    let basic = |value: &Value| !matches!(value, Value::Null | Value::Array(_) | Value::Object(_));
    if !basic(left) || !basic(right) {
        return Err("invalid type for comparison".into());
    }
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) if whole(a) == whole(b) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64().partial_cmp(&b.as_f64()),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) if matches!(operator, "==" | "!=") => Some(a.cmp(b)),
        (Value::Bool(_), Value::Bool(_)) => return Err("invalid type for comparison".into()),
        _ => return incompatible(),
    };
    Ok(match operator {
        "==" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" => order == Some(Ordering::Greater),
        ">=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        _ => return Err(format!("unrecognized filter operator {operator}")),
    })
}
