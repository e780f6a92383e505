//! The patch that `apply` sends: what the new configuration adds or changes against the live object, and what it
//! no longer has against the last one that was applied.

use sagong_api::kinds;
use sagong_api::patch::strategy;
use sagong_api::types::{Shape, Types};
use serde_json::{Map, Value, json};

/// The schema name of a kind, if its patch strategies are known.
pub(crate) fn schema(api_version: &str, kind: &str) -> Option<&'static str> {
    let registry = kinds::registry();
    let mut identities = registry.iter().map(|known| known.identity());
    let identity = identities.find(|i| i.api_version() == api_version && i.kind == kind)?;
    Types::get().root(&identity)
}

/// The three-way patch; an empty object if there is nothing to do. Without a schema, a JSON merge patch.
pub(crate) fn three_way(schema: Option<&str>, last: &Value, new: &Value, live: &Value) -> Value {
    Value::Object(map(schema, last, new, live))
}

fn map(schema: Option<&str>, last: &Value, new: &Value, live: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in new.as_object().into_iter().flatten() {
        let strategy = schema.map(|schema| strategy(schema, key)).unwrap_or_default();
        let shape = schema.map_or(&Shape::Leaf, |schema| Types::get().shape(schema, key));
        let before = live.get(key);
        match (value, before) {
            (Value::Null, None) => {}
            (Value::Object(fields), Some(Value::Object(_))) => {
                let inner = match shape {
                    Shape::Object(schema) => Some(schema.as_ref()),
                    _ => None,
                };
                let mut inner = map(inner, &last[key], value, &live[key]);
                if inner.is_empty() {
                    continue;
                }
                if strategy.retain_keys {
                    let keys: Vec<&String> = fields.keys().collect();
                    inner.insert("$retainKeys".into(), json!(keys));
                }
                patch.insert(key.clone(), inner.into());
            }
            (Value::Array(items), Some(Value::Array(_))) if strategy.merge => {
                list(key, shape, strategy.merge_key, &last[key], items, &live[key], &mut patch);
            }
            (value, Some(before)) if value == before => {}
            (value, _) => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in last.as_object().into_iter().flatten().map(|(key, _)| key) {
        if new.get(key).is_none() {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

fn list(
    key: &str,
    shape: &Shape,
    merge_key: &str,
    last: &Value,
    new: &[Value],
    live: &Value,
    patch: &mut Map<String, Value>,
) {
    let none = Vec::new();
    let live = live.as_array().unwrap_or(&none);
    let last = last.as_array().unwrap_or(&none);
    if merge_key.is_empty() {
        let added: Vec<&Value> = new.iter().filter(|item| !live.contains(item)).collect();
        let removed: Vec<&Value> = last.iter().filter(|item| !new.contains(item)).collect();
        if !added.is_empty() {
            patch.insert(key.to_owned(), json!(added));
        }
        if !removed.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{key}"), json!(removed));
        }
        return;
    }
    let schema = match shape {
        Shape::List(Some(schema)) => Some(schema.as_ref()),
        _ => None,
    };
    let find = |among: &[Value], item: &Value| {
        among.iter().find(|other| other[merge_key] == item[merge_key]).cloned()
    };
    let mut changes = Vec::new();
    for item in new {
        let Some(before) = find(live, item) else {
            changes.push(item.clone());
            continue;
        };
        let mut change = map(schema, &find(last, item).unwrap_or_default(), item, &before);
        if !change.is_empty() {
            change.insert(merge_key.to_owned(), item[merge_key].clone());
            changes.push(change.into());
        }
    }
    for item in last.iter().filter(|item| find(new, item).is_none()) {
        changes.push(json!({"$patch": "delete", merge_key: item[merge_key]}));
    }
    if !changes.is_empty() {
        let order: Vec<Value> = new.iter().map(|item| json!({merge_key: item[merge_key]})).collect();
        patch.insert(format!("$setElementOrder/{key}"), order.into());
        patch.insert(key.to_owned(), changes.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str, env: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image, "env": env}]}}}})
    }

    #[test]
    fn what_was_applied_and_is_gone_is_deleted_and_what_others_set_stays() {
        let last = deployment("i:1", json!([{"name": "X", "value": "1"}]));
        let new = deployment("i:2", json!([]));
        let live = deployment("i:1", json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]));
        let patch = three_way(schema("apps/v1", "Deployment"), &last, &new, &live);
        let container = &patch["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "i:2");
        assert_eq!(container["env"], json!([{"$patch": "delete", "name": "X"}]));
    }

    #[test]
    fn nothing_to_do_is_an_empty_patch() {
        let object = deployment("i:1", json!([]));
        assert_eq!(three_way(schema("apps/v1", "Deployment"), &object, &object, &object), json!({}));
    }
}
