//! Sets of fields, as `metadata.managedFields[].fieldsV1` has them.
//!
//! A set is a tree of path elements: `f:NAME` a field, `k:{KEYS}` an item of a list that is told from others by
//! keys, `v:VALUE` a member of a list that is a set. In JSON, `.` says that an element with elements below it
//! is itself in the set.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the place itself is in the set.
    pub(super) own: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of just this place.
    pub(super) fn leaf() -> Self {
        Self { own: true, children: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.children.values().all(Self::is_empty)
    }

    /// Puts a set below an element, unless it is empty.
    pub(super) fn put(&mut self, element: String, set: Self) {
        if !set.is_empty() {
            self.children.insert(element, set);
        }
    }

    /// What is in either.
    pub(super) fn union(mut self, other: &Self) -> Self {
        self.own |= other.own;
        for (element, theirs) in &other.children {
            let mine = self.children.remove(element).unwrap_or_default();
            self.children.insert(element.clone(), mine.union(theirs));
        }
        self
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.filtered(other, &|mine, theirs| mine && theirs.own)
    }

    /// What is in this and not in the other.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.filtered(other, &|mine, theirs| mine && !theirs.own)
    }

    /// What is in this while the other has neither it nor anything below it.
    pub(super) fn difference_below(&self, other: &Self) -> Self {
        self.filtered(other, &|mine, theirs| mine && theirs.is_empty())
    }

    fn filtered(&self, other: &Self, keep: &impl Fn(bool, &Self) -> bool) -> Self {
        let nothing = Self::default();
        let mut kept = Self { own: keep(self.own, other), children: BTreeMap::new() };
        for (element, mine) in &self.children {
            kept.put(element.clone(), mine.filtered(other.children.get(element).unwrap_or(&nothing), keep));
        }
        kept
    }

    /// As `fieldsV1`.
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        map.extend(self.children.iter().map(|(element, set)| (element.clone(), set.to_value())));
        Value::Object(map)
    }

    /// From `fieldsV1`.
    pub(super) fn from_value(value: &Value) -> Self {
        let mut set = Self::below(value);
        set.own = false;
        set
    }

    fn below(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::leaf() };
        let mut set = Self { own: map.is_empty() || map.contains_key("."), children: BTreeMap::new() };
        for (element, value) in map.iter().filter(|(element, _)| *element != ".") {
            set.children.insert(element.clone(), Self::below(value));
        }
        set
    }

    /// The paths in the set as errors show them: `.spec.template.spec.containers[name="main"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, at: &str, paths: &mut Vec<String>) {
        if self.own {
            paths.push(at.to_owned());
        }
        for (element, set) in &self.children {
            set.collect_paths(&format!("{at}{}", shown(element)), paths);
        }
    }
}

fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => element.to_owned(),
    }
}
