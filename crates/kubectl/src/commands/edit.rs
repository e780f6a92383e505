//! `edit` and `diff`: what needs another program.

use crate::apply_diff;
use crate::builder::{self, Builder, Info};
use crate::client::JSON;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, io_text};
use crate::flags::{Flag, Takes, flag};
use crate::manifest;
use crate::object;
use crate::printers::{Format, PRINT, list_of, yaml};
use crate::write::{self, LAST_APPLIED, MERGE, STRATEGIC};
use http::Method;
use serde_json::{Value, json};
use std::process::Command;

/// Flags of `edit`.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        write::VALIDATE,
        write::RECORD,
        write::SAVE_CONFIG,
        write::manager("kubectl-edit"),
        flag("subresource", Takes::Text, "", "Edit a subresource"),
        flag("output-patch", Takes::Bool, "false", "Show the patch"),
        flag("windows-line-endings", Takes::Bool, "false", "Unused"),
    ],
];

const NOTE: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// Runs `edit`.
///
/// # Errors
/// The editor fails, or the server refuses what it left.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let output = flags.text("output");
    if !matches!(output, "" | "json" | "yaml" | "name") {
        return fail(format!(
            "unable to match a printer suitable for the output format \"{output}\", allowed formats are: json,yaml"
        ));
    }
    let mut builder = Builder::new(context, &flags.args);
    builder.empty_selector = true;
    builder.latest = true;
    let infos = builder.run(context).await?.all()?;
    if infos.is_empty() {
        return fail("edit cancelled, no objects found");
    }
    let shown = if infos.len() == 1 {
        infos[0].object.clone()
    } else {
        list_of(infos.iter().map(|i| i.object.clone()).collect())
    };
    let mut shown = shown;
    if let Some(metadata) = shown["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let mut why = String::new();
    let mut current = yaml::document(&shown);
    loop {
        let body = by_hand(&current, &why)?;
        if body.trim().is_empty() || body == yaml::document(&shown) {
            context.err("Edit cancelled, no changes made.\n");
            return Ok(());
        }
        match save(context, &infos, &body).await {
            Ok(()) => return Ok(()),
            // The same mistake twice: nobody is at the keyboard, or nobody knows better.
            Err(_) if body == current => return Err(kept(context, &body)),
            Err(error) => {
                context.err(&error.shown());
                why = format!("# {}\n#\n", error.text().replace('\n', "\n# "));
                current = body;
            }
        }
    }
}

/// Puts what was edited where it can be found again.
fn kept(context: &Context, body: &str) -> Failure {
    let file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(".yaml").tempfile();
    let kept = file.and_then(|file| {
        std::fs::write(file.path(), body)?;
        file.into_temp_path().keep().map_err(std::io::Error::from)
    });
    if let Ok(path) = kept {
        context.err(&format!("A copy of your changes has been stored to \"{}\"\n", path.display()));
    }
    Failure::Message("Edit cancelled, no valid changes were saved.".into())
}

async fn save(context: &Context, infos: &[Info], body: &str) -> Outcome {
    let mut edited = Vec::new();
    for document in manifest::documents(body.as_bytes(), "edited-file")? {
        edited.extend(builder::unlist(document.object));
    }
    let format = Format::from_flags(context, false)?;
    for info in infos {
        let Some(new) =
            edited.iter().find(|new| object::name(new) == info.name && new["kind"] == info.object["kind"])
        else {
            return fail(format!(
                "{}/{} is gone from the file: names and kinds cannot be edited",
                info.mapping.named(),
                info.name
            ));
        };
        let mut before = info.object.clone();
        if let Some(metadata) = before["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let patch = write::merge_diff(&before, new);
        if patch == json!({}) {
            out(&format!("{}/{} skipped\n", info.mapping.named(), info.name));
            continue;
        }
        if context.flags.on("output-patch") {
            out(&format!("Patch: {patch}\n"));
        }
        let query = vec![
            ("fieldManager", context.flags.text("field-manager").to_owned()),
            ("fieldValidation", write::validation(context)?.to_owned()),
        ];
        let object =
            write::patch(context, info, MERGE, &patch, &query, context.flags.text("subresource")).await?;
        if format.human() {
            out(&format!("{}/{} edited\n", info.mapping.named(), info.name));
        } else {
            out(&format.show(&object, false)?);
        }
    }
    Ok(())
}

/// Lets the user change a text below a note and a reason, both taken out again.
///
/// # Errors
/// The editor fails.
pub(super) fn by_hand(text: &str, why: &str) -> Outcome<String> {
    let edited = edit(&format!("{NOTE}{why}{text}"))?;
    Ok(edited.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect())
}

/// Lets the user's editor change a text.
fn edit(text: &str) -> Outcome<String> {
    let file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), text)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let editor = variable("KUBE_EDITOR").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".into());
    // Arguments and quotes are for a shell to read; a bare name is not.
    let bare = !editor.contains(|c: char| " \"'\\$|&;<>".contains(c));
    let status = if bare {
        Command::new(&editor).arg(file.path()).status()
    } else {
        Command::new("sh").arg("-c").arg(format!("{editor} \"$0\"")).arg(file.path()).status()
    };
    match status {
        Ok(status) if status.success() => Ok(std::fs::read_to_string(file.path())?),
        Ok(_) => fail(format!("there was a problem with the editor \"{editor}\"")),
        Err(_) if editor.contains('/') => fail(format!("there was a problem with the editor \"{editor}\"")),
        Err(_) => fail(format!("unable to launch the editor \"{editor}\"")),
    }
}

/// Flags of `diff`.
pub(crate) const DIFF_FLAGS: [&[Flag]; 2] = [
    &builder::FILES,
    &[
        builder::SELECTOR,
        write::manager("kubectl-client-side-apply"),
        flag("server-side", Takes::Bool, "false", "Let the server apply"),
        flag("force-conflicts", Takes::Bool, "false", "Take over fields that others own"),
        flag("prune", Takes::Bool, "false", "Not built in"),
        flag("show-managed-fields", Takes::Bool, "false", "Keep managedFields"),
        flag("concurrency", Takes::Number, "1", "Unused"),
    ],
];

/// Runs `diff`.
///
/// # Errors
/// Code 1 if there are differences, more for failures.
pub(crate) async fn diff(context: &Context) -> Outcome {
    differ(context).await.map_err(|error| match error {
        Failure::Exit(_) | Failure::Code(..) => error,
        other => Failure::Code(2, Box::new(other)),
    })
}

async fn differ(context: &Context) -> Outcome {
    if !context.flags.args.is_empty() {
        return Err(context.usage(&format!("Unexpected args: [{}]", context.flags.args.join(" "))));
    }
    let mut builder = Builder::new(context, &[]);
    builder.files_only = true;
    let infos = builder.run(context).await?.all()?;
    let (live_dir, merged_dir) = (
        tempfile::Builder::new().prefix("LIVE-").tempdir()?,
        tempfile::Builder::new().prefix("MERGED-").tempdir()?,
    );
    for info in infos {
        let live = match context.client().await?.get(&info.path(), &[]).await {
            Ok(live) => Some(live),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let merged = merged(context, &info, live.as_ref()).await?;
        let group =
            if info.mapping.group.is_empty() { String::new() } else { format!("{}.", info.mapping.group) };
        let name =
            format!("{group}{}.{}.{}.{}", info.mapping.version, info.mapping.kind, info.namespace, info.name);
        let keep = context.flags.on("show-managed-fields");
        std::fs::write(
            live_dir.path().join(&name),
            live.map_or(Ok(String::new()), |live| Format::Yaml.show(&live, keep))?,
        )?;
        std::fs::write(merged_dir.path().join(&name), Format::Yaml.show(&merged, keep)?)?;
    }
    let external = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|value| !value.is_empty());
    let mut words: Vec<String> = match &external {
        Some(command) => command.split_whitespace().map(str::to_owned).collect(),
        None => ["diff", "-u", "-N"].map(str::to_owned).to_vec(),
    };
    let program = words.remove(0);
    let status = Command::new(&program).args(&words).arg(live_dir.path()).arg(merged_dir.path()).status();
    match status.map(|status| status.code().unwrap_or(2)) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::Exit(code as u8)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fail(format!("failed to run \"{program}\": executable file not found in $PATH"))
        }
        Err(error) => fail(format!("failed to run \"{program}\": {}", io_text(&error))),
    }
}

/// What applying would make of the object, asked of the server.
async fn merged(context: &Context, info: &Info, live: Option<&Value>) -> Outcome<Value> {
    let client = context.client().await?;
    let flags = &context.flags;
    if flags.on("server-side") {
        let manager = if flags.given("field-manager") { flags.text("field-manager") } else { "kubectl" };
        let force = flags.on("force-conflicts").to_string();
        let query = [("dryRun", "All"), ("fieldManager", manager), ("force", force.as_str())];
        let apply = Some(("application/apply-patch+yaml", &info.object));
        return client.call(Method::PATCH, &info.path(), &query, apply).await;
    }
    let query = [("dryRun", "All"), ("fieldManager", flags.text("field-manager"))];
    // What apply would remember is no difference to show.
    let new = &info.object;
    let Some(live) = live else {
        let path = info.mapping.collection(&info.namespace);
        return client.call(Method::POST, &path, &query, Some((JSON, new))).await;
    };
    let last = object::strings(live, "/metadata/annotations").remove(LAST_APPLIED);
    let last = last.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let schema = apply_diff::schema(&info.mapping.api_version(), &info.mapping.kind);
    let patch = apply_diff::three_way(schema, &last, new, live);
    let kind = if schema.is_some() { STRATEGIC } else { MERGE };
    client.call(Method::PATCH, &info.path(), &query, Some((kind, &patch))).await
}
