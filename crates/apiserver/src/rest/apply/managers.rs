//! Who owns which fields: `metadata.managedFields` (KEP-555). Pure.
//!
//! Fields are tracked from the first time an object is applied server-side; what it had before belongs to
//! the manager `before-first-apply`, as upstream does for objects that were not tracked.

use super::field_set::FieldSet;
use super::shape::Node;
use super::tree;
use crate::failure::Failure;
use crate::resources::Resource;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    FieldsV1, ManagedFieldsEntry, Status, StatusCause, StatusDetails, Time,
};
use sagong_api::types::Types;
use serde_json::Value;

/// The manager of what was there before fields were tracked.
const BEFORE: &str = "before-first-apply";

/// Fields nobody owns: identity, and what only the server sets.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];

/// Who writes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) subresource: String,
}

/// The place of a whole object of a kind.
pub(super) fn root(resource: &Resource) -> Node {
    Types::get().root(&resource.id).map_or(Node::Leaf, Node::Struct)
}

/// The fields somebody may own.
pub(super) fn owned(mut set: FieldSet) -> FieldSet {
    for element in ["f:apiVersion", "f:kind"] {
        set.children.remove(element);
    }
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        for name in UNOWNED {
            metadata.children.remove(&format!("f:{name}"));
        }
        metadata.own = false;
    }
    set.children.retain(|_, below| !below.is_empty());
    set
}

/// One entry of the list.
struct Entry {
    manager: Manager,
    operation: String,
    api_version: String,
    time: Option<Time>,
    fields: FieldSet,
}

impl Entry {
    fn read(entry: &ManagedFieldsEntry) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            manager: Manager { name: text(&entry.manager), subresource: text(&entry.subresource) },
            operation: text(&entry.operation),
            api_version: text(&entry.api_version),
            time: entry.time.clone(),
            fields: entry
                .fields_v1
                .as_ref()
                .map(|fields| FieldSet::from_value(&fields.0))
                .unwrap_or_default(),
        }
    }

    fn write(self) -> ManagedFieldsEntry {
        let optional = |text: String| (!text.is_empty()).then_some(text);
        ManagedFieldsEntry {
            manager: optional(self.manager.name),
            subresource: optional(self.manager.subresource),
            operation: optional(self.operation),
            api_version: optional(self.api_version),
            time: self.time,
            fields_type: Some("FieldsV1".into()),
            fields_v1: Some(FieldsV1(self.fields.to_value())),
        }
    }

    fn is(&self, manager: &Manager, operation: &str) -> bool {
        self.manager == *manager && self.operation == operation
    }

    /// As conflicts name it.
    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager.name);
        if !self.manager.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.manager.subresource));
        }
        if self.operation == "Update" {
            text.push_str(&format!(" using {}", self.api_version));
            if let Some(Time(time)) = &self.time {
                text.push_str(&format!(" at {}", time.strftime("%Y-%m-%dT%H:%M:%SZ")));
            }
        }
        text
    }
}

/// Everyone who owns fields of an object.
pub(super) struct Managers(Vec<Entry>);

impl Managers {
    /// From an object's metadata; None when it is not tracked.
    fn read(entries: Option<&[ManagedFieldsEntry]>) -> Option<Self> {
        let entries = entries.filter(|entries| !entries.is_empty())?;
        Some(Self(entries.iter().map(Entry::read).collect()))
    }

    /// From the metadata of an object that is going to be tracked, and its content.
    pub(super) fn read_or_begin(
        entries: Option<&[ManagedFieldsEntry]>,
        resource: &Resource,
        live: &Value,
        now: Timestamp,
    ) -> Self {
        Self::read(entries).unwrap_or_else(|| {
            Self(vec![Entry {
                manager: Manager { name: BEFORE.into(), subresource: String::new() },
                operation: "Update".into(),
                api_version: resource.api_version.clone(),
                time: Some(Time(now)),
                fields: owned(tree::fields(root(resource), live)),
            }])
        })
    }

    /// Nobody yet: a new object.
    pub(super) fn nobody() -> Self {
        Self(Vec::new())
    }

    /// As metadata has it.
    pub(super) fn write(self) -> Vec<ManagedFieldsEntry> {
        self.0.into_iter().filter(|entry| !entry.fields.is_empty()).map(Entry::write).collect()
    }

    /// What a manager applied last.
    pub(super) fn applied(&self, manager: &Manager) -> FieldSet {
        let entry = self.0.iter().find(|entry| entry.is(manager, "Apply"));
        entry.map(|entry| entry.fields.clone()).unwrap_or_default()
    }

    /// What all but one manager's applying own.
    pub(super) fn others(&self, manager: &Manager) -> FieldSet {
        let others = self.0.iter().filter(|entry| !entry.is(manager, "Apply"));
        others.fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    /// Fails when others own some of these fields.
    pub(super) fn check_conflicts(&self, manager: &Manager, changed: &FieldSet) -> Result<(), Failure> {
        let mut conflicts = Vec::new();
        for entry in self.0.iter().filter(|entry| !entry.is(manager, "Apply")) {
            let paths = entry.fields.intersection(changed).paths();
            conflicts.extend(paths.into_iter().map(|path| (entry.shown(), path)));
        }
        if conflicts.is_empty() { Ok(()) } else { Err(conflict(&conflicts)) }
    }

    /// Takes these fields from all but one manager's applying.
    pub(super) fn take_from_others(&mut self, manager: &Manager, fields: &FieldSet) {
        for entry in self.0.iter_mut().filter(|entry| !entry.is(manager, "Apply")) {
            entry.fields = entry.fields.difference(fields);
        }
    }

    /// Makes these the fields a manager applied.
    pub(super) fn set_applied(
        &mut self,
        manager: &Manager,
        resource: &Resource,
        fields: FieldSet,
        now: Timestamp,
    ) {
        let unchanged = |entry: &Entry| entry.is(manager, "Apply") && entry.fields == fields;
        if self.0.iter().any(unchanged) {
            return;
        }
        self.0.retain(|entry| !entry.is(manager, "Apply"));
        self.0.push(Entry {
            manager: manager.clone(),
            operation: "Apply".into(),
            api_version: resource.api_version.clone(),
            time: Some(Time(now)),
            fields,
        });
    }

    /// Notes an update: the manager owns what it changed, and nobody what is gone.
    fn update(
        &mut self,
        manager: &Manager,
        resource: &Resource,
        changed: &FieldSet,
        gone: &FieldSet,
        now: Timestamp,
    ) {
        if changed.is_empty() && gone.is_empty() {
            return;
        }
        for entry in &mut self.0 {
            entry.fields = entry.fields.difference(gone);
            if !entry.is(manager, "Update") {
                entry.fields = entry.fields.difference(changed);
            }
        }
        if changed.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|entry| entry.is(manager, "Update")) {
            Some(entry) => {
                entry.fields = std::mem::take(&mut entry.fields).union(changed);
                entry.time = Some(Time(now));
            }
            None => self.0.push(Entry {
                manager: manager.clone(),
                operation: "Update".into(),
                api_version: resource.api_version.clone(),
                time: Some(Time(now)),
                fields: changed.clone(),
            }),
        }
    }
}

/// The managers of an object after an ordinary update from `old` to `new`; None when it is not tracked.
pub(crate) fn after_update(
    resource: &Resource,
    manager: &Manager,
    entries: Option<&[ManagedFieldsEntry]>,
    old: &Value,
    new: &Value,
    now: Timestamp,
) -> Option<Vec<ManagedFieldsEntry>> {
    let mut managers = Managers::read(entries)?;
    let (changed, gone) = tree::compare(root(resource), old, new);
    managers.update(manager, resource, &owned(changed), &owned(gone), now);
    Some(managers.write())
}

/// 409 with a cause for every field that somebody else owns.
fn conflict(conflicts: &[(String, String)]) -> Failure {
    let causes = conflicts.iter().map(|(manager, path)| StatusCause {
        reason: Some("FieldManagerConflict".into()),
        message: Some(format!("conflict with {manager}")),
        field: Some(path.clone()),
    });
    let message = match conflicts {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        several => {
            let mut lines: Vec<String> = Vec::new();
            for (manager, path) in several {
                let head = format!("conflicts with {manager}:");
                if !lines.contains(&head) {
                    lines.push(head);
                }
                lines.push(format!("- {path}"));
            }
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    Failure(Box::new(Status {
        status: Some("Failure".into()),
        code: Some(409),
        reason: Some("Conflict".into()),
        message: Some(message),
        details: Some(StatusDetails { causes: Some(causes.collect()), ..StatusDetails::default() }),
        ..Status::default()
    }))
}
