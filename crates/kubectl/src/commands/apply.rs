//! `apply`: makes the cluster's objects what the files say.

use crate::apply_diff;
use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller, list_of};
use crate::write::{self, LAST_APPLIED, MERGE, STRATEGIC};
use http::Method;
use serde_json::{Value, json};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 4] = [
    &PRINT,
    &builder::FILES,
    &[builder::SELECTOR, builder::ALL, DRY_RUN, write::RECORD, write::VALIDATE],
    &[
        write::manager("kubectl-client-side-apply"),
        flag("overwrite", Takes::Bool, "true", "Resolve conflicts in favour of the files"),
        flag("server-side", Takes::Bool, "false", "Let the server apply"),
        flag("force-conflicts", Takes::Bool, "false", "Take over fields that others own"),
        flag("force", Takes::Bool, "false", "Delete and create again what cannot be changed"),
        flag("prune", Takes::Bool, "false", "Not built in"),
        flag("wait", Takes::Bool, "false", "Wait for deletions"),
        flag("timeout", Takes::Span, "0s", "How long to wait"),
        flag("cascade", Takes::Maybe("background"), "background", "background, foreground or orphan"),
        flag("grace-period", Takes::Number, "-1", "Seconds to end in"),
        flag("openapi-patch", Takes::Bool, "true", "Unused"),
        flag("subresource", Takes::Text, "", "Apply to a subresource"),
    ],
];

/// What kubectl says below the conflicts of a server-side apply.
const CONFLICT: &str = "Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

/// Runs it.
///
/// # Errors
/// What the files, the command line or the server are to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    if !flags.args.is_empty() {
        return Err(context.usage(&format!("Unexpected args: [{}]", flags.args.join(" "))));
    }
    if flags.on("force") && flags.on("server-side") {
        return fail("--force cannot be used with --server-side");
    }
    let cascade = flags.text("cascade");
    if !matches!(cascade, "background" | "foreground" | "orphan" | "true" | "false") {
        return fail(format!(
            "invalid cascade value ({cascade}). Must be \"background\", \"foreground\", or \"orphan\""
        ));
    }
    if flags.on("prune") {
        if flags.on("all") && !flags.text("selector").is_empty() {
            return fail("cannot set --all and --selector at the same time");
        }
        if !flags.on("all") && flags.text("selector").is_empty() {
            return fail(
                "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector",
            );
        }
        return fail("--prune is not built in: delete what the files no longer name with delete -f or -l");
    }
    if flags.on("force-conflicts") && !flags.on("server-side") {
        return fail("--force-conflicts only works with --server-side");
    }
    let teller = Teller::from_flags(context)?;
    if flags.on("server-side") && teller.dry_run == DryRun::Client {
        return fail(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        );
    }
    let mut builder = Builder::new(context, &[]);
    builder.files_only = true;
    builder.all = false;
    builder.validate = write::validation(context)? != "Ignore";
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    if found.infos.is_empty() && failures.is_empty() {
        return fail("no objects passed to apply");
    }
    let mut shown = Vec::new();
    for mut info in found.infos {
        let result = if flags.on("server-side") {
            server_side(context, &mut info, &teller).await
        } else {
            one(context, &mut info, &teller).await
        };
        match result {
            Ok((object, _)) if !teller.format.human() => shown.push(object),
            Ok((object, operation)) => teller.tell(&object, operation)?,
            Err(error) => failures.push(error),
        }
    }
    if !teller.format.human() && !shown.is_empty() {
        if shown.len() == 1 || matches!(teller.format, crate::printers::Format::Name) {
            for object in &shown {
                teller.tell(object, "")?;
            }
        } else {
            out(&teller.format.show(&list_of(shown), flags.on("show-managed-fields"))?);
        }
    }
    Failure::aggregate(failures)
}

fn query(context: &Context, teller: &Teller) -> Outcome<Vec<(&'static str, String)>> {
    let mut query = teller.query(context.flags.text("field-manager"));
    query.push(("fieldValidation", write::validation(context)?.to_owned()));
    Ok(query)
}

async fn one(context: &Context, info: &mut Info, teller: &Teller) -> Outcome<(Value, &'static str)> {
    if info.name.is_empty() {
        let generated = object::text(&info.object, "/metadata/generateName");
        if !generated.is_empty() {
            return fail(format!("from {generated}: cannot use generate name with apply"));
        }
    }
    write::record(context, &mut info.object);
    let modified = write::configuration(&info.object);
    let subresource = context.flags.text("subresource");
    let path = match subresource {
        "" => info.path(),
        part => format!("{}/{part}", info.path()),
    };
    let live = match context.client().await?.get(&path, &[]).await {
        Ok(live) => live,
        Err(error) if error.is_not_found() => {
            write::annotate(&mut info.object, LAST_APPLIED, &modified);
            if teller.dry_run == DryRun::Client {
                return Ok((info.object.clone(), "created"));
            }
            let created = write::create(context, info, &query(context, teller)?).await;
            return created
                .map(|object| (object, "created"))
                .map_err(|e| e.with_source("creating", &info.source));
        }
        Err(error) => {
            let text = "retrieving current configuration of:";
            return Err(match error {
                Failure::Status(_) => error,
                other => Failure::Message(format!("{text}\n{}", other.text())),
            });
        }
    };
    let last = object::strings(&live, "/metadata/annotations").remove(LAST_APPLIED);
    if last.is_none() && !live["metadata"]["deletionTimestamp"].is_string() {
        let (resource, program) = (format!("{}/{}", info.mapping.plural, info.name), &context.name);
        context.err(&format!("Warning: resource {resource} is missing the {LAST_APPLIED} annotation which is required by {program} apply. {program} apply should only be used on resources created declaratively by either {program} create --save-config or {program} apply. The missing annotation will be patched automatically.\n"));
    }
    if teller.dry_run == DryRun::Client {
        return Ok((live, "configured"));
    }
    let last: Value = last.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let mut new = info.object.clone();
    write::annotate(&mut new, LAST_APPLIED, &modified);
    let schema = apply_diff::schema(&info.mapping.api_version(), &info.mapping.kind);
    let patch = apply_diff::three_way(schema, &last, &new, &live);
    if patch == json!({}) {
        return Ok((live, "unchanged"));
    }
    let kind = if schema.is_some() { STRATEGIC } else { MERGE };
    match write::patch(context, info, kind, &patch, &query(context, teller)?, subresource).await {
        Ok(object) => Ok((object, "configured")),
        Err(error) if context.flags.on("force") && matches!(error.reason(), "Conflict" | "Invalid") => {
            write::annotate(&mut info.object, LAST_APPLIED, &modified);
            recreate(context, info, live, &query(context, teller)?).await.map(|object| (object, "configured"))
        }
        Err(error) => {
            let resource = format!(
                "Resource: \"{}/{}, Resource={}\", GroupVersionKind: \"{}/{}, Kind={}\"\nName: \"{}\", Namespace: \"{}\"",
                info.mapping.group,
                info.mapping.version,
                info.mapping.plural,
                info.mapping.group,
                info.mapping.version,
                info.mapping.kind,
                info.name,
                info.namespace
            );
            let text = format!(
                "error when applying patch:\n{}\nto:\n{resource}\nfor: \"{}\": ",
                crate::printers::json::compact(&patch),
                info.source
            );
            Err(match error {
                Failure::Status(status) if status["reason"] == "Invalid" => Failure::Status(status),
                Failure::Status(mut status) => {
                    let message = status["message"].as_str().unwrap_or_default();
                    status["message"] =
                        format!("{text}error when patching \"{}\": {message}", info.source).into();
                    Failure::Status(status)
                }
                other => other.with_source("patching", &info.source),
            })
        }
    }
}

/// What the server gives an object of its own, and refuses in a new one or ignores.
const SERVERS_OWN: [&str; 4] = ["resourceVersion", "uid", "creationTimestamp", "managedFields"];

/// Deletes the live object and creates the new one; if that is refused, the one that was there again.
async fn recreate(
    context: &Context,
    info: &mut Info,
    live: Value,
    query: &[(&str, String)],
) -> Outcome<Value> {
    context.client().await?.call(Method::DELETE, &info.path(), &[], None).await?;
    super::delete::gone(context, info, &live, None).await?;
    let refusal = match write::create(context, info, query).await {
        Ok(object) => return Ok(object),
        Err(refusal) => refusal,
    };
    let new = std::mem::replace(&mut info.object, live);
    if let Some(meta) = info.object["metadata"].as_object_mut() {
        meta.retain(|field, _| !SERVERS_OWN.contains(&field.as_str()));
    }
    let restored = write::create(context, info, query).await;
    info.object = new;
    match restored {
        Ok(_) => Err(refusal),
        Err(error) => fail(format!(
            "An error occurred force-replacing the existing object with the newly provided one:\n\n{}.\n\nAdditionally, an error occurred attempting to restore the original object:\n\n{}",
            refusal.text(),
            error.text()
        )),
    }
}

async fn server_side(context: &Context, info: &mut Info, teller: &Teller) -> Outcome<(Value, &'static str)> {
    let mut query = query(context, teller)?;
    if !context.flags.given("field-manager") {
        query.retain(|(key, _)| *key != "fieldManager");
        query.push(("fieldManager", "kubectl".into()));
    }
    query.push(("force", context.flags.on("force-conflicts").to_string()));
    write::patch(
        context,
        info,
        "application/apply-patch+yaml",
        &info.object,
        &query,
        context.flags.text("subresource"),
    )
    .await
    .map(|object| (object, "serverside-applied"))
    .map_err(|error| match error.reason() {
        "UnsupportedMediaType" => {
            Failure::Message(format!("Server-side apply not available on the server: ({})", error.text()))
        }
        "Conflict" => Failure::Message(format!("{}\n{CONFLICT}", error.text())),
        _ => error,
    })
}
