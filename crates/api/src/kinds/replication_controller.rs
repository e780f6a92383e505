//! `ReplicationController` of core::v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part, Scale, Subresources};
use crate::pod::print::{container_cells, labels};
use crate::pod::workload::{self, Counts};
use crate::pod::{defaults, is_same, warnings};
use crate::selector::Selector;
use crate::table::{self, AGE, NAME, integer, string, wide};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is particular to `ReplicationController`.
pub struct ReplicationControllerKind;

impl Kind for ReplicationControllerKind {
    type Object = ReplicationController;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "ReplicationController",
            plural: "replicationcontrollers",
            singular: "replicationcontroller",
            short_names: &["rc"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: true }
    }

    /// Unlike in apps/v1, the selector and the labels come from the template when they are not given.
    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.template.iter_mut().for_each(defaults::default_template);
        spec.replicas.get_or_insert(1);
        if let Some(of_template) = template_labels(spec.template.as_ref()).cloned() {
            if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
                spec.selector = Some(of_template.clone());
            }
            if controller.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
                controller.metadata.labels = Some(of_template);
            }
        }
    }

    fn prepare_create(&self, controller: &mut ReplicationController) {
        controller.status = Some(ReplicationControllerStatus::default());
    }

    fn prepare_update(&self, new: &mut ReplicationController, old: &ReplicationController, part: Part) {
        match part {
            Part::Main => new.status.clone_from(&old.status),
            Part::Status => new.spec.clone_from(&old.spec),
        }
    }

    fn spec_changed(&self, new: &ReplicationController, old: &ReplicationController) -> bool {
        !is_same(&new.spec, &old.spec)
    }

    fn validate_create(&self, controller: &ReplicationController) -> Errors {
        controller.spec.as_ref().map_or_else(Errors::new, |spec| validate_spec(spec, &Path::new("spec")))
    }

    fn validate_update(
        &self,
        new: &ReplicationController,
        _old: &ReplicationController,
        part: Part,
    ) -> Errors {
        match part {
            Part::Main => self.validate_create(new),
            Part::Status => validate_status(new),
        }
    }

    fn warnings(&self, controller: &ReplicationController) -> Vec<String> {
        let template = controller.spec.as_ref().and_then(|spec| spec.template.as_ref());
        warnings::of_template(&controller.metadata, template, &Path::new("spec").child("template"))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
        let spec = controller.spec.as_ref();
        let status = controller.status.clone().unwrap_or_default();
        let template = spec.and_then(|spec| spec.template.as_ref());
        let (names, images) = container_cells(template.and_then(|template| template.spec.as_ref()));
        vec![
            table::name(&controller.metadata),
            json!(spec.and_then(|spec| spec.replicas).unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            table::age(&controller.metadata, now),
            json!(names),
            json!(images),
            json!(labels(spec.and_then(|spec| spec.selector.as_ref()))),
        ]
    }

    fn selectable_fields(&self, controller: &ReplicationController) -> Vec<(&'static str, String)> {
        let replicas = controller.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", replicas.to_string())]
    }

    fn scale(&self, controller: &ReplicationController) -> Option<Scale> {
        let spec = controller.spec.as_ref()?;
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: controller.status.as_ref().map_or(0, |status| status.replicas),
            selector: Selector::from_labels(spec.selector.as_ref().unwrap_or(&BTreeMap::new())).to_string(),
        })
    }

    fn set_replicas(&self, controller: &mut ReplicationController, replicas: i32) {
        controller.spec.get_or_insert_default().replicas = Some(replicas);
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
    wide(string("Selector", "The labels of the pods of this controller (spec.selector).")),
];

fn template_labels(template: Option<&PodTemplateSpec>) -> Option<&BTreeMap<String, String>> {
    template?.metadata.as_ref()?.labels.as_ref()
}

fn validate_spec(spec: &ReplicationControllerSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    errors.extend(workload::not_negative(spec.min_ready_seconds, &path.child("minReadySeconds")));
    let nothing = BTreeMap::new();
    let selector = spec.selector.as_ref().unwrap_or(&nothing);
    if selector.is_empty() {
        errors.push(field::required(&path.child("selector"), ""));
    }
    errors.extend(workload::not_negative(spec.replicas, &path.child("replicas")));
    let at = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(field::required(&at, ""));
        return errors;
    };
    let labels = template_labels(Some(template)).unwrap_or(&nothing);
    if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        errors.push(workload::selector_mismatch(template, &at));
    }
    errors.extend(workload::validate_template(template, "ReplicationController", &at));
    errors
}

fn validate_status(controller: &ReplicationController) -> Errors {
    let path = Path::new("status");
    let status = controller.status.clone().unwrap_or_default();
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
