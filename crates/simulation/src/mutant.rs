//! Planted bugs. A run with one of them must fail on some seed; if none does, the simulation does not look where it
//! should.

use crate::manager::Tampering;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sagong_controllers::caches::Caches;
use sagong_controllers::deployment::{rolling_update::Limits, snapshot as deployments};
use sagong_controllers::plan::{Plan, Step, Verb, Write};
use sagong_controllers::replica_set::replicas;
use sagong_controllers::selector::Matcher;
use std::sync::Arc;

/// A bug that is planted into a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One more pod in excess than maxSurge allows.
    SurgeOffByOne,
    /// One more pod missing than maxUnavailable allows.
    UnavailableOffByOne,
    /// Ready counts as available at once.
    IgnoresMinReadySeconds,
    /// Nobody looks again when minReadySeconds are over.
    NeverWakesForMinReadySeconds,
    /// Keys are planned again before the caches show their own writes.
    StaleCacheBelieved,
    /// The status of a ReplicaSet is believed although its controller has not seen its new size.
    BelievesOldStatus,
    /// Containers are stopped before the pod is out of every service.
    SigtermBeforeWithdrawal,
    /// Recreate does not wait for the old pods.
    RecreateOverlaps,
    /// Pods of other controllers that match are taken for one's own.
    AdoptsForeignPods,
    /// Adopts for an owner without asking whether it still exists.
    AdoptsForTheDead,
    /// Objects keep being managed that no longer match.
    NeverReleases,
    /// A create without an answer is made again at once.
    RetriesLostCreates,
    /// A paused Deployment rolls out.
    IgnoresPause,
    /// The status is written with every plan.
    WritesStatusEveryTime,
    /// Deletions are missed.
    ForgetsDeletions,
    /// Pods being bound do not count until they are seen bound.
    ForgetsAssumedPods,
    /// Old ReplicaSets are deleted by revision alone, also while they are in use.
    DeletesSetsInUse,
    /// Failed creates do not show in the status, and the key is never tried again.
    CreatesOnlyOnePod,
    /// Pods are deleted whatever became of them since they were looked at.
    DeletesOnOldNews,
    /// Of ready pods any may be deleted, whether it is available or not (as upstream does).
    RanksByReadiness,
}

impl Mutant {
    pub(crate) fn on_deployments(mutant: Option<Self>) -> Tampering<deployments::Snapshot> {
        let none = Tampering::default();
        match mutant {
            Some(Self::SurgeOffByOne) => Tampering { snapshot: |s, _| stretch(s, 1, 0), ..none },
            Some(Self::UnavailableOffByOne) => Tampering { snapshot: |s, _| stretch(s, 0, 1), ..none },
            Some(Self::BelievesOldStatus) => Tampering { snapshot: believe_old_status, ..none },
            Some(Self::RecreateOverlaps) => Tampering { snapshot: forget_old_pods, ..none },
            Some(Self::IgnoresPause) => Tampering { snapshot: forget_pause, ..none },
            Some(Self::WritesStatusEveryTime) => Tampering { plan: write_status, ..none },
            Some(Self::DeletesSetsInUse) => Tampering { plan: delete_sets_in_use, ..none },
            _ => none,
        }
    }

    pub(crate) fn on_replica_sets(mutant: Option<Self>) -> Tampering<replicas::Snapshot<ReplicaSet>> {
        let none = Tampering::default();
        match mutant {
            Some(Self::IgnoresMinReadySeconds) => Tampering { snapshot: forget_min_ready_seconds, ..none },
            Some(Self::NeverWakesForMinReadySeconds) => {
                Tampering { plan: |_, plan, _| plan.look_again = None, ..none }
            }
            Some(Self::AdoptsForeignPods) => Tampering { snapshot: see_foreign_pods_as_strays, ..none },
            Some(Self::NeverReleases) => Tampering { plan: never_release, ..none },
            Some(Self::CreatesOnlyOnePod) => Tampering { plan: create_only_one, ..none },
            Some(Self::DeletesOnOldNews) => Tampering { plan: forget_versions, ..none },
            Some(Self::RanksByReadiness) => Tampering { plan: rank_by_readiness, ..none },
            _ => none,
        }
    }
}

fn stretch(snapshot: &mut deployments::Snapshot, surge: i32, unavailable: i32) {
    let limits = Limits::of(&snapshot.deployment);
    let spec = Arc::make_mut(&mut snapshot.deployment).spec.get_or_insert_default();
    let strategy = spec.strategy.get_or_insert_default();
    if strategy.type_.as_deref() != Some("Recreate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.max_surge = Some(IntOrString::Int(limits.max_surge + surge));
        rolling.max_unavailable = Some(IntOrString::Int(limits.max_unavailable + unavailable));
    }
}

fn believe_old_status(snapshot: &mut deployments::Snapshot, _: &Caches) {
    for set in &mut snapshot.replica_sets {
        let set = Arc::make_mut(set);
        if let Some(status) = &mut set.status {
            status.observed_generation = set.metadata.generation;
        }
    }
}

fn forget_old_pods(snapshot: &mut deployments::Snapshot, _: &Caches) {
    snapshot.pods.clear();
}

fn forget_pause(snapshot: &mut deployments::Snapshot, _: &Caches) {
    Arc::make_mut(&mut snapshot.deployment).spec.get_or_insert_default().paused = None;
}

fn write_status(snapshot: &deployments::Snapshot, plan: &mut Plan, now: Timestamp) {
    let mut deployment = (*snapshot.deployment).clone();
    let status: &mut DeploymentStatus = deployment.status.get_or_insert_default();
    // Something of the status that nobody looks at changes every time.
    status.collision_count = Some(i32::try_from(now.as_millisecond() % 1_000_000).unwrap_or(0));
    if plan.is_idle() {
        plan.then(Write::update_status(deployment));
    }
}

fn delete_sets_in_use(snapshot: &deployments::Snapshot, plan: &mut Plan, _: Timestamp) {
    let limit = deployments::spec_of(&snapshot.deployment).revision_history_limit.unwrap_or(10);
    let keep = usize::try_from(limit).unwrap_or(0) + 1;
    let mut sets: Vec<_> = snapshot.replica_sets.iter().collect();
    sets.sort_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let excess = sets.len().saturating_sub(keep);
    plan.then_all(sets.into_iter().take(excess).map(|set| Write::delete(&**set)).collect());
}

fn forget_min_ready_seconds(snapshot: &mut replicas::Snapshot<ReplicaSet>, _: &Caches) {
    Arc::make_mut(&mut snapshot.owner).spec.get_or_insert_default().min_ready_seconds = None;
}

fn see_foreign_pods_as_strays(snapshot: &mut replicas::Snapshot<ReplicaSet>, caches: &Caches) {
    let owner = &snapshot.owner;
    let selector = owner.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let matcher = Matcher::of(&selector);
    let namespace = owner.metadata.namespace.clone().unwrap_or_default();
    for pod in caches.pods.in_namespace(&namespace) {
        let is_known = snapshot.pods.iter().any(|known| known.metadata.uid == pod.metadata.uid);
        if !is_known && matcher.matches(&pod.metadata) && pod.metadata.deletion_timestamp.is_none() {
            let mut pod = (*pod).clone();
            for reference in pod.metadata.owner_references.iter_mut().flatten() {
                reference.uid = owner.metadata.uid.clone().unwrap_or_default();
            }
            snapshot.pods.push(Arc::new(pod));
        }
    }
}

fn never_release(_: &replicas::Snapshot<ReplicaSet>, plan: &mut Plan, _: Timestamp) {
    plan.steps
        .retain(|step| step.guard.is_some() || step.writes.iter().all(|write| write.verb.name() != "patch"));
}

fn forget_versions(_: &replicas::Snapshot<ReplicaSet>, plan: &mut Plan, _: Timestamp) {
    for write in plan.steps.iter_mut().flat_map(|step| &mut step.writes) {
        if let Verb::Delete(deletion) = &mut write.verb {
            deletion.resource_version = None;
        }
    }
}

/// The deletions of the plan that would be made if ready pods were available at once.
fn rank_by_readiness(snapshot: &replicas::Snapshot<ReplicaSet>, plan: &mut Plan, now: Timestamp) {
    let mut owner = snapshot.owner.clone();
    Arc::make_mut(&mut owner).spec.get_or_insert_default().min_ready_seconds = None;
    let blind = replicas::Snapshot { owner, pods: snapshot.pods.clone(), related: snapshot.related.clone() };
    let deletes = |step: &Step| step.writes.iter().any(|write| matches!(write.verb, Verb::Delete(_)));
    if let (Some(ours), Some(theirs)) = (
        plan.steps.iter_mut().find(|step| deletes(step)),
        replicas::plan(&blind, now).steps.into_iter().find(|step| deletes(step)),
    ) {
        *ours = theirs;
    }
}

fn create_only_one(snapshot: &replicas::Snapshot<ReplicaSet>, plan: &mut Plan, _: Timestamp) {
    if !snapshot.pods.is_empty() {
        plan.steps.retain(|step| step.writes.iter().all(|write| write.verb.name() != "create"));
    }
}
