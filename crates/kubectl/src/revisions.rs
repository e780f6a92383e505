//! The replica sets of a deployment, and which of them is the new one.

use crate::context::Context;
use crate::failure::Outcome;
use crate::object::{self, list, text};
use serde_json::Value;

/// The label that tells the pods of one template.
pub(crate) const HASH: &str = "pod-template-hash";
/// Where the revision stands.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";

/// All that belong to it.
///
/// # Errors
/// The server refuses.
pub(crate) async fn replica_sets(context: &Context, deployment: &Value) -> Outcome<Vec<Value>> {
    let selector = object::selector_text(&deployment["spec"]["selector"]);
    let path = context.resource("replicasets").await?.collection(object::namespace(deployment));
    let sets = context.client().await?.get(&path, &[("labelSelector", selector.as_str())]).await?;
    let uid = text(deployment, "/metadata/uid");
    let own = |set: &&Value| object::controller(set).is_some_and(|owner| text(owner, "/uid") == uid);
    Ok(list(&sets, "/items").iter().filter(own).cloned().collect())
}

/// The one with the deployment's template, and the others.
pub(crate) fn split(deployment: &Value, mut sets: Vec<Value>) -> (Option<Value>, Vec<Value>) {
    sets.sort_by(|a, b| {
        text(a, "/metadata/creationTimestamp")
            .cmp(text(b, "/metadata/creationTimestamp"))
            .then_with(|| object::name(a).cmp(object::name(b)))
    });
    let wanted = without_hash(&deployment["spec"]["template"]);
    let new = sets.iter().position(|set| without_hash(&set["spec"]["template"]) == wanted);
    let new = new.map(|at| sets.remove(at));
    (new, sets)
}

/// The template without the label that the controller adds.
pub(crate) fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    if let Some(metadata) = template["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
    }
    template
}

/// The revision of a deployment or replica set.
pub(crate) fn revision(object: &Value) -> i64 {
    object::strings(object, "/metadata/annotations").get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}
