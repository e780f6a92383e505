//! Rolling back by annotation, `deprecated.deployment.rollback.to`, which stands for what `spec.rollbackTo` was in
//! extensions/v1beta1: the controller puts an old ReplicaSet's template back and removes the annotation.

use super::snapshot::{Roles, Set, is_template_of, spec_of};
use super::{revision, template_hash};
use crate::plan::{Note, Plan, Write, reference_to};
use k8s_openapi::api::apps::v1::Deployment;

/// On a Deployment: the revision to roll back to; 0 is the last one.
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

const DONE: &str = "DeploymentRollback";
const NOT_FOUND: &str = "DeploymentRollbackRevisionNotFound";
const UNCHANGED: &str = "DeploymentRollbackTemplateUnchanged";

/// The revision asked for, if any; what is not a number asks for nothing.
pub fn asked_for(deployment: &Deployment) -> Option<i64> {
    deployment.metadata.annotations.as_ref()?.get(ROLLBACK_TO)?.parse().ok()
}

/// Adds to the plan: the Deployment without the annotation, and with the template and the annotations of that revision
/// if there is one and it differs.
pub fn roll_back(deployment: &Deployment, roles: &Roles, asked: i64, plan: &mut Plan) {
    let regarding = reference_to(deployment);
    let mut wanted = deployment.clone();
    wanted.metadata.annotations.get_or_insert_default().remove(ROLLBACK_TO);
    let number = if asked == 0 { last(roles) } else { Some(asked) };
    let warn = |plan: &mut Plan, reason, message: &str| {
        plan.notes.push(Note::warning(&regarding, reason, message));
    };
    let Some(number) = number else {
        warn(plan, NOT_FOUND, "Unable to find last revision.");
        return plan.then(Write::update(wanted));
    };
    let Some(set) = roles.all().find(|set| revision::of(set) == number) else {
        warn(plan, NOT_FOUND, "Unable to find the revision to rollback to.");
        return plan.then(Write::update(wanted));
    };
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    if is_template_of(set.object(), &spec_of(deployment).template) {
        let message =
            format!("The rollback revision contains the same template as current deployment \"{name}\"");
        warn(plan, UNCHANGED, &message);
        return plan.then(Write::update(wanted));
    }
    take_over(&mut wanted, set);
    let message = format!("Rolled back deployment \"{name}\" to revision {number}");
    plan.then(Write::update(wanted).reporting(Note::normal(&regarding, DONE, message)));
}

/// The revision before the newest. The template that has no ReplicaSet yet will be the newest.
fn last(roles: &Roles) -> Option<i64> {
    let mut numbers: Vec<i64> = roles.all().map(revision::of).filter(|number| *number > 0).collect();
    numbers.sort_unstable();
    if roles.new.is_some() {
        numbers.pop();
    }
    numbers.pop()
}

/// The template without the hash, and the annotations that describe that revision (`change-cause`) instead of the
/// present ones.
fn take_over(deployment: &mut Deployment, set: &Set) {
    let of_set = set.object();
    let mut template = of_set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(template_hash::LABEL);
    }
    deployment.spec.get_or_insert_default().template = template;
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.retain(|name, _| revision::stays_with_its_object(name));
    for (name, value) in of_set.metadata.annotations.iter().flatten() {
        if !revision::stays_with_its_object(name) {
            annotations.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn template(image: &str, hash: Option<&str>) -> Value {
        let mut labels = json!({"app": "kubia"});
        if let Some(hash) = hash {
            labels["pod-template-hash"] = hash.into();
        }
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "nodejs", "image": image}]}})
    }

    fn set(image: &str, number: i64) -> Set {
        let value = json!({
            "metadata": {"name": format!("kubia-{image}"), "annotations": {
                revision::REVISION: number.to_string(), "kubernetes.io/change-cause": format!("roll out {image}")}},
            "spec": {"replicas": 0, "selector": {}, "template": template(image, Some(image))},
        });
        Set::existing(Arc::new(serde_json::from_value(value).unwrap()))
    }

    fn deployment(image: &str, asked: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "kubia", "annotations": {
                ROLLBACK_TO: asked, "kubernetes.io/change-cause": "the latest", "own": "note",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"selector": {}, "template": template(image, None)},
        }))
        .unwrap()
    }

    /// The image afterwards, and what is told.
    fn outcome(image: &str, asked: &str, roles: &Roles) -> (Deployment, &'static str, String) {
        let deployment = deployment(image, asked);
        let mut plan = Plan::default();
        roll_back(&deployment, roles, asked_for(&deployment).unwrap(), &mut plan);
        let write = plan.writes().next().unwrap();
        let note = plan.notes.first().or(write.on_success.as_ref()).unwrap();
        (write.object::<Deployment>().unwrap().clone(), note.reason, note.message.clone())
    }

    #[rstest]
    #[case::to_a_revision("1", Some("v3"), "v1", DONE, "Rolled back deployment \"kubia\" to revision 1")]
    #[case::to_the_last_one("0", Some("v3"), "v2", DONE, "Rolled back deployment \"kubia\" to revision 2")]
    #[case::before_the_new_one_exists(
        "0",
        None,
        "v2",
        DONE,
        "Rolled back deployment \"kubia\" to revision 2"
    )]
    #[case::to_one_that_is_not_there(
        "9",
        Some("v3"),
        "v3",
        NOT_FOUND,
        "Unable to find the revision to rollback to."
    )]
    #[case::to_the_present_one(
        "3",
        Some("v3"),
        "v3",
        UNCHANGED,
        "The rollback revision contains the same template as current deployment \"kubia\""
    )]
    fn a_rollback_puts_the_template_back_and_tells(
        #[case] asked: &str,
        #[case] new: Option<&str>,
        #[case] image: &str,
        #[case] reason: &str,
        #[case] message: &str,
    ) {
        let roles = Roles { new: new.map(|image| set(image, 3)), old: vec![set("v1", 1), set("v2", 2)] };
        let (after, told, words) = outcome("v3", asked, &roles);
        assert_eq!((told, words.as_str()), (reason, message));
        let expected = serde_json::from_value(template(image, None)).unwrap();
        assert_eq!(spec_of(&after).template, expected, "without the hash");
        assert_eq!(asked_for(&after), None, "it is asked for once");
    }

    #[test]
    fn without_a_revision_before_there_is_nothing_to_roll_back_to() {
        let roles = Roles { new: Some(set("v1", 1)), old: Vec::new() };
        let (_, reason, message) = outcome("v1", "0", &roles);
        assert_eq!((reason, message.as_str()), (NOT_FOUND, "Unable to find last revision."));
    }

    #[test]
    fn the_annotations_of_the_revision_come_back_with_it() {
        let roles = Roles { new: Some(set("v2", 2)), old: vec![set("v1", 1)] };
        let (after, ..) = outcome("v2", "1", &roles);
        let expected = json!({"kubernetes.io/change-cause": "roll out v1",
            "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        assert_eq!(serde_json::to_value(after.metadata.annotations).unwrap(), expected);
    }

    #[test]
    fn what_is_not_a_number_asks_for_nothing() {
        assert_eq!(asked_for(&deployment("v1", "the one before")), None);
    }
}
