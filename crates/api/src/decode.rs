//! Strict decoding of request bodies.

use crate::kind::{DecodeError, FieldIssue};
use serde::de::DeserializeOwned;

/// Reads an object. The issues (unknown and duplicate fields) are for `fieldValidation=Strict|Warn`.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<(T, Vec<FieldIssue>), DecodeError> {
    let mut issues = Vec::new();
    let mut de = serde_json::Deserializer::from_slice(json);
    let value =
        serde_ignored::deserialize(&mut de, |path| issues.push(FieldIssue::Unknown(path.to_string())))
            .map_err(|e| DecodeError { message: e.to_string() })?;
    de.end().map_err(|e| DecodeError { message: e.to_string() })?;
    Ok((value, issues))
}
