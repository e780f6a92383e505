//! JSON Patch (RFC 6902): a list of operations, all or none.

use super::PatchError;
use json_patch::jsonptr::Pointer;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// The most operations a patch may have, as upstream.
const OPERATIONS_MAX: usize = 10_000;
/// The most bytes that `copy` operations may copy in total: without a limit, thirty of them make gigabytes.
const COPIED_MAX: usize = 3 * 1024 * 1024;
/// How deep a patch may make a document. Bodies cannot be deeper than this either.
const DEPTH_MAX: usize = 128;

/// Applies a JSON Patch.
///
/// # Errors
/// Malformed: the patch is not a list of operations. Unprocessable: one of them cannot be carried out, a
/// `test` failed, or the result would be too large.
pub fn json(original: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: Patch = serde_json::from_slice(patch)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    if patch.len() > OPERATIONS_MAX {
        let count = patch.len();
        let detail =
            format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(PatchError::Malformed(detail));
    }
    let mut patched = original.clone();
    let mut copied = 0;
    for (index, operation) in patch.0.into_iter().enumerate() {
        check_growth(&patched, &operation, &mut copied)?;
        let failed = |error: json_patch::PatchError| {
            let detail = format!("operation {index} at path \"{}\": {}", error.path, error.kind);
            PatchError::Unprocessable(detail)
        };
        json_patch::patch(&mut patched, std::slice::from_ref(&operation)).map_err(failed)?;
    }
    Ok(patched)
}

/// Refuses an operation that would make the document too large or too deep.
fn check_growth(document: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), PatchError> {
    let (path, value) = match operation {
        PatchOperation::Add(add) => (&add.path, Some(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value)),
        PatchOperation::Move(move_) => (&move_.path, resolve(document, &move_.from)),
        PatchOperation::Copy(copy) => {
            let value = resolve(document, &copy.from);
            *copied += value.map_or(0, |value| value.to_string().len());
            (&copy.path, value)
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if *copied > COPIED_MAX {
        let detail = format!("copy operations may not copy more than {COPIED_MAX} bytes");
        return Err(PatchError::Unprocessable(detail));
    }
    let left = DEPTH_MAX.checked_sub(path.count());
    if left.is_none_or(|left| value.is_some_and(|value| deeper_than(value, left))) {
        let detail = format!("a patch may not nest values more than {DEPTH_MAX} deep");
        return Err(PatchError::Unprocessable(detail));
    }
    Ok(())
}

fn resolve<'a>(document: &'a Value, from: &Pointer) -> Option<&'a Value> {
    document.pointer(from.as_str())
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    let below = |inner: &Value| levels == 0 || deeper_than(inner, levels - 1);
    match value {
        Value::Array(items) => items.iter().any(below),
        Value::Object(fields) => fields.values().any(below),
        _ => false,
    }
}
