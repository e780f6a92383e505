//! The pod behind `POD`, `TYPE/NAME` or a file, and the container meant in it.
//!
//! Of a controller or service it is the best of its pods; while there is none, one is waited for.

use crate::builder::{Builder, Info};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::object::{self, list, number, text};
use crate::watch;
use serde_json::Value;
use std::time::Duration;

/// `--pod-running-timeout` of commands that wait for a minute.
pub(crate) const POD_TIMEOUT: Flag =
    flag("pod-running-timeout", Takes::Span, "1m0s", "How long to wait for a pod");

/// The annotation that names the container meant when none is named (KEP-2227).
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The value of `--pod-running-timeout`.
///
/// # Errors
/// It is not above zero.
pub(crate) fn timeout(context: &Context) -> Outcome<Duration> {
    let nanos = context.flags.span("pod-running-timeout");
    if nanos <= 0 {
        return Err(context.usage("--pod-running-timeout must be higher than zero"));
    }
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// The one object that the arguments name; a name without a type is a pod's.
///
/// # Errors
/// There is no such object.
pub(crate) async fn object(context: &Context, args: &[String], plural: &str) -> Outcome<Info> {
    let args = match args {
        [one] if !one.contains('/') => vec!["pods".to_owned(), one.clone()],
        other => other.to_vec(),
    };
    let mut builder = Builder::new(context, &args);
    builder.selector = None;
    let mut infos = match builder.run(context).await?.all() {
        Err(error) if error.is_not_found() && plural == "exec into" => {
            // That there is no such namespace says more.
            let (namespace, _) = context.namespace().await?;
            let path = format!("/api/v1/namespaces/{namespace}");
            return Err(match context.client().await?.get(&path, &[]).await {
                Err(none) if none.is_not_found() => none,
                _ => error,
            });
        }
        other => other?,
    };
    if infos.len() > 1 {
        return fail(format!("cannot {plural} multiple objects at a time"));
    }
    infos.pop().ok_or_else(crate::builder::missing)
}

/// The pod of an object: itself, or the best of those it selects.
///
/// # Errors
/// The kind selects no pods; none comes in time.
pub(crate) async fn pod(context: &Context, info: &Info, patience: Duration) -> Outcome<Value> {
    if info.mapping.kind == "Pod" {
        return Ok(info.object.clone());
    }
    let kind = format!("*{}.{}", info.mapping.version, info.mapping.kind);
    let selector = selector(&info.object)
        .map_err(|why| Failure::Message(format!("cannot attach to {kind}: {}", why.replace("%T", &kind))))?;
    first(context, &info.namespace, &selector, patience).await
}

/// The labels of the pods that an object selects, as text; or why there are none, with `%T` for the kind.
pub(crate) fn selector(object: &Value) -> Result<String, String> {
    match text(object, "/kind") {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => {
            Ok(object::selector_text(&object["spec"]["selector"]))
        }
        "ReplicationController" => Ok(object::joined(&object::strings(object, "/spec/selector"))),
        "Service" => {
            let labels = object::strings(object, "/spec/selector");
            if labels.is_empty() {
                return Err(format!(
                    "invalid service '{}': Service is defined without a selector",
                    object::name(object)
                ));
            }
            Ok(object::joined(&labels))
        }
        _ => Err("selector for %T not implemented".into()),
    }
}

/// The best of the pods with these labels, waited for while there is none.
///
/// # Errors
/// None comes in time.
pub(crate) async fn first(
    context: &Context,
    namespace: &str,
    selector: &str,
    patience: Duration,
) -> Outcome<Value> {
    let (mut pods, version) = all(context, namespace, selector).await?;
    if !pods.is_empty() {
        return Ok(pods.swap_remove(0));
    }
    let path = context.resource("pods").await?.collection(namespace);
    let query: Vec<(String, String)> =
        [("watch", "true"), ("labelSelector", selector), ("resourceVersion", version.as_str())]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec();
    let wait = async {
        let mut events = watch::open(context, &path, &query, crate::client::JSON).await?;
        while let Some(event) = watch::next(&mut events).await {
            let event = event?;
            if matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED")) {
                return Ok(event["object"].clone());
            }
        }
        fail("the watch for pods ended")
    };
    tokio::time::timeout(patience, wait).await.unwrap_or_else(|_| fail("timed out waiting for the condition"))
}

/// The pod once `done` of it. It may have been deleted meanwhile: that fails.
///
/// # Errors
/// It takes longer than `patience`, or the server fails.
pub(crate) async fn until(
    context: &Context,
    namespace: &str,
    name: &str,
    patience: Option<Duration>,
    done: impl Fn(&Value) -> bool,
) -> Outcome<Value> {
    let mapping = context.resource("pods").await?;
    let (path, collection) = (mapping.object(namespace, name), mapping.collection(namespace));
    let fields = format!("metadata.name={name}");
    let wait = async {
        loop {
            let pod = context.client().await?.get(&path, &[]).await?;
            if done(&pod) {
                return Ok(pod);
            }
            let version = text(&pod, "/metadata/resourceVersion");
            let query: Vec<(String, String)> =
                [("watch", "true"), ("fieldSelector", fields.as_str()), ("resourceVersion", version)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .to_vec();
            let mut events = watch::open(context, &collection, &query, crate::client::JSON).await?;
            while let Some(Ok(event)) = watch::next(&mut events).await {
                match event["type"].as_str() {
                    Some("DELETED") => return fail(format!("pods {} not found", quote(name))),
                    Some("ERROR") => break,
                    _ if done(&event["object"]) => return Ok(event["object"].clone()),
                    _ => {}
                }
            }
        }
    };
    match patience {
        None => wait.await,
        Some(patience) => tokio::time::timeout(patience, wait)
            .await
            .unwrap_or_else(|_| fail("timed out waiting for the condition")),
    }
}

/// The pods with these labels, the best first, and the version of the list.
///
/// # Errors
/// The server refuses.
pub(crate) async fn all(context: &Context, namespace: &str, selector: &str) -> Outcome<(Vec<Value>, String)> {
    let path = context.resource("pods").await?.collection(namespace);
    let found = context.client().await?.get(&path, &[("labelSelector", selector)]).await?;
    let mut pods = list(&found, "/items").to_vec();
    for pod in &mut pods {
        pod["kind"] = "Pod".into();
        pod["apiVersion"] = "v1".into();
    }
    pods.sort_by_cached_key(rank);
    Ok((pods, text(&found, "/metadata/resourceVersion").to_owned()))
}

/// Assigned before not, running before waiting, ready before not and longer before shorter, few restarts before
/// many, old before young.
fn rank(pod: &Value) -> (bool, u8, bool, String, i64, String) {
    let phase = match text(pod, "/status/phase") {
        "Running" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready =
        list(pod, "/status/conditions").iter().find(|c| c["type"] == "Ready" && c["status"] == "True");
    let since = ready.map(|c| text(c, "/lastTransitionTime").to_owned()).unwrap_or_default();
    let restarts = list(pod, "/status/containerStatuses").iter().map(|s| number(s, "/restartCount")).max();
    (
        text(pod, "/spec/nodeName").is_empty(),
        phase,
        ready.is_none(),
        since,
        restarts.unwrap_or(0),
        text(pod, "/metadata/creationTimestamp").to_owned(),
    )
}

/// The container that is meant: the named one, the one the pod's annotation names, or the first, which is told
/// when there is a choice.
///
/// # Errors
/// There is none of that name.
pub(crate) fn container<'a>(
    context: &Context,
    pod: &'a Value,
    wanted: &str,
    quiet: bool,
) -> Outcome<&'a Value> {
    let find = |name: &str| containers(pod).map(|(container, _)| container).find(|c| c["name"] == name);
    if !wanted.is_empty() {
        return find(wanted).ok_or_else(|| {
            Failure::Message(format!("container {wanted} not found in pod {}", object::name(pod)))
        });
    }
    let named = object::strings(pod, "/metadata/annotations").remove(DEFAULT_CONTAINER).unwrap_or_default();
    if let Some(container) = find(&named) {
        return Ok(container);
    }
    let Some(first) = list(pod, "/spec/containers").first() else {
        return fail(format!(
            "pod {}/{} does not have any containers",
            object::namespace(pod),
            object::name(pod)
        ));
    };
    if !quiet && let Some(told) = defaulted(pod, text(first, "/name")) {
        context.err(&told);
    }
    Ok(first)
}

/// `Defaulted container …`, if the pod has a choice of containers and names none itself.
pub(crate) fn defaulted(pod: &Value, name: &str) -> Option<String> {
    let named = object::strings(pod, "/metadata/annotations").remove(DEFAULT_CONTAINER);
    (containers(pod).count() > 1 && named.as_deref() != Some(name))
        .then(|| format!("Defaulted container {} out of: {}\n", quote(name), container_names(pod)))
}

/// `app, setup (init), shell (ephem)`.
pub(crate) fn container_names(pod: &Value) -> String {
    let name = |(container, kind): (&Value, &str)| format!("{}{kind}", text(container, "/name"));
    containers(pod).map(name).collect::<Vec<_>>().join(", ")
}

fn containers(pod: &Value) -> impl Iterator<Item = (&Value, &'static str)> {
    let of = |field: &str, kind: &'static str| list(pod, field).iter().map(move |c| (c, kind));
    of("/spec/containers", "")
        .chain(of("/spec/initContainers", " (init)"))
        .chain(of("/spec/ephemeralContainers", " (ephem)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, phase: &str, ready: Option<&str>, restarts: i64) -> Value {
        let conditions =
            ready.map(|at| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]));
        json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"},
            "status": {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": restarts}]},
        })
    }

    #[test]
    fn a_pod_that_has_been_ready_for_long_is_better_than_all_others() {
        let mut pods = [
            pod("pending", "Pending", None, 0),
            pod("unready", "Running", None, 0),
            pod("young", "Running", Some("2026-01-02T00:00:00Z"), 0),
            pod("old", "Running", Some("2026-01-01T00:00:00Z"), 0),
            pod("restarted", "Running", Some("2026-01-01T00:00:00Z"), 3),
        ];
        pods.sort_by_cached_key(rank);
        let names: Vec<&str> = pods.iter().map(object::name).collect();
        assert_eq!(names, ["old", "restarted", "young", "unready", "pending"]);
    }

    #[test]
    fn containers_are_told_with_what_they_are() {
        let pod = json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "c"}],
            "ephemeralContainers": [{"name": "d"}],
        }});
        assert_eq!(container_names(&pod), "a, b, c (init), d (ephem)");
    }
}
