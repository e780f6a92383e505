//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge patch.

use crate::kind::Identity;
use serde_json::Value;

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not one: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// The patch cannot be applied to this object: 422 Invalid.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies a JSON Patch (RFC 6902).
pub fn json(_original: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    todo!()
}

/// Applies a JSON Merge Patch (RFC 7386).
pub fn merge(_original: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    todo!()
}

/// Applies a strategic merge patch to an object of that kind.
pub fn strategic(_kind: &Identity, _original: &Value, _patch: &[u8]) -> Result<Value, PatchError> {
    todo!()
}
