//! Objects as trees whose fields can be listed, compared, merged and removed. Pure.

use super::field_set::FieldSet;
use super::shape::Node;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The path element of an item of a keyed list. A port without a protocol is a TCP port.
fn item_element(item: &Value, keys: &[&str]) -> String {
    let key = |name: &&str| {
        let default = || if *name == "protocol" { Value::from("TCP") } else { Value::Null };
        let value = item.get(*name).filter(|v| !v.is_null()).cloned().unwrap_or_else(default);
        ((*name).to_owned(), value)
    };
    let keys: BTreeMap<String, Value> = keys.iter().map(key).filter(|(_, value)| !value.is_null()).collect();
    format!("k:{}", serde_json::to_string(&keys).unwrap_or_default())
}

/// The places right below a place: path element, value, what it is.
fn parts(node: Node, value: &Value) -> Option<Vec<(String, &Value, Node)>> {
    match (node, value) {
        (Node::Struct(_) | Node::Map(_), Value::Object(map)) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            Some(fields.map(|(name, value)| (format!("f:{name}"), value, node.field(name))).collect())
        }
        (Node::Items(type_, keys), Value::Array(list)) => {
            Some(list.iter().map(|item| (item_element(item, keys), item, Node::Struct(type_))).collect())
        }
        (Node::Members, Value::Array(list)) => {
            Some(list.iter().map(|value| (format!("v:{value}"), value, Node::Leaf)).collect())
        }
        _ => None,
    }
}

/// Every field that has a value.
pub(super) fn fields(node: Node, value: &Value) -> FieldSet {
    match parts(node, value) {
        Some(parts) if !parts.is_empty() => {
            let mut set = FieldSet::default();
            for (element, value, inner) in parts {
                let mut below = fields(inner, value);
                // An item of a list is owned as such, besides its fields.
                below.own |= matches!(node, Node::Items(..));
                set.put(element, below);
            }
            set
        }
        _ => FieldSet::leaf(),
    }
}

/// The fields that are new or different, and those that are gone.
pub(super) fn compare(node: Node, old: &Value, new: &Value) -> (FieldSet, FieldSet) {
    let (mut changed, mut gone) = (FieldSet::default(), FieldSet::default());
    let (Some(old_parts), Some(new_parts)) = (parts(node, old), parts(node, new)) else {
        changed.own = old != new;
        return (changed, gone);
    };
    let is_list = matches!(node, Node::Items(..));
    let whole = |inner: Node, value: &Value| {
        let mut set = fields(inner, value);
        set.own |= is_list;
        set
    };
    let mut old_parts: BTreeMap<String, (&Value, Node)> =
        old_parts.into_iter().map(|(element, value, inner)| (element, (value, inner))).collect();
    for (element, new, inner) in new_parts {
        match old_parts.remove(&element) {
            Some((old, _)) => {
                let (below, lost) = compare(inner, old, new);
                changed.put(element.clone(), below);
                gone.put(element, lost);
            }
            None => changed.put(element, whole(inner, new)),
        }
    }
    for (element, (old, inner)) in old_parts {
        gone.put(element, whole(inner, old));
    }
    (changed, gone)
}

/// `live` with everything that `applied` says.
pub(super) fn merge(node: Node, live: &Value, applied: &Value) -> Value {
    match (node, live, applied) {
        (Node::Struct(_) | Node::Map(_), Value::Object(live), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied.iter().filter(|(_, value)| !value.is_null()) {
                let value = match live.get(name) {
                    Some(before) => merge(node.field(name), before, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Node::Items(..) | Node::Members, Value::Array(_), Value::Array(_)) => {
            Value::Array(merge_lists(node, live, applied))
        }
        _ => applied.clone(),
    }
}

/// The items in the order of `applied`; those only in `live` stay behind the one they were behind.
fn merge_lists(node: Node, live: &Value, applied: &Value) -> Vec<Value> {
    let live = parts(node, live).unwrap_or_default();
    let applied = parts(node, applied).unwrap_or_default();
    let mut merged: Vec<(String, Value)> = Vec::with_capacity(live.len().max(applied.len()));
    for (element, value, inner) in &applied {
        let before = live.iter().find(|(e, ..)| e == element).map(|(_, before, _)| *before);
        let value = before.map_or_else(|| (*value).clone(), |before| merge(*inner, before, value));
        merged.push((element.clone(), value));
    }
    let mut behind = 0;
    for (element, value, _) in live {
        match merged.iter().position(|(e, _)| *e == element) {
            Some(place) => behind = place + 1,
            None => {
                merged.insert(behind, (element, value.clone()));
                behind += 1;
            }
        }
    }
    merged.into_iter().map(|(_, value)| value).collect()
}

/// Removes fields. What is left without content goes as well.
pub(super) fn remove(node: Node, value: &mut Value, fields: &FieldSet) {
    match (node, value) {
        (Node::Struct(_) | Node::Map(_), Value::Object(map)) => {
            for (element, set) in &fields.children {
                let Some(name) = element.strip_prefix("f:") else { continue };
                if set.own {
                    map.remove(name);
                } else if let Some(inner) = map.get_mut(name) {
                    remove(node.field(name), inner, set);
                    if is_blank(inner) {
                        map.remove(name);
                    }
                }
            }
        }
        (Node::Items(type_, keys), Value::Array(list)) => {
            list.retain(|item| fields.children.get(&item_element(item, keys)).is_none_or(|set| !set.own));
            for item in list {
                if let Some(set) = fields.children.get(&item_element(item, keys)) {
                    remove(Node::Struct(type_), item, set);
                }
            }
        }
        (Node::Members, Value::Array(list)) => {
            list.retain(|value| !fields.children.contains_key(&format!("v:{value}")));
        }
        _ => {}
    }
}

fn is_blank(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
