//! The decision table for a Deployment: deleted, paused, rolled back, scaling, strategy.

use super::progress::{self, CREATE_FAILED, CREATED, FOUND, PROGRESSING, new_condition, set_condition};
use super::rolling_update::{self, Limits};
use super::snapshot::{Roles, Set, Snapshot, spec_of};
use super::{recreate, revision, rollback, scale, status, template_hash};
use crate::claim::{claim, controller_reference};
use crate::plan::{Append, Failure, KindRef, Note, Plan, Write, reference_to};
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// A plan in the making: how things are to become.
struct Draft<'a> {
    deployment: &'a Deployment,
    roles: Roles,
    status: DeploymentStatus,
    deletions: Vec<Write>,
    now: Timestamp,
}

/// Decides the next step of a Deployment.
pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let deployment = &*snapshot.deployment;
    let selector = Matcher::of(&spec_of(deployment).selector);
    if selector.is_nothing() {
        return refuse_to_select_all(deployment);
    }
    let claims = claim(deployment, &selector, snapshot.replica_sets.iter().cloned(), |_| true);
    if !claims.steps.is_empty() {
        // What is adopted has another version then, and is planned with once that is seen.
        return Plan { steps: claims.steps, ..Plan::default() };
    }
    let mut draft = Draft {
        deployment,
        roles: Roles::assign(deployment, claims.owned),
        status: deployment.status.clone().unwrap_or_default(),
        deletions: Vec::new(),
        now,
    };
    let mut plan = Plan::default();
    if deployment.metadata.deletion_timestamp.is_some() {
        draft.tell_only_counts(&mut plan);
        return plan;
    }
    progress::note_pause(deployment, &mut draft.status, now);
    draft.number_new();
    if spec_of(deployment).paused == Some(true) {
        scale::scale_into_room(deployment, &mut draft.roles, &snapshot.pods);
        // Not what is about to be rolled back to.
        if rollback::asked_for(deployment).is_none() {
            draft.deletions = revision::clean_up(deployment, &draft.roles);
        }
        draft.write_sets(&mut plan);
        draft.tell_only_counts(&mut plan);
        return plan;
    }
    if let Some(number) = rollback::asked_for(deployment) {
        draft.write_sets(&mut plan);
        rollback::roll_back(deployment, &draft.roles, number, &mut plan);
        return plan;
    }
    if scale::is_needed(deployment, &draft.roles) {
        let is_done = scale::scale_into_room(deployment, &mut draft.roles, &snapshot.pods);
        // Several ReplicaSets of a Recreate Deployment are not scaled but recreated.
        if !is_done || draft.roles.all().any(Set::is_changed) {
            draft.write_sets(&mut plan);
            draft.tell_only_counts(&mut plan);
            return plan;
        }
    }
    if recreate::is_strategy_of(deployment) {
        let has_old_pods = recreate::has_old_pods(&draft.roles, &snapshot.pods);
        if draft.recreate(has_old_pods, snapshot).is_err() {
            return draft.count_collision(plan);
        }
    } else if draft.roll(snapshot).is_err() {
        return draft.count_collision(plan);
    }
    let was_complete =
        deployment.status.as_ref().is_some_and(|status| progress::is_complete(deployment, status));
    if was_complete {
        draft.deletions = revision::clean_up(deployment, &draft.roles);
    }
    draft.write_sets(&mut plan);
    draft.tell_rollout(&mut plan);
    plan
}

/// Tells that the ReplicaSet could not be created.
pub fn after_failure(snapshot: &Snapshot, failure: &Failure, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let deployment = &*snapshot.deployment;
    let is_create = failure.verb == "create" && failure.kind == KindRef::of::<ReplicaSet>();
    // That the name is taken is a matter for the next plan, which sees by whom.
    if !is_create || failure.reason == "AlreadyExists" || progress::deadline(deployment).is_none() {
        return plan;
    }
    let message = create_failed(&failure.key.name) + &failure.message;
    let mut status = deployment.status.clone().unwrap_or_default();
    set_condition(&mut status, new_condition(PROGRESSING, "False", CREATE_FAILED, message, now));
    plan.then_all(tell(deployment, status, None));
    plan
}

fn create_failed(name: &str) -> String {
    format!("Failed to create new replica set \"{name}\": ")
}

fn refuse_to_select_all(deployment: &Deployment) -> Plan {
    let mut plan = Plan::default();
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation.unwrap_or(0) < deployment.metadata.generation.unwrap_or(0) {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.notes.push(Note::warning(&reference_to(deployment), "SelectingAll", message));
        status.observed_generation = deployment.metadata.generation;
        plan.then_all(tell(deployment, status, None));
    }
    plan
}

/// The name of the new ReplicaSet is taken by one with another template or owner.
struct Collision;

impl Draft<'_> {
    /// Numbers and annotates the new ReplicaSet if it exists.
    fn number_new(&mut self) {
        let greatest_old = self.roles.greatest_old_revision();
        let Some(new) = &mut self.roles.new else { return };
        revision::annotate(self.deployment, new, greatest_old);
        let min_ready_seconds = spec_of(self.deployment).min_ready_seconds.filter(|seconds| *seconds != 0);
        let own = new
            .object()
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .filter(|seconds| *seconds != 0);
        if own != min_ready_seconds {
            new.object_mut().spec.get_or_insert_default().min_ready_seconds = min_ready_seconds;
        }
        let is_told = progress::condition(&self.status, PROGRESSING).is_some();
        if !is_told && progress::deadline(self.deployment).is_some() {
            let message = format!("Found new replica set \"{}\"", new.name());
            set_condition(&mut self.status, new_condition(PROGRESSING, "True", FOUND, message, self.now));
        }
    }

    fn roll(&mut self, snapshot: &Snapshot) -> Result<(), Collision> {
        let limits = Limits::of(self.deployment);
        match &mut self.roles.new {
            Some(_) => {
                let size = rolling_update::new_size_in(&limits, &self.roles);
                self.resize_new(size, &limits);
            }
            None => {
                let size = rolling_update::new_size_in(&limits, &self.roles);
                self.create_new(size, &limits, snapshot)?;
            }
        }
        let sizes = rolling_update::old_sizes_in(&limits, &self.roles);
        for (set, size) in self.roles.old.iter_mut().zip(sizes) {
            if set.size() != size {
                scale::set_size(set, size, &limits);
            }
        }
        Ok(())
    }

    fn recreate(&mut self, has_old_pods: bool, snapshot: &Snapshot) -> Result<(), Collision> {
        let limits = Limits::of(self.deployment);
        self.roles
            .old
            .iter_mut()
            .filter(|set| set.size() > 0)
            .for_each(|set| scale::set_size(set, 0, &limits));
        if has_old_pods {
            return Ok(());
        }
        if self.roles.new.is_none() {
            return self.create_new(limits.wanted, &limits, snapshot);
        }
        self.resize_new(limits.wanted, &limits);
        Ok(())
    }

    fn resize_new(&mut self, size: i32, limits: &Limits) {
        if let Some(new) = &mut self.roles.new
            && new.size() != size
        {
            scale::set_size(new, size, limits);
        }
    }

    fn create_new(&mut self, size: i32, limits: &Limits, snapshot: &Snapshot) -> Result<(), Collision> {
        if snapshot.namesake.is_some() {
            return Err(Collision);
        }
        let mut new = Set::fresh(new_replica_set(self.deployment));
        scale::set_size(&mut new, size, limits);
        revision::annotate(self.deployment, &mut new, self.roles.greatest_old_revision());
        if progress::deadline(self.deployment).is_some() {
            let message = format!("Created new replica set \"{}\"", new.name());
            set_condition(&mut self.status, new_condition(PROGRESSING, "True", CREATED, message, self.now));
        }
        self.roles.new = Some(new);
        Ok(())
    }

    /// Another collision count gives another hash, and with it another name.
    fn count_collision(mut self, mut plan: Plan) -> Plan {
        self.status.collision_count = Some(self.status.collision_count.unwrap_or(0).saturating_add(1));
        plan.then_all(tell(self.deployment, self.status, None));
        plan
    }

    /// The new ReplicaSet first, then the old ones, then what history no longer needs.
    fn write_sets(&mut self, plan: &mut Plan) {
        let regarding = reference_to(self.deployment);
        let note = |set: &Set| {
            let (from, to) = (set.size_before(), set.size());
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.name());
            (from != to).then(|| Note::normal(&regarding, "ScalingReplicaSet", message))
        };
        let put = |set: &Set| Write { on_success: note(set), ..Write::update(set.object().clone()) };
        if let Some(new) = &self.roles.new {
            if new.is_fresh() {
                let failed = Note::warning(&regarding, CREATE_FAILED, create_failed(new.name()));
                let write =
                    Write::create(new.object().clone()).reporting_failure(failed.append(Append::Error));
                plan.then(Write { on_success: note(new), ..write });
            } else if new.is_changed() {
                plan.then(put(new));
            }
        }
        plan.then_all(self.roles.old.iter().filter(|set| set.is_changed()).map(put).collect());
        plan.then_all(std::mem::take(&mut self.deletions));
    }

    /// The status without a judgement of the rollout.
    fn tell_only_counts(self, plan: &mut Plan) {
        let status = status::of(self.deployment, &self.status, &self.roles, self.now);
        plan.then_all(tell(self.deployment, status, self.roles.new.as_ref()));
    }

    /// The status with a judgement of the rollout.
    fn tell_rollout(self, plan: &mut Plan) {
        let mut status = status::of(self.deployment, &self.status, &self.roles, self.now);
        let when = progress::assess(self.deployment, &self.status, &mut status, &self.roles, self.now);
        if let Some(when) = when {
            plan.look_again_at(when);
        }
        status::tell_failures(&mut status, &self.roles);
        plan.then_all(tell(self.deployment, status, self.roles.new.as_ref()));
    }
}

/// The one write of the status, with the revision of the new ReplicaSet as annotation; none if nothing differs.
fn tell(deployment: &Deployment, status: DeploymentStatus, new: Option<&Set>) -> Vec<Write> {
    let annotations = deployment.metadata.annotations.as_ref();
    let told = annotations.and_then(|annotations| annotations.get(revision::REVISION)).map(String::as_str);
    let revision =
        new.and_then(|new| new.annotation(revision::REVISION)).filter(|revision| Some(*revision) != told);
    if revision.is_none() && deployment.status.as_ref().is_some_and(|before| same(before, &status)) {
        return Vec::new();
    }
    let mut deployment = deployment.clone();
    if let Some(revision) = revision {
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(revision::REVISION.to_owned(), revision.to_owned());
    }
    deployment.status = Some(status);
    vec![Write::update_status(deployment)]
}

/// Whether two statuses mean the same: a count that is missing is 0.
fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let counts = |status: &DeploymentStatus| {
        [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.unavailable_replicas,
            status.collision_count,
        ]
        .map(Option::unwrap_or_default)
    };
    counts(a) == counts(b)
        && a.observed_generation.unwrap_or(0) == b.observed_generation.unwrap_or(0)
        && a.conditions.iter().flatten().eq(b.conditions.iter().flatten())
}

/// The ReplicaSet for the Deployment's template, without size and annotations.
fn new_replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = spec_of(deployment);
    let hash = template_hash::of(deployment);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(template_hash::LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let LabelSelector { match_labels, match_expressions } = spec.selector.clone();
    let mut match_labels = match_labels.unwrap_or_default();
    match_labels.insert(template_hash::LABEL.to_owned(), hash);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(template_hash::replica_set_name(deployment)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            // Scaled before it is written.
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds.filter(|seconds| *seconds != 0),
            selector: LabelSelector { match_labels: Some(match_labels), match_expressions },
            template: Some(template),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Key;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn now() -> Timestamp {
        "2024-01-01T10:00:00Z".parse().unwrap()
    }

    fn snapshot(change: impl FnOnce(&mut Value)) -> Snapshot {
        let mut value = json!({
            "metadata": {"name": "kubia", "namespace": "default", "uid": "d", "generation": 1,
                "annotations": {"kubernetes.io/change-cause": "because"}},
            "spec": {
                "replicas": 3, "minReadySeconds": 10, "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "kubia"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": {"app": "kubia"}},
                    "spec": {"containers": [{"name": "nodejs", "image": "v1"}]}},
            },
        });
        change(&mut value);
        let deployment = Arc::new(serde_json::from_value(value).unwrap());
        Snapshot { deployment, replica_sets: Vec::new(), pods: Vec::new(), namesake: None }
    }

    fn verbs(plan: &Plan) -> Vec<(&'static str, &'static str)> {
        plan.writes().map(|write| (write.verb.name(), write.kind.kind)).collect()
    }

    fn told(plan: &Plan) -> Deployment {
        plan.writes().find_map(|write| write.object::<Deployment>()).unwrap().clone()
    }

    #[test]
    fn the_first_plan_creates_a_set_and_tells_of_it() {
        let snapshot = snapshot(|_| {});
        let plan = plan(&snapshot, now());
        assert_eq!(verbs(&plan), [("create", "ReplicaSet"), ("update status", "Deployment")]);
        let hash = template_hash::of(&snapshot.deployment);
        let labels = json!({"app": "kubia", "pod-template-hash": hash});
        let set = plan.writes().find_map(|write| write.object::<ReplicaSet>()).unwrap();
        let expected = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": format!("kubia-{hash}"), "namespace": "default", "labels": labels,
                "annotations": {
                    "deployment.kubernetes.io/desired-replicas": "3",
                    "deployment.kubernetes.io/max-replicas": "4",
                    "deployment.kubernetes.io/revision": "1",
                    "kubernetes.io/change-cause": "because",
                },
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "kubia", "uid": "d",
                    "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": {
                "replicas": 3, "minReadySeconds": 10, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "nodejs", "image": "v1"}]}},
            },
        });
        assert_eq!(serde_json::to_value(set).unwrap(), expected);
        let deployment = told(&plan);
        assert_eq!(deployment.metadata.annotations.unwrap()[revision::REVISION], "1");
        let status = deployment.status.unwrap();
        assert_eq!((status.observed_generation, status.unavailable_replicas), (Some(1), Some(3)));
        let reasons: Vec<_> = status.conditions.unwrap().into_iter().filter_map(|c| c.reason).collect();
        assert_eq!(reasons, [CREATED, "MinimumReplicasUnavailable"]);
    }

    #[test]
    fn a_name_taken_by_another_counts_a_collision_and_changes_the_name() {
        let mut snapshot = snapshot(|_| {});
        let before = template_hash::replica_set_name(&snapshot.deployment);
        snapshot.namesake = Some(Arc::new(ReplicaSet::default()));
        let plan = plan(&snapshot, now());
        assert_eq!(verbs(&plan), [("update status", "Deployment")]);
        let deployment = told(&plan);
        assert_eq!(deployment.status.as_ref().unwrap().collision_count, Some(1));
        assert_ne!(template_hash::replica_set_name(&deployment), before);
    }

    #[test]
    fn a_set_that_cannot_be_created_is_told() {
        let snapshot = snapshot(|_| {});
        let mut failure = Failure {
            verb: "create",
            kind: KindRef::of::<ReplicaSet>(),
            key: Key::new("default", "kubia-x"),
            code: 403,
            reason: "Forbidden".into(),
            message: "exceeded quota".into(),
        };
        let status = told(&after_failure(&snapshot, &failure, now())).status.unwrap();
        let condition = progress::condition(&status, PROGRESSING).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some(CREATE_FAILED)));
        let message = "Failed to create new replica set \"kubia-x\": exceeded quota";
        assert_eq!(condition.message.as_deref(), Some(message));
        failure.reason = "AlreadyExists".into();
        assert!(after_failure(&snapshot, &failure, now()).is_idle(), "the next plan sees whose it is");
    }

    #[test]
    fn a_deployment_being_deleted_only_tells_its_status() {
        let mut snapshot = snapshot(|_| {});
        Arc::make_mut(&mut snapshot.deployment).metadata.deletion_timestamp = Some(Time(now()));
        assert_eq!(verbs(&plan(&snapshot, now())), [("update status", "Deployment")]);
    }

    #[test]
    fn an_empty_selector_is_refused_once() {
        let mut snapshot = snapshot(|value| value["spec"]["selector"] = json!({}));
        let refused = plan(&snapshot, now());
        assert_eq!(verbs(&refused), [("update status", "Deployment")]);
        assert_eq!(refused.notes[0].reason, "SelectingAll");
        snapshot.deployment = Arc::new(told(&refused));
        assert!(plan(&snapshot, now()).is_idle());
    }

    #[test]
    fn an_orphaned_set_with_the_template_is_adopted_and_becomes_the_new_one() {
        let mut snapshot = snapshot(|_| {});
        let mut orphan = new_replica_set(&snapshot.deployment);
        orphan.metadata.owner_references = None;
        orphan.metadata.name = Some("orphan".into());
        orphan.spec.as_mut().unwrap().replicas = Some(3);
        snapshot.replica_sets.push(Arc::new(orphan.clone()));
        let adopting = plan(&snapshot, now());
        assert_eq!(verbs(&adopting), [("patch", "ReplicaSet")]);
        assert!(adopting.steps[0].guard.is_some(), "only if the Deployment is still alive");

        orphan.metadata.owner_references = Some(vec![controller_reference(&*snapshot.deployment)]);
        snapshot.replica_sets = vec![Arc::new(orphan)];
        let plan = plan(&snapshot, now());
        assert_eq!(verbs(&plan), [("update", "ReplicaSet"), ("update status", "Deployment")]);
        let condition = told(&plan).status.unwrap().conditions.unwrap().remove(0);
        assert_eq!(condition.message.as_deref(), Some("Found new replica set \"orphan\""));
    }

    #[rstest]
    #[case::nothing_else(json!({}), 1)]
    #[case::a_rollback_waits(json!({rollback::ROLLBACK_TO: "1"}), 0)]
    fn a_paused_deployment_still_cleans_up_but_not_what_it_may_be_rolled_back_to(
        #[case] annotations: Value,
        #[case] deletions: usize,
    ) {
        let mut snapshot = snapshot(|value| {
            value["metadata"]["annotations"] = annotations;
            value["spec"]["paused"] = json!(true);
            value["spec"]["revisionHistoryLimit"] = json!(0);
        });
        let mut new = new_replica_set(&snapshot.deployment);
        new.spec.get_or_insert_default().replicas = Some(3);
        snapshot.replica_sets.push(Arc::new(new));
        let mut old = new_replica_set(&snapshot.deployment);
        old.metadata.name = Some("old".into());
        let spec = old.spec.get_or_insert_default();
        spec.replicas = Some(0);
        let of_template = spec.template.get_or_insert_default().spec.get_or_insert_default();
        of_template.containers[0].image = Some("v0".into());
        snapshot.replica_sets.push(Arc::new(old));
        let verbs = verbs(&plan(&snapshot, now()));
        assert_eq!(verbs.iter().filter(|(verb, _)| *verb == "delete").count(), deletions);
    }
}
