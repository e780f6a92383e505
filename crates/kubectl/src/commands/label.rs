//! `label` and `annotate`.

use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write::{self, MERGE};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const COMMON: [Flag; 10] = [
    builder::SELECTOR,
    builder::FIELD_SELECTOR,
    builder::ALL,
    builder::ALL_NAMESPACES,
    DRY_RUN,
    write::RECORD,
    write::LOCAL,
    flag("list", Takes::Bool, "false", "Show them"),
    flag("overwrite", Takes::Bool, "false", "Change what is there"),
    flag("resource-version", Takes::Text, "", "Only if the object has this version"),
];

/// Flags of `label`.
pub(crate) const FLAGS: [&[Flag]; 4] = [&PRINT, &builder::FILES, &COMMON, &[write::manager("kubectl-label")]];

/// Flags of `annotate`.
pub(crate) const ANNOTATE_FLAGS: [&[Flag]; 4] =
    [&PRINT, &builder::FILES, &COMMON, &[write::manager("kubectl-annotate")]];

/// Runs `label`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    change(context, "label").await
}

/// Runs `annotate`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn annotate(context: &Context) -> Outcome {
    change(context, "annotation").await
}

struct Wanted {
    set: BTreeMap<String, String>,
    remove: Vec<String>,
}

async fn change(context: &Context, what: &str) -> Outcome {
    let flags = &context.flags;
    let label = what == "label";
    // Everything from the first KEY=VALUE or KEY- on is a change; before it there are resources.
    let is_change = |arg: &&String| arg.contains('=') && !arg.starts_with('=') || arg.ends_with('-');
    let at = flags.args.iter().position(|arg| is_change(&arg)).unwrap_or(flags.args.len());
    let (resources, changes) = flags.args.split_at(at);
    if let Some(resource) = changes.iter().find(|arg| !is_change(arg)) {
        let _ = resource;
        return fail(format!(
            "all resources must be specified before {what} changes: {}",
            changes.iter().find(|arg| !is_change(arg)).map_or("", |a| a)
        ));
    }
    let teller = Teller::from_flags(context)?;
    if flags.on("list") && !flags.text("output").is_empty() {
        return fail("--list and --output may not be specified together");
    }
    for selector in ["selector", "field-selector"] {
        if flags.on("all") && !flags.text(selector).is_empty() {
            return fail(format!("cannot set --all and --{selector} at the same time"));
        }
    }
    if resources.is_empty() && flags.list("filename").is_empty() {
        return fail("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    if changes.is_empty() && !flags.on("list") {
        return fail(format!("at least one {what} update is required"));
    }
    if !flags.text("resource-version").is_empty() && flags.on("all") {
        return fail("--resource-version may only be used with a single resource");
    }
    let wanted = wanted(changes, label)?;
    let mut builder = Builder::new(context, resources);
    builder.empty_selector = flags.on("all");
    builder.all = false;
    builder.latest = !flags.on("local");
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let single = found.infos.len() == 1;
    for info in found.infos {
        if let Err(error) = one(context, &teller, info, &wanted, label, single).await {
            failures.push(error);
        }
    }
    Failure::aggregate(failures)
}

fn wanted(changes: &[String], label: bool) -> Outcome<Wanted> {
    let mut wanted = Wanted { set: BTreeMap::new(), remove: Vec::new() };
    for change in changes {
        if let Some((key, value)) = change.split_once('=') {
            if label && value.contains('=') {
                return fail(format!("invalid label spec: {change}"));
            }
            if label {
                let errors = sagong_api::name::label_value(value);
                if let Some(error) = errors.first() {
                    return fail(format!("invalid label value: {}: {error}", quote(change)));
                }
            }
            wanted.set.insert(key.into(), value.into());
        } else if let Some(key) = change.strip_suffix('-') {
            wanted.remove.push(key.into());
        }
    }
    let both: Vec<&String> = wanted.remove.iter().filter(|key| wanted.set.contains_key(*key)).collect();
    if !both.is_empty() {
        return if label {
            fail("can not both modify and remove a label in the same command")
        } else {
            let keys: Vec<String> = both.iter().map(|k| (*k).clone()).collect();
            fail(format!(
                "can not both modify and remove the following annotation(s) in the same command: {}",
                keys.join(", ")
            ))
        };
    }
    Ok(wanted)
}

async fn one(
    context: &Context,
    teller: &Teller,
    info: Info,
    wanted: &Wanted,
    label: bool,
    single: bool,
) -> Outcome {
    let flags = &context.flags;
    let field = if label { "labels" } else { "annotations" };
    let current = object::strings(&info.object, &format!("/metadata/{field}"));
    if flags.on("list") && wanted.set.is_empty() && wanted.remove.is_empty() {
        return list(&info, &current, field, single && !flags.on("all"));
    }
    if label && teller.dry_run != DryRun::Client {
        for key in wanted.remove.iter().filter(|key| !current.contains_key(*key)) {
            out(&format!("label {} not found.\n", quote(key)));
        }
    }
    if !flags.on("overwrite") {
        refuse_overwrites(&current, &wanted.set, label)?;
    }
    let mut body = json!({"metadata": {field: {}}});
    let mut added = false;
    let mut removed = false;
    let mut next = info.object.clone();
    if next["metadata"][field].is_null() {
        next["metadata"][field] = json!({});
    }
    for (key, value) in &wanted.set {
        added |= current.get(key) != Some(value);
        body["metadata"][field][key] = value.clone().into();
        next["metadata"][field][key] = value.clone().into();
    }
    for key in wanted.remove.iter().filter(|key| current.contains_key(*key)) {
        removed = true;
        body["metadata"][field][key] = Value::Null;
        if let Some(map) = next["metadata"][field].as_object_mut() {
            map.remove(key);
        }
    }
    if let Some(cause) = write::cause(context) {
        body["metadata"]["annotations"][write::CHANGE_CAUSE] = cause.into();
    }
    let version = flags.text("resource-version");
    if !version.is_empty() {
        body["metadata"]["resourceVersion"] = version.into();
    }
    let operation = match (label, added, removed) {
        (false, _, _) => "annotated",
        (true, true, true) => "modified",
        (true, true, false) => "labeled",
        (true, false, true) => "unlabeled",
        (true, false, false) => "not labeled",
    };
    let local = teller.dry_run == DryRun::Client || flags.on("local");
    let object = if local || label && !added && !removed {
        next
    } else {
        write::patch(context, &info, MERGE, &body, &teller.query(flags.text("field-manager")), "").await?
    };
    teller.tell(&object, operation)
}

fn list(info: &Info, current: &BTreeMap<String, String>, field: &str, single: bool) -> Outcome {
    if !single {
        let group = &info.mapping.group;
        out(&format!("Listing {field} for {}.{group}/{}:\n", info.mapping.kind, info.name));
    }
    let indent = if single { "" } else { " " };
    current.iter().for_each(|(key, value)| out(&format!("{indent}{key}={value}\n")));
    Ok(())
}

fn refuse_overwrites(
    current: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    label: bool,
) -> Outcome {
    let taken = |(key, value): (&String, &String)| {
        let now = current.get(key)?;
        // Why it was changed last may be said anew at any time.
        if !label && key == write::CHANGE_CAUSE {
            return None;
        }
        (now != value || !label).then(|| format!("'{key}' already has a value ({now})"))
    };
    let taken: Vec<String> = set.iter().filter_map(taken).collect();
    if taken.is_empty() {
        return Ok(());
    }
    if label {
        let each =
            taken.into_iter().map(|text| Failure::Message(format!("{text}, and --overwrite is false")));
        return Failure::aggregate(each.collect());
    }
    fail(format!("--overwrite is false but found the following declared annotation(s): {}", taken.join("; ")))
}
