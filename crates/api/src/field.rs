//! Field paths and the errors validation reports, with upstream's wording
//! (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt;

/// The path of a field in an object, rendered as upstream does: `spec.template.spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// The path of a top-level field, or of the object itself when `name` is empty.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of a field of this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of an item of a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of an entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The object itself: upstream prints an empty index.
        f.write_str(if self.0.is_empty() { "[]" } else { &self.0 })
    }
}

/// What is wrong with a field. [`Cause::reason`] is the string in `Status.details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A value that must be given is missing.
    Required,
    /// The value is malformed.
    Invalid,
    /// The value is not one of the allowed ones.
    NotSupported,
    /// The value may not be given here.
    Forbidden,
    /// The value repeats one that must be unique.
    Duplicate,
    /// The value is longer than allowed.
    TooLong,
    /// The list has more items than allowed.
    TooMany,
    /// The value refers to something that does not exist.
    NotFound,
    /// The value has the wrong type.
    TypeInvalid,
}

impl Cause {
    /// The machine-readable reason, as in upstream's `field.ErrorType`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: Path,
    /// What kind of error.
    pub cause: Cause,
    /// The message without the path, e.g. `Invalid value: -1: must be greater than or equal to 0`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every error found in an object; empty when it is valid.
pub type Errors = Vec<FieldError>;

/// `Required value[: detail]`.
pub fn required(path: &Path, detail: &str) -> FieldError {
    let message =
        if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
    FieldError { path: path.clone(), cause: Cause::Required, message }
}

/// `Invalid value: VALUE: detail`, the value rendered as JSON (strings quoted, numbers bare).
pub fn invalid(path: &Path, value: impl serde::Serialize, detail: &str) -> FieldError {
    let message = format!("Invalid value: {}: {detail}", json(value));
    FieldError { path: path.clone(), cause: Cause::Invalid, message }
}

/// `Unsupported value: VALUE: supported values: "a", "b"`.
pub fn not_supported(path: &Path, value: impl serde::Serialize, supported: &[&str]) -> FieldError {
    let listed: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
    let message = format!("Unsupported value: {}: supported values: {}", json(value), listed.join(", "));
    FieldError { path: path.clone(), cause: Cause::NotSupported, message }
}

/// `Forbidden: detail`.
pub fn forbidden(path: &Path, detail: &str) -> FieldError {
    FieldError { path: path.clone(), cause: Cause::Forbidden, message: format!("Forbidden: {detail}") }
}

/// `Duplicate value: VALUE`.
pub fn duplicate(path: &Path, value: impl serde::Serialize) -> FieldError {
    let message = format!("Duplicate value: {}", json(value));
    FieldError { path: path.clone(), cause: Cause::Duplicate, message }
}

/// `Too long: may not be more than MAX bytes`.
pub fn too_long(path: &Path, max: usize) -> FieldError {
    let message = format!("Too long: may not be more than {max} bytes");
    FieldError { path: path.clone(), cause: Cause::TooLong, message }
}

/// `Too many: GIVEN: must have at most MAX items`.
pub fn too_many(path: &Path, given: usize, max: usize) -> FieldError {
    let message = format!("Too many: {given}: must have at most {max} items");
    FieldError { path: path.clone(), cause: Cause::TooMany, message }
}

/// `Not found: VALUE`.
pub fn not_found(path: &Path, value: impl serde::Serialize) -> FieldError {
    FieldError { path: path.clone(), cause: Cause::NotFound, message: format!("Not found: {}", json(value)) }
}

fn json(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_else(|_| "null".into())
}
