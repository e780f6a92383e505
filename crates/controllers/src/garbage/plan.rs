//! What becomes of an object, given what became of its owners.

use super::graph::{self, Item};
use crate::plan::{Deletion, Note, PatchKind, Plan, Step, Verb, Write};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sagong_api::meta::{FOREGROUND, ORPHAN};
use serde_json::{Value, json};
use std::sync::Arc;

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It exists.
    Solid,
    /// It is being deleted in the foreground: it waits for its dependents to go first.
    Waiting,
    /// It does not exist, or another object has its name now.
    Absent,
    /// The same, but an object with its uid exists in another namespace. Owner references do not cross namespaces.
    Misplaced,
    /// It cannot be told, as nothing is known of its kind. Nothing may be deleted then.
    Unknown,
}

impl Standing {
    /// The standing of an owner that exists.
    pub fn of(owner: &ObjectMeta) -> Self {
        if graph::is_deleting_dependents(owner) { Self::Waiting } else { Self::Solid }
    }
}

/// An owner reference and what is known of the owner.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The reference.
    pub reference: OwnerReference,
    /// The owner.
    pub standing: Standing,
}

/// What a plan depends on.
pub struct Snapshot {
    /// The object in question.
    pub item: Item,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// What it owns; filled only if it or an owner of it is being deleted with regard to dependents.
    pub dependents: Vec<Item>,
}

/// Decides about one object.
///
/// * Being deleted with `orphan`: its dependents lose their reference to it, then it loses the finalizer.
/// * Being deleted with `foregroundDeletion`: it loses that finalizer when no dependent blocks it any more.
/// * With a solid owner: the references to owners that are not solid are removed.
/// * With none: it is deleted; in the foreground if an owner waits for it and it has dependents itself.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let Snapshot { item, owners, dependents } = snapshot;
    let mut plan = Plan { notes: misplaced(item, owners), ..Plan::default() };
    if item.is_terminating() {
        if item.is_orphaning() {
            plan.then_all(dependents.iter().map(|dependent| disown(dependent, &[item.uid()])).collect());
            plan.then(without_finalizer(item, ORPHAN));
        } else if item.is_deleting_dependents() && !dependents.iter().any(|d| d.blocks(item.uid())) {
            plan.then(without_finalizer(item, FOREGROUND));
        }
        return plan;
    }
    let count = |standing| owners.iter().filter(|owner| owner.standing == standing).count();
    if owners.is_empty() || count(Standing::Unknown) > 0 {
        return plan;
    }
    if count(Standing::Solid) > 0 {
        let lost = owners.iter().filter(|owner| owner.standing != Standing::Solid);
        let lost: Vec<&str> = lost.map(|owner| owner.reference.uid.as_str()).collect();
        if !lost.is_empty() {
            plan.then(disown(item, &lost));
        }
        return plan;
    }
    if count(Standing::Waiting) > 0 && !dependents.is_empty() {
        let is_in_a_circle = dependents.iter().any(Item::is_deleting_dependents);
        if is_in_a_circle {
            // Everybody in it waits for somebody else. One must cease to block.
            plan.then(unblock(item, owners));
        }
        plan.then(delete(item, "Foreground", !is_in_a_circle));
        return plan;
    }
    plan.steps.push(Step::together(vec![delete(item, propagation(item), true)]));
    plan
}

/// What the object's finalizers ask for.
fn propagation(item: &Item) -> &'static str {
    match item.meta() {
        meta if graph::has_finalizer(meta, ORPHAN) => "Orphan",
        meta if graph::has_finalizer(meta, FOREGROUND) => "Foreground",
        _ => "Background",
    }
}

/// Deletes this object; if `unchanged`, only in the version whose owners were looked at.
fn delete(item: &Item, propagation: &'static str, unchanged: bool) -> Write {
    let deletion = Deletion {
        uid: item.meta().uid.clone(),
        resource_version: item.meta().resource_version.clone().filter(|_| unchanged),
        propagation: Some(propagation),
        grace_period: None,
    };
    Write::at(item.kind, item.key(), Verb::Delete(deletion)).tolerating(&[404])
}

/// Removes references to these owners. That the object is gone or no longer has them is as good.
fn disown(item: &Item, owners: &[&str]) -> Write {
    let references: Vec<Value> = owners.iter().map(|uid| json!({"$patch": "delete", "uid": uid})).collect();
    patch_references(item, references).tolerating(&[404, 422])
}

/// Ends that the object holds back any owner.
fn unblock(item: &Item, owners: &[Owner]) -> Write {
    let released =
        owners.iter().map(|owner| json!({"uid": owner.reference.uid, "blockOwnerDeletion": false}));
    patch_references(item, released.collect()).tolerating(&[404])
}

fn patch_references(item: &Item, references: Vec<Value>) -> Write {
    let body = json!({"metadata": {"ownerReferences": references, "uid": item.uid()}});
    Write::at(item.kind, item.key(), Verb::Patch(PatchKind::Strategic, body))
}

/// Removes a finalizer from the version that was looked at.
fn without_finalizer(item: &Item, name: &str) -> Write {
    let meta = item.meta();
    let rest: Vec<&String> =
        meta.finalizers.iter().flatten().filter(|finalizer| *finalizer != name).collect();
    let body = json!({"metadata": {
        "finalizers": if rest.is_empty() { Value::Null } else { json!(rest) },
        "resourceVersion": meta.resource_version,
        "uid": meta.uid,
    }});
    Write::at(item.kind, item.key(), Verb::Patch(PatchKind::Merge, body)).tolerating(&[404])
}

/// A note for every owner that is in another namespace.
fn misplaced(item: &Item, owners: &[Owner]) -> Vec<Note> {
    let misplaced = owners.iter().filter(|owner| owner.standing == Standing::Misplaced);
    misplaced
        .map(|Owner { reference, .. }| {
            let namespace = item.meta().namespace.as_deref().unwrap_or_default();
            let OwnerReference { api_version, kind, name, uid, .. } = reference;
            let owner = format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]");
            let message = format!("ownerRef {owner} does not exist in namespace {namespace:?}");
            Note::warning(&reference_to(item), "OwnerRefInvalidNamespace", message)
        })
        .collect()
}

fn reference_to(item: &Item) -> Arc<ObjectReference> {
    let meta = item.meta();
    Arc::new(ObjectReference {
        api_version: Some(item.kind.api_version.to_owned()),
        kind: Some(item.kind.kind.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Absent, Misplaced, Solid, Unknown, Waiting};
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use rstest::rstest;

    fn item(name: &str, finalizers: &[&str], terminating: bool, owners: &[(&str, bool)]) -> Item {
        let mut object = ConfigMap::default();
        let meta = &mut object.metadata;
        meta.namespace = Some("default".into());
        meta.name = Some(name.into());
        meta.uid = Some(name.into());
        meta.resource_version = Some("7".into());
        meta.finalizers = Some(finalizers.iter().map(|name| name.to_string()).collect());
        meta.deletion_timestamp = terminating.then_some(Time(jiff::Timestamp::UNIX_EPOCH));
        meta.owner_references = Some(owners.iter().map(|(uid, blocks)| reference(uid, *blocks)).collect());
        Item::new(Arc::new(object))
    }

    fn reference(uid: &str, blocks: bool) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: uid.into(),
            uid: uid.into(),
            block_owner_deletion: Some(blocks),
            ..OwnerReference::default()
        }
    }

    fn owners(standings: &[Standing]) -> Vec<Owner> {
        let owner = |(index, standing): (usize, &Standing)| Owner {
            reference: reference(&format!("o{index}"), true),
            standing: *standing,
        };
        standings.iter().enumerate().map(owner).collect()
    }

    /// `delete a Background`, `patch b {…}`.
    fn shown(plan: &Plan) -> Vec<String> {
        let show = |write: &Write| match &write.verb {
            Verb::Delete(deletion) => format!(
                "delete {} {}{}",
                write.key.name,
                deletion.propagation.unwrap_or_default(),
                if deletion.resource_version.is_some() { "" } else { " any version" }
            ),
            Verb::Patch(_, body) => format!("patch {} {}", write.key.name, body["metadata"]),
            _ => format!("{write:?}"),
        };
        plan.writes().map(show).collect()
    }

    #[rstest]
    #[case::no_owner(&[], &[])]
    #[case::solid(&[Solid], &[])]
    #[case::absent(&[Absent], &["delete a Background"])]
    #[case::all_absent(&[Absent, Absent], &["delete a Background"])]
    #[case::misplaced_is_absent(&[Misplaced], &["delete a Background"])]
    #[case::waiting(&[Waiting], &["delete a Background"])]
    #[case::waiting_and_absent(&[Waiting, Absent], &["delete a Background"])]
    #[case::unknown_kind(&[Unknown], &[])]
    #[case::unknown_beside_absent(&[Absent, Unknown], &[])]
    #[case::one_is_left(&[Solid, Absent],
        &[r#"patch a {"ownerReferences":[{"$patch":"delete","uid":"o1"}],"uid":"a"}"#])]
    #[case::one_is_left_and_one_waits(&[Waiting, Solid],
        &[r#"patch a {"ownerReferences":[{"$patch":"delete","uid":"o0"}],"uid":"a"}"#])]
    fn an_object_goes_with_its_last_owner(#[case] standings: &[Standing], #[case] expected: &[&str]) {
        let snapshot =
            Snapshot { item: item("a", &[], false, &[]), owners: owners(standings), dependents: Vec::new() };
        assert_eq!(shown(&plan(&snapshot)), expected);
    }

    #[rstest]
    #[case::plain(&[], "Background")]
    #[case::of_others(&["example.com/hold"], "Background")]
    #[case::orphan(&[ORPHAN], "Orphan")]
    #[case::foreground(&[FOREGROUND], "Foreground")]
    fn the_finalizers_of_an_object_decide_about_its_own_dependents(
        #[case] finalizers: &[&str],
        #[case] propagation: &str,
    ) {
        let item = item("a", finalizers, false, &[]);
        let snapshot = Snapshot { item, owners: owners(&[Absent]), dependents: Vec::new() };
        assert_eq!(shown(&plan(&snapshot)), [format!("delete a {propagation}")]);
    }

    #[test]
    fn a_dependent_with_dependents_of_a_waiting_owner_is_deleted_in_the_foreground() {
        let dependents = vec![item("b", &[], false, &[("a", true)])];
        let snapshot = Snapshot { item: item("a", &[], false, &[]), owners: owners(&[Waiting]), dependents };
        assert_eq!(shown(&plan(&snapshot)), ["delete a Foreground"]);
    }

    #[test]
    fn a_circle_of_waiting_owners_is_broken() {
        let dependents = vec![item("b", &[FOREGROUND], true, &[("a", true)])];
        let snapshot = Snapshot { item: item("a", &[], false, &[]), owners: owners(&[Waiting]), dependents };
        let unblocked = r#"patch a {"ownerReferences":[{"blockOwnerDeletion":false,"uid":"o0"}],"uid":"a"}"#;
        assert_eq!(shown(&plan(&snapshot)), [unblocked, "delete a Foreground any version"]);
    }

    #[rstest]
    #[case::no_dependents(&[], &[r#"patch a {"finalizers":["x/y"],"resourceVersion":"7","uid":"a"}"#])]
    #[case::blocked(&[("a", true)], &[])]
    #[case::not_blocked(&[("a", false)], &[r#"patch a {"finalizers":["x/y"],"resourceVersion":"7","uid":"a"}"#])]
    fn foreground_deletion_ends_when_no_dependent_blocks(
        #[case] references: &[(&str, bool)],
        #[case] expected: &[&str],
    ) {
        let dependents = references.iter().map(|reference| item("b", &[], false, &[*reference])).collect();
        let item = item("a", &[FOREGROUND, "x/y"], true, &[]);
        let snapshot = Snapshot { item, owners: Vec::new(), dependents };
        assert_eq!(shown(&plan(&snapshot)), expected);
    }

    #[test]
    fn orphaning_sets_the_dependents_free_before_the_owner_goes() {
        let dependents = vec![item("b", &[], false, &[("a", true)]), item("c", &[], false, &[("a", true)])];
        let snapshot = Snapshot { item: item("a", &[ORPHAN], true, &[]), owners: Vec::new(), dependents };
        let plan = plan(&snapshot);
        assert_eq!(plan.steps.len(), 2, "all dependents first");
        let freed = |name: &str| {
            format!(r#"patch {name} {{"ownerReferences":[{{"$patch":"delete","uid":"a"}}],"uid":"{name}"}}"#)
        };
        let last = r#"patch a {"finalizers":null,"resourceVersion":"7","uid":"a"}"#.to_owned();
        assert_eq!(shown(&plan), [freed("b"), freed("c"), last]);
    }

    #[test]
    fn what_is_being_deleted_for_other_reasons_is_left_alone() {
        let item = item("a", &["x/y"], true, &[]);
        let snapshot = Snapshot { item, owners: owners(&[Absent]), dependents: Vec::new() };
        assert!(plan(&snapshot).is_idle());
    }

    #[test]
    fn an_owner_in_another_namespace_is_reported() {
        let snapshot = Snapshot {
            item: item("a", &[], false, &[]),
            owners: owners(&[Misplaced]),
            dependents: Vec::new(),
        };
        let plan = plan(&snapshot);
        assert_eq!(plan.notes[0].reason, "OwnerRefInvalidNamespace");
        assert_eq!(
            plan.notes[0].message,
            r#"ownerRef [v1/ConfigMap, namespace: default, name: o0, uid: o0] does not exist in namespace "default""#
        );
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        prop_oneof![Just(Solid), Just(Waiting), Just(Absent), Just(Misplaced), Just(Unknown)]
    }

    proptest! {
        #[test]
        fn nothing_with_a_solid_or_unknown_owner_is_ever_deleted(
            standings in proptest::collection::vec(any_standing(), 0..5),
            terminating: bool,
        ) {
            let safe = standings.is_empty() || standings.iter().any(|s| matches!(s, Solid | Unknown));
            let item = item("a", &[], terminating, &[]);
            let snapshot = Snapshot { item, owners: owners(&standings), dependents: Vec::new() };
            let deletes = plan(&snapshot).writes().any(|write| matches!(write.verb, Verb::Delete(_)));
            prop_assert_eq!(deletes, !safe && !terminating);
        }
    }
}
