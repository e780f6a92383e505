//! `debug`: one more container in a pod that runs, or in a copy of it.

use super::debug_copy;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::object::{self, list, text};
use crate::pod_target;
use crate::remote::Session;
use crate::write::{self, STRATEGIC};
use serde_json::{Value, json};
use std::time::Duration;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    flag("arguments-only", Takes::Bool, "false", "What stands behind -- are arguments, not the command"),
    flag("attach", Takes::Bool, "false", "Attach to the container"),
    short("container", 'c', Takes::Text, "", "Name of the container"),
    flag("copy-to", Takes::Text, "", "Debug a copy of the pod, with this name"),
    flag("env", Takes::Array, "[]", "NAME=VALUE"),
    flag("image", Takes::Text, "", "Image of the container"),
    flag("image-pull-policy", Takes::Text, "", "Always, IfNotPresent or Never"),
    flag("keep-annotations", Takes::Bool, "false", "The copy has the annotations of the pod"),
    flag("keep-init-containers", Takes::Bool, "true", "The copy has the init containers of the pod"),
    flag(
        "keep-labels",
        Takes::Bool,
        "false",
        "The copy has the labels of the pod, so services and controllers see it",
    ),
    flag("keep-liveness", Takes::Bool, "false", "The copy has the liveness probes of the pod"),
    flag("keep-readiness", Takes::Bool, "false", "The copy has the readiness probes of the pod"),
    flag("keep-startup", Takes::Bool, "false", "The copy has the startup probes of the pod"),
    flag("profile", Takes::Text, "legacy", "Unused: what the container may do is as for any other"),
    short("quiet", 'q', Takes::Bool, "false", "Say less"),
    flag("replace", Takes::Bool, "false", "Delete the pod that is copied"),
    flag("same-node", Takes::Bool, "false", "The copy runs on the node of the pod"),
    flag("set-image", Takes::List, "[]", "CONTAINER=IMAGE of the copy; * is all"),
    flag("share-processes", Takes::Bool, "true", "The containers of the copy see each other's processes"),
    short("stdin", 'i', Takes::Bool, "false", "Pass standard input"),
    flag("target", Takes::Text, "", "Container whose processes are to be seen"),
    short("tty", 't', Takes::Bool, "false", "With a terminal"),
]];

/// How long the container may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for; the server may have no ephemeral containers.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let (targets, command) = flags.args.split_at(flags.dash.unwrap_or(flags.args.len()));
    let copied = !flags.text("copy-to").is_empty();
    debug_copy::check(context, command)?;
    let profile = flags.text("profile");
    if !matches!(profile, "legacy" | "general" | "baseline" | "restricted" | "netadmin" | "sysadmin" | "auto")
    {
        return fail(format!("unknown profile: {profile}"));
    }
    let [target] = targets else {
        return fail("NAME or TYPE/NAME of one pod is required for debug");
    };
    if target.starts_with("node/") || target.starts_with("nodes/") || target.starts_with("no/") {
        return fail("debugging nodes is not built in: this machine's own shell is nearer");
    }
    let wanted = flags.text("target");
    if !wanted.is_empty() && !flags.on("quiet") {
        out(&format!(
            "Targeting container {}. If you don't see processes from this container it may be because the container runtime doesn't support this feature.\n",
            quote(wanted)
        ));
    }
    if flags.text("profile") == "legacy" {
        context.err("--profile=legacy is deprecated and will be removed in the future. It is recommended to explicitly specify a profile, for example \"--profile=general\".\n");
    }
    let mut info = pod_target::object(context, std::slice::from_ref(target), "debug").await?;
    if info.mapping.kind != "Pod" {
        let mapping = &info.mapping;
        let kind = format!("{}/{}, Kind={}", mapping.group, mapping.version, mapping.kind);
        return fail(format!("{} not supported by debug", quote(&kind)));
    }
    if copied {
        return debug_copy::run(context, &info, command).await;
    }
    let name = container_name(context);
    let mut containers = list(&info.object, "/spec/ephemeralContainers").to_vec();
    containers.push(container(context, &name, command)?);
    let body = json!({"spec": {"ephemeralContainers": containers}});
    let patched = write::patch(context, &info, STRATEGIC, &body, &[], "ephemeralcontainers").await;
    info.object = patched.map_err(|error| match error.is_not_found() {
        true => Failure::Message(format!(
            "ephemeral containers are disabled for this cluster (error from server: {}).",
            quote(&error.text())
        )),
        false => error,
    })?;
    attached(
        context,
        (info.namespace.as_str(), info.name.as_str()),
        &name,
        "/status/ephemeralContainerStatuses",
    )
    .await
}

/// The name that was given to the new container, or one that was made up.
pub(super) fn container_name(context: &Context) -> String {
    let given = context.flags.text("container");
    if !given.is_empty() {
        return given.to_owned();
    }
    let name = format!("debugger-{}", super::create::workload::suffix());
    if !context.flags.on("quiet") {
        out(&format!("Defaulting debug container name to {name}.\n"));
    }
    name
}

/// Attaches to a container of a pod, NAMESPACE and NAME, once it runs; if that is wished. Its status is in the list at `place`.
///
/// # Errors
/// It does not start, or has ended already; as `attach`.
pub(super) async fn attached(
    context: &Context,
    (namespace, pod): (&str, &str),
    name: &str,
    place: &str,
) -> Outcome {
    let flags = &context.flags;
    if !(flags.on("attach") || !flags.given("attach") && flags.on("stdin")) {
        return Ok(());
    }
    let state = |pod: &Value| {
        let all = list(pod, place);
        all.iter().find(|status| status["name"] == name).map(|status| status["state"].clone())
    };
    let begun = |pod: &Value| {
        state(pod).is_some_and(|state| state["running"].is_object() || state["terminated"].is_object())
    };
    let pod = pod_target::until(context, namespace, pod, Some(PATIENCE), begun).await?;
    if let Some(ended) = state(&pod).filter(|state| state["terminated"].is_object()) {
        return fail(format!(
            "container {name} has ended already ({}): {} logs {} -c {name}",
            text(&ended, "/terminated/reason"),
            context.name,
            object::name(&pod)
        ));
    }
    super::exec::attach_to(context, &pod, name, Session::from_flags(context)).await
}

pub(super) fn container(context: &Context, name: &str, command: &[String]) -> Outcome<Value> {
    let flags = &context.flags;
    let mut container = json!({
        "name": name, "image": flags.text("image"), "resources": {}, "terminationMessagePolicy": "File",
    });
    for (flag, field) in [("stdin", "stdin"), ("tty", "tty")] {
        if flags.on(flag) {
            container[field] = true.into();
        }
    }
    for (flag, field) in [("image-pull-policy", "imagePullPolicy"), ("target", "targetContainerName")] {
        if !flags.text(flag).is_empty() {
            container[field] = flags.text(flag).into();
        }
    }
    if !command.is_empty() {
        container[if flags.on("arguments-only") { "args" } else { "command" }] = json!(command);
    }
    super::run::set_env(flags, &mut container)?;
    Ok(container)
}
