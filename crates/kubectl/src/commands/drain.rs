//! `drain`, `cordon` and `uncordon`: nodes that get no new pods, and lose those they have.

use crate::builder::{self, Builder, Info};
use crate::client::JSON;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::object::{self, list, text};
use crate::printers::{DRY_RUN, DryRun};
use crate::write::{self, STRATEGIC};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Flags of `cordon` and `uncordon`.
pub(crate) const CORDON_FLAGS: [&[Flag]; 1] = [&[builder::SELECTOR, DRY_RUN]];

/// Flags of `drain`.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    builder::SELECTOR,
    DRY_RUN,
    flag("chunk-size", Takes::Number, "500", "Unused"),
    flag("delete-emptydir-data", Takes::Bool, "false", "Also pods whose emptyDir volumes are lost with them"),
    flag("disable-eviction", Takes::Bool, "false", "Delete pods, whatever budgets say"),
    flag("force", Takes::Bool, "false", "Also pods that nothing creates anew"),
    flag("grace-period", Takes::Number, "-1", "Seconds to end in; -1 is the pod's own"),
    flag("ignore-daemonsets", Takes::Bool, "false", "Leave the pods of daemon sets"),
    flag("pod-selector", Takes::Text, "", "Label selector of the pods"),
    flag(
        "skip-wait-for-delete-timeout",
        Takes::Number,
        "0",
        "Do not wait for pods that are being deleted for so many seconds",
    ),
    flag("timeout", Takes::Span, "0s", "How long to wait; 0 is for ever"),
]];

/// Runs `cordon`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn cordon(context: &Context) -> Outcome {
    schedulable(context, "cordon").await.map(|_| ())
}

/// Runs `uncordon`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn uncordon(context: &Context) -> Outcome {
    schedulable(context, "uncordon").await.map(|_| ())
}

/// The nodes that the command line names, now schedulable or not.
async fn schedulable(context: &Context, verb: &str) -> Outcome<Vec<Info>> {
    let flags = &context.flags;
    let word = if verb == "drain" { "cordon" } else { verb };
    if flags.args.is_empty() && flags.text("selector").is_empty() {
        return Err(context.usage(&format!("USAGE: {verb} NODE [flags]")));
    }
    if !flags.args.is_empty() && !flags.text("selector").is_empty() {
        return Err(context.usage("cannot specify both a node name and a --selector option"));
    }
    let dry_run = DryRun::from_flags(context)?;
    let mut args = vec!["nodes".to_owned()];
    args.extend(flags.args.iter().map(|name| name.trim_start_matches("node/").to_owned()));
    let mut builder = Builder::new(context, &args);
    builder.empty_selector = false;
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let on = word == "uncordon";
    for info in &found.infos {
        let now = info.object["spec"]["unschedulable"] != true;
        let suffix = dry_run.suffix();
        if now == on {
            out(&format!("node/{} already {word}ed{suffix}\n", info.name));
            continue;
        }
        if dry_run != DryRun::Client {
            let body = json!({"spec": {"unschedulable": if on { Value::Null } else { true.into() }}});
            let query =
                if dry_run == DryRun::Server { vec![("dryRun", "All".to_owned())] } else { Vec::new() };
            if let Err(error) = write::patch(context, info, STRATEGIC, &body, &query, "").await {
                failures.push(error);
                continue;
            }
        }
        out(&format!("node/{} {word}ed{suffix}\n", info.name));
    }
    Failure::aggregate(failures)?;
    Ok(found.infos)
}

/// Runs `drain`.
///
/// # Errors
/// Pods that must not be deleted; what the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let dry_run = DryRun::from_flags(context)?;
    let nodes = schedulable(context, "drain").await?;
    let (mut failures, mut left) = (Vec::new(), Vec::new());
    for node in &nodes {
        match empty(context, node, dry_run).await {
            Ok(()) => out(&format!("node/{} drained{}\n", node.name, dry_run.suffix())),
            Err(error) => {
                let text = error.text();
                context.err(&format!(
                    "error: unable to drain node {} due to error: {text}, continuing command...\n",
                    quote(&node.name)
                ));
                failures.push(error);
                left.push(node.name.as_str());
            }
        }
    }
    if !left.is_empty() {
        context.err("There are pending nodes to be drained:\n");
        left.iter().for_each(|name| context.err(&format!(" {name}\n")));
    }
    Failure::aggregate(failures)
}

/// What is to be done with a pod of a node that is drained.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes.
    Go,
    /// It goes, and people should know why that may hurt.
    GoWith(&'static str),
    /// It stays.
    Stay,
    /// It stays, and people should know.
    StayWith(&'static str),
    /// Nothing goes while it is there.
    Refuse(&'static str),
}

/// What the flags allow.
#[derive(Clone, Copy, Debug, Default)]
struct Allowed {
    ignore_daemon_sets: bool,
    delete_empty_dirs: bool,
    force: bool,
    skip_deleted: i64,
}

/// Decides about a pod. `now` is the time in seconds since 1970.
fn verdict(pod: &Value, allowed: Allowed, now: i64) -> Verdict {
    let deleted = text(pod, "/metadata/deletionTimestamp").parse::<jiff::Timestamp>();
    if let Ok(deleted) = deleted
        && allowed.skip_deleted > 0
        && now - deleted.as_second() > allowed.skip_deleted
    {
        return Verdict::Stay;
    }
    let finished = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    let controller = object::controller(pod);
    if controller.is_some_and(|owner| owner["kind"] == "DaemonSet") && !finished {
        if allowed.ignore_daemon_sets {
            return Verdict::StayWith("ignoring DaemonSet-managed Pods");
        }
        return Verdict::Refuse("cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)");
    }
    if object::strings(pod, "/metadata/annotations").contains_key("kubernetes.io/config.mirror") {
        return Verdict::Stay;
    }
    let mut verdict = Verdict::Go;
    let scratch = list(pod, "/spec/volumes").iter().any(|volume| volume["emptyDir"].is_object());
    if scratch && !finished {
        if !allowed.delete_empty_dirs {
            return Verdict::Refuse(
                "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
            );
        }
        verdict = Verdict::GoWith("deleting Pods with local storage");
    }
    if controller.is_none() && !finished {
        if !allowed.force {
            return Verdict::Refuse(
                "cannot delete Pods that declare no controller (use --force to override)",
            );
        }
        verdict = Verdict::GoWith("deleting Pods that declare no controller");
    }
    verdict
}

/// `what: ns/pod, ns/pod`, one for each thing there is to say.
fn sayings(said: &BTreeMap<&'static str, Vec<String>>) -> Vec<String> {
    said.iter().map(|(what, pods)| format!("{what}: {}", pods.join(", "))).collect()
}

async fn empty(context: &Context, node: &Info, dry_run: DryRun) -> Outcome {
    let flags = &context.flags;
    let allowed = Allowed {
        ignore_daemon_sets: flags.on("ignore-daemonsets"),
        delete_empty_dirs: flags.on("delete-emptydir-data"),
        force: flags.on("force"),
        skip_deleted: flags.number("skip-wait-for-delete-timeout"),
    };
    let client = context.client().await?;
    let mapping = context.resource("pods").await?;
    let fields = format!("spec.nodeName={}", node.name);
    let mut query = vec![("fieldSelector", fields.as_str())];
    if !flags.text("pod-selector").is_empty() {
        query.push(("labelSelector", flags.text("pod-selector")));
    }
    let found = client.get(&mapping.collection(""), &query).await?;
    let (mut going, mut warnings, mut refusals) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let now = jiff::Timestamp::now().as_second();
    for pod in list(&found, "/items") {
        let name = format!("{}/{}", object::namespace(pod), object::name(pod));
        match verdict(pod, allowed, now) {
            Verdict::Go => going.push(pod),
            Verdict::GoWith(why) => {
                warnings.entry(why).or_insert_with(Vec::new).push(name);
                going.push(pod);
            }
            Verdict::Stay => {}
            Verdict::StayWith(why) => warnings.entry(why).or_insert_with(Vec::new).push(name),
            Verdict::Refuse(why) => refusals.entry(why).or_insert_with(Vec::new).push(name),
        }
    }
    if !refusals.is_empty() {
        let refused = |why: String| Failure::Verbatim(format!("cannot delete {why}"));
        return Failure::aggregate(sayings(&refusals).into_iter().map(refused).collect());
    }
    if !warnings.is_empty() {
        context.err(&format!("Warning: {}\n", sayings(&warnings).join("; ")));
    }
    let evicts = !flags.on("disable-eviction") && evictable(context).await?;
    if dry_run == DryRun::Client {
        let verb = if evicts { "evicting" } else { "deleting" };
        for pod in going {
            out(&format!("{verb} pod {}/{} (dry run)\n", object::namespace(pod), object::name(pod)));
        }
        return Ok(());
    }
    let each = going.iter().map(|pod| gone(context, &mapping, pod, evicts, dry_run));
    let all = futures::future::join_all(each);
    let timeout = flags.span("timeout");
    let results = if timeout > 0 {
        let limit = Duration::from_nanos(u64::try_from(timeout).unwrap_or(u64::MAX));
        match tokio::time::timeout(limit, all).await {
            Ok(results) => results,
            Err(_) => {
                let text = format!("global timeout reached: {}", flags.text("timeout"));
                return fail(text);
            }
        }
    } else {
        all.await
    };
    Failure::aggregate(results.into_iter().filter_map(Result::err).collect())
}

/// Whether the server evicts pods, which respects disruption budgets.
async fn evictable(context: &Context) -> Outcome<bool> {
    let resources = context.client().await?.get("/api/v1", &[]).await?;
    Ok(list(&resources, "/resources").iter().any(|resource| resource["name"] == "pods/eviction"))
}

/// Sends a pod away and waits until it is gone.
async fn gone(
    context: &Context,
    mapping: &crate::mapping::Mapping,
    pod: &Value,
    evicts: bool,
    dry_run: DryRun,
) -> Outcome {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let path = mapping.object(namespace, name);
    let grace = context.flags.number("grace-period");
    let mut options = json!({});
    if grace >= 0 {
        options["gracePeriodSeconds"] = grace.into();
    }
    if dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    let client = context.client().await?;
    loop {
        let answer = if evicts {
            out(&format!("evicting pod {namespace}/{name}{}\n", dry_run.suffix()));
            let body = json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": name, "namespace": namespace}, "deleteOptions": options,
            });
            client.call(Method::POST, &format!("{path}/eviction"), &[], Some((JSON, &body))).await
        } else {
            let mut body = options.clone();
            body["kind"] = "DeleteOptions".into();
            body["apiVersion"] = "v1".into();
            client.call(Method::DELETE, &path, &[], Some((JSON, &body))).await
        };
        match answer {
            Ok(_) => break,
            Err(error) if error.is_not_found() => break,
            // A budget stands against it for now.
            Err(error) if error.reason() == "TooManyRequests" => {
                context.err(&format!(
                    "error when evicting pods/{} -n {} (will retry after 5s): {}\n",
                    quote(name),
                    quote(namespace),
                    error.text()
                ));
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            Err(error) => {
                let verb = if evicts { "evicting" } else { "deleting" };
                return fail(format!(
                    "error when {verb} pods/{} -n {}: {}",
                    quote(name),
                    quote(namespace),
                    error.text()
                ));
            }
        }
    }
    if dry_run == DryRun::Server {
        return Ok(());
    }
    let info = Info {
        mapping: mapping.clone(),
        namespace: namespace.into(),
        name: name.into(),
        object: Value::Null,
        source: String::new(),
    };
    super::delete::gone(context, &info, pod, None).await?;
    out(&format!("pod/{name} {}\n", if evicts { "evicted" } else { "deleted" }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pod(owner: &str, phase: &str, scratch: bool) -> Value {
        let owners = json!([{"kind": owner, "controller": true}]);
        json!({
            "metadata": {"name": "p", "namespace": "n", "ownerReferences": if owner.is_empty() { json!([]) } else { owners }},
            "spec": {"volumes": if scratch { json!([{"emptyDir": {}}]) } else { json!([]) }},
            "status": {"phase": phase},
        })
    }

    const NONE: Allowed =
        Allowed { ignore_daemon_sets: false, delete_empty_dirs: false, force: false, skip_deleted: 0 };
    const ALL: Allowed =
        Allowed { ignore_daemon_sets: true, delete_empty_dirs: true, force: true, skip_deleted: 0 };

    #[rstest]
    #[case::replicated(pod("ReplicaSet", "Running", false), Verdict::Go, Verdict::Go)]
    #[case::daemon(
        pod("DaemonSet", "Running", false),
        Verdict::Refuse("cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"),
        Verdict::StayWith("ignoring DaemonSet-managed Pods")
    )]
    #[case::scratch(
        pod("ReplicaSet", "Running", true),
        Verdict::Refuse("cannot delete Pods with local storage (use --delete-emptydir-data to override)"),
        Verdict::GoWith("deleting Pods with local storage")
    )]
    #[case::alone(
        pod("", "Running", false),
        Verdict::Refuse("cannot delete Pods that declare no controller (use --force to override)"),
        Verdict::GoWith("deleting Pods that declare no controller")
    )]
    #[case::finished(pod("", "Succeeded", true), Verdict::Go, Verdict::Go)]
    fn a_pod_that_would_be_lost_goes_only_when_allowed(
        #[case] pod: Value,
        #[case] without: Verdict,
        #[case] with: Verdict,
    ) {
        assert_eq!(verdict(&pod, NONE, 0), without);
        assert_eq!(verdict(&pod, ALL, 0), with);
    }
}
