//! Which objects of a collection a client asks for.

use crate::failure::{Failure, Outcome};
use crate::query::Query;
use crate::resources::Resource;
use crate::wire::Stored;
use sagong_api::selector::{FieldSelector, Selector};
use sagong_store::Entry;
use serde::Deserialize;
use std::any::Any;
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
    labels: BTreeMap<String, String>,
    name: String,
    namespace: String,
    fields: OnceLock<Vec<(&'static str, String)>>,
}

#[derive(Deserialize)]
struct Shell {
    metadata: ShellMeta,
}

#[derive(Deserialize)]
struct ShellMeta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Selectable {
    fn of(entry: &Entry) -> Arc<dyn Any + Send + Sync> {
        let selectable = match serde_json::from_slice::<Shell>(&entry.value) {
            Ok(Shell { metadata: m }) => {
                Self { labels: m.labels, name: m.name, namespace: m.namespace, fields: OnceLock::new() }
            }
            Err(_) => Self::default(),
        };
        Arc::new(selectable)
    }

    /// The values field selectors see. Needs the typed object, and so is computed only when asked for.
    fn fields(&self, resource: &Resource, entry: &Arc<Entry>) -> &[(&'static str, String)] {
        self.fields.get_or_init(|| {
            let mut fields =
                vec![("metadata.name", self.name.clone()), ("metadata.namespace", self.namespace.clone())];
            if let Ok(object) = resource.decode_stored(&Stored::from(entry)) {
                fields.extend(resource.kind().selectable_fields(object.as_ref()));
            }
            fields
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
        let memo = entry.memo.get_or_init(|| Selectable::of(entry));
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
