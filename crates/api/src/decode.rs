//! Reading request bodies: strictly (every unknown and every repeated field is told), yet forgiving where
//! upstream is (null is the same as leaving out).

mod duplicates;
mod explain;

use crate::error::ApiError;
use crate::kind::{DecodeError, FieldIssue, Identity};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

/// Reads a value of any type. The issues (unknown and repeated fields) are for
/// `fieldValidation=Strict|Warn` and do not stop it.
///
/// # Errors
/// Malformed JSON, with line and column; a value of the wrong type, with its path, in upstream's form.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<(T, Vec<FieldIssue>), DecodeError> {
    decode_root(json, None)
}

/// The same for a type whose schema name is known, so that errors can name the struct a field is in.
pub(crate) fn decode_root<T: DeserializeOwned>(
    json: &[u8],
    root: Option<&str>,
) -> Result<(T, Vec<FieldIssue>), DecodeError> {
    let mut json = std::borrow::Cow::Borrowed(json);
    for _ in 0..NULLS_MAX {
        let error = match read(&json) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let Some(without_null) = replace_null(&json, &error).or_else(|| add_times(&json)) else {
            return Err(explain::explain(&error, root));
        };
        json = without_null.into();
    }
    read(&json).map_err(|error| explain::explain(&error, root))
}

/// The same of a tree that need not be written out first, unless there is something wrong with it.
pub(crate) fn decode_tree<T: DeserializeOwned>(
    tree: &Value,
    root: &str,
) -> Result<(T, Vec<FieldIssue>), DecodeError> {
    let mut issues = Vec::new();
    let unknown = |path: serde_ignored::Path<'_>| issues.push(FieldIssue::Unknown(upstream_path(&path)));
    match serde_ignored::deserialize(tree, unknown) {
        Ok(value) => Ok((value, issues)),
        Err(_) => decode_root(tree.to_string().as_bytes(), Some(root)),
    }
}

/// Reads an object that this server wrote itself, without looking for issues.
///
/// # Errors
/// The bytes are not what was written.
pub fn decode_stored<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(json).map_err(|error| DecodeError { message: error.to_string() })
}

type PathError = serde_path_to_error::Error<serde_json::Error>;

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<(T, Vec<FieldIssue>), PathError> {
    let mut issues = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let unknown = |path: serde_ignored::Path<'_>| issues.push(FieldIssue::Unknown(upstream_path(&path)));
    // The fast way first: remembering the path is only worth its price when there is an error to show.
    let value = match serde_ignored::deserialize(&mut reader, unknown) {
        Ok(value) => value,
        Err(_) => return Err(path_error::<T>(json)),
    };
    if reader.end().is_err() {
        return Err(path_error::<T>(json));
    }
    issues.extend(duplicates::find(json).into_iter().map(FieldIssue::Duplicate));
    Ok((value, issues))
}

/// Reads again, remembering the path, to say where it fails.
fn path_error<T: DeserializeOwned>(json: &[u8]) -> PathError {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
    match read.map(|_| reader.end()) {
        Err(error) => error,
        Ok(end) => {
            let error = end.err().unwrap_or_else(|| serde::de::Error::custom("unexpected value"));
            PathError::new(serde_path_to_error::Track::new().path(), error)
        }
    }
}

/// `spec.template.spec.containers[0].imagee`.
fn upstream_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", upstream_path(parent)),
        Path::Map { parent, key } => match upstream_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            upstream_path(parent)
        }
    }
}

/// How many nulls in maps and lists are forgiven.
const NULLS_MAX: usize = 32;

/// The body with the null the error is about replaced by the empty value of its type: in maps and lists
/// upstream reads null so. None if the error is about something else.
fn replace_null(json: &[u8], error: &PathError) -> Option<Vec<u8>> {
    let message = error.inner().to_string();
    let expected = message.strip_prefix("invalid type: null, expected ")?;
    let empty = match expected.split(" at line ").next()? {
        "a string" => Value::from(""),
        "a boolean" => Value::from(false),
        "i32" | "i64" => Value::from(0),
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Value::Object(serde_json::Map::new()),
        _ => return None,
    };
    let mut body: Value = serde_json::from_slice(json).ok()?;
    let place = error.path().iter().try_fold(&mut body, |place, segment| match segment {
        Segment::Seq { index } => place.get_mut(*index),
        Segment::Map { key } => place.get_mut(key.as_str()),
        Segment::Enum { .. } | Segment::Unknown => None,
    })?;
    if !place.is_null() {
        return None;
    }
    *place = empty;
    serde_json::to_vec(&body).ok()
}

/// When something happened that nobody gave a time for: Go's zero time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The body with a time in every condition of the status that has none, which is no error upstream. None if all
/// have one.
fn add_times(json: &[u8]) -> Option<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(json).ok()?;
    let mut added = false;
    for condition in body.pointer_mut("/status/conditions")?.as_array_mut()? {
        let time = condition.as_object_mut()?.entry("lastTransitionTime").or_insert(Value::Null);
        if time.is_null() {
            *time = Value::from(NO_TIME);
            added = true;
        }
    }
    if added { serde_json::to_vec(&body).ok() } else { None }
}

/// The answer to a body that could not be read as an object of that kind.
pub fn bad_request(kind: &Identity, error: &DecodeError) -> ApiError {
    ApiError::BadRequest(cannot_be_handled(kind, &error.message))
}

/// The answer to a body with issues under `fieldValidation=Strict`.
pub fn strict_error(kind: &Identity, issues: &[FieldIssue]) -> ApiError {
    let issues: Vec<String> = issues.iter().map(ToString::to_string).collect();
    let detail = format!("strict decoding error: {}", issues.join(", "));
    ApiError::BadRequest(cannot_be_handled(kind, &detail))
}

fn cannot_be_handled(kind: &Identity, detail: &str) -> String {
    let name = kind.kind;
    format!("{name} in version \"{}\" cannot be handled as a {name}: {detail}", kind.version)
}

#[cfg(test)]
mod tests;
