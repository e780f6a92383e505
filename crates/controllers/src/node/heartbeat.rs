//! When each node was last heard of.
//!
//! What counts is when a renewed lease or a new heartbeat was *seen here*, not the time written in it. Clocks of other
//! machines do not matter then, and after a restart of the cluster every node has the whole grace period to report
//! before its pods are taken out of service. The same after this process was asleep, as on a laptop.

use crate::cache::Change;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The namespace of the nodes' leases.
pub const LEASES: &str = "kube-node-lease";

/// A node is looked at when its grace period ends. Whoever looks this much later has been asleep, or could not reach
/// the API server, and so could not have heard of it.
const OVERSLEPT: SignedDuration = SignedDuration::from_secs(10);

/// When nodes were last heard of.
#[derive(Default)]
pub struct Heartbeats(Mutex<HashMap<String, Timestamp>>);

impl Heartbeats {
    /// When the node was last heard of. Now if it never was, or if its grace period ended unnoticed a while ago: it
    /// gets another.
    pub fn last(&self, node: &str, grace: SignedDuration, now: Timestamp) -> Timestamp {
        let mut heard = self.0.lock();
        let last = heard.entry(node.to_owned()).or_insert(now);
        if now.duration_since(*last) >= grace + OVERSLEPT {
            *last = now;
        }
        *last
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

    const GRACE: SignedDuration = SignedDuration::from_secs(40);

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
        assert_eq!(heartbeats.last("n", GRACE, at(5)), at(5), "the first look begins the grace period");
        assert_eq!(heartbeats.last("n", GRACE, at(9)), at(5));
        let change = Change { old: Some(lease(LEASES, 1)), new: Some(lease(LEASES, 2)) };
        heartbeats.see_lease(&change, at(10));
        assert_eq!(heartbeats.last("n", GRACE, at(11)), at(10));
        let unchanged = Change { old: Some(lease(LEASES, 2)), new: Some(lease(LEASES, 2)) };
        heartbeats.see_lease(&unchanged, at(20));
        let elsewhere = Change { old: None, new: Some(lease("default", 3)) };
        heartbeats.see_lease(&elsewhere, at(20));
        assert_eq!(heartbeats.last("n", GRACE, at(21)), at(10));
    }

    #[test]
    fn a_new_heartbeat_is_a_sign_of_life_and_a_changed_status_alone_is_not() {
        let heartbeats = Heartbeats::default();
        heartbeats.see_node(&Change { old: None, new: Some(node(1, "True")) }, at(10));
        heartbeats.see_node(&Change { old: Some(node(1, "True")), new: Some(node(1, "Unknown")) }, at(59));
        assert_eq!(heartbeats.last("n", GRACE, at(59)), at(10));
        heartbeats.see_node(&Change { old: Some(node(1, "Unknown")), new: Some(node(2, "True")) }, at(70));
        assert_eq!(heartbeats.last("n", GRACE, at(70)), at(70));
        heartbeats.see_node(&Change { old: Some(node(2, "True")), new: None }, at(80));
        assert_eq!(heartbeats.last("n", GRACE, at(90)), at(90), "a node of that name later is another node");
    }

    #[test]
    fn who_overslept_the_end_of_the_grace_period_waits_for_another() {
        let heartbeats = Heartbeats::default();
        heartbeats.last("n", GRACE, at(100));
        assert_eq!(heartbeats.last("n", GRACE, at(149)), at(100), "in time, or a little late");
        assert_eq!(heartbeats.last("n", GRACE, at(150)), at(150));
        assert_eq!(heartbeats.last("n", GRACE, at(190)), at(150));
    }
}
