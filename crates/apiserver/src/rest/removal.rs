//! What a delete does to an object: remove it, or mark it and wait. Pure.

use crate::failure::{Failure, Outcome};
use crate::namespaces;
use crate::resources::Resource;
use crate::rest::modify::{is_finished, uid_mismatch};
use crate::wire::Stored;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Time};
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_api::kind::Object;
use sagong_api::meta::{FOREGROUND, ORPHAN};

/// What a delete comes to.
pub(crate) enum Verdict {
    /// Nothing holds it: remove it.
    Remove,
    /// Store it, marked as being deleted.
    Mark(Box<dyn Object>),
    /// It is being deleted already, and nothing about that changes.
    Pending,
}

/// Checks that the options make sense by themselves.
pub(crate) fn validate_options(options: &DeleteOptions) -> Outcome<()> {
    let mut errors = Vec::new();
    let path = field::Path::new("propagationPolicy");
    if let Some(policy) = options.propagation_policy.as_deref() {
        if !matches!(policy, "Foreground" | "Background" | "Orphan") {
            let supported = ["Background", "Foreground", "Orphan", "nil"];
            errors.push(field::not_supported(&path, policy, &supported));
        }
        if options.orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(field::invalid(&path, policy, detail));
        }
    }
    if options.grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let path = field::Path::new("gracePeriodSeconds");
        errors.push(field::invalid(
            &path,
            options.grace_period_seconds,
            "must be greater than or equal to 0",
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid { kind: "DeleteOptions.meta.k8s.io".into(), name: String::new(), errors }.into())
}

/// Plans the deletion of `object`, whose stored form is `before`, at time `now`.
pub(crate) fn plan(
    resource: &Resource,
    before: &Stored,
    mut object: Box<dyn Object>,
    options: &DeleteOptions,
    now: Timestamp,
) -> Outcome<Verdict> {
    check_preconditions(resource, before, object.metadata(), options)?;
    let grace = resource.kind().deletion_grace_period(object.as_ref(), options.grace_period_seconds);
    let finalizers = finalizers_after(resource, object.metadata(), options);
    let finalizers_change = finalizers != object.metadata().finalizers.clone().unwrap_or_default();
    let mark_changes = mark(object.metadata_mut(), grace.unwrap_or(0), now);
    namespaces::mark_terminating(resource, object.as_mut());
    object.metadata_mut().finalizers = (!finalizers.is_empty()).then_some(finalizers);
    if is_finished(resource, object.as_ref()) {
        return Ok(Verdict::Remove);
    }
    Ok(if mark_changes || finalizers_change { Verdict::Mark(object) } else { Verdict::Pending })
}

fn check_preconditions(
    resource: &Resource,
    before: &Stored,
    meta: &ObjectMeta,
    options: &DeleteOptions,
) -> Outcome<()> {
    let Some(conditions) = &options.preconditions else { return Ok(()) };
    let name = meta.name.as_deref().unwrap_or_default();
    if conditions.uid.is_some() && conditions.uid != meta.uid {
        return Err(uid_mismatch(resource, name, conditions.uid.as_deref(), meta.uid.as_deref()));
    }
    let actual = before.revision.to_string();
    match conditions.resource_version.as_deref() {
        Some(asked) if asked != actual => Err(Failure::from(resource.conflict(
            name,
            format!(
                "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {actual}"
            ),
        ))),
        _ => Ok(()),
    }
}

/// The finalizers of the object after the propagation policy was applied to them.
///
/// A policy in the options wins, then a garbage-collection finalizer that is already there, then the kind's
/// default.
fn finalizers_after(resource: &Resource, meta: &ObjectMeta, options: &DeleteOptions) -> Vec<String> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    let wanted = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(true), _) | (_, Some("Orphan")) => Some(ORPHAN),
        (_, Some("Foreground")) => Some(FOREGROUND),
        (Some(false), _) | (_, Some(_)) => None,
        (None, None) if has(ORPHAN) => Some(ORPHAN),
        (None, None) if has(FOREGROUND) => Some(FOREGROUND),
        (None, None) => orphans_by_default(resource).then_some(ORPHAN),
    };
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    finalizers.extend(wanted.map(str::to_owned));
    finalizers
}

/// The kinds whose dependents upstream keeps when the client states no policy, for clients from before there
/// were policies.
fn orphans_by_default(resource: &Resource) -> bool {
    matches!(resource.qualified.as_str(), "replicationcontrollers" | "jobs.batch")
}

/// Marks the object as being deleted. A grace period may be shortened, never prolonged. Whether it changed.
fn mark(meta: &mut ObjectMeta, grace: i64, now: Timestamp) -> bool {
    let seconds = |grace: i64| SignedDuration::from_secs(grace.clamp(0, i64::from(i32::MAX)));
    let before = (meta.deletion_timestamp.clone(), meta.deletion_grace_period_seconds);
    match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds.unwrap_or(0)) {
        (None, _) => {
            meta.deletion_timestamp = Some(Time(now.saturating_add(seconds(grace)).unwrap_or(now)));
            meta.deletion_grace_period_seconds = Some(grace);
            meta.generation = meta.generation.map(|generation| generation + 1);
        }
        (Some(Time(at)), current) if grace < current => {
            let sooner = at.saturating_sub(seconds(current - grace)).unwrap_or(now);
            meta.deletion_timestamp = Some(Time(sooner));
            meta.deletion_grace_period_seconds = Some(grace);
        }
        _ => {}
    }
    before != (meta.deletion_timestamp.clone(), meta.deletion_grace_period_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn marked(second: i64, grace: i64) -> ObjectMeta {
        ObjectMeta {
            deletion_timestamp: Some(Time(at(second))),
            deletion_grace_period_seconds: Some(grace),
            ..ObjectMeta::default()
        }
    }

    #[rstest::rstest]
    #[case::first_delete(ObjectMeta::default(), 30, marked(130, 30), true)]
    #[case::shortened(marked(130, 30), 5, marked(105, 5), true)]
    #[case::not_prolonged(marked(130, 30), 60, marked(130, 30), false)]
    #[case::finished(marked(130, 30), 0, marked(100, 0), true)]
    #[case::repeated(marked(130, 30), 30, marked(130, 30), false)]
    fn a_grace_period_begins_once_and_is_only_ever_shortened(
        #[case] mut meta: ObjectMeta,
        #[case] grace: i64,
        #[case] expected: ObjectMeta,
        #[case] changes: bool,
    ) {
        assert_eq!(mark(&mut meta, grace, at(100)), changes);
        assert_eq!(meta, expected);
    }
}
