//! `rollout status`, `history`, `undo`, `pause`, `resume`, `restart`.

use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::object::{self, list, number, text};
use crate::printers::{DRY_RUN, DryRun, Format, PRINT, Teller, tabs};
use crate::revisions;
use crate::write::{self, CHANGE_CAUSE, JSON_PATCH, STRATEGIC};
use crate::{describe, watch};
use serde_json::{Value, json};
use std::time::Duration;

/// Flags of `pause`, `resume` and `restart`.
pub(crate) const FLAGS: [&[Flag]; 3] =
    [&PRINT, &builder::FILES, &[builder::SELECTOR, write::manager("kubectl-rollout")]];
/// Flags of `status`.
pub(crate) const STATUS_FLAGS: [&[Flag]; 2] = [
    &builder::FILES,
    &[
        builder::SELECTOR,
        short("watch", 'w', Takes::Bool, "true", "Until it is done"),
        flag("revision", Takes::Number, "0", "Stop when another revision takes over"),
        flag("timeout", Takes::Span, "0s", "How long to wait; 0 is for ever"),
    ],
];
/// Flags of `history`.
pub(crate) const HISTORY_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[builder::SELECTOR, flag("revision", Takes::Number, "0", "One revision, in detail")],
];
/// Flags of `undo`.
pub(crate) const UNDO_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        builder::SELECTOR,
        DRY_RUN,
        flag("to-revision", Takes::Number, "0", "The revision; 0 is the one before"),
    ],
];

/// What is meant. Where that is nothing, it is said, but of `history`.
async fn infos(context: &Context) -> Outcome<(Vec<Info>, Vec<Failure>)> {
    let flags = &context.flags;
    if flags.args.is_empty() && flags.list("filename").is_empty() {
        return fail("required resource not specified");
    }
    let mut builder = Builder::new(context, &flags.args);
    builder.empty_selector = true;
    builder.latest = true;
    let found = builder.run(context).await?;
    if found.infos.is_empty() && found.failures.is_empty() && !context.command.ends_with(" history") {
        let (namespace, _) = context.namespace().await?;
        context.err(&format!("No resources found in {namespace} namespace.\n"));
    }
    Ok((found.infos, found.failures))
}

fn deployment(info: &Info) -> bool {
    info.mapping.group == "apps" && info.mapping.kind == "Deployment"
}

/// `Deployment.apps`, `ReplicationController`.
fn group_kind(info: &Info) -> String {
    let group = &info.mapping.group;
    if group.is_empty() { info.mapping.kind.clone() } else { format!("{}.{group}", info.mapping.kind) }
}

/// Runs `pause`.
///
/// # Errors
/// It is paused already, or cannot be.
pub(crate) async fn pause(context: &Context) -> Outcome {
    change(context, "paused", |info, object| {
        if !deployment(info) {
            return Err("pausing is not supported".into());
        }
        if object["spec"]["paused"] == true {
            return Err("is already paused".into());
        }
        object["spec"]["paused"] = true.into();
        Ok(())
    })
    .await
}

/// Runs `resume`.
///
/// # Errors
/// It is not paused, or cannot be.
pub(crate) async fn resume(context: &Context) -> Outcome {
    change(context, "resumed", |info, object| {
        if !deployment(info) {
            return Err("resuming is not supported".into());
        }
        if object["spec"]["paused"] != true {
            return Err("is not paused".into());
        }
        object["spec"]["paused"] = Value::Null;
        Ok(())
    })
    .await
}

/// Runs `restart`.
///
/// # Errors
/// It is paused, or cannot be restarted.
pub(crate) async fn restart(context: &Context) -> Outcome {
    change(context, "restarted", |info, object| {
        if !matches!(info.mapping.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            return Err("restarting is not supported".into());
        }
        if object["spec"]["paused"] == true {
            return Err("can't restart paused deployment (run rollout resume first)".into());
        }
        let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z");
        write::annotate(&mut object["spec"]["template"], "kubectl.kubernetes.io/restartedAt", &now);
        Ok(())
    })
    .await
}

async fn change(
    context: &Context,
    done: &str,
    edit: impl Fn(&Info, &mut Value) -> Result<(), String>,
) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let (infos, mut failures) = infos(context).await?;
    for info in infos {
        let mut next = info.object.clone();
        if let Err(why) = edit(&info, &mut next) {
            failures.push(Failure::Message(format!(
                "error: {} \"{}\" {why}",
                info.mapping.qualified(),
                info.name
            )));
            continue;
        }
        if teller.dry_run == DryRun::Client {
            teller.tell(&next, done)?;
            continue;
        }
        let patch = write::merge_diff(&info.object, &next);
        let query = teller.query(context.flags.text("field-manager"));
        match write::patch(context, &info, STRATEGIC, &patch, &query, "").await {
            Ok(object) => teller.tell(&object, done)?,
            Err(error) => failures.push(Failure::Message(format!("failed to patch: {}", error.text()))),
        }
    }
    Failure::aggregate(failures)
}

/// Runs `history`.
///
/// # Errors
/// There is no such revision, or no history of such a kind.
pub(crate) async fn history(context: &Context) -> Outcome {
    let wanted = context.flags.number("revision");
    if wanted < 0 {
        return fail(format!("revision must be a positive integer: {wanted}"));
    }
    let format = Format::from_flags(context, false)?;
    let (infos, mut failures) = infos(context).await?;
    for info in infos {
        if !deployment(&info) {
            failures.push(Failure::Message(format!(
                "no history viewer has been implemented for \"{}\"",
                group_kind(&info)
            )));
            continue;
        }
        let sets = revisions::replica_sets(context, &info.object).await?;
        if !format.human() {
            let mut chosen: Vec<&Value> =
                sets.iter().filter(|set| revisions::revision(set) == wanted || wanted == 0).collect();
            if chosen.is_empty() && wanted > 0 {
                return fail("unable to find the specified revision");
            }
            chosen.sort_by_key(|set| revisions::revision(set));
            for (index, set) in chosen.into_iter().enumerate() {
                if index > 0 && matches!(format, Format::Yaml) {
                    out("---\n");
                }
                out(&format.show_built(&write::typed(set), false)?);
            }
            continue;
        }
        match history_text(&sets, wanted) {
            Ok(body) => {
                let with = if wanted > 0 { format!("with revision #{wanted}") } else { String::new() };
                out(&format!("{}/{} {with}\n{body}\n", info.mapping.named(), info.name));
            }
            Err(error) => failures.push(error),
        }
    }
    Failure::aggregate(failures)
}

fn history_text(sets: &[Value], wanted: i64) -> Outcome<String> {
    if sets.is_empty() {
        return Ok("No rollout history found.".into());
    }
    let cause =
        |set: &Value| object::strings(set, "/metadata/annotations").remove(CHANGE_CAUSE).unwrap_or_default();
    if wanted > 0 {
        let Some(set) = sets.iter().find(|set| revisions::revision(set) == wanted) else {
            return fail("unable to find the specified revision");
        };
        let mut template = set["spec"]["template"].clone();
        if !cause(set).is_empty() {
            write::annotate(&mut template, CHANGE_CAUSE, &cause(set));
        }
        return Ok(describe::template_text(&template));
    }
    let mut sorted: Vec<&Value> = sets.iter().collect();
    sorted.sort_by_key(|set| revisions::revision(set));
    let mut body = String::from("REVISION\tCHANGE-CAUSE\n");
    for set in sorted {
        let cause = cause(set);
        body.push_str(&format!("{}\t{}\n", revisions::revision(set), describe::or_none(&cause)));
    }
    Ok(tabs::description(&body))
}

/// Runs `undo`.
///
/// # Errors
/// There is no such revision, or it is paused.
pub(crate) async fn undo(context: &Context) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let (infos, mut failures) = infos(context).await?;
    for info in infos {
        match back(context, &info, &teller).await {
            Ok(done) => teller.tell_built(&write::typed(&info.object), &done)?,
            Err(error) => failures.push(error),
        }
    }
    Failure::aggregate(failures)
}

async fn back(context: &Context, info: &Info, teller: &Teller) -> Outcome<String> {
    if !deployment(info) {
        let kind = group_kind(info);
        if write::pod_spec(&info.object).is_none() {
            return fail(format!(
                "error retrieving rollbacker for \"{kind}\", no visitor method exists for {{{} {}}}",
                info.mapping.group, info.mapping.kind
            ));
        }
        return fail(format!("no rollbacker has been implemented for \"{kind}\""));
    }
    let wanted = context.flags.number("to-revision");
    if wanted < 0 {
        return fail(format!("unable to find specified revision {wanted} in history"));
    }
    let sets = revisions::replica_sets(context, &info.object).await?;
    let mut sorted: Vec<&Value> = sets.iter().collect();
    sorted.sort_by_key(|set| std::cmp::Reverse(revisions::revision(set)));
    let set = if wanted == 0 {
        match sorted.get(1) {
            Some(set) => *set,
            None => return fail(format!("no rollout history found for deployment \"{}\"", info.name)),
        }
    } else {
        match sorted.iter().find(|set| revisions::revision(set) == wanted) {
            Some(set) => *set,
            None => return fail(format!("unable to find specified revision {wanted} in history")),
        }
    };
    let template = revisions::without_hash(&set["spec"]["template"]);
    if teller.dry_run == DryRun::Client {
        return Ok(describe::template_text(&set["spec"]["template"]));
    }
    if info.object["spec"]["paused"] == true {
        return fail(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again",
        );
    }
    if template == revisions::without_hash(&info.object["spec"]["template"]) {
        return Ok(format!(
            "skipped rollback (current template already matches revision {})",
            revisions::revision(set)
        ));
    }
    // The deployment keeps what is its own; the rest comes from the replica set.
    const OWN: [&str; 6] = [
        write::LAST_APPLIED,
        revisions::REVISION,
        "deployment.kubernetes.io/revision-history",
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    ];
    let mut annotations = object::strings(&info.object, "/metadata/annotations");
    annotations.retain(|key, _| OWN.contains(&key.as_str()));
    let theirs = object::strings(set, "/metadata/annotations");
    annotations.extend(theirs.into_iter().filter(|(key, _)| !OWN.contains(&key.as_str())));
    let patch = json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace", "path": "/metadata/annotations", "value": annotations},
    ]);
    write::patch(context, info, JSON_PATCH, &patch, &teller.query(""), "")
        .await
        .map_err(|error| Failure::Message(format!("failed restoring revision {wanted}: {}", error.text())))?;
    Ok("rolled back".into())
}

/// Runs `status`.
///
/// # Errors
/// The rollout failed, or took too long.
pub(crate) async fn status(context: &Context) -> Outcome {
    let flags = &context.flags;
    let revision = flags.number("revision");
    if revision < 0 {
        return fail(format!("revision must be a positive integer: {revision}"));
    }
    let (infos, mut failures) = infos(context).await?;
    for info in infos {
        if !matches!(info.mapping.kind.as_str(), "Deployment") {
            failures.push(Failure::Message(format!(
                "no status viewer has been implemented for {}",
                info.mapping.kind
            )));
            continue;
        }
        let wait = follow(context, &info, revision);
        let timeout = flags.span("timeout");
        let result = if timeout > 0 {
            tokio::time::timeout(Duration::from_nanos(timeout as u64), wait)
                .await
                .unwrap_or_else(|_| fail("timed out waiting for the condition"))
        } else {
            wait.await
        };
        if let Err(error) = result {
            failures.push(error);
        }
    }
    Failure::aggregate(failures)
}

/// What `status` says of a deployment now, and whether it is done.
pub(crate) fn progress(object: &Value, revision: i64) -> Outcome<(String, bool)> {
    let name = object::name(object);
    if revision > 0 && revisions::revision(object) != revision {
        return fail(format!(
            "desired revision ({revision}) is different from the running revision ({})",
            revisions::revision(object)
        ));
    }
    if number(object, "/metadata/generation") > number(object, "/status/observedGeneration") {
        return Ok(("Waiting for deployment spec update to be observed...\n".into(), false));
    }
    let failed = |c: &Value| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded";
    if list(object, "/status/conditions").iter().any(failed) {
        return fail(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let n = |field: &str| number(object, &format!("/status/{field}"));
    let (wanted, updated, total, available) =
        (number(object, "/spec/replicas"), n("updatedReplicas"), n("replicas"), n("availableReplicas"));
    let waiting = format!("Waiting for deployment \"{name}\" rollout to finish: ");
    if updated < wanted {
        return Ok((
            format!("{waiting}{updated} out of {wanted} new replicas have been updated...\n"),
            false,
        ));
    }
    if total > updated {
        return Ok((
            format!("{waiting}{} old replicas are pending termination...\n", total - updated),
            false,
        ));
    }
    if available < updated {
        return Ok((format!("{waiting}{available} of {updated} updated replicas are available...\n"), false));
    }
    Ok((format!("deployment \"{name}\" successfully rolled out\n"), true))
}

async fn follow(context: &Context, info: &Info, revision: i64) -> Outcome {
    let watching = context.flags.on("watch");
    let mut object = info.object.clone();
    let mut events = None;
    loop {
        let (said, done) = match progress(&object, revision) {
            Ok(progress) => progress,
            Err(error) => return Err(explained(context, &object, error).await),
        };
        out(&said);
        if done || !watching {
            return Ok(());
        }
        if events.is_none() {
            let query = vec![
                ("watch".to_owned(), "true".to_owned()),
                ("fieldSelector".to_owned(), format!("metadata.name={}", info.name)),
                ("resourceVersion".to_owned(), text(&object, "/metadata/resourceVersion").to_owned()),
            ];
            let path = info.mapping.collection(&info.namespace);
            events = Some(watch::open(context, &path, &query, crate::client::JSON).await?);
        }
        let Some(stream) = events.as_mut() else { continue };
        match watch::next_or_interrupt(stream).await {
            Some(Ok(event)) if event["type"] == "DELETED" => return fail("object has been deleted"),
            Some(Ok(event)) if event["object"]["kind"] == "Deployment" => object = event["object"].clone(),
            Some(Err(error)) => return Err(error),
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

/// Says which pods hold a failed rollout up, unless this is to be kubectl.
pub(super) async fn explained(context: &Context, object: &Value, error: Failure) -> Failure {
    if context.name == "kubectl" {
        return error;
    }
    let mut text = error.text();
    if let Ok(sets) = revisions::replica_sets(context, object).await
        && let (Some(new), _) = revisions::split(object, sets)
        && let Ok(pods) = super::watch_rollout::pods_of(context, &new).await
    {
        for pod in pods.iter().filter(|pod| !super::watch_rollout::ready(pod)) {
            text.push_str(&format!("\n  pod/{}: {}", object::name(pod), super::watch_rollout::reason(pod)));
        }
    }
    let name = object::name(object);
    text.push_str(&format!("\nnext: {0} describe deployment {name}, {0} logs deployment/{name}, or {0} rollout undo deployment/{name}", context.name));
    Failure::Message(text)
}
