//! Strategic merge patch: a merge patch that knows, from the types, which lists are really maps.
//!
//! Semantics, directives and messages are those of `k8s.io/apimachinery/pkg/util/strategicpatch`; where the
//! type is not known it merges objects and replaces lists, as a JSON merge patch does.

use super::merge::parse_object;
use super::strategy::{Strategy, strategy};
use super::{PatchError, order};
use crate::kind::Identity;
use crate::types::{Shape, Types};
use serde_json::{Map, Value};

/// `$patch: delete | replace`, in an object or as an item of a list.
pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
pub(super) const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of that kind.
///
/// # Errors
/// Malformed: not a JSON object, or a directive is misused. Unprocessable: an item of a merged list has no
/// merge key.
pub fn strategic(kind: &Identity, original: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = parse_object(patch)?;
    let original = if let Value::Object(original) = original { original } else { Object::new() };
    let Value::Object(patch) = patch else { return Ok(Value::Object(original)) };
    merge_object(original, patch, Types::get().root(kind)).map(Value::Object)
}

type Object = Map<String, Value>;

/// Merges an object of type `type_` (None: unknown).
pub(super) fn merge_object(
    mut original: Object,
    mut patch: Object,
    type_: Option<&str>,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, type_)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_from_primitive_list(&mut original, list, &value)?;
        } else if value.is_null() {
            original.remove(&key);
        } else {
            let present = original.remove(&key);
            if present.is_none() && value.get(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                continue;
            }
            let merged = merge_field(present, value, type_, &key)?;
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// The new value of a field. A field that the original lacks is merged into an empty one, so that directives
/// in it take effect and do not end up in the object.
fn merge_field(
    original: Option<Value>,
    patch: Value,
    type_: Option<&str>,
    key: &str,
) -> Result<Value, PatchError> {
    let shape = type_.map_or(&Shape::Leaf, |type_| Types::get().shape(type_, key));
    match patch {
        Value::Object(patch) => {
            let original =
                if let Some(Value::Object(original)) = original { original } else { Object::new() };
            let inner = match shape {
                Shape::Object(inner) => Some(&**inner),
                Shape::Map(Some(inner)) => return merge_map(original, patch, inner).map(Value::Object),
                _ => None,
            };
            merge_object(original, patch, inner).map(Value::Object)
        }
        Value::Array(patch) => {
            let strategy = type_.map(|type_| strategy(type_, key)).unwrap_or_default();
            let original = if let Some(Value::Array(original)) = original { original } else { Vec::new() };
            merge_list_field(original, patch, shape, strategy).map(Value::Array)
        }
        leaf => Ok(leaf),
    }
}

/// A map from strings to objects of one type.
fn merge_map(mut original: Object, mut patch: Object, inner: &str) -> Result<Object, PatchError> {
    if patch.contains_key(DIRECTIVE) {
        return merge_object(original, patch, None);
    }
    for (key, value) in std::mem::take(&mut patch) {
        let merged = match (original.remove(&key), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(original)), Value::Object(patch)) => {
                Value::Object(merge_object(original, patch, Some(inner))?)
            }
            (_, Value::Object(patch)) => Value::Object(merge_object(Object::new(), patch, Some(inner))?),
            (_, other) => other,
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// A list, merged or replaced as its strategy says.
pub(super) fn merge_list_field(
    original: Vec<Value>,
    patch: Vec<Value>,
    shape: &Shape,
    strategy: Strategy,
) -> Result<Vec<Value>, PatchError> {
    if !strategy.merge {
        // An item that is nothing but a directive says what happens anyway, and is no item.
        return Ok(patch.into_iter().filter(|item| item.get(DIRECTIVE).is_none()).collect());
    }
    if strategy.merge_key.is_empty() {
        return merge_primitives(original, patch);
    }
    let inner = if let Shape::List(Some(inner)) = shape { Some(&**inner) } else { None };
    merge_objects(original, patch, strategy.merge_key, inner)
}

/// The union of two lists of strings, without repeats; what the patch names comes first.
fn merge_primitives(original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    if patch.iter().any(|item| item.is_object() || item.is_array()) {
        return Err(PatchError::Malformed("invalid patch format of primitive list".to_owned()));
    }
    let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
    for item in original.iter().chain(&patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    Ok(order::arrange(merged, &patch, &original, ""))
}

/// Merges the items of two lists that have the same `key`.
fn merge_objects(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    inner: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let (deleted, patch, replaced) = split_directives(patch, key)?;
    if replaced {
        return patch.into_iter().map(|item| merge_item(None, item, inner)).collect();
    }
    original.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(value)));
    let server_order = original.clone();
    let mut merged = original;
    for item in &patch {
        let same = |other: &&mut Value| other.get(key) == item.get(key);
        match merged.iter_mut().find(same) {
            Some(present) => *present = merge_item(Some(present.take()), item.clone(), inner)?,
            None => merged.push(merge_item(None, item.clone(), inner)?),
        }
    }
    Ok(order::arrange(merged, &patch, &server_order, key))
}

fn merge_item(original: Option<Value>, patch: Value, inner: Option<&str>) -> Result<Value, PatchError> {
    let original = if let Some(Value::Object(original)) = original { original } else { Object::new() };
    match patch {
        Value::Object(patch) => merge_object(original, patch, inner).map(Value::Object),
        other => Ok(other),
    }
}

/// The keys that items with `$patch: delete` name, the plain items, and whether a `$patch: replace` item says
/// that those are all there is to be.
fn split_directives(patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>, bool), PatchError> {
    let (mut deleted, mut plain, mut replaced) = (Vec::new(), Vec::new(), false);
    for item in patch {
        let Value::Object(fields) = &item else {
            return Err(PatchError::Malformed(format!("expected a map, but received {item}")));
        };
        match fields.get(DIRECTIVE).map(Value::as_str) {
            None if fields.contains_key(key) => plain.push(item),
            Some(Some("delete")) if fields.contains_key(key) => deleted.push(fields[key].clone()),
            Some(Some("replace")) => replaced = true,
            None | Some(Some("delete")) => return Err(no_merge_key(&item, key)),
            Some(Some("merge")) => {
                let detail = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Malformed(detail.to_owned()));
            }
            Some(_) => return Err(bad_directive(&fields[DIRECTIVE], fields)),
        }
    }
    Ok((deleted, plain, replaced))
}

/// `$retainKeys: [a, b]`: of the original only those keys stay, and the patch may set no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let kept = kept.as_array().ok_or_else(malformed)?;
    let keeps = |key: &str| kept.iter().any(|kept| kept == key);
    let directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !keeps(key)) {
        return Err(malformed());
    }
    original.retain(|key, _| keeps(key));
    Ok(())
}

/// `$deleteFromPrimitiveList/finalizers: [a]`.
fn delete_from_primitive_list(original: &mut Object, list: &str, deleted: &Value) -> Result<(), PatchError> {
    let malformed = || PatchError::Malformed("invalid patch format of primitive list".to_owned());
    let deleted = deleted.as_array().ok_or_else(malformed)?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

/// `$setElementOrder/containers: [{name: a}, {name: b}]`: merges those lists and puts them in that order.
fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    type_: Option<&str>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(PatchError::Malformed("invalid patch format of setElementOrder list".to_owned()));
        };
        let key = &directive[SET_ORDER.len()..];
        let (before, change) = (list_of(original.get(key))?, list_of(patch.get(key))?);
        patch.remove(key);
        let shape = type_.map_or(&Shape::Leaf, |type_| Types::get().shape(type_, key));
        let strategy = type_.map(|type_| strategy(type_, key)).unwrap_or_default();
        let merged = match (&before, change) {
            (None, None) => continue,
            (Some(before), None) => before.clone(),
            (before, Some(change)) => {
                order::check(&change, &order, strategy.merge_key)?;
                merge_list_field(before.clone().unwrap_or_default(), change, shape, strategy)?
            }
        };
        let server_order = before.unwrap_or_default();
        let arranged = order::arrange(merged, &order, &server_order, strategy.merge_key);
        original.insert(key.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

/// A field that must be a list if it is there; null counts as absent.
fn list_of(value: Option<&Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(_) => Err(PatchError::Malformed("invalid patch format of setElementOrder list".to_owned())),
    }
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Unprocessable(format!("map: {item} does not contain declared merge key: {key}"))
}

fn bad_directive(directive: &Value, patch: &Object) -> PatchError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    let patch = Value::Object(patch.clone());
    PatchError::Malformed(format!("unknown patch type: {directive} in map: {patch}"))
}
