//! Equality as upstream's API sees it: what is empty, false or zero is the same as what is not given, where the field
//! cannot tell the two apart.

use serde::Serialize;
use serde_json::Value;

/// Fields of pod specifications that are maps, or scalars of which upstream keeps the value and not a pointer to it. Not
/// among them are those where `false`, 0 or `""` says something (`enableServiceLinks`, `runAsUser`, `storageClassName`).
const ZERO_IS_NONE: [&str; 27] = [
    "annotations",
    "host",
    "hostIP",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "hostname",
    "initialDelaySeconds",
    "labels",
    "limits",
    "matchLabels",
    "medium",
    "nodeName",
    "nodeSelector",
    "overhead",
    "priorityClassName",
    "readOnly",
    "requests",
    "stdin",
    "stdinOnce",
    "subPath",
    "subPathExpr",
    "subdomain",
    "tty",
    "value",
    "workingDir",
];

/// Whether two values mean the same.
pub fn is_same<T: PartialEq + Serialize>(a: &T, b: &T) -> bool {
    a == b || pruned(a) == pruned(b)
}

fn pruned(value: &impl Serialize) -> Value {
    let mut tree = serde_json::to_value(value).unwrap_or_default();
    prune(&mut tree);
    tree
}

/// Other objects stay even when nothing is left in them: `emptyDir: {}` says something.
fn prune(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            fields.retain(|name, value| !is_none(value, ZERO_IS_NONE.binary_search(&name.as_str()).is_ok()));
            fields.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_none(value: &Value, zero_is_none: bool) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Bool(flag) => zero_is_none && !flag,
        Value::Number(number) => zero_is_none && number.as_i64() == Some(0),
        Value::String(text) => zero_is_none && text.is_empty(),
        Value::Object(fields) => zero_is_none && fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;
    use rstest::rstest;
    use serde_json::json;

    fn spec(value: Value) -> PodSpec {
        let mut spec = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]});
        merge(&mut spec, value);
        serde_json::from_value(spec).unwrap()
    }

    /// Objects and lists are merged field by field and item by item.
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (name, value) in from {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
            (Value::Array(into), Value::Array(from)) if into.len() == from.len() => {
                into.iter_mut().zip(from).for_each(|(into, from)| merge(into, from));
            }
            (into, from) => *into = from,
        }
    }

    #[rstest]
    #[case::list(json!({"volumes": []}))]
    #[case::map(json!({"nodeSelector": {}}))]
    #[case::flag(json!({"hostNetwork": false}))]
    #[case::text(json!({"hostname": ""}))]
    #[case::number_within(json!({"containers": [{"ports": [{"hostPort": 0}]}]}))]
    #[case::flag_within(json!({"containers": [{"tty": false}]}))]
    fn what_is_empty_or_zero_is_as_good_as_none(#[case] said: Value) {
        assert!(is_same(&spec(said), &spec(json!({}))));
    }

    #[rstest]
    #[case::something(json!({"hostNetwork": true}))]
    #[case::empty_source(json!({"volumes": [{"name": "v", "emptyDir": {}}]}))]
    #[case::flag_that_is_true_when_not_given(json!({"enableServiceLinks": false}))]
    #[case::zero_seconds(json!({"terminationGracePeriodSeconds": 0}))]
    fn what_says_something_is_not(#[case] said: Value) {
        assert!(!is_same(&spec(said), &spec(json!({}))));
    }

    #[test]
    fn the_names_are_sorted_as_they_are_searched() {
        assert!(ZERO_IS_NONE.is_sorted());
    }
}
