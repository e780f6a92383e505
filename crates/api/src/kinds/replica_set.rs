//! `ReplicaSet` of apps::v1.

use crate::field::{Errors, Path};
use crate::kind::{Column, Identity, Kind, Part, Scale, Subresources};
use crate::pod::print::container_cells;
use crate::pod::workload::{self, Counts};
use crate::pod::{defaults, is_same, warnings};
use crate::selector;
use crate::table::{self, AGE, NAME, integer, string, wide};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use serde_json::{Value, json};

/// What is particular to `ReplicaSet`.
pub struct ReplicaSetKind;

impl Kind for ReplicaSetKind {
    type Object = ReplicaSet;

    fn identity(&self) -> Identity {
        Identity {
            group: "apps",
            version: "v1",
            kind: "ReplicaSet",
            plural: "replicasets",
            singular: "replicaset",
            short_names: &["rs"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: true }
    }

    fn default(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.template.iter_mut().for_each(defaults::default_template);
        spec.replicas.get_or_insert(1);
    }

    fn prepare_create(&self, set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
    }

    fn prepare_update(&self, new: &mut ReplicaSet, old: &ReplicaSet, part: Part) {
        match part {
            Part::Main => new.status.clone_from(&old.status),
            Part::Status => new.spec.clone_from(&old.spec),
        }
    }

    fn spec_changed(&self, new: &ReplicaSet, old: &ReplicaSet) -> bool {
        !is_same(&new.spec, &old.spec)
    }

    fn validate_create(&self, set: &ReplicaSet) -> Errors {
        set.spec.as_ref().map_or_else(Errors::new, |spec| validate_spec(spec, &Path::new("spec")))
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet, part: Part) -> Errors {
        match part {
            Part::Main => {
                let mut errors = self.validate_create(new);
                if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
                    let at = Path::new("spec").child("selector");
                    errors.extend(workload::validate_same_selector(&new.selector, &old.selector, &at));
                }
                errors
            }
            Part::Status => validate_status(new),
        }
    }

    fn warnings(&self, set: &ReplicaSet) -> Vec<String> {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        warnings::of_template(&set.metadata, template, &Path::new("spec").child("template"))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let status = set.status.clone().unwrap_or_default();
        let template = spec.and_then(|spec| spec.template.as_ref());
        let (names, images) = container_cells(template.and_then(|template| template.spec.as_ref()));
        vec![
            table::name(&set.metadata),
            json!(spec.and_then(|spec| spec.replicas).unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            table::age(&set.metadata, now),
            json!(names),
            json!(images),
            json!(selector::shown(spec.map(|spec| &spec.selector))),
        ]
    }

    fn selectable_fields(&self, set: &ReplicaSet) -> Vec<(&'static str, String)> {
        let replicas = set.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", replicas.to_string())]
    }

    fn scale(&self, set: &ReplicaSet) -> Option<Scale> {
        let spec = set.spec.as_ref()?;
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: set.status.as_ref().map_or(0, |status| status.replicas),
            selector: workload::selector_text(&spec.selector),
        })
    }

    fn set_replicas(&self, set: &mut ReplicaSet, replicas: i32) {
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    integer("Desired", "How many pods are wanted (spec.replicas)."),
    integer("Current", "How many pods there are (status.replicas)."),
    integer("Ready", "How many pods are ready (status.readyReplicas)."),
    AGE,
    wide(string("Containers", "The names of the containers in the template.")),
    wide(string("Images", "The images of the containers in the template.")),
    wide(string("Selector", "The labels of the pods of this replica set (spec.selector).")),
];

fn validate_spec(spec: &ReplicaSetSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    errors.extend(workload::not_negative(spec.replicas, &path.child("replicas")));
    errors.extend(workload::not_negative(spec.min_ready_seconds, &path.child("minReadySeconds")));
    errors.extend(workload::validate_selected_template(&spec.selector, spec.template.as_ref(), path));
    errors
}

fn validate_status(set: &ReplicaSet) -> Errors {
    let path = Path::new("status");
    let status = set.status.clone().unwrap_or_default();
    let counts = Counts {
        replicas: status.replicas,
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    };
    let mut errors = workload::validate_counts(counts, status.observed_generation, &path);
    errors.extend(workload::validate_labeled(status.fully_labeled_replicas, counts, &path));
    errors
}

#[cfg(test)]
mod tests;
