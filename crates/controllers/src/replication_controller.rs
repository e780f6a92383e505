//! ReplicationControllers: the older kind, with the same core as ReplicaSets and a plain map as selector.

use crate::cache::Key;
use crate::caches::Caches;
use crate::plan::{Failure, Plan};
use crate::replica_set::replicas::{self, Replicated, Snapshot};
use crate::replica_set::status::{self, FailureCondition, Status};
use crate::runner::{self, Watch};
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

/// The ReplicationController controller.
pub struct Controller;

impl runner::Controller for Controller {
    type Snapshot = Snapshot<ReplicationController>;

    fn name(&self) -> &'static str {
        "replication-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on_own(&caches.replication_controllers);
        let controllers = caches.replication_controllers.clone();
        watch.on(&caches.pods, move |change, wake| {
            replicas::wake_owners(change, wake, ReplicationController::KIND, |namespace| {
                controllers.in_namespace(namespace)
            });
        });
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Self::Snapshot> {
        let controller = caches.replication_controllers.get(key)?;
        Some(replicas::observe(caches, &controller, Vec::new))
    }

    fn plan(&self, snapshot: &Self::Snapshot, now: Timestamp) -> Plan {
        replicas::plan(snapshot, now)
    }

    fn after_failure(&self, snapshot: &Self::Snapshot, failure: &Failure, now: Timestamp) -> Plan {
        replicas::after_failure(snapshot, failure, now)
    }
}

impl Replicated for ReplicationController {
    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    /// Without a selector the labels of the template select, as the API server's defaults say.
    fn matcher(&self) -> Matcher {
        let Some(spec) = &self.spec else { return Matcher::of_map(&Default::default()) };
        let of_template = || spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref();
        let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty()).or_else(of_template);
        Matcher::of_map(selector.unwrap_or(&Default::default()))
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
        conditions.extend(status.failure.map(|failure| ReplicationControllerCondition {
            type_: status::REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status::unless_zero(status.fully_labeled),
            ready_replicas: status::unless_zero(status.ready),
            available_replicas: status::unless_zero(status.available),
            observed_generation: status.observed_generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        };
        Self { metadata: self.metadata.clone(), spec: self.spec.clone(), status: Some(status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[rstest]
    #[case::own_selector(json!({"selector": {"app": "kubia"}}), true)]
    #[case::labels_of_the_template(json!({"template": {"metadata": {"labels": {"app": "kubia"}}}}), true)]
    #[case::neither_matches_nothing(json!({}), false)]
    fn the_selector_defaults_to_the_labels_of_the_template(#[case] spec: Value, #[case] matches: bool) {
        let controller: ReplicationController =
            serde_json::from_value(json!({"metadata": {"name": "kubia"}, "spec": spec})).unwrap();
        let labels = BTreeMap::from([("app".to_owned(), "kubia".to_owned())]);
        assert_eq!(controller.matcher().matches_labels(&labels), matches);
    }

    #[test]
    fn a_status_survives_being_written_and_read() {
        let controller: ReplicationController =
            serde_json::from_value(json!({"metadata": {"name": "kubia"}, "spec": {}})).unwrap();
        let status = Status {
            replicas: 3,
            fully_labeled: 3,
            ready: 2,
            available: 1,
            observed_generation: Some(4),
            failure: Some(FailureCondition { reason: "FailedCreate".into(), ..Default::default() }),
        };
        assert_eq!(controller.with_status(status.clone()).status(), status);
    }
}
