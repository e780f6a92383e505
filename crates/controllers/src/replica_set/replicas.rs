//! What ReplicaSets and ReplicationControllers have in common, which is nearly all.

use super::ranking;
use super::status::{self, Counts, FailureCondition, Status};
use crate::cache::{Change, Key, controller_of};
use crate::caches::Caches;
use crate::claim::{claim, controller_reference};
use crate::plan::{Append, Failure, KindRef, Note, Plan, Step, Write, reference_to};
use crate::pod::{self, Sketch};
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use sagong_api::kind::TypedObject;
use std::sync::Arc;

/// Pods created or deleted by one plan at most; the next plan goes on.
const BURST: usize = 500;

/// A kind that keeps a number of pods of one template.
pub trait Replicated: TypedObject {
    /// `spec.replicas`.
    fn wanted(&self) -> i32;
    /// `spec.minReadySeconds`.
    fn min_ready_seconds(&self) -> i32;
    /// `spec.selector`.
    fn matcher(&self) -> Matcher;
    /// `spec.template`.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// `status`.
    fn status(&self) -> Status;
    /// The same object with another status.
    fn with_status(&self, status: Status) -> Self;
}

/// What a plan depends on.
pub struct Snapshot<O> {
    /// The ReplicaSet or ReplicationController.
    pub owner: Arc<O>,
    /// The active pods that it controls, or that match and that nobody controls.
    pub pods: Vec<Arc<Sketch>>,
    /// When pods are to be deleted: those that count as a crowd on a node.
    pub related: Vec<Arc<Sketch>>,
}

/// Takes a snapshot; `related` is only asked for when pods are to be deleted.
pub fn observe<O: Replicated>(
    caches: &Caches,
    owner: &Arc<O>,
    related: impl FnOnce() -> Vec<Arc<Sketch>>,
) -> Snapshot<O> {
    let meta = owner.metadata();
    let matcher = owner.matcher();
    let mut pods = caches.pods.controlled_by(meta.uid.as_deref().unwrap_or_default());
    let orphans = caches.pods.uncontrolled(meta.namespace.as_deref().unwrap_or_default());
    pods.extend(orphans.into_iter().filter(|pod| matcher.matches(&pod.metadata)));
    pods.retain(pod::is_active);
    let too_many = status::to_count(pods.len()) > owner.wanted() && meta.deletion_timestamp.is_none();
    let mut related = if too_many { related() } else { Vec::new() };
    if too_many && related.is_empty() {
        related.clone_from(&pods);
    }
    Snapshot { owner: owner.clone(), pods, related }
}

/// Adopts and releases, creates or deletes what is missing or too many, and tells the status.
pub fn plan<O: Replicated>(snapshot: &Snapshot<O>, now: Timestamp) -> Plan {
    let owner = &*snapshot.owner;
    let claims = claim(owner, &owner.matcher(), snapshot.pods.iter().cloned(), |_| true);
    let mut plan = Plan { steps: claims.steps, ..Plan::default() };
    // What is adopted has another version then; whether it is one too many is decided once that is seen.
    let adopts = plan.steps.iter().any(|step| step.guard.is_some());
    if owner.metadata().deletion_timestamp.is_none() && !adopts {
        plan.steps.extend(manage(snapshot, &claims.owned, now));
    }
    let counts = status::count(&claims.owned, owner.template(), owner.min_ready_seconds(), now);
    if let Some(write) = tell(owner, counts, None) {
        plan.then(write);
    }
    plan.look_again = counts.next_available;
    plan
}

/// Tells in the status that pods could not be created or deleted. The first such failure stays until pods can be
/// created again.
pub fn after_failure<O: Replicated>(snapshot: &Snapshot<O>, failure: &Failure, now: Timestamp) -> Plan {
    let reason = match failure.verb {
        "create" => "FailedCreate",
        "delete" => "FailedDelete",
        _ => return Plan::default(),
    };
    let mut plan = Plan::default();
    // A pod that changed since it was looked at is no failure: it is looked at again.
    if failure.kind != KindRef::of::<Pod>() || failure.is_conflict() {
        return plan;
    }
    let owner = &*snapshot.owner;
    let claims = claim(owner, &owner.matcher(), snapshot.pods.iter().cloned(), |_| true);
    let counts = status::count(&claims.owned, owner.template(), owner.min_ready_seconds(), now);
    let condition = owner.status().failure.unwrap_or_else(|| FailureCondition {
        reason: reason.to_owned(),
        message: failure.message.clone(),
        since: Some(Time(now)),
    });
    if let Some(write) = tell(owner, counts, Some(condition)) {
        plan.then(write);
    }
    plan
}

/// The step that brings the number of pods to what is wanted; none when it is right.
fn manage<O: Replicated>(snapshot: &Snapshot<O>, pods: &[Arc<Sketch>], now: Timestamp) -> Option<Step> {
    let owner = &*snapshot.owner;
    let regarding = reference_to(owner);
    let wanted = usize::try_from(owner.wanted()).unwrap_or(0);
    if pods.len() < wanted {
        let missing = (wanted - pods.len()).min(BURST);
        let template = owner.template()?;
        let creates = (0..missing).map(|_| create(owner, template, &regarding)).collect();
        return Some(Step::slow_start(creates));
    }
    let too_many = (pods.len() - wanted).min(BURST);
    let going = ranking::first_to_go(pods, &snapshot.related, too_many, owner.min_ready_seconds(), now);
    let deletes: Vec<_> = going.iter().take(too_many).map(|pod| delete(pod, &regarding)).collect();
    (!deletes.is_empty()).then(|| Step::together(deletes))
}

fn create<O: Replicated>(owner: &O, template: &PodTemplateSpec, regarding: &Arc<ObjectReference>) -> Write {
    let meta = owner.metadata();
    let of_template = template.metadata.clone().unwrap_or_default();
    let pod = Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", meta.name.as_deref().unwrap_or_default())),
            namespace: meta.namespace.clone(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    Write::create(pod)
        .reporting(Note::normal(regarding, "SuccessfulCreate", "Created pod: ").append(Append::Name))
        .reporting_failure(Note::warning(regarding, "FailedCreate", "Error creating: ").append(Append::Error))
}

fn delete(pod: &Arc<Sketch>, regarding: &Arc<ObjectReference>) -> Write {
    // Upstream names neither uid nor version here.
    Write::delete_unchanged(&**pod)
        .reporting(Note::normal(regarding, "SuccessfulDelete", "Deleted pod: ").append(Append::Name))
        .reporting_failure(Note::warning(regarding, "FailedDelete", "Error deleting: ").append(Append::Error))
}

fn tell<O: Replicated>(owner: &O, counts: Counts, failure: Option<FailureCondition>) -> Option<Write> {
    let status = Status {
        replicas: counts.replicas,
        fully_labeled: counts.fully_labeled,
        ready: counts.ready,
        available: counts.available,
        observed_generation: owner.metadata().generation,
        failure,
    };
    (status != owner.status()).then(|| Write::update_status(owner.with_status(status)))
}

/// Wakes the owners a changed pod concerns: its controller before and now, or, if it has or had none, all that could
/// adopt it: they count it before it is theirs, and must learn that it is gone. `all` lists the owners of a namespace.
pub fn wake_owners<O: Replicated>(
    change: &Change<Sketch>,
    wake: &mut dyn FnMut(Key),
    kind: &str,
    all: impl Fn(&str) -> Vec<Arc<O>>,
) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !concerns_owner(old, new)
    {
        return;
    }
    for pod in change.versions() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(owner) = controller_of(&pod.metadata)
            && owner.kind == kind
        {
            wake(Key::new(namespace, &owner.name));
        }
    }
    for pod in change.versions().filter(|pod| controller_of(&pod.metadata).is_none() && pod::is_active(pod)) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let could_adopt = |owner: &Arc<O>| owner.matcher().matches(&pod.metadata);
        all(namespace)
            .iter()
            .filter(|owner| could_adopt(owner))
            .for_each(|owner| wake(Key::of(owner.metadata())));
    }
}

/// Whether a change of a pod can change what its owner does or tells. Most of what a kubelet reports cannot.
fn concerns_owner(old: &Sketch, new: &Sketch) -> bool {
    pod::is_active(old) != pod::is_active(new)
        || pod::is_ready(old) != pod::is_ready(new)
        || pod::ready_since(old) != pod::ready_since(new)
        || old.metadata.labels != new.metadata.labels
        || old.metadata.owner_references != new.metadata.owner_references
        || old.metadata.uid != new.metadata.uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2024-01-01T10:00:00Z".parse().unwrap()
    }

    fn set(replicas: i32, status: Value) -> Arc<ReplicaSet> {
        let value = json!({
            "metadata": {"name": "kubia", "namespace": "default", "uid": "rs", "generation": 2},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "kubia"}},
                "template": {
                    "metadata": {"labels": {"app": "kubia"}, "annotations": {"a": "b"}},
                    "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]},
                },
            },
            "status": status,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pods(count: usize) -> Vec<Arc<Sketch>> {
        let pod = |index: usize| {
            let value = json!({
                "metadata": {"name": format!("kubia-{index}"), "namespace": "default", "uid": format!("p{index}"),
                    "labels": {"app": "kubia"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "kubia",
                        "uid": "rs", "controller": true}]},
                "status": {"phase": "Running"},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        (0..count).map(pod).collect()
    }

    fn snapshot(replicas: i32, existing: usize, status: Value) -> Snapshot<ReplicaSet> {
        Snapshot { owner: set(replicas, status), pods: pods(existing), related: Vec::new() }
    }

    fn count(plan: &Plan, verb: &str) -> usize {
        plan.writes().filter(|write| write.verb.name() == verb).count()
    }

    #[rstest]
    #[case::from_nothing(3, 0, 3, 0)]
    #[case::enough(3, 3, 0, 0)]
    #[case::some_missing(3, 1, 2, 0)]
    #[case::some_too_many(3, 5, 0, 2)]
    #[case::to_zero(0, 2, 0, 2)]
    #[case::creates_in_bursts(1200, 0, 500, 0)]
    #[case::deletes_in_bursts(0, 700, 0, 500)]
    #[case::negative_counts_as_zero(-1, 1, 0, 1)]
    fn the_number_of_pods_is_brought_to_what_is_wanted(
        #[case] wanted: i32,
        #[case] existing: usize,
        #[case] created: usize,
        #[case] deleted: usize,
    ) {
        let plan = plan(&snapshot(wanted, existing, json!(null)), now());
        assert_eq!((count(&plan, "create"), count(&plan, "delete")), (created, deleted));
    }

    #[test]
    fn a_new_pod_carries_the_template_and_its_owner() {
        let plan = plan(&snapshot(1, 0, json!(null)), now());
        let pod = plan.writes().find_map(|write| write.object::<Pod>()).unwrap();
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "kubia-",
                "namespace": "default",
                "labels": {"app": "kubia"},
                "annotations": {"a": "b"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "kubia", "uid": "rs",
                    "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]},
        });
        assert_eq!(serde_json::to_value(pod).unwrap(), expected);
    }

    #[rstest]
    #[case::creating(2, 1, ("SuccessfulCreate", "Created pod: "), ("FailedCreate", "Error creating: "))]
    #[case::deleting(0, 1, ("SuccessfulDelete", "Deleted pod: "), ("FailedDelete", "Error deleting: "))]
    fn every_pod_created_or_deleted_is_told_as_upstream_tells_it(
        #[case] wanted: i32,
        #[case] existing: usize,
        #[case] done: (&str, &str),
        #[case] failed: (&str, &str),
    ) {
        let plan = plan(&snapshot(wanted, existing, json!(null)), now());
        let write = plan.writes().next().unwrap();
        let told = |note: &Option<Note>| {
            let note = note.as_ref().unwrap();
            (note.reason, note.message.clone())
        };
        assert_eq!(told(&write.on_success), (done.0, done.1.to_owned()));
        assert_eq!(told(&write.on_failure), (failed.0, failed.1.to_owned()));
    }

    #[test]
    fn a_pod_that_nobody_controls_concerns_all_that_could_adopt_it_also_when_it_is_gone() {
        let owner = snapshot(1, 0, json!(null)).owner;
        let pod = |labels: Value| {
            let value = json!({"metadata": {"namespace": "default", "name": "stray", "labels": labels}});
            Arc::new(serde_json::from_value::<Sketch>(value).unwrap())
        };
        let woken = |old: Option<Value>, new: Option<Value>| {
            let change = Change { old: old.map(pod), new: new.map(pod) };
            let mut woken = 0;
            wake_owners(&change, &mut |_| woken += 1, "ReplicaSet", |_| vec![owner.clone()]);
            woken
        };
        let (fits, other) =
            (json!(owner.spec.as_ref().unwrap().selector.match_labels), json!({"app": "other"}));
        assert_eq!(woken(None, Some(fits.clone())), 1);
        assert_eq!(woken(Some(fits.clone()), None), 1);
        assert_eq!(woken(Some(fits), Some(other.clone())), 1);
        assert_eq!(woken(Some(other), None), 0);
    }

    #[test]
    fn pods_are_created_slowly_at_first_and_deleted_at_once() {
        use crate::plan::Pace;
        let pace = |wanted, existing| plan(&snapshot(wanted, existing, json!(null)), now()).steps[0].pace;
        assert_eq!((pace(5, 0), pace(0, 5)), (Pace::SlowStart, Pace::Together));
    }

    #[test]
    fn what_is_adopted_is_counted_at_once_and_deleted_only_when_its_new_version_is_seen() {
        let mut snapshot = snapshot(1, 2, json!(null));
        Arc::make_mut(&mut snapshot.pods[1]).metadata.owner_references = None;
        let verbs = |plan: &Plan| plan.writes().map(|write| write.verb.name()).collect::<Vec<_>>();
        let adopting = plan(&snapshot, now());
        assert_eq!(verbs(&adopting), ["patch", "update status"]);
        let set = adopting.writes().find_map(|write| write.object::<ReplicaSet>()).unwrap();
        assert_eq!(set.status.as_ref().unwrap().replicas, 2);
        let snapshot = Snapshot { pods: pods(2), ..snapshot };
        assert_eq!(verbs(&plan(&snapshot, now())), ["delete", "update status"]);
    }

    #[test]
    fn a_set_being_deleted_only_tells_its_status() {
        let mut snapshot = snapshot(3, 1, json!(null));
        Arc::make_mut(&mut snapshot.owner).metadata.deletion_timestamp = Some(Time(now()));
        let plan = plan(&snapshot, now());
        let verbs: Vec<_> = plan.writes().map(|write| write.verb.name()).collect();
        assert_eq!(verbs, ["update status"]);
    }

    #[test]
    fn a_status_that_is_right_is_not_written_again() {
        let status = json!({"replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 2});
        assert!(plan(&snapshot(2, 2, status), now()).is_idle());
    }

    #[test]
    fn a_failed_create_is_told_once_and_forgotten_when_pods_can_be_created() {
        let failure = Failure {
            verb: "create",
            kind: KindRef::of::<Pod>(),
            key: Key::new("default", ""),
            code: 403,
            reason: "Forbidden".into(),
            message: "exceeded quota".into(),
        };
        let told = after_failure(&snapshot(3, 2, json!(null)), &failure, now());
        let set = told.writes().find_map(|write| write.object::<ReplicaSet>()).unwrap();
        let condition = &set.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
        assert_eq!(condition.type_, "ReplicaFailure");
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(condition.message.as_deref(), Some("exceeded quota"));

        let status = serde_json::to_value(set.status.as_ref().unwrap()).unwrap();
        assert!(after_failure(&snapshot(3, 2, status.clone()), &failure, now()).is_idle(), "told already");
        let recovered = plan(&snapshot(3, 3, status), now());
        let set = recovered.writes().find_map(|write| write.object::<ReplicaSet>()).unwrap();
        assert_eq!(set.status.as_ref().unwrap().conditions, None);
    }

    #[test]
    fn a_pod_is_deleted_only_as_it_was_seen_and_that_it_changed_is_no_failure() {
        let mut snapshot = snapshot(1, 2, json!(null));
        for pod in &mut snapshot.pods {
            Arc::make_mut(pod).metadata.resource_version = Some("7".into());
        }
        let plan = plan(&snapshot, now());
        let delete = plan.writes().find(|write| write.verb.name() == "delete").unwrap();
        let crate::plan::Verb::Delete(options) = &delete.verb else { unreachable!() };
        assert_eq!(options.resource_version.as_deref(), Some("7"));
        assert!(options.uid.is_some());
        let changed = Failure {
            verb: "delete",
            kind: KindRef::of::<Pod>(),
            key: delete.key.clone(),
            code: 409,
            reason: "Conflict".into(),
            message: "Precondition failed".into(),
        };
        assert!(after_failure(&snapshot, &changed, now()).is_idle());
        let failed = Failure { code: 500, reason: "InternalError".into(), ..changed };
        let told = after_failure(&snapshot, &failed, now());
        let set = told.writes().find_map(|write| write.object::<ReplicaSet>()).unwrap();
        let condition = &set.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedDelete"));
    }

    #[test]
    fn a_plan_looks_again_when_the_next_pod_becomes_available() {
        let mut snapshot = snapshot(1, 1, json!(null));
        Arc::make_mut(&mut snapshot.owner).spec.as_mut().unwrap().min_ready_seconds = Some(10);
        let since = Some("2024-01-01T09:59:57Z".parse().unwrap());
        Arc::make_mut(&mut snapshot.pods[0]).ready = Some(pod::Ready { is_true: true, since });
        let plan = plan(&snapshot, now());
        assert_eq!(plan.look_again, Some("2024-01-01T10:00:07Z".parse().unwrap()));
    }
}
