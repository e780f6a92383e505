//! The order of a merged list: items the patch names in the patch's order, the others in the server's, woven
//! together as the server had them.

use super::PatchError;
use super::strategic::{DIRECTIVE, SET_ORDER};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Arranges `merged`. `key` is the merge key; empty for lists of strings.
///
/// An item that the server did not have goes before the server's items that follow in neither list: with
/// server `[a]` and patch `[b]` the result is `[b, a]`, as upstream.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: &str,
) -> Vec<Value> {
    let named = |item: &Value| position(patch_order, item, key).is_some();
    let (mut of_patch, mut of_server): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(named);
    sort_by_position(&mut of_patch, patch_order, key);
    sort_by_position(&mut of_server, server_order, key);
    let mut arranged = Vec::with_capacity(of_patch.len() + of_server.len());
    let (mut of_patch, mut of_server) = (VecDeque::from(of_patch), VecDeque::from(of_server));
    while let (Some(server), Some(patch)) = (of_server.front(), of_patch.front()) {
        let places = position(server_order, server, key).zip(position(server_order, patch, key));
        let server_first = places.is_some_and(|(server, patch)| server < patch);
        arranged.extend(if server_first { of_server.pop_front() } else { of_patch.pop_front() });
    }
    arranged.extend(of_server);
    arranged.extend(of_patch);
    arranged
}

/// Sorts by the place in `order`; items that have none stay behind those that do, as they were.
fn sort_by_position(items: &mut [Value], order: &[Value], key: &str) {
    items.sort_by(|a, b| match (position(order, a, key), position(order, b, key)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() { a == b } else { a.get(key).is_some() && a.get(key) == b.get(key) }
}

/// Every item of the patch list must be in the order list, in the same order.
pub(super) fn check(patch: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    let mut places = order.iter();
    let directive = |item: &&Value| key.is_empty() || item.get(DIRECTIVE).is_none();
    if patch.iter().filter(directive).all(|item| places.any(|place| same(place, item, key))) {
        return Ok(());
    }
    let (patch, order) = (Value::from(patch), Value::from(order));
    Err(PatchError::Malformed(format!(
        "The order in patch list:\n{patch}\n doesn't match {SET_ORDER} list:\n{order}\n"
    )))
}
