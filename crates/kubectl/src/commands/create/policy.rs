//! `create quota`, `create poddisruptionbudget` and `create priorityclass`.

use super::{GENERATOR, generated, one_name};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::printers::PRINT;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};

/// Flags of `create quota`.
pub(crate) const QUOTA_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("hard", Takes::Text, "", "RESOURCE=AMOUNT,…"),
        flag("scopes", Takes::Text, "", "Scopes, by comma"),
    ],
];

/// `create quota`.
///
/// # Errors
/// As all generators.
pub(crate) async fn quota(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let (hard, scopes) = (context.flags.text("hard"), context.flags.text("scopes"));
    let mut spec = json!({});
    if !hard.is_empty() {
        spec["hard"] = Value::Object(amounts(hard)?);
    }
    if !scopes.is_empty() {
        spec["scopes"] = json!(scopes.split(',').collect::<Vec<_>>());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "creationTimestamp": null},
        "spec": spec, "status": {},
    });
    generated(context, object, "quota: ").await
}

fn amounts(hard: &str) -> Outcome<Map<String, Value>> {
    let mut amounts = Map::new();
    for part in hard.split(',') {
        let Some((resource, amount)) = part.split_once('=') else {
            return fail(format!("Invalid argument syntax {part}, expected <resource>=<value>"));
        };
        let amount = sagong_api::quantity::canonical(&Quantity(amount.into()))
            .map_err(|error| Failure::Message(error.to_string()))?;
        amounts.insert(resource.into(), amount.0.into());
    }
    Ok(amounts)
}

/// Flags of `create poddisruptionbudget`.
pub(crate) const BUDGET_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("min-available", Takes::Text, "", "How many pods must be left, a number or a percentage"),
        flag("max-unavailable", Takes::Text, "", "How many pods may be missing, a number or a percentage"),
        flag("selector", Takes::Text, "", "Label selector of the pods"),
    ],
];

/// `create poddisruptionbudget`.
///
/// # Errors
/// As all generators.
pub(crate) async fn budget(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let (selector, least, most) =
        (flags.text("selector"), flags.text("min-available"), flags.text("max-unavailable"));
    if selector.is_empty() {
        return fail("a selector must be specified");
    }
    let (field, flag, value) = match (least, most) {
        ("", "") => return fail("one of min-available or max-unavailable must be specified"),
        (least, "") => ("minAvailable", "min-available", least),
        ("", most) => ("maxUnavailable", "max-unavailable", most),
        _ => return fail("min-available and max-unavailable cannot be both specified"),
    };
    let digits = value.strip_suffix('%').unwrap_or(value);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return fail(format!("invalid format specified for {flag}"));
    }
    let amount = value.parse::<i64>().map_or_else(|_| value.into(), Value::from);
    let mut spec = json!({"selector": label_selector(selector)?});
    spec[field] = amount;
    let object = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "creationTimestamp": null}, "spec": spec,
        "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
    });
    generated(context, object, "poddisruptionbudgets: ").await
}

/// A selector's text as the struct of specs.
fn label_selector(text: &str) -> Outcome<Value> {
    sagong_api::selector::Selector::parse(text).map_err(|error| {
        Failure::Message(format!("couldn't parse the selector string {}: {error}", quote(text)))
    })?;
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for part in requirements(text) {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words.as_slice() {
            [key, operator @ ("in" | "notin"), ..] => {
                let values = part.split_once('(').map_or("", |(_, rest)| rest).trim_end_matches(')');
                let mut values: Vec<&str> = values.split(',').map(str::trim).collect();
                values.sort_unstable();
                let operator = if *operator == "in" { "In" } else { "NotIn" };
                expressions.push(json!({"key": key, "operator": operator, "values": values}));
            }
            _ => {
                if let Some((key, value)) = part.split_once("!=") {
                    expressions
                        .push(json!({"key": key.trim(), "operator": "NotIn", "values": [value.trim()]}));
                } else if let Some((key, value)) = part.split_once('=') {
                    labels.insert(key.trim().into(), value.trim_start_matches('=').trim().into());
                } else if let Some(key) = part.strip_prefix('!') {
                    expressions.push(json!({"key": key.trim(), "operator": "DoesNotExist"}));
                } else {
                    expressions.push(json!({"key": part.trim(), "operator": "Exists"}));
                }
            }
        }
    }
    let mut selector = json!({});
    if !labels.is_empty() {
        selector["matchLabels"] = labels.into();
    }
    if !expressions.is_empty() {
        selector["matchExpressions"] = expressions.into();
    }
    Ok(selector)
}

/// Parts by comma, but not by those in brackets.
fn requirements(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Flags of `create priorityclass`.
pub(crate) const PRIORITY_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("value", Takes::Number, "0", "The priority"),
        flag("global-default", Takes::Bool, "false", "For pods that name no class"),
        flag("description", Takes::Text, "", "What it is for"),
        flag("preemption-policy", Takes::Text, "PreemptLowerPriority", "PreemptLowerPriority or Never"),
    ],
];

/// `create priorityclass`.
///
/// # Errors
/// As all generators.
pub(crate) async fn priority_class(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let mut object = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": name, "creationTimestamp": null}, "value": flags.number("value"),
        "preemptionPolicy": flags.text("preemption-policy"),
    });
    if flags.on("global-default") {
        object["globalDefault"] = true.into();
    }
    if !flags.text("description").is_empty() {
        object["description"] = flags.text("description").into();
    }
    generated(context, object, "priorityclass: ").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a=b", json!({"matchLabels": {"a": "b"}}))]
    #[case("a==b,c", json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}))]
    #[case("a in (y, x)", json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}))]
    #[case("a!=b", json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}))]
    #[case("!a", json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}))]
    fn a_selector_as_text_becomes_a_struct(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(label_selector(text).ok(), Some(expected));
    }
}
