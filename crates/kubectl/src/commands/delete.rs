//! `delete`.

use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::printers::{DRY_RUN, DryRun};
use crate::watch;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 2] = [
    &builder::FILES,
    &[
        builder::SELECTOR,
        builder::FIELD_SELECTOR,
        builder::ALL,
        builder::ALL_NAMESPACES,
        DRY_RUN,
        short("output", 'o', Takes::Text, "", "name"),
        flag("cascade", Takes::Maybe("background"), "background", "background, foreground or orphan"),
        flag("force", Takes::Bool, "false", "Do not wait for the end of what runs"),
        flag("grace-period", Takes::Number, "-1", "Seconds to end in; -1 is the object's own"),
        flag("ignore-not-found", Takes::Bool, "false", "A missing object is no failure"),
        flag("now", Takes::Bool, "false", "End within a second"),
        flag("timeout", Takes::Span, "0s", "How long to wait; 0 is for ever"),
        flag("wait", Takes::Bool, "true", "Wait until the objects are gone"),
        short("interactive", 'i', Takes::Bool, "false", "Ask before"),
        flag("raw", Takes::Text, "", "A path to send DELETE to"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let raw = flags.text("raw");
    if !raw.is_empty() {
        let bytes =
            context.client().await?.bytes(Method::DELETE, raw, &[], None, crate::client::JSON).await?;
        crate::context::out_bytes(&bytes);
        return Ok(());
    }
    let mut grace = flags.number("grace-period");
    if flags.on("now") {
        if grace != -1 {
            return fail("--now and --grace-period cannot be specified together");
        }
        grace = 1;
    }
    let mut wait = flags.on("wait");
    if grace == 0 && !flags.on("force") {
        // An end at once that nobody forced is waited for, with the least grace there is.
        wait = true;
        grace = 1;
    } else if flags.on("force") && grace < 0 {
        grace = 0;
    }
    let dry_run = DryRun::from_flags(context)?;
    let output = flags.text("output");
    if !matches!(output, "" | "name") {
        return fail(format!("unexpected -o output mode: {output}. We only support '-o name'"));
    }
    if flags.on("all") && !flags.text("selector").is_empty() {
        return fail("setting 'all' parameter but found a non empty selector. ");
    }
    if flags.on("all") && !flags.text("field-selector").is_empty() {
        return fail("cannot set --all and --field-selector at the same time");
    }
    if flags.on("force") && grace > 0 {
        return fail("--force and --grace-period greater than 0 cannot be specified together");
    }
    let policy = match flags.text("cascade") {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => {
            return fail(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            ));
        }
    };
    let mut builder = Builder::new(context, &flags.args);
    builder.latest = false;
    builder.fetch = false;
    let found = builder.run(context).await?;
    let ignore = flags.on("ignore-not-found") || flags.on("all");
    let mut failures = found.failures;
    if ignore {
        failures.retain(|failure| !failure.is_not_found());
    }
    let forced = grace == 0;
    if forced && dry_run == DryRun::No && !found.infos.is_empty() {
        context.err("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.\n");
    }
    if flags.on("interactive") && !confirmed(&found.infos) {
        out("deletion is cancelled\n");
        return Ok(());
    }
    let (_, explicit) = context.namespace().await?;
    let mut warned = false;
    let mut deleted: Vec<(Info, Value)> = Vec::new();
    let mut told = 0;
    for info in found.infos {
        told += 1;
        if !info.mapping.namespaced && explicit && !warned {
            context.err("Warning: deleting cluster-scoped resources, not scoped to the provided namespace\n");
            warned = true;
        }
        match one(context, &info, grace, policy, dry_run).await {
            Ok(answer) => {
                tell(&info, output, forced, dry_run);
                deleted.push((info, answer));
            }
            Err(error) if ignore && error.is_not_found() => {}
            Err(error) => failures.push(error.with_source("deleting", &info.source)),
        }
    }
    if told == 0 && failures.is_empty() {
        out("No resources found\n");
        return Ok(());
    }
    if wait && dry_run == DryRun::No {
        let timeout = flags.span("timeout");
        let timeout = (timeout > 0).then(|| Duration::from_nanos(timeout as u64));
        for (info, answer) in &deleted {
            gone(context, info, answer, timeout).await?;
        }
    }
    Failure::aggregate(failures)
}

async fn one(context: &Context, info: &Info, grace: i64, policy: &str, dry_run: DryRun) -> Outcome<Value> {
    if dry_run == DryRun::Client {
        return context.client().await?.get(&info.path(), &[]).await;
    }
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    if grace >= 0 {
        body["gracePeriodSeconds"] = grace.into();
    }
    if dry_run == DryRun::Server {
        body["dryRun"] = json!(["All"]);
    }
    let client = context.client().await?;
    client.call(Method::DELETE, &info.path(), &[], Some((crate::client::JSON, &body))).await
}

fn tell(info: &Info, output: &str, forced: bool, dry_run: DryRun) {
    let kind = info.mapping.named();
    if output == "name" {
        out(&format!("{kind}/{}\n", info.name));
        return;
    }
    let operation = if forced { "force deleted" } else { "deleted" };
    out(&format!("{kind} \"{}\" {operation}{}\n", info.name, dry_run.suffix()));
}

fn confirmed(infos: &[Info]) -> bool {
    out(&format!("You are about to delete the following {} resource(s):\n", infos.len()));
    for info in infos {
        out(&format!("{}/{}\n", info.mapping.named(), info.name));
    }
    out("Do you want to continue? (y/n): ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

/// Waits until an object is gone, or another one of its name is there.
///
/// # Errors
/// It takes longer than `timeout`, or the server fails.
pub(crate) async fn gone(
    context: &Context,
    info: &Info,
    answer: &Value,
    timeout: Option<Duration>,
) -> Outcome {
    let uid =
        answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid")).and_then(Value::as_str);
    let wait = async {
        loop {
            let object = match context.client().await?.get(&info.path(), &[]).await {
                Ok(object) => object,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            };
            if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
                return Ok(());
            }
            let version = crate::object::text(&object, "/metadata/resourceVersion").to_owned();
            let query = vec![
                ("watch".to_owned(), "true".to_owned()),
                ("resourceVersion".to_owned(), version),
                ("fieldSelector".to_owned(), format!("metadata.name={}", info.name)),
            ];
            let path = info.mapping.collection(&info.namespace);
            let mut events = watch::open(context, &path, &query, crate::client::JSON).await?;
            while let Some(Ok(event)) = watch::next(&mut events).await {
                match event["type"].as_str() {
                    Some("DELETED") => return Ok(()),
                    Some("ERROR") => break,
                    _ => {}
                }
            }
        }
    };
    match timeout {
        None => wait.await,
        Some(timeout) => tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| {
            fail(format!("timed out waiting for the condition on {}/{}", info.mapping.plural, info.name))
        }),
    }
}
