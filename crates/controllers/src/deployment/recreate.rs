//! The Recreate strategy: all old pods go before the first new one comes.

use super::snapshot::{Roles, spec_of};
use crate::cache::controller_of;
use crate::pod::{self, Sketch};
use k8s_openapi::api::apps::v1::Deployment;
use std::sync::Arc;

/// Whether this is the Deployment's strategy.
pub fn is_strategy_of(deployment: &Deployment) -> bool {
    let strategy = spec_of(deployment).strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// Whether a new pod has to wait: an old ReplicaSet still has its size or may still be creating pods, as its controller
/// has not seen that it was scaled down, or an old pod has not ended yet. A pod that is being deleted counts until it is
/// gone.
pub fn has_old_pods(roles: &Roles, pods: &[Arc<Sketch>]) -> bool {
    let new = roles.new.as_ref().map(|new| new.uid());
    let is_old =
        |pod: &&Arc<Sketch>| controller_of(&pod.metadata).is_some_and(|owner| Some(&*owner.uid) != new);
    roles.old.iter().any(|set| set.size_before() > 0 || set.pods_at_most() != Some(0))
        || pods.iter().filter(is_old).any(|pod| !pod::is_finished(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::snapshot::Set;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::running("old", "Running", true)]
    #[case::node_lost("old", "Unknown", true)]
    #[case::failed("old", "Failed", false)]
    #[case::succeeded("old", "Succeeded", false)]
    #[case::of_the_new_set("new", "Running", false)]
    fn a_new_pod_waits_for_old_ones_that_have_not_ended(
        #[case] owner: &str,
        #[case] phase: &str,
        #[case] expected: bool,
    ) {
        let set = |uid: &str| {
            let value = json!({"metadata": {"name": uid, "uid": uid, "generation": 2},
                "spec": {"replicas": 0, "selector": {}}, "status": {"replicas": 0, "observedGeneration": 2}});
            Set::existing(Arc::new(serde_json::from_value(value).unwrap()))
        };
        let pod = json!({
            "metadata": {"ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}]},
            "status": {"phase": phase},
        });
        let roles = Roles { new: Some(set("new")), old: vec![set("old")] };
        assert_eq!(has_old_pods(&roles, &[Arc::new(serde_json::from_value(pod).unwrap())]), expected);
    }

    #[rstest]
    #[case::not_seen_yet(json!({"replicas": 0, "observedGeneration": 1}), true)]
    #[case::seen_and_not_done_yet(json!({"replicas": 1, "observedGeneration": 2}), true)]
    #[case::done(json!({"replicas": 0, "observedGeneration": 2}), false)]
    fn a_new_pod_waits_until_the_old_set_is_known_to_create_none(
        #[case] status: serde_json::Value,
        #[case] expected: bool,
    ) {
        let value = json!({"metadata": {"name": "old", "uid": "old", "generation": 2},
            "spec": {"replicas": 0, "selector": {}}, "status": status});
        let old = Set::existing(Arc::new(serde_json::from_value(value).unwrap()));
        assert_eq!(has_old_pods(&Roles { new: None, old: vec![old] }, &[]), expected);
    }
}
