//! Deployments, replica sets and replication controllers.

use super::{Writer, containers, date, events};
use crate::context::Context;
use crate::failure::Outcome;
use crate::object::{self, list, number, text};
use crate::printers::go_template::go_value;
use crate::revisions;
use serde_json::Value;

/// Describes a deployment.
pub(super) async fn deployment(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.field(0, "Name", object::name(object));
    writer.field(0, "Namespace", object::namespace(object));
    writer.field(0, "CreationTimestamp", date(text(object, "/metadata/creationTimestamp")));
    writer.labels("Labels", &object::labels(object));
    writer.annotations("Annotations", &object::strings(object, "/metadata/annotations"));
    writer.field(0, "Selector", object::selector_text(&object["spec"]["selector"]));
    let n = |field: &str| number(object, &format!("/status/{field}"));
    writer.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(object, "/spec/replicas"),
            n("updatedReplicas"),
            n("replicas"),
            n("availableReplicas"),
            n("unavailableReplicas")
        ),
    );
    writer.field(0, "StrategyType", text(object, "/spec/strategy/type"));
    writer.field(0, "MinReadySeconds", number(object, "/spec/minReadySeconds"));
    let rolling = &object["spec"]["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (go_value(&rolling["maxUnavailable"]), go_value(&rolling["maxSurge"]));
        writer.field(0, "RollingUpdateStrategy", format!("{unavailable} max unavailable, {surge} max surge"));
    }
    containers::template(writer, &object["spec"]["template"]);
    writer.conditions(object);
    let sets = revisions::replica_sets(context, object).await?;
    let (new, old) = revisions::split(object, sets);
    if new.is_some() || !old.is_empty() {
        writer.field(0, "OldReplicaSets", summary(&old));
        writer.field(0, "NewReplicaSet", summary(&new.into_iter().collect::<Vec<_>>()));
    }
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}

fn summary(sets: &[Value]) -> String {
    let each = sets.iter().map(|set| {
        let (now, wanted) = (number(set, "/status/replicas"), number(set, "/spec/replicas"));
        format!("{} ({now}/{wanted} replicas created)", object::name(set))
    });
    let text = each.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "<none>".into() } else { text }
}

/// Describes a replica set.
pub(super) async fn replica_set(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.field(0, "Name", object::name(object));
    writer.field(0, "Namespace", object::namespace(object));
    let selector = object::selector_text(&object["spec"]["selector"]);
    writer.field(0, "Selector", &selector);
    writer.labels("Labels", &object::labels(object));
    writer.annotations("Annotations", &object::strings(object, "/metadata/annotations"));
    if let Some(owner) = object::controller(object) {
        writer.field(0, "Controlled By", format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    finish(context, object, &selector, writer).await
}

/// Describes a replication controller.
pub(super) async fn replication_controller(
    context: &Context,
    object: &Value,
    writer: &mut Writer,
) -> Outcome {
    writer.field(0, "Name", object::name(object));
    writer.field(0, "Namespace", object::namespace(object));
    let selector = object::joined(&object::strings(object, "/spec/selector"));
    writer.field(0, "Selector", super::or_none(&selector));
    writer.labels("Labels", &object::labels(object));
    writer.annotations("Annotations", &object::strings(object, "/metadata/annotations"));
    finish(context, object, &selector, writer).await
}

async fn finish(context: &Context, object: &Value, selector: &str, writer: &mut Writer) -> Outcome {
    let (now, wanted) = (number(object, "/status/replicas"), number(object, "/spec/replicas"));
    writer.field(0, "Replicas", format!("{now} current / {wanted} desired"));
    let pods = context.resource("pods").await?.collection(object::namespace(object));
    let pods = context.client().await?.get(&pods, &[("labelSelector", selector)]).await?;
    let uid = text(object, "/metadata/uid");
    let own = |pod: &&Value| object::controller(pod).is_some_and(|owner| text(owner, "/uid") == uid);
    let own: Vec<&Value> = list(&pods, "/items").iter().filter(own).collect();
    let count = |phase: &str| own.iter().filter(|pod| text(pod, "/status/phase") == phase).count();
    writer.field(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
    containers::template(writer, &object["spec"]["template"]);
    writer.conditions(object);
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}
