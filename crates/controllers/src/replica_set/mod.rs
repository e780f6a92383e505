//! ReplicaSets: as many pods of one template as asked for.
//!
//! * [`replicas`]: the core shared with ReplicationControllers: create, delete, count.
//! * [`ranking`]: which pods are deleted first.
//! * [`status`]: what is told about them.

pub mod ranking;
pub mod replicas;
pub mod status;

use crate::cache::{Key, controller_of};
use crate::caches::Caches;
use crate::plan::{Failure, Plan};
use crate::pod::Sketch;
use crate::runner::{self, Watch};
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use replicas::{Replicated, Snapshot};
use status::{FailureCondition, Status};
use std::sync::Arc;

/// The ReplicaSet controller.
pub struct Controller;

impl runner::Controller for Controller {
    type Snapshot = Snapshot<ReplicaSet>;

    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on_own(&caches.replica_sets);
        let sets = caches.replica_sets.clone();
        watch.on(&caches.pods, move |change, wake| {
            replicas::wake_owners(change, wake, ReplicaSet::KIND, |namespace| sets.in_namespace(namespace));
        });
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Self::Snapshot> {
        let set = caches.replica_sets.get(key)?;
        let related = || related_pods(caches, &set);
        Some(replicas::observe(caches, &set, related))
    }

    fn plan(&self, snapshot: &Self::Snapshot, now: Timestamp) -> Plan {
        replicas::plan(snapshot, now)
    }

    fn after_failure(&self, snapshot: &Self::Snapshot, failure: &Failure, now: Timestamp) -> Plan {
        replicas::after_failure(snapshot, failure, now)
    }
}

/// The pods of all ReplicaSets of the same Deployment: pods are removed first where such pods are most crowded.
fn related_pods(caches: &Caches, set: &ReplicaSet) -> Vec<Arc<Sketch>> {
    let Some(deployment) = controller_of(&set.metadata) else { return Vec::new() };
    let siblings = caches.replica_sets.controlled_by(&deployment.uid);
    let uids = siblings.iter().filter_map(|sibling| sibling.metadata.uid.as_deref());
    uids.flat_map(|uid| caches.pods.controlled_by(uid)).collect()
}

impl Replicated for ReplicaSet {
    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn matcher(&self) -> Matcher {
        Matcher::of(&self.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else { return Status::default() };
        let failure = status.conditions.iter().flatten().find(|c| c.type_ == status::REPLICA_FAILURE);
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            observed_generation: status.observed_generation,
            failure: failure.map(|condition| FailureCondition {
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
                since: condition.last_transition_time.clone(),
            }),
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let before = self.status.clone().unwrap_or_default();
        let mut conditions = before.conditions.unwrap_or_default();
        conditions.retain(|condition| condition.type_ != status::REPLICA_FAILURE);
        conditions.extend(status.failure.map(|failure| ReplicaSetCondition {
            type_: status::REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status::unless_zero(status.fully_labeled),
            ready_replicas: status::unless_zero(status.ready),
            available_replicas: status::unless_zero(status.available),
            observed_generation: status.observed_generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
            terminating_replicas: before.terminating_replicas,
        };
        Self { metadata: self.metadata.clone(), spec: self.spec.clone(), status: Some(status) }
    }
}
