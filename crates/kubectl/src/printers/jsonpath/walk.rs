//! From a value to what a path finds in it.

use super::super::go_template::go_value;
use super::super::json;
use super::{Operand, Step};
use serde_json::Value;

/// A value as templates print it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => json::compact(value),
        Value::Null => "<nil>".into(),
        other => go_value(other),
    }
}

pub(super) fn walk(path: &[Step], root: &Value, here: &Value, strict: bool) -> Result<Vec<Value>, String> {
    let mut current = vec![here.clone()];
    for step in path {
        let mut next = Vec::new();
        for value in &current {
            one(step, root, value, strict, &mut next)?;
        }
        current = next;
    }
    Ok(current)
}

fn one(step: &Step, root: &Value, value: &Value, strict: bool, next: &mut Vec<Value>) -> Result<(), String> {
    match step {
        Step::Root => next.push(root.clone()),
        Step::Here => next.push(value.clone()),
        Step::Literal(literal) => next.push(literal.clone()),
        Step::Field(name) => match value.get(name.as_str()) {
            Some(inner) => next.push(inner.clone()),
            None if strict => return Err(format!("{name} is not found")),
            None => {}
        },
        Step::Wildcard => match value {
            Value::Array(items) => next.extend(items.iter().cloned()),
            Value::Object(map) => next.extend(map.values().cloned()),
            _ => {}
        },
        Step::Recursive => descend(value, next),
        Step::Slice(from, to, step, single) => match value {
            Value::Array(items) => slice(items, *from, *to, *step, *single, next)?,
            Value::Null => {}
            other => return Err(format!("{} is not array or slice", go_value(other))),
        },
        Step::Filter(left, operator, right) => {
            let Value::Array(items) = value else {
                return Err(format!("{} is not array or slice and cannot be filtered", go_value(value)));
            };
            for item in items {
                if holds(left, operator, right, root, item)? {
                    next.push(item.clone());
                }
            }
        }
        Step::Union(parts) => {
            for part in parts {
                next.extend(walk(part, root, value, strict)?);
            }
        }
    }
    Ok(())
}

fn descend(value: &Value, next: &mut Vec<Value>) {
    if !matches!(value, Value::Array(_) | Value::Object(_)) {
        return;
    }
    next.push(value.clone());
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, next)),
        Value::Object(map) => map.values().for_each(|item| descend(item, next)),
        _ => {}
    }
}

fn slice(
    items: &[Value],
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    single: bool,
    next: &mut Vec<Value>,
) -> Result<(), String> {
    let length = items.len() as i64;
    let absolute = |index: i64| if index < 0 { index + length } else { index };
    let start = absolute(from.unwrap_or(0));
    if single {
        if start < 0 || start >= length {
            return Err(format!("array index out of bounds: index {start}, length {length}"));
        }
        next.push(items[start as usize].clone());
        return Ok(());
    }
    let end = absolute(to.unwrap_or(length)).min(length);
    let step = step.unwrap_or(1);
    if start > end || step <= 0 {
        return if step <= 0 {
            Err("step must be > 0".into())
        } else {
            Err(format!("starting index {start} is greater than ending index {end}"))
        };
    }
    let mut at = start.max(0);
    while at < end {
        next.push(items[at as usize].clone());
        at += step;
    }
    Ok(())
}

fn holds(
    left: &Operand,
    operator: &str,
    right: &Operand,
    root: &Value,
    item: &Value,
) -> Result<bool, String> {
    let values = |operand: &Operand| match operand {
        Operand::Path(path) => walk(path, root, item, false),
        Operand::Value(value) => Ok(vec![value.clone()]),
        Operand::None => Ok(Vec::new()),
    };
    let lefts = values(left)?;
    if operator == "exists" {
        return Ok(!lefts.is_empty());
    }
    let rights = values(right)?;
    let (Some(left), Some(right)) = (lefts.first(), rights.first()) else { return Ok(false) };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => {
            return if operator == "==" || operator == "!=" {
                Ok(operator == "!=")
            } else {
                Err("incompatible types for comparison".into())
            };
        }
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match operator {
        "==" => order == Some(Equal),
        "!=" => order != Some(Equal),
        "<" => order == Some(Less),
        "<=" => matches!(order, Some(Less | Equal)),
        ">" => order == Some(Greater),
        ">=" => matches!(order, Some(Greater | Equal)),
        _ => false,
    })
}
