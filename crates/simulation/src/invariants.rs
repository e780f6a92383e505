//! What must hold after every step, whatever goes wrong.
//!
//! Controllers act on what they know. So the limits of a Deployment are the widest of all its specs that somebody may
//! still be acting on: those since all of its controllers have last reported that they have seen everything.

use crate::api::Change;
use crate::ground::{Actor, Ground};
use crate::scenario::FOREIGN;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sagong_controllers::cache::{Key, controller_of};
use sagong_controllers::deployment::rolling_update::Limits;
use sagong_controllers::deployment::{recreate, snapshot};
use sagong_controllers::pod;
use sagong_controllers::selector::Matcher;
use sagong_scheduler::cluster::Wanted;
use std::collections::BTreeMap;

/// Something happened that must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which rule it breaks.
    pub invariant: &'static str,
    /// How.
    pub detail: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// Steps within which a watch tells everything, with some to spare for what it is told to.
const NEWS: usize = 200;

type Verdict = Result<(), Violation>;

/// What of a spec limits the controllers.
#[derive(Clone, Copy)]
struct View {
    limits: Limits,
    min_ready_seconds: i32,
    recreates: bool,
    paused: bool,
}

/// A Deployment being watched.
#[derive(Default)]
struct Watched {
    /// The specs somebody may still act on, by generation.
    views: BTreeMap<i64, View>,
    /// Excess that was there before its limits were.
    excess_size: i32,
    excess_pods: i32,
    /// Several versions were there before Recreate was asked for.
    overlaps: bool,
}

/// Watches a run.
#[derive(Default)]
pub(crate) struct Judge {
    deployments: BTreeMap<String, Watched>,
    /// When objects began to be deleted.
    dead: BTreeMap<String, usize>,
    /// When the user changed the labels of objects last.
    relabelled: BTreeMap<String, usize>,
    /// Two leaders, or somebody deletes pods by hand: less can be promised.
    pub(crate) two_leaders: bool,
    pub(crate) pods_misbehave: bool,
    /// The answer to a create may be lost for longer than controllers wait for it to show.
    pub(crate) unsure_creates: bool,
}

impl Judge {
    /// Judges everything that changed in this step.
    pub(crate) fn judge(&mut self, ground: &mut Ground) -> Verdict {
        for change in std::mem::take(&mut ground.api.changes) {
            self.one(&change, ground)?;
        }
        Ok(())
    }

    fn one(&mut self, change: &Change, ground: &Ground) -> Verdict {
        self.note_deaths(change, ground);
        match change.plural {
            "deployments" => self.deployment(change, ground),
            "replicasets" => {
                self.ownership(change, ground)?;
                self.replica_set(change, ground)?;
            }
            "pods" => {
                self.ownership(change, ground)?;
                self.pod(change, ground)?;
            }
            _ => {}
        }
        if matches!(change.plural, "deployments" | "replicasets") {
            self.forget_what_all_have_seen(ground);
        }
        Ok(())
    }

    fn note_deaths(&mut self, change: &Change, ground: &Ground) {
        let meta = change.new.as_ref().or(change.old.as_ref()).map(|object| object.metadata());
        let Some(meta) = meta else { return };
        let labels = |object: &crate::api::Stored| object.metadata().labels.clone();
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && labels(old) != labels(new)
        {
            self.relabelled.insert(meta.uid.clone().unwrap_or_default(), ground.step);
        }
        if change.new.is_none() || meta.deletion_timestamp.is_some() {
            self.dead.entry(meta.uid.clone().unwrap_or_default()).or_insert(ground.step);
        }
    }

    fn deployment(&mut self, change: &Change, ground: &Ground) {
        let Some(new) = typed::<Deployment>(change.new.as_ref()) else { return };
        let uid = new.metadata.uid.clone().unwrap_or_default();
        let watched = self.deployments.entry(uid.clone()).or_default();
        let generation = new.metadata.generation.unwrap_or(0);
        if watched.views.contains_key(&generation) {
            return;
        }
        let spec = snapshot::spec_of(new);
        let view = View {
            limits: Limits::of(new),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            recreates: recreate::is_strategy_of(new),
            paused: spec.paused == Some(true),
        };
        watched.views.insert(generation, view);
        watched.take_stock(ground, &uid);
    }

    fn replica_set(&mut self, change: &Change, ground: &Ground) -> Verdict {
        let (old, new) = (typed::<ReplicaSet>(change.old.as_ref()), typed::<ReplicaSet>(change.new.as_ref()));
        let is_ours = ground.actor == Actor::Controllers;
        if let (Some(old), None) = (old, new)
            && is_ours
        {
            // What is to have no pods may have adopted one that is to go as well.
            let is_to_have = old.spec.as_ref().and_then(|spec| spec.replicas) != Some(0);
            let has_pods = is_to_have && pods_of(ground, old).any(pod::is_active);
            let is_gone = old.metadata.deletion_timestamp.is_some();
            if has_pods && !is_gone {
                let name = old.metadata.name.clone().unwrap_or_default();
                return Err(Violation::new("no ReplicaSet in use is deleted", name));
            }
        }
        let Some(new) = new else { return Ok(()) };
        let Some(owner) = controller_of(&new.metadata) else { return Ok(()) };
        let Some(watched) = self.deployments.get_mut(&owner.uid) else { return Ok(()) };
        let total = total_size(ground, &owner.uid);
        let was_adopted = old.is_some_and(|old| controller_of(&old.metadata).is_none());
        if was_adopted {
            watched.take_stock(ground, &owner.uid);
        }
        let size = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let has_grown = size(new) > old.map_or(0, size);
        let most = watched.most();
        let bound = most.max(watched.excess_size);
        let name = new.metadata.name.as_deref().unwrap_or_default();
        if is_ours && !self.two_leaders {
            if has_grown && total > bound {
                let detail = format!(
                    "with {name} the ReplicaSets have {total} pods in their specs, at most {bound} allowed"
                );
                return Err(Violation::new("no more pods than replicas and maxSurge", detail));
            }
            if old.is_none() && !watched.views.is_empty() && watched.views.values().all(|view| view.paused) {
                return Err(Violation::new(
                    "a paused Deployment changes no template",
                    format!("{name} was created"),
                ));
            }
        }
        watched.excess_size = if total > most { watched.excess_size.min(total) } else { 0 };
        Ok(())
    }

    fn pod(&mut self, change: &Change, ground: &Ground) -> Verdict {
        let (old, new) = (typed::<Pod>(change.old.as_ref()), typed::<Pod>(change.new.as_ref()));
        if let (None, Some(new)) = (old, new) {
            self.pod_created(new, ground)?;
        }
        if let (Some(old), None) = (old, new)
            && let Some((deployment, _)) = deployment_of(ground, old)
            && let Some(watched) = self.deployments.get_mut(&deployment)
        {
            watched.overlaps &= versions(ground, &deployment) > 1 || !are_current(ground, &deployment);
        }
        if let Some(old) = old {
            let is_going = new.is_none_or(pod::is_terminating) && !pod::is_terminating(old);
            if is_going && ground.actor == Actor::Controllers {
                self.pod_deleted(old, ground)?;
            }
        }
        match (ground.actor, new) {
            (Actor::Scheduler, Some(new)) => not_too_full(new, ground),
            _ => Ok(()),
        }
    }

    fn pod_created(&mut self, new: &Pod, ground: &Ground) -> Verdict {
        if ground.actor != Actor::Controllers || self.two_leaders {
            return Ok(());
        }
        let Some((deployment, set)) = deployment_of(ground, new) else { return Ok(()) };
        let Some(watched) = self.deployments.get_mut(&deployment) else { return Ok(()) };
        let name = new.metadata.name.clone().unwrap_or_default();
        let count = active(ground, &deployment).count_as_i32();
        let most = watched.most();
        let bound = most.max(watched.excess_pods);
        if count > bound && !self.unsure_creates {
            let detail = format!("with {name} there are {count} pods, at most {bound} allowed");
            return Err(Violation::new("no more pods than replicas and maxSurge", detail));
        }
        // What a ReplicaSet is still creating for a size it had when it was adopted is no news either.
        if are_current(ground, &deployment) {
            let planned = count.max(total_size(ground, &deployment));
            watched.excess_pods = if planned > most { watched.excess_pods.min(planned) } else { 0 };
        }
        let recreates = !watched.views.is_empty() && watched.views.values().all(|view| view.recreates);
        if recreates && !watched.overlaps {
            let sets = sets_of(ground, &deployment).filter(|other| other.metadata.uid != set.metadata.uid);
            for other in sets {
                if let Some(old) = pods_of(ground, other).find(|pod| !pod::is_finished(pod)) {
                    let old = old.metadata.name.clone().unwrap_or_default();
                    return Err(Violation::new(
                        "Recreate never overlaps",
                        format!("{name} comes while {old} is there"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn pod_deleted(&mut self, old: &Pod, ground: &Ground) -> Verdict {
        let name = old.metadata.name.clone().unwrap_or_default();
        let owner = controller_of(&old.metadata);
        // One that was taken aside, by its labels, is nobody's any more, whether it is released already or not.
        let is_aside = owner
            .and_then(|owner| selector_of(ground, &owner.uid))
            .is_some_and(|selector| !selector.matches(&old.metadata));
        if is_aside || owner.is_none_or(|owner| owner.kind != "ReplicaSet") {
            return Err(Violation::new("nobody else's pod is deleted", name));
        }
        let Some((deployment, set)) = deployment_of(ground, old) else { return Ok(()) };
        let Some(watched) = self.deployments.get(&deployment) else { return Ok(()) };
        let is_ready_and_waiting =
            |pod: &Pod, seconds| pod::available_at(pod, seconds).is_some_and(|when| when <= ground.now());
        let seconds = watched.views.values().map(|view| view.min_ready_seconds).min().unwrap_or(0);
        // When the user wants fewer pods, those go that seem not ready, and that may be old news; in the middle of a
        // rollout each version gives its share, as upstream has it, whether its pods are available or not.
        let smallest = watched.views.values().map(|view| view.limits.most()).min().unwrap_or(0);
        let is_shrinking = watched.excess_pods > smallest;
        if self.two_leaders || self.pods_misbehave || is_shrinking || !is_ready_and_waiting(old, seconds) {
            return Ok(());
        }
        let all = || sets_of(ground, &deployment).flat_map(|set| pods_of(ground, set)).filter(pod::is_active);
        let available = all().filter(|pod| is_ready_and_waiting(pod, seconds)).count_as_i32();
        // Pods whose availability was not told yet look unhealthy, and go first (upstream does not know better either).
        let told = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        let left =
            pods_of(ground, set).filter(|pod| pod::is_active(pod) && is_ready_and_waiting(pod, seconds));
        if told <= left.count_as_i32() {
            return Ok(());
        }
        let fewest = watched.views.values().map(|view| if view.recreates { 0 } else { view.limits.fewest() });
        let fewest = fewest.min().unwrap_or(0);
        if available < fewest {
            let detail = format!("without {name} only {available} are available, {fewest} must be");
            return Err(Violation::new("no fewer available pods than replicas less maxUnavailable", detail));
        }
        Ok(())
    }

    /// Adoption and release are by selector and controller reference, and nothing foreign is touched.
    fn ownership(&self, change: &Change, ground: &Ground) -> Verdict {
        // Labels that changed after the controller looked, or that a watch may not have told it yet, do not count against
        // it: it releases what it adopted so.
        let is_old_news =
            |changed: Option<&usize>| changed.is_none_or(|step| *step + NEWS < ground.acting_since);
        if ground.actor != Actor::Controllers && ground.actor != Actor::Collector {
            return Ok(());
        }
        let Some(old) = change.old.as_ref().map(|object| object.metadata()) else { return Ok(()) };
        let name = || old.name.clone().unwrap_or_default();
        if old.name.as_deref().is_some_and(|name| name.starts_with(FOREIGN)) {
            return Err(Violation::new("foreign objects are left alone", name()));
        }
        let Some(new) = change.new.as_ref().map(|object| object.metadata()) else { return Ok(()) };
        match (controller_of(old), controller_of(new)) {
            (Some(before), Some(after)) if before.uid != after.uid => {
                Err(Violation::new("nothing is adopted from another controller", name()))
            }
            (None, Some(owner)) => {
                let matches = selector_of(ground, &owner.uid).is_none_or(|selector| selector.matches(new));
                if !matches && is_old_news(self.relabelled.get(new.uid.as_deref().unwrap_or_default())) {
                    return Err(Violation::new("only what matches is adopted", name()));
                }
                // It may have died after it was asked, but not before anybody began to think of adoption.
                match self.dead.get(&owner.uid) {
                    Some(step) if *step < ground.acting_since => Err(Violation::new(
                        "nothing is adopted for the dead",
                        format!("{} by {}", name(), owner.name),
                    )),
                    _ => Ok(()),
                }
            }
            (Some(owner), None) if ground.actor == Actor::Controllers => {
                let matches = selector_of(ground, &owner.uid).is_some_and(|selector| selector.matches(new));
                let is_news = !is_old_news(self.relabelled.get(new.uid.as_deref().unwrap_or_default()));
                if matches && !is_news && !self.dead.contains_key(&owner.uid) {
                    return Err(Violation::new("only what does not match is released", name()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Older specs do not count any more once everybody has reported to have seen the newest.
    fn forget_what_all_have_seen(&mut self, ground: &Ground) {
        for deployment in ground.api.list::<Deployment>() {
            let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
            let Some(watched) = self.deployments.get_mut(uid) else { continue };
            let generation = deployment.metadata.generation;
            let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
            if watched.views.len() > 1 && seen >= generation && are_current(ground, uid) {
                watched.views.retain(|known, _| Some(*known) == generation);
                watched.overlaps = false;
                watched.take_stock(ground, uid);
            }
        }
    }
}

impl Watched {
    /// What is there when limits change is there, whatever the new limits are.
    fn take_stock(&mut self, ground: &Ground, uid: &str) {
        self.excess_size = total_size(ground, uid);
        let on_their_way = if are_current(ground, uid) { 0 } else { self.excess_pods };
        self.excess_pods = active(ground, uid).count_as_i32().max(self.excess_size).max(on_their_way);
        self.overlaps |= versions(ground, uid) > 1;
    }

    fn most(&self) -> i32 {
        self.views.values().map(|view| view.limits.most()).max().unwrap_or(0)
    }
}

fn selector_of(ground: &Ground, uid: &str) -> Option<Matcher> {
    let has_uid = |meta: &ObjectMeta| meta.uid.as_deref() == Some(uid);
    let sets = ground.api.list::<ReplicaSet>().find(|set| has_uid(&set.metadata));
    let deployments = ground.api.list::<Deployment>().find(|deployment| has_uid(&deployment.metadata));
    let of_set = sets.and_then(|set| set.spec.as_ref()).map(|spec| Matcher::of(&spec.selector));
    of_set.or_else(|| deployments.and_then(|it| it.spec.as_ref()).map(|spec| Matcher::of(&spec.selector)))
}

fn not_too_full(new: &Pod, ground: &Ground) -> Verdict {
    let node = pod::node_name(new);
    let Some(object) = ground.api.get::<Node>(&Key::new("", node)) else { return Ok(()) };
    let cpu = object.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu"));
    let room =
        cpu.and_then(|cpu| sagong_api::quantity::Amount::try_from(cpu).ok()).map_or(0, |cpu| cpu.millis());
    let here = ground.api.list::<Pod>().filter(|pod| pod::node_name(pod) == node && !pod::is_finished(pod));
    let taken: i64 = here.filter_map(|pod| Wanted::of(pod).resources.get("cpu").copied()).sum();
    if taken > room {
        return Err(Violation::new(
            "no node takes more than it has",
            format!("{node}: {taken} of {room} mCPU"),
        ));
    }
    Ok(())
}

fn typed<K: 'static>(object: Option<&crate::api::Stored>) -> Option<&K> {
    object?.as_any().downcast_ref()
}

/// The ReplicaSets a Deployment controls.
pub(crate) fn sets_of<'a>(ground: &'a Ground, uid: &'a str) -> impl Iterator<Item = &'a ReplicaSet> {
    let is_theirs =
        move |set: &&ReplicaSet| controller_of(&set.metadata).is_some_and(|owner| owner.uid == uid);
    ground.api.list::<ReplicaSet>().filter(is_theirs)
}

/// The pods a ReplicaSet controls.
pub(crate) fn pods_of<'a>(ground: &'a Ground, set: &'a ReplicaSet) -> impl Iterator<Item = &'a Pod> {
    let is_theirs = move |pod: &&Pod| {
        controller_of(&pod.metadata).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
    };
    ground.api.list::<Pod>().filter(is_theirs)
}

/// The pods that controllers made for a Deployment, without those that are ending.
fn active<'a>(ground: &'a Ground, uid: &'a str) -> impl Iterator<Item = &'a Pod> {
    let pods = sets_of(ground, uid).flat_map(|set| pods_of(ground, set));
    pods.filter(|pod| pod::is_active(pod) && pod.metadata.generate_name.is_some())
}

/// Whether the controllers of all ReplicaSets of a Deployment have told that they have seen their specs, and have no pods
/// left to delete.
fn are_current(ground: &Ground, uid: &str) -> bool {
    sets_of(ground, uid).all(|set| {
        let size = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation >= set.metadata.generation && status.replicas <= size
    })
}

/// How many ReplicaSets of a Deployment have pods that have not ended, or are to have some.
fn versions(ground: &Ground, uid: &str) -> usize {
    let is_to_have = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas) != Some(0);
    let has = |set: &ReplicaSet| pods_of(ground, set).any(|pod| !pod::is_finished(pod));
    sets_of(ground, uid).filter(|set| is_to_have(set) || has(set)).count()
}

fn total_size(ground: &Ground, uid: &str) -> i32 {
    sets_of(ground, uid).filter_map(|set| set.spec.as_ref()?.replicas).sum()
}

fn deployment_of<'a>(ground: &'a Ground, pod: &Pod) -> Option<(String, &'a ReplicaSet)> {
    let owner = controller_of(&pod.metadata)?;
    let set = ground.api.list::<ReplicaSet>().find(|set| set.metadata.uid.as_ref() == Some(&owner.uid))?;
    Some((controller_of(&set.metadata)?.uid.clone(), set))
}

trait Count {
    fn count_as_i32(self) -> i32;
}

impl<I: Iterator> Count for I {
    fn count_as_i32(self) -> i32 {
        i32::try_from(self.count()).unwrap_or(i32::MAX)
    }
}
