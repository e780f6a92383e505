//! Which objects of a collection a client asks for.

use crate::failure::{Failure, Outcome};
use crate::query::Query;
use crate::resources::Resource;
use crate::wire::Stored;
use sagong_api::selector::{FieldSelector, Selector, Values};
use sagong_store::{Entry, Memo};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A label and a field selector together.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: Selector,
    fields: FieldSelector,
}

/// What selectors look at, derived from an entry once and kept with it.
#[derive(Debug, Default)]
struct Selectable {
    labels: Pairs,
    fields: OnceLock<Pairs>,
}

/// Names with values. There is one for each version of each object, so it is small: two labels take some 100 bytes,
/// where a map of strings takes 700.
#[derive(Debug, Default)]
struct Pairs {
    /// Name, value, name, value, ….
    text: Box<str>,
    /// Where each of these ends in the text.
    ends: Box<[u32]>,
}

impl<'a> FromIterator<(&'a str, &'a str)> for Pairs {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(pairs: T) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for part in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
            text.push_str(part);
            // An object of 4 GiB does not get past the limit of a body.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self { text: text.as_str().into(), ends: ends.as_slice().into() }
    }
}

impl Values for Pairs {
    fn value(&self, name: &str) -> Option<&str> {
        let mut start = 0;
        let mut parts = self.ends.iter().map(|&end| {
            let part = self.text.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            part
        });
        while let (Some(own), Some(value)) = (parts.next(), parts.next()) {
            if own == name {
                return Some(value);
            }
        }
        None
    }
}

#[derive(Deserialize)]
struct Shell<'a> {
    #[serde(borrow)]
    metadata: ShellMeta<'a>,
}

#[derive(Deserialize)]
struct ShellMeta<'a> {
    #[serde(borrow, default)]
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Selectable {
    fn of(value: &[u8]) -> Memo {
        let labels = match serde_json::from_slice::<Shell<'_>>(value) {
            Ok(shell) => shell.metadata.labels.iter().map(|(key, value)| (&**key, &**value)).collect(),
            Err(_) => Pairs::default(),
        };
        Arc::new(Self { labels, fields: OnceLock::new() })
    }

    /// The values field selectors see. Needs the typed object, and so is computed only when asked for.
    fn fields(&self, resource: &Resource, entry: &Arc<Entry>) -> &Pairs {
        self.fields.get_or_init(|| {
            let Ok(object) = resource.decode_stored(&Stored::from(entry)) else { return Pairs::default() };
            let meta = object.metadata();
            let common =
                [("metadata.name", meta.name.as_deref()), ("metadata.namespace", meta.namespace.as_deref())];
            let own = resource.kind().selectable_fields(object.as_ref());
            let common = common.into_iter().map(|(path, value)| (path, value.unwrap_or_default()));
            let all = common.chain(own.iter().map(|(path, value)| (*path, value.as_str())));
            // To a field selector a value that is missing is the same as an empty one.
            all.filter(|(_, value)| !value.is_empty()).collect()
        })
    }
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    pub(crate) fn parse(query: &Query, resource: &Resource) -> Outcome<Self> {
        Self::with_fields(query, resource, query.get("fieldSelector").unwrap_or("").to_owned())
    }

    /// The same for one object, which the URL names (`/pods/NAME?watch=true`).
    pub(crate) fn of_one(query: &Query, resource: &Resource, name: &str) -> Outcome<Self> {
        let given = query.get("fieldSelector").map(|fields| format!("{fields},")).unwrap_or_default();
        Self::with_fields(query, resource, format!("{given}metadata.name={name}"))
    }

    fn with_fields(query: &Query, resource: &Resource, fields: String) -> Outcome<Self> {
        let labels = Selector::parse(query.get("labelSelector").unwrap_or(""))
            .map_err(|error| Failure::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields =
            FieldSelector::parse(&fields).map_err(|error| Failure::bad_request(error.to_string()))?;
        if !fields.is_everything() {
            fields
                .check_supported(&supported_fields(resource))
                .map_err(|error| Failure::bad_request(error.to_string()))?;
        }
        Ok(Self { labels, fields })
    }

    /// Whether nothing is filtered out.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// What the store keys of all objects that can match begin with: one key, when a name is asked for.
    /// (Keys that one is a prefix of begin so too; [`Selection::matches`] sorts them out.)
    pub(crate) fn prefix(&self, resource: &Resource, namespace: Option<&str>) -> String {
        match self.fields.required_value("metadata.name") {
            Some(name) if namespace.is_some() || !resource.id.namespaced => resource.key(namespace, name),
            _ => resource.prefix(namespace),
        }
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, resource: &Resource, entry: &Arc<Entry>) -> bool {
        if self.is_everything() {
            return true;
        }
        let memo = entry.memo(|value| Selectable::of(value));
        let Some(selectable) = memo.downcast_ref::<Selectable>() else { return false };
        self.labels.matches(&selectable.labels)
            && (self.fields.is_everything() || self.fields.matches(selectable.fields(resource, entry)))
    }
}

/// The paths a kind can be selected by: those an empty object has values for.
fn supported_fields(resource: &Resource) -> Vec<&'static str> {
    let mut paths = vec!["metadata.name", "metadata.namespace"];
    let empty = format!(
        r#"{{"apiVersion":"{}","kind":"{}","metadata":{{}}}}"#,
        resource.api_version, resource.id.kind
    );
    if let Ok((object, _)) = resource.kind().decode(empty.as_bytes()) {
        paths.extend(resource.kind().selectable_fields(object.as_ref()).iter().map(|(path, _)| *path));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pairs_hold_what_a_map_would(map in btree_map(".{0,4}", ".{0,4}", 0..6), other in ".{0,4}") {
            let pairs: Pairs = map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            for name in map.keys().chain([&other]) {
                prop_assert_eq!(pairs.value(name), map.value(name));
            }
        }
    }
}
