//! When each node was last heard of.
//!
//! What counts is when a renewed lease or a new heartbeat was *seen here*, not the time written in it. Clocks of other
//! machines do not matter then, and after a restart of the cluster every node has the whole grace period to report
//! before its pods are taken out of service.

use crate::cache::Change;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The namespace of the nodes' leases.
pub const LEASES: &str = "kube-node-lease";

/// When nodes were last heard of.
#[derive(Default)]
pub struct Heartbeats(Mutex<HashMap<String, Timestamp>>);

impl Heartbeats {
    /// When the node was last heard of; now if never before.
    pub fn last(&self, node: &str, now: Timestamp) -> Timestamp {
        *self.0.lock().entry(node.to_owned()).or_insert(now)
    }

    /// Takes notice of a change of a node.
    pub fn see_node(&self, change: &Change<Node>, now: Timestamp) {
        match (&change.old, &change.new) {
            (_, Some(new)) if change.old.as_deref().is_none_or(|old| posted(old) != posted(new)) => {
                self.heard(new.metadata.name.as_deref(), now);
            }
            (Some(old), None) => {
                self.0.lock().remove(old.metadata.name.as_deref().unwrap_or_default());
            }
            _ => {}
        }
    }

    /// Takes notice of a change of a lease.
    pub fn see_lease(&self, change: &Change<Lease>, now: Timestamp) {
        let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if let Some(new) = &change.new
            && new.metadata.namespace.as_deref() == Some(LEASES)
            && change.old.as_deref().is_none_or(|old| renewed(old) != renewed(new))
        {
            self.heard(new.metadata.name.as_deref(), now);
        }
    }

    fn heard(&self, node: Option<&str>, now: Timestamp) {
        self.0.lock().insert(node.unwrap_or_default().to_owned(), now);
    }
}

/// The latest heartbeat the kubelet posted. What is written here never changes it.
fn posted(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter_map(|condition| condition.last_heartbeat_time.as_ref()).map(|time| time.0).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lease(namespace: &str, renewed: i64) -> Arc<Lease> {
        let spec = json!({"renewTime": at(renewed).to_string()});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "n", "namespace": namespace}, "spec": spec}))
                .unwrap(),
        )
    }

    fn node(heartbeat: i64, ready: &str) -> Arc<Node> {
        let ready = json!({"type": "Ready", "status": ready, "lastHeartbeatTime": at(heartbeat).to_string()});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": [ready]}}))
                .unwrap(),
        )
    }

    #[test]
    fn a_renewed_lease_is_a_sign_of_life_whatever_time_it_tells() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.last("n", at(5)), at(5), "the first look begins the grace period");
        assert_eq!(heartbeats.last("n", at(9)), at(5));
        let change = Change { old: Some(lease(LEASES, 1)), new: Some(lease(LEASES, 2)) };
        heartbeats.see_lease(&change, at(10));
        assert_eq!(heartbeats.last("n", at(11)), at(10));
        let unchanged = Change { old: Some(lease(LEASES, 2)), new: Some(lease(LEASES, 2)) };
        heartbeats.see_lease(&unchanged, at(20));
        let elsewhere = Change { old: None, new: Some(lease("default", 3)) };
        heartbeats.see_lease(&elsewhere, at(20));
        assert_eq!(heartbeats.last("n", at(21)), at(10));
    }

    #[test]
    fn a_new_heartbeat_is_a_sign_of_life_and_a_changed_status_alone_is_not() {
        let heartbeats = Heartbeats::default();
        heartbeats.see_node(&Change { old: None, new: Some(node(1, "True")) }, at(10));
        heartbeats.see_node(&Change { old: Some(node(1, "True")), new: Some(node(1, "Unknown")) }, at(60));
        assert_eq!(heartbeats.last("n", at(60)), at(10));
        heartbeats.see_node(&Change { old: Some(node(1, "Unknown")), new: Some(node(2, "True")) }, at(70));
        assert_eq!(heartbeats.last("n", at(70)), at(70));
        heartbeats.see_node(&Change { old: Some(node(2, "True")), new: None }, at(80));
        assert_eq!(heartbeats.last("n", at(90)), at(90), "a node of that name later is another node");
    }
}
