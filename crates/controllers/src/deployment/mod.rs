//! Deployments: one template after the other, each rolled out by a ReplicaSet of its own.
//!
//! * [`snapshot`]: what a plan depends on, and the roles in it: the new ReplicaSet and the old ones.
//! * [`plan`]: the decision table: deleted, paused, scaling, strategy.
//! * [`rolling_update`], [`recreate`], [`scale`]: how many pods which ReplicaSet gets.
//! * [`revision`], [`rollback`], [`template_hash`]: numbering, history, names.
//! * [`status`], [`progress`]: what is told about it.

pub mod plan;
pub mod progress;
pub mod recreate;
pub mod revision;
pub mod rollback;
pub mod rolling_update;
pub mod scale;
pub mod snapshot;
pub mod status;
pub mod template_hash;

use crate::cache::{Change, Key, controller_of};
use crate::caches::Caches;
use crate::plan::{Failure, Plan};
use crate::pod::{self, Sketch};
use crate::runner::{self, Watch};
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::Resource as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use snapshot::Snapshot;

/// The Deployment controller.
pub struct Controller;

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on_own(&caches.deployments);
        let all = watch.caches();
        watch.on(&caches.replica_sets, move |change, wake| wake_owners(&all, change, wake));
        let all = watch.caches();
        watch.on(&caches.pods, move |change, wake| wake_when_old_pods_are_gone(&all, change, wake));
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        snapshot::observe(caches, key)
    }

    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        plan::plan(snapshot, now)
    }

    fn after_failure(&self, snapshot: &Snapshot, failure: &Failure, now: Timestamp) -> Plan {
        plan::after_failure(snapshot, failure, now)
    }
}

fn wake_owners(caches: &Caches, change: &Change<ReplicaSet>, wake: &mut dyn FnMut(Key)) {
    for set in change.versions() {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(owner) = controller_of(&set.metadata)
            && owner.kind == Deployment::KIND
        {
            wake(Key::new(namespace, &owner.name));
        }
    }
    // One that nobody controls may be adopted; one that is on its way out is in the way, and then no longer.
    if let Some(set) = change.new.as_ref().or(change.old.as_ref())
        && controller_of(&set.metadata).is_none()
    {
        wake_who_selects(caches, set, wake);
    }
}

/// Wakes the Deployments that would adopt a ReplicaSet.
fn wake_who_selects(caches: &Caches, set: &ReplicaSet, wake: &mut dyn FnMut(Key)) {
    for deployment in caches.deployments.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
        let selector = deployment.spec.as_ref().map(|spec| Matcher::of(&spec.selector));
        if selector.is_some_and(|selector| selector.matches(&set.metadata)) {
            wake(Key::of(&deployment.metadata));
        }
    }
}

/// The Recreate strategy waits for the last old pod to go.
fn wake_when_old_pods_are_gone(caches: &Caches, change: &Change<Sketch>, wake: &mut dyn FnMut(Key)) {
    let Some(old) = &change.old else { return };
    let is_over = change.new.as_ref().is_none_or(|pod| pod::is_finished(pod) && !pod::is_finished(old));
    let Some(owner) = controller_of(&old.metadata).filter(|owner| is_over && owner.kind == ReplicaSet::KIND)
    else {
        return;
    };
    let namespace = old.metadata.namespace.as_deref().unwrap_or_default();
    let Some(set) = caches.replica_sets.get(&Key::new(namespace, &owner.name)) else { return };
    let Some(owner) = controller_of(&set.metadata) else { return wake_who_selects(caches, &set, wake) };
    let key = Key::new(namespace, &owner.name);
    if caches.deployments.get(&key).is_some_and(|deployment| recreate::is_strategy_of(&deployment)) {
        wake(key);
    }
}
