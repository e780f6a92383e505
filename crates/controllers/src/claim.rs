//! Adoption and release: which of the objects a selector matches belong to which controller.
//!
//! A controller owns the objects whose controller reference carries its uid. It adopts those that match its
//! selector and have no controller, and releases those of its own that no longer match. It never touches what
//! another controller owns.

use crate::cache::{Cached, controller_of};
use crate::plan::{Guard, PatchKind, Step, Write};
use crate::selector::Matcher;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sagong_api::kind::TypedObject;
use serde_json::json;
use std::sync::Arc;

/// What is whose, and the writes that make it so.
pub struct Claims<C> {
    /// The objects that belong to the owner, adopted ones included.
    pub owned: Vec<Arc<C>>,
    /// Adoptions and releases; the adoptions are made only if the owner is still alive.
    pub steps: Vec<Step>,
}

/// The reference with which `owner` marks what it controls.
pub fn controller_reference<O: TypedObject>(owner: &O) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: O::API_VERSION.to_owned(),
        kind: O::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Sorts out `candidates`: objects the owner controls or nobody controls. `may_adopt` is asked for those nobody
/// controls and that match.
pub fn claim<O: TypedObject, C: Cached>(
    owner: &O,
    selector: &Matcher,
    candidates: impl IntoIterator<Item = Arc<C>>,
    may_adopt: impl Fn(&C) -> bool,
) -> Claims<C> {
    let uid = owner.metadata().uid.as_deref().unwrap_or_default();
    let owner_is_going = owner.metadata().deletion_timestamp.is_some();
    let (mut owned, mut adoptions, mut releases) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in candidates {
        let meta = candidate.metadata();
        match controller_of(meta) {
            Some(controller) if controller.uid != uid => {}
            Some(_) if selector.matches(meta) => owned.push(candidate),
            Some(_) if owner_is_going => {}
            Some(_) => releases.push(release(&*candidate, uid)),
            None => {
                let is_wanted = !owner_is_going && meta.deletion_timestamp.is_none();
                if is_wanted && selector.matches(meta) && may_adopt(&candidate) {
                    adoptions.push(adopt(owner, &*candidate));
                    owned.push(candidate);
                }
            }
        }
    }
    let mut steps = Vec::new();
    if !adoptions.is_empty() {
        steps.push(Step::together(adoptions).guarded(Guard::alive(owner)));
    }
    if !releases.is_empty() {
        steps.push(Step::together(releases));
    }
    Claims { owned, steps }
}

/// Gone meanwhile: nothing to adopt.
fn adopt<O: TypedObject, C: Cached>(owner: &O, object: &C) -> Write {
    let body = json!({"metadata": {
        "ownerReferences": [controller_reference(owner)],
        "uid": uid(object.metadata()),
    }});
    Write::patch(object, PatchKind::Strategic, body).tolerating(&[404])
}

/// Gone meanwhile, or another object of that name: nothing to release.
fn release<C: Cached>(object: &C, owner: &str) -> Write {
    let body = json!({"metadata": {
        "ownerReferences": [{"$patch": "delete", "uid": owner}],
        "uid": uid(object.metadata()),
    }});
    Write::patch(object, PatchKind::Strategic, body).tolerating(&[404, 422])
}

fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn owner() -> ReplicaSet {
        let value = json!({"metadata": {"name": "rs", "namespace": "default", "uid": "rs"},
            "spec": {"selector": {"matchLabels": {"app": "kubia"}}}});
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, app: &str, controller: Option<&str>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
        pod.metadata.owner_references = controller.map(|uid| {
            vec![OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() }]
        });
        Arc::new(pod)
    }

    fn outcome(owner: &ReplicaSet, pods: Vec<Arc<Pod>>) -> (Vec<String>, Vec<(String, bool)>) {
        let selector = Matcher::of(&owner.spec.as_ref().unwrap().selector);
        let claims = claim(owner, &selector, pods, |_| true);
        let owned = claims.owned.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        let writes = claims
            .steps
            .iter()
            .flat_map(|step| step.writes.iter().map(|write| (write.key.name.clone(), step.guard.is_some())));
        (owned, writes.collect())
    }

    #[test]
    fn matching_orphans_are_adopted_own_strangers_released_and_others_left_alone() {
        let pods = vec![
            pod("mine", "kubia", Some("rs")),
            pod("orphan", "kubia", None),
            pod("relabelled", "debug", Some("rs")),
            pod("foreign", "kubia", Some("other")),
            pod("unrelated", "other", None),
        ];
        let (owned, writes) = outcome(&owner(), pods);
        assert_eq!(owned, ["mine", "orphan"]);
        assert_eq!(writes, [("orphan".to_owned(), true), ("relabelled".to_owned(), false)]);
    }

    #[test]
    fn an_owner_being_deleted_neither_adopts_nor_releases() {
        let mut owner = owner();
        owner.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let pods = vec![
            pod("mine", "kubia", Some("rs")),
            pod("orphan", "kubia", None),
            pod("relabelled", "debug", Some("rs")),
        ];
        let (owned, writes) = outcome(&owner, pods);
        assert_eq!(owned, ["mine"]);
        assert!(writes.is_empty());
    }

    #[test]
    fn a_terminating_orphan_is_not_adopted() {
        let mut orphan = Pod::clone(&pod("orphan", "kubia", None));
        orphan.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let (owned, writes) = outcome(&owner(), vec![Arc::new(orphan)]);
        assert!(owned.is_empty() && writes.is_empty());
    }
}
