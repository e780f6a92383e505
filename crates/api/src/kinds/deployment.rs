//! `Deployment` of apps::v1.

use crate::field::{self, Errors, Path};
use crate::int_or_percent;
use crate::kind::{Column, Identity, Kind, Part, Scale, Subresources};
use crate::pod::print::container_cells;
use crate::pod::workload::{self, Counts};
use crate::pod::{defaults, is_same, warnings};
use crate::table::{self, AGE, NAME, string, wide};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

/// What is particular to `Deployment`.
pub struct DeploymentKind;

/// The share of pods more than wanted, and fewer, that a rolling update may reach when it does not say.
const ROLLING_SHARE: &str = "25%";

impl Kind for DeploymentKind {
    type Object = Deployment;

    fn identity(&self) -> Identity {
        Identity {
            group: "apps",
            version: "v1",
            kind: "Deployment",
            plural: "deployments",
            singular: "deployment",
            short_names: &["deploy"],
            categories: &["all"],
            namespaced: true,
        }
    }

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: true }
    }

    fn default(&self, deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        defaults::default_template(&mut spec.template);
        spec.replicas.get_or_insert(1);
        default_strategy(spec.strategy.get_or_insert_default());
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
    }

    fn prepare_create(&self, deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&self, new: &mut Deployment, old: &Deployment, part: Part) {
        match part {
            Part::Main => new.status.clone_from(&old.status),
            Part::Status => {
                new.spec.clone_from(&old.spec);
                new.metadata.labels.clone_from(&old.metadata.labels);
            }
        }
    }

    /// Annotations count too: upstream's controller copies them to ReplicaSets.
    fn spec_changed(&self, new: &Deployment, old: &Deployment) -> bool {
        !is_same(&new.spec, &old.spec) || new.metadata.annotations != old.metadata.annotations
    }

    fn validate_create(&self, deployment: &Deployment) -> Errors {
        deployment.spec.as_ref().map_or_else(Errors::new, |spec| validate_spec(spec, &Path::new("spec")))
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment, part: Part) -> Errors {
        match part {
            Part::Main => {
                let mut errors = self.validate_create(new);
                if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
                    let at = Path::new("spec").child("selector");
                    errors.extend(workload::validate_same_selector(&new.selector, &old.selector, &at));
                }
                errors
            }
            Part::Status => validate_status(new, old),
        }
    }

    fn warnings(&self, deployment: &Deployment) -> Vec<String> {
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        warnings::of_template(&deployment.metadata, template, &Path::new("spec").child("template"))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let spec = deployment.spec.as_ref();
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let (names, images) = container_cells(spec.and_then(|spec| spec.template.spec.as_ref()));
        vec![
            table::name(&deployment.metadata),
            json!(format!("{}/{wanted}", status.ready_replicas.unwrap_or(0))),
            json!(status.updated_replicas.unwrap_or(0)),
            json!(status.available_replicas.unwrap_or(0)),
            table::age(&deployment.metadata, now),
            json!(names),
            json!(images),
            json!(spec.map(|spec| workload::selector_text(&spec.selector)).unwrap_or_default()),
        ]
    }

    fn scale(&self, deployment: &Deployment) -> Option<Scale> {
        let spec = deployment.spec.as_ref()?;
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0),
            selector: workload::selector_text(&spec.selector),
        })
    }

    fn set_replicas(&self, deployment: &mut Deployment, replicas: i32) {
        deployment.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    string("Ready", "How many pods are ready, of how many wanted."),
    string("Up-to-date", "How many pods have the newest template (status.updatedReplicas)."),
    string("Available", "How many pods serve: ready for spec.minReadySeconds."),
    AGE,
    wide(string("Containers", "The names of the containers in the template.")),
    wide(string("Images", "The images of the containers in the template.")),
    wide(string("Selector", "The labels of the pods of this deployment (spec.selector).")),
];

fn default_strategy(strategy: &mut DeploymentStrategy) {
    defaults::fill(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        let share = || IntOrString::String(ROLLING_SHARE.to_owned());
        rolling.max_unavailable.get_or_insert_with(share);
        rolling.max_surge.get_or_insert_with(share);
    }
}

fn validate_spec(spec: &DeploymentSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    errors.extend(workload::not_negative(spec.replicas, &path.child("replicas")));
    errors.extend(workload::validate_selected_template(&spec.selector, Some(&spec.template), path));
    if let Some(strategy) = &spec.strategy {
        errors.extend(validate_strategy(strategy, &path.child("strategy")));
    }
    errors.extend(workload::not_negative(spec.min_ready_seconds, &path.child("minReadySeconds")));
    errors.extend(workload::not_negative(spec.revision_history_limit, &path.child("revisionHistoryLimit")));
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        errors.extend(workload::not_negative(Some(deadline), &at));
        if deadline <= spec.min_ready_seconds.unwrap_or(0) {
            errors.push(field::invalid(&at, deadline, "must be greater than minReadySeconds"));
        }
    }
    errors
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &Path) -> Errors {
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            vec![field::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'")]
        }
        ("Recreate", None) => Errors::new(),
        ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, &at),
        ("RollingUpdate", None) => {
            vec![field::required(&at, "this should be defaulted and never be nil")]
        }
        _ => vec![field::not_supported(path, strategy, &["Recreate", "RollingUpdate"])],
    }
}

fn validate_rolling(rolling: &RollingUpdateDeployment, path: &Path) -> Errors {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let at = path.child("maxUnavailable");
    let mut errors = validate_share(unavailable, &at);
    errors.extend(validate_share(surge, &path.child("maxSurge")));
    if share_value(unavailable) == 0 && share_value(surge) == 0 {
        errors.push(field::invalid(&at, unavailable, "may not be 0 when `maxSurge` is 0"));
    }
    if matches!(unavailable, IntOrString::String(_)) && share_value(unavailable) > 100 {
        errors.push(field::invalid(&at, unavailable, "must not be greater than 100%"));
    }
    errors
}

fn validate_share(share: &IntOrString, path: &Path) -> Errors {
    match share {
        IntOrString::Int(count) => workload::not_negative(Some(*count), path).into_iter().collect(),
        IntOrString::String(text) if is_percent(text) => Errors::new(),
        IntOrString::String(_) => vec![field::invalid(
            path,
            share,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
             regex used for validation is '[0-9]+%')",
        )],
    }
}

fn is_percent(text: &str) -> bool {
    text.strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The number before the percent sign, or the count itself; 0 for what is neither.
fn share_value(share: &IntOrString) -> i32 {
    int_or_percent::resolve(share, 100, int_or_percent::Round::Down).unwrap_or(0)
}

fn validate_status(new: &Deployment, old: &Deployment) -> Errors {
    let path = Path::new("status");
    let status = new.status.clone().unwrap_or_default();
    let counts = Counts {
        replicas: status.replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    };
    let mut errors = Errors::new();
    let updated = status.updated_replicas.unwrap_or(0);
    errors.extend(workload::not_negative(status.updated_replicas, &path.child("updatedReplicas")));
    errors.extend(workload::not_negative(status.unavailable_replicas, &path.child("unavailableReplicas")));
    errors.extend(workload::validate_counts(counts, status.observed_generation, &path));
    if updated > counts.replicas {
        let detail = "cannot be greater than status.replicas";
        errors.push(field::invalid(&path.child("updatedReplicas"), updated, detail));
    }
    let at = path.child("collisionCount");
    errors.extend(workload::not_negative(status.collision_count, &at));
    let before = old.status.as_ref().and_then(|status| status.collision_count);
    if let (Some(now), Some(before)) = (status.collision_count, before)
        && now < before
    {
        errors.push(field::invalid(&at, now, "cannot be decremented"));
    }
    errors
}

#[cfg(test)]
mod tests;
