//! JSON Merge Patch (RFC 7386): objects merge, null deletes, everything else replaces.

use super::PatchError;
use serde_json::Value;

/// Applies a JSON Merge Patch.
///
/// # Errors
/// The patch is not JSON, or not an object.
pub fn merge(original: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = parse_object(patch)?;
    let mut merged = original.clone();
    json_patch::merge(&mut merged, &patch);
    Ok(merged)
}

/// A body that must be a JSON object.
pub(super) fn parse_object(patch: &[u8]) -> Result<Value, PatchError> {
    let malformed = |detail: String| PatchError::Malformed(format!("error decoding patch: {detail}"));
    let patch: Value = serde_json::from_slice(patch).map_err(|error| malformed(error.to_string()))?;
    if patch.is_object() { Ok(patch) } else { Err(malformed("expected a JSON object".to_owned())) }
}
