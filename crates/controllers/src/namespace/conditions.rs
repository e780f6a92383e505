//! The conditions of a namespace that is being deleted: what still holds it.

use super::content::Content;
use crate::plan::{PatchKind, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::collections::BTreeMap;

/// The write that brings the conditions up to date, if they are not.
pub fn write(namespace: &Namespace, contents: &[Content], now: Timestamp) -> Option<Write> {
    let current = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let current: BTreeMap<&str, &NamespaceCondition> = current.map(|c| (c.type_.as_str(), c)).collect();
    let changed: Vec<NamespaceCondition> = wanted(contents)
        .into_iter()
        .filter_map(|mut condition| {
            let before = current.get(condition.type_.as_str());
            if before.is_some_and(|b| {
                b.status == condition.status && b.reason == condition.reason && b.message == condition.message
            }) {
                return None;
            }
            let since = before.filter(|before| before.status == condition.status);
            condition.last_transition_time =
                since.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now)));
            Some(condition)
        })
        .collect();
    let body = json!({"status": {"conditions": changed}});
    (!changed.is_empty())
        .then(|| Write::patch_status(namespace, PatchKind::Strategic, body).tolerating(&[404]))
}

/// What the conditions should say, without times.
pub fn wanted(contents: &[Content]) -> Vec<NamespaceCondition> {
    let remaining = remaining(contents);
    let finalizers = finalizers(contents);
    vec![
        no(
            "NamespaceDeletionDiscoveryFailure",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        no(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        no(
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        match remaining.as_str() {
            "" => no("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
            some => yes(
                "NamespaceContentRemaining",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {some}"),
            ),
        },
        match finalizers.as_str() {
            "" => no(
                "NamespaceFinalizersRemaining",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
            some => yes(
                "NamespaceFinalizersRemaining",
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {some}"),
            ),
        },
    ]
}

/// `configmaps. has 2 resource instances, deployments.apps has 1 resource instances`.
fn remaining(contents: &[Content]) -> String {
    let told = contents.iter().filter(|content| !content.objects.is_empty()).map(|content| {
        let count = content.objects.len();
        format!("{}.{} has {count} resource instances", content.kind.plural, content.kind.group)
    });
    sorted(told)
}

/// `example.com/hold in 2 resource instances`.
fn finalizers(contents: &[Content]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for object in contents.iter().flat_map(|content| &content.objects) {
        for finalizer in object.finalizers.iter().flatten() {
            *counts.entry(finalizer).or_default() += 1;
        }
    }
    sorted(counts.into_iter().map(|(name, count)| format!("{name} in {count} resource instances")))
}

fn sorted(told: impl Iterator<Item = String>) -> String {
    let mut told: Vec<String> = told.collect();
    told.sort();
    told.join(", ")
}

fn no(type_: &str, reason: &str, message: &str) -> NamespaceCondition {
    condition(type_, "False", reason, message.to_owned())
}

fn yes(type_: &str, reason: &str, message: String) -> NamespaceCondition {
    condition(type_, "True", reason, message)
}

fn condition(type_: &str, status: &str, reason: &str, message: String) -> NamespaceCondition {
    NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{KindRef, Verb};
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn contents() -> Vec<Content> {
        let held = ObjectMeta { finalizers: Some(vec!["example.com/hold".into()]), ..ObjectMeta::default() };
        vec![
            Content {
                kind: KindRef::of::<Deployment>(),
                deletes_collections: true,
                objects: vec![ObjectMeta::default()],
            },
            Content {
                kind: KindRef::of::<ConfigMap>(),
                deletes_collections: true,
                objects: vec![held.clone(), held],
            },
        ]
    }

    fn messages(contents: &[Content]) -> Vec<String> {
        wanted(contents).into_iter().filter(|c| c.status == "True").filter_map(|c| c.message).collect()
    }

    #[test]
    fn what_remains_is_counted_by_kind_and_by_finalizer() {
        assert_eq!(
            messages(&contents()),
            [
                "Some resources are remaining: configmaps. has 2 resource instances, \
                 deployments.apps has 1 resource instances",
                "Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances",
            ]
        );
        assert!(messages(&[]).is_empty());
    }

    #[test]
    fn conditions_are_written_once_and_keep_their_time_while_their_status_stays() {
        let mut namespace = Namespace::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let write_at = |namespace: &Namespace, contents: &[Content], second| {
            write(namespace, contents, at(second)).map(|write| match write.verb {
                Verb::PatchStatus(_, body) => {
                    serde_json::from_value::<Vec<NamespaceCondition>>(body["status"]["conditions"].clone())
                        .unwrap()
                }
                _ => panic!("{write:?}"),
            })
        };
        let first = write_at(&namespace, &contents(), 1).unwrap();
        assert_eq!(first.len(), 5);
        namespace.status.get_or_insert_default().conditions = Some(first);
        assert_eq!(write_at(&namespace, &contents(), 2), None);
        let less = write_at(&namespace, &contents()[..1], 3).unwrap();
        let told: Vec<_> =
            less.iter().map(|c| (c.type_.as_str(), c.last_transition_time.clone().unwrap().0)).collect();
        assert_eq!(told, [("NamespaceContentRemaining", at(1)), ("NamespaceFinalizersRemaining", at(3))]);
    }
}
