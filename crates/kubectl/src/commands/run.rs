//! `run`: one pod, and perhaps one's terminal in it.

use super::create::{GENERATOR, created, generated};
use crate::builder::Info;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Parsed, Takes, flag, short};
use crate::object::{self, list, number};
use crate::pod_target;
use crate::printers::{DryRun, PRINT, Teller};
use crate::remote::Session;
use crate::write;
use serde_json::{Value, json};

/// Flags of `run`.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("image", Takes::Text, "", "Image of the container"),
        flag("port", Takes::Text, "", "Port the container listens on"),
        flag("env", Takes::Array, "[]", "NAME=VALUE"),
        short("labels", 'l', Takes::Text, "", "KEY=VALUE,…"),
        flag("restart", Takes::Text, "Always", "Always, OnFailure or Never"),
        flag("image-pull-policy", Takes::Text, "", "Always, IfNotPresent or Never"),
        flag("annotations", Takes::Array, "[]", "KEY=VALUE"),
        flag("command", Takes::Bool, "false", "The arguments are the command"),
        flag("expose", Takes::Bool, "false", "Also create a service"),
        pod_target::POD_TIMEOUT,
        flag("leave-stdin-open", Takes::Bool, "false", "Leave standard input open after the first session"),
        flag("rm", Takes::Bool, "false", "Delete the pod at the end"),
        flag("attach", Takes::Bool, "false", "Attach to it"),
        short("stdin", 'i', Takes::Bool, "false", "Keep standard input open"),
        short("tty", 't', Takes::Bool, "false", "With a terminal"),
        short("quiet", 'q', Takes::Bool, "false", "Say less"),
        flag("privileged", Takes::Bool, "false", "With all rights"),
        flag("overrides", Takes::Text, "", "JSON to put over the object"),
        flag("override-type", Takes::Text, "merge", "How: json, merge or strategic"),
        write::RECORD,
    ],
];

/// `run`.
///
/// # Errors
/// As all generators.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let image = flags.text("image");
    super::create::required(context, &["image"])?;
    let Some(name) = flags.args.first() else { return Err(context.usage("NAME is required for run")) };
    if image.is_empty() {
        return fail("--image is required");
    }
    if image.contains(' ') || image.chars().any(char::is_uppercase) && !image.contains(['/', ':']) {
        return fail(format!("Invalid image name {}: invalid reference format", quote(image)));
    }
    if flags.on("tty") && !flags.on("stdin") {
        return fail("-i/--stdin is required for containers with -t/--tty=true");
    }
    let attaches = flags.on("attach") || !flags.given("attach") && flags.on("stdin");
    if (attaches || flags.on("stdin") || flags.on("tty")) && DryRun::from_flags(context)? != DryRun::No {
        return Err(context.usage(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        ));
    }
    if flags.on("expose") && flags.text("port").is_empty() {
        return Err(context.usage("--port must be set when exposing a service"));
    }
    if flags.on("rm") && !attaches {
        return Err(context.usage("--rm should only be used for attached containers"));
    }
    let restart = flags.text("restart");
    if !matches!(restart, "Always" | "OnFailure" | "Never") {
        return Err(context.usage(&format!("invalid restart policy: {restart}")));
    }
    let labels = match flags.text("labels") {
        "" => json!({"run": name}),
        text => Value::Object(super::expose::parse_labels(text)?),
    };
    let mut container = json!({"name": name, "image": image, "resources": {}});
    let extra = &flags.args[1..];
    if !extra.is_empty() {
        container[if flags.on("command") { "command" } else { "args" }] = json!(extra);
    }
    set_env(flags, &mut container)?;
    let port = flags.text("port");
    if !port.is_empty() {
        let Ok(port) = port.parse::<i64>() else {
            return fail(format!("strconv.Atoi: parsing {}: invalid syntax", quote(port)));
        };
        container["ports"] = json!([{"containerPort": port}]);
    }
    let policy = flags.text("image-pull-policy");
    if !policy.is_empty() {
        if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
            return Err(context.usage(&format!("invalid image pull policy: {policy}")));
        }
        container["imagePullPolicy"] = policy.into();
    }
    if flags.on("stdin") {
        container["stdin"] = true.into();
        container["stdinOnce"] = (!flags.on("leave-stdin-open")).into();
    }
    if flags.on("tty") {
        container["tty"] = true.into();
    }
    if flags.on("privileged") {
        container["securityContext"] = json!({"privileged": true});
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "creationTimestamp": null, "labels": labels},
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": restart}, "status": {},
    });
    for entry in flags.list("annotations") {
        if let Some((key, value)) = entry.split_once('=') {
            write::annotate(&mut object, key, value);
        }
    }
    object = super::expose::overridden(context, object)?;
    write::record(context, &mut object);
    if flags.on("expose") {
        let port: i64 = port.parse().unwrap_or(0);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "creationTimestamp": null},
            "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": labels},
            "status": {"loadBalancer": {}},
        });
        let teller = Teller::from_flags(context)?;
        generated(context, service, "").await?;
        if matches!(teller.format, crate::printers::Format::Yaml) {
            out("---\n");
        }
    }
    if !attaches {
        return generated(context, object, "").await;
    }
    let (pod, _) = created(context, object, "").await?;
    let result = attached(context, &pod, restart).await;
    if flags.on("rm") {
        remove(context, &pod).await?;
    }
    result
}

/// `--env NAME=VALUE`, of `debug` too.
pub(super) fn set_env(flags: &Parsed, container: &mut Value) -> Outcome {
    let mut env = Vec::new();
    for entry in flags.list("env") {
        let Some((key, value)) = entry.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return fail(format!("invalid env: {entry}"));
        };
        if !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return fail(format!("invalid env: {entry}"));
        }
        env.push(if value.is_empty() { json!({"name": key}) } else { json!({"name": key, "value": value}) });
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
    Ok(())
}

/// Attaches to a pod that was just created, and ends as it does.
async fn attached(context: &Context, pod: &Value, restart: &str) -> Outcome {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let patience = pod_target::timeout(context)?;
    let over = |pod: &Value| matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
    let ready = |pod: &Value| over(pod) || super::watch_rollout::ready(pod);
    let pod = pod_target::until(context, namespace, name, Some(patience), ready).await?;
    if over(&pod) {
        logs(context, &pod, false).await?;
    } else if let Err(error) = super::exec::attach_to(context, &pod, name, Session::from_flags(context)).await
    {
        if matches!(error, Failure::Exit(_)) {
            return Err(error);
        }
        context.err(&format!(
            "warning: couldn't attach to pod/{name}, falling back to streaming logs: {}\n",
            error.text()
        ));
        logs(context, &pod, true).await?;
    }
    if restart == "Always" || context.flags.on("leave-stdin-open") {
        return Ok(());
    }
    let pod = pod_target::until(context, namespace, name, None, over).await?;
    if object::text(&pod, "/status/phase") == "Succeeded" {
        return Ok(());
    }
    let ended = list(&pod, "/status/containerStatuses").first().map(|s| &s["state"]["terminated"]);
    match ended.map(|state| (number(state, "/exitCode"), state)) {
        Some((code, state)) if code != 0 => {
            let text = format!(
                "pod {namespace}/{name} terminated ({})\n{}",
                object::text(state, "/reason"),
                object::text(state, "/message")
            );
            Err(Failure::Code(u8::try_from(code).unwrap_or(1), Box::new(Failure::Verbatim(text))))
        }
        _ => fail(format!("pod {namespace}/{name} failed with unknown exit code")),
    }
}

async fn logs(context: &Context, pod: &Value, follow: bool) -> Outcome {
    let path = format!("/api/v1/namespaces/{}/pods/{}/log", object::namespace(pod), object::name(pod));
    let query: &[(&str, &str)] = if follow { &[("follow", "true")] } else { &[] };
    let client = context.client().await?;
    let response = client.send(http::Method::GET, &path, query, None, "application/json, */*").await?;
    let mut lines = crate::watch::Lines::new(response.into_body());
    while let Some(line) = lines.next().await {
        crate::context::out_bytes(&line?);
    }
    Ok(())
}

async fn remove(context: &Context, pod: &Value) -> Outcome {
    let mapping = context.resource("pods").await?;
    let (namespace, name) = (object::namespace(pod).to_owned(), object::name(pod).to_owned());
    let info = Info { mapping, namespace, name, object: Value::Null, source: String::new() };
    let client = context.client().await?;
    client.call(http::Method::DELETE, &info.path(), &[], None).await?;
    if !context.flags.on("quiet") {
        out(&format!("pod {} deleted\n", quote(&info.name)));
    }
    super::delete::gone(context, &info, pod, None).await
}
