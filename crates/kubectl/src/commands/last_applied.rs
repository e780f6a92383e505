//! `apply view-last-applied`, `set-last-applied` and `edit-last-applied`: what `apply` remembers of an object.

use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::manifest;
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller, json, yaml};
use crate::write::{self, LAST_APPLIED, MERGE};
use serde_json::{Value, json};

/// Flags of `view-last-applied`.
pub(crate) const VIEW_FLAGS: [&[Flag]; 2] = [
    &builder::FILES,
    &[short("output", 'o', Takes::Text, "yaml", "yaml or json"), builder::SELECTOR, builder::ALL],
];
/// Flags of `set-last-applied`.
pub(crate) const SET_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &[builder::FILES[0], DRY_RUN],
    &[flag("create-annotation", Takes::Bool, "false", "Also where there is none yet")],
];
/// Flags of `edit-last-applied`.
pub(crate) const EDIT_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        write::VALIDATE,
        write::manager("kubectl-client-side-apply"),
        flag("windows-line-endings", Takes::Bool, "false", "Unused"),
    ],
];

fn remembered(object: &Value) -> Option<String> {
    object::strings(object, "/metadata/annotations").remove(LAST_APPLIED)
}

/// Runs `view-last-applied`.
///
/// # Errors
/// An object was never applied.
pub(crate) async fn view(context: &Context) -> Outcome {
    let mut builder = Builder::new(context, &context.flags.args);
    builder.empty_selector = true;
    builder.latest = true;
    for info in builder.run(context).await?.all()? {
        let Some(last) = remembered(&info.object) else {
            return fail(format!(
                "no last-applied-configuration annotation found on resource: {}",
                info.name
            ));
        };
        let value: Value = serde_json::from_str(&last).unwrap_or_default();
        match context.flags.text("output") {
            "json" => out(&(serde_json::to_string_pretty(&value).unwrap_or_default() + "\n")),
            "yaml" | "" => out(&yaml::document(&value)),
            other => {
                return Err(context.usage(&format!(
                    "Unexpected -o output mode: {other}, the flag 'output' must be one of yaml|json"
                )));
            }
        }
    }
    Ok(())
}

async fn remember(context: &Context, info: &Info, configuration: &str, teller: &Teller) -> Outcome<Value> {
    let patch = json!({"metadata": {"annotations": {LAST_APPLIED: configuration}}});
    write::patch(context, info, MERGE, &patch, &teller.query(context.flags.text("field-manager")), "").await
}

/// Runs `set-last-applied`.
///
/// # Errors
/// An object is not there or was never applied; what the files or the server are to blame for.
pub(crate) async fn set(context: &Context) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let mut builder = Builder::new(context, &context.flags.args);
    builder.validate = true;
    let mut changes = Vec::new();
    for info in builder.run(context).await?.all()? {
        let configuration = write::configuration(&info.object);
        let live = context.client().await?.get(&info.path(), &[]).await?;
        match remembered(&live) {
            None if !context.flags.on("create-annotation") => {
                return fail(format!(
                    "no last-applied-configuration annotation found on resource: {}, to create the annotation, run the command with --create-annotation",
                    info.name
                ));
            }
            Some(last) if last == configuration => {
                out(&format!("set-last-applied {}: no changes required.\n", info.name));
            }
            _ => changes.push((info, live, configuration)),
        }
    }
    for (info, mut live, configuration) in changes {
        let object = if teller.dry_run == DryRun::Client {
            write::annotate(&mut live, LAST_APPLIED, &configuration);
            live
        } else {
            remember(context, &info, &configuration, &teller).await?
        };
        teller.tell(&object, "configured")?;
    }
    Ok(())
}

/// Runs `edit-last-applied`.
///
/// # Errors
/// No object was ever applied; the editor fails, or the server refuses what it left.
pub(crate) async fn edit(context: &Context) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let mut builder = Builder::new(context, &context.flags.args);
    builder.empty_selector = true;
    builder.latest = true;
    let infos = builder.run(context).await?.all()?;
    let mut remembering = Vec::new();
    for info in infos {
        if let Some(last) = remembered(&info.object) {
            let last: Value = serde_json::from_str(&last).map_err(|error| {
                Failure::Message(format!("the annotation of {} is no JSON: {error}", info.name))
            })?;
            remembering.push((info, last));
        }
    }
    let shown = match remembering.as_slice() {
        [] => {
            return fail(
                "no last-applied-configuration annotation found on resources, to create the annotation, use command `kubectl apply set-last-applied --create-annotation`",
            );
        }
        [(_, last)] => last.clone(),
        many => crate::printers::list_of(many.iter().map(|(_, last)| last.clone()).collect()),
    };
    let text = yaml::document(&shown);
    let edited = super::edit::by_hand(&text, "")?;
    if edited.trim().is_empty() || edited == text {
        context.err("Edit cancelled, no changes made.\n");
        return Ok(());
    }
    let mut objects = Vec::new();
    for document in manifest::documents(edited.as_bytes(), "edited-file")? {
        objects.extend(builder::unlist(document.object));
    }
    for (info, last) in &remembering {
        let same = |new: &&Value| object::name(new) == object::name(last) && new["kind"] == last["kind"];
        let Some(new) = objects.iter().find(same) else {
            return fail(format!(
                "{}/{} is gone from the file: names and kinds cannot be edited",
                info.mapping.named(),
                info.name
            ));
        };
        if new == last {
            out(&format!("{}/{} skipped\n", info.mapping.named(), info.name));
            continue;
        }
        let configuration = json::compact(new) + "\n";
        let object = remember(context, info, &configuration, &teller).await?;
        teller.tell(&object, "edited")?;
    }
    Ok(())
}
