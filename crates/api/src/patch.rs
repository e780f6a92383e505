//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! All three work on JSON trees, before the object is decoded: what a patch makes of an object is checked
//! like any other body.

mod json;
mod merge;
mod order;
mod strategic;
mod strategy;

pub use json::json;
pub use merge::merge;
pub use strategic::strategic;
pub use strategy::{Strategy, strategy};

use crate::error::ApiError;

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not one.
    #[error("{0}")]
    Malformed(String),
    /// The patch cannot be applied to this object.
    #[error("{0}")]
    Unprocessable(String),
}

impl From<PatchError> for ApiError {
    /// 400 BadRequest or 422 Invalid.
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(message) => Self::BadRequest(message),
            PatchError::Unprocessable(detail) => Self::Unprocessable(detail),
        }
    }
}

#[cfg(test)]
mod tests;
