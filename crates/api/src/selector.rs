//! Label and field selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;
use std::fmt;

/// Why a selector could not be understood, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self {}
    }
    /// Matches no object.
    pub fn nothing() -> Self {
        Self {}
    }
    /// Reads `a=b,c!=d,e in (x,y),!f,g,h>1`.
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        todo!()
    }
    /// From the struct in specs. An empty one matches everything.
    pub fn from_label_selector(_selector: &LabelSelector) -> Result<Self, SelectorError> {
        todo!()
    }
    /// All of these labels (`spec.selector` of services and replication controllers).
    pub fn from_labels(_labels: &BTreeMap<String, String>) -> Self {
        todo!()
    }
    /// Whether the labels match.
    pub fn matches(&self, _labels: &BTreeMap<String, String>) -> bool {
        todo!()
    }
    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        todo!()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// A field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {}

impl FieldSelector {
    /// Reads `a=b,c!=d`.
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        todo!()
    }
    /// `field label not supported: X` when it asks for a path that is not in `supported`.
    pub fn check_supported(&self, _supported: &[&str]) -> Result<(), SelectorError> {
        todo!()
    }
    /// Whether the values match; a path that is not listed counts as empty.
    pub fn matches(&self, _fields: &[(&str, String)]) -> bool {
        todo!()
    }
    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        todo!()
    }
    /// The value this path must equal, if there is such a requirement (to use an index).
    pub fn required_value(&self, _path: &str) -> Option<&str> {
        todo!()
    }
}
