//! What must be true in the end: faults are over, nothing is left to do, and the cluster is as it was asked to be.

use crate::data_plane::ready_addresses;
use crate::ground::Ground;
use crate::invariants::{Violation, pods_of, sets_of};
use crate::scenario::{NAME, NAMESPACE};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sagong_controllers::cache::{Key, controller_of};
use sagong_controllers::deployment::progress::condition;
use sagong_controllers::deployment::rolling_update::Limits;
use sagong_controllers::deployment::{recreate, snapshot, template_hash};
use sagong_controllers::pod;
use std::collections::BTreeSet;

type Verdict = Result<(), Violation>;

fn wrong(detail: impl Into<String>) -> Verdict {
    Err(Violation::new("every history converges", detail))
}

/// Compares what is with what was asked for. With `two_leaders` for a while two versions may have got one number.
pub(crate) fn check(ground: &Ground, two_leaders: bool) -> Verdict {
    match ground.api.get::<Deployment>(&Key::new(NAMESPACE, NAME)) {
        Some(deployment) => of_deployment(ground, deployment, two_leaders)?,
        None => without_deployment(ground)?,
    }
    of_sets(ground)?;
    of_service(ground)
}

fn of_deployment(ground: &Ground, deployment: &Deployment, two_leaders: bool) -> Verdict {
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let wanted = snapshot::wanted(deployment);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation != deployment.metadata.generation {
        return wrong("the last change of the Deployment was not observed");
    }
    if snapshot::spec_of(deployment).paused == Some(true) {
        return of_paused(ground, deployment);
    }
    let total: i32 = sets_of(ground, uid).filter_map(|set| set.spec.as_ref()?.replicas).sum();
    if total != wanted {
        return wrong(format!("{wanted} replicas wanted, the ReplicaSets have {total}"));
    }
    let counts =
        [status.replicas, status.ready_replicas, status.available_replicas].map(Option::unwrap_or_default);
    if counts != [wanted; 3] {
        return wrong(format!(
            "{wanted} replicas wanted, the status tells {counts:?} pods, ready and available ones"
        ));
    }
    if condition(&status, "Available").is_none_or(|available| available.status != "True") {
        return wrong("the Deployment is not available");
    }
    if status.updated_replicas.unwrap_or(0) != wanted {
        return wrong(format!("{:?} of {wanted} replicas are updated", status.updated_replicas));
    }
    let reason = condition(&status, "Progressing").and_then(|condition| condition.reason.clone());
    if reason.as_deref() != Some("NewReplicaSetAvailable") {
        return wrong(format!("the rollout is complete, but the reason told is {reason:?}"));
    }
    let sets: Vec<_> = sets_of(ground, uid).collect();
    let limit = snapshot::spec_of(deployment).revision_history_limit.unwrap_or(10);
    let old = sets.len().saturating_sub(1);
    if i32::try_from(old).unwrap_or(i32::MAX) > limit {
        return wrong(format!("{old} old ReplicaSets are kept, {limit} are to be"));
    }
    of_revisions(deployment, &sets, two_leaders)
}

/// A rollout may be paused with the surge in place, or before there is any ReplicaSet. With Recreate and several ReplicaSets
/// nothing is scaled either.
fn of_paused(ground: &Ground, deployment: &Deployment) -> Verdict {
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let sizes: Vec<i32> = sets_of(ground, uid).filter_map(|set| set.spec.as_ref()?.replicas).collect();
    let (total, in_use) = (sizes.iter().sum::<i32>(), sizes.iter().filter(|size| **size > 0).count());
    let limits = Limits::of(deployment);
    let is_scaled = in_use < 2 || !recreate::is_strategy_of(deployment);
    if is_scaled && !sizes.is_empty() && !(limits.wanted..=limits.most()).contains(&total) {
        return wrong(format!("{limits:?} while paused, the ReplicaSets have {total}"));
    }
    Ok(())
}

fn of_revisions(deployment: &Deployment, sets: &[&ReplicaSet], two_leaders: bool) -> Verdict {
    let revision = |annotations: Option<&std::collections::BTreeMap<String, String>>| {
        let text = annotations.and_then(|all| all.get("deployment.kubernetes.io/revision"));
        text.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0)
    };
    let own = revision(deployment.metadata.annotations.as_ref());
    let image = |template: Option<&k8s_openapi::api::core::v1::PodTemplateSpec>| {
        template.and_then(|template| template.spec.as_ref()?.containers.first()?.image.clone())
    };
    let template = &snapshot::spec_of(deployment).template;
    let mut all: Vec<i64> = Vec::new();
    for set in sets {
        let number = revision(set.metadata.annotations.as_ref());
        let of_set = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let is_used = set.spec.as_ref().and_then(|spec| spec.replicas) != Some(0);
        if is_used && (number != own || image(of_set) != image(Some(template))) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            return wrong(format!("{name} is in use with revision {number}, the Deployment's is {own}"));
        }
        all.push(number);
    }
    // One that was orphaned and adopted keeps the number that another Deployment gave it, as upstream has it; it may be
    // that of one this Deployment had made before it saw the orphan.
    let made = deployment.metadata.creation_timestamp.as_ref();
    let own_sets = sets.iter().filter(|set| set.metadata.creation_timestamp.as_ref() >= made);
    let numbers: Vec<i64> = own_sets.map(|set| revision(set.metadata.annotations.as_ref())).collect();
    let different: BTreeSet<i64> = numbers.iter().copied().collect();
    let is_ambiguous = different.len() != numbers.len() && !two_leaders;
    if is_ambiguous || all.iter().filter(|number| **number >= own).count() != usize::from(!all.is_empty()) {
        return wrong(format!("revisions {all:?}, the Deployment's is {own}"));
    }
    Ok(())
}

/// What the Deployment owned is gone, unless it was orphaned; then it stays as it was.
fn without_deployment(ground: &Ground) -> Verdict {
    let owned = ground.api.list::<ReplicaSet>().find(|set| controller_of(&set.metadata).is_some());
    match owned {
        Some(set) => {
            wrong(format!("{} has outlived its Deployment", set.metadata.name.as_deref().unwrap_or_default()))
        }
        None => Ok(()),
    }
}

/// Every ReplicaSet has its pods, and every pod made for one is in one.
fn of_sets(ground: &Ground) -> Verdict {
    for set in ground.api.list::<ReplicaSet>() {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let pods: Vec<&Pod> = pods_of(ground, set).filter(|pod| !pod::is_finished(pod)).collect();
        let ready = pods.iter().filter(pod::is_ready).count();
        let counts = [pods.len(), ready].map(|count| i32::try_from(count).unwrap_or(i32::MAX));
        if counts != [wanted; 2] {
            return wrong(format!(
                "{name} is to have {wanted} pods, it has {} and {} are ready",
                counts[0], counts[1]
            ));
        }
    }
    let uids: BTreeSet<&String> =
        ground.api.list::<ReplicaSet>().filter_map(|set| set.metadata.uid.as_ref()).collect();
    for pod in ground.api.list::<Pod>() {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
        if owner.is_some_and(|owner| !uids.contains(&owner.uid)) {
            return wrong(format!("pod {name} has outlived its ReplicaSet"));
        }
        let labels = pod.metadata.labels.as_ref();
        let is_stray =
            labels.is_some_and(|labels| labels.contains_key(template_hash::LABEL) && labels["app"] == NAME);
        let matches = |set: &ReplicaSet| {
            set.spec.as_ref().is_some_and(|spec| {
                sagong_controllers::selector::Matcher::of(&spec.selector).matches(&pod.metadata)
            })
        };
        let is_orphan = is_stray && controller_of(&pod.metadata).is_none() && !pod::is_finished(pod);
        if is_orphan && ground.api.list::<ReplicaSet>().any(matches) {
            return wrong(format!("pod {name} matches a ReplicaSet that has not adopted it"));
        }
    }
    Ok(())
}

/// The Service lists exactly the pods that serve.
fn of_service(ground: &Ground) -> Verdict {
    if ground.api.get::<Service>(&Key::new(NAMESPACE, NAME)).is_none() {
        return Ok(());
    }
    let serves = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        pod::is_ready(pod)
            && pod::is_active(pod)
            && labels.is_some_and(|labels| labels.get("app").is_some_and(|app| app == NAME))
    };
    let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let pods: BTreeSet<String> = ground.api.list::<Pod>().filter(serves).filter_map(address).collect();
    let slices: BTreeSet<String> = ground.api.list::<EndpointSlice>().flat_map(ready_addresses).collect();
    if slices != pods {
        return wrong(format!("pods {pods:?} serve, the slices list {slices:?}"));
    }
    let endpoints = ground.api.get::<Endpoints>(&Key::new(NAMESPACE, NAME));
    let subsets = endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
    let listed: BTreeSet<String> = subsets
        .flat_map(|subset| subset.addresses.iter().flatten())
        .map(|address| address.ip.clone())
        .collect();
    if listed != pods {
        return wrong(format!("pods {pods:?} serve, the Endpoints list {listed:?}"));
    }
    Ok(())
}
