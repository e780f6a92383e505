//! `set image`, `set env`, `set resources`, `set selector`, `set serviceaccount`.

use super::create::data::check_variable;
use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write::{self, MERGE, STRATEGIC};
use serde_json::{Value, json};

const COMMON: [Flag; 7] = [
    builder::SELECTOR,
    builder::ALL,
    DRY_RUN,
    write::RECORD,
    write::LOCAL,
    write::manager("kubectl-set"),
    flag("resource-version", Takes::Text, "", "Only if the object has this version"),
];

/// Flags of `set image` and `set serviceaccount`.
pub(crate) const FLAGS: [&[Flag]; 3] = [&PRINT, &builder::FILES, &COMMON];

/// Flags of `set env`.
pub(crate) const ENV_FLAGS: [&[Flag]; 4] = [
    &PRINT,
    &builder::FILES,
    &COMMON,
    &[
        short("containers", 'c', Takes::Text, "*", "Which containers"),
        short("env", 'e', Takes::Array, "[]", "NAME=VALUE"),
        flag("from", Takes::Text, "", "configmap/NAME or secret/NAME"),
        flag("keys", Takes::List, "[]", "Which keys of it"),
        flag("list", Takes::Bool, "false", "Show them"),
        flag("resolve", Takes::Bool, "false", "Show values behind references"),
        flag("overwrite", Takes::Bool, "true", "Change what is there"),
        flag("prefix", Takes::Text, "", "Prefix of names from --from"),
    ],
];

/// Flags of `set resources`.
pub(crate) const RESOURCE_FLAGS: [&[Flag]; 4] = [
    &PRINT,
    &builder::FILES,
    &COMMON,
    &[
        short("containers", 'c', Takes::Text, "*", "Which containers"),
        flag("limits", Takes::Text, "", "cpu=200m,memory=512Mi"),
        flag("requests", Takes::Text, "", "cpu=100m,memory=256Mi"),
    ],
];

/// What `set resources` has done.
const RESOURCES: &str = "resource requirements updated";

type Change<'a> = dyn Fn(&mut Value, &Info) -> Outcome + 'a;

/// Changes the pod specs of all objects that are meant, and tells what was done.
async fn pod_specs(context: &Context, resources: &[String], done: &str, change: &Change<'_>) -> Outcome {
    let flags = &context.flags;
    let teller = Teller::from_flags(context)?;
    if flags.on("local") && teller.dry_run == DryRun::Server {
        return fail("cannot specify --local and --dry-run=server - did you mean --dry-run=client?");
    }
    let mut builder = Builder::new(context, resources);
    builder.empty_selector = flags.on("all");
    builder.all = false;
    builder.latest = !flags.on("local");
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    for info in found.infos {
        if let Err(error) = one(context, &teller, &info, done, change).await {
            failures.push(error);
        }
    }
    Failure::aggregate(failures)
}

async fn one(context: &Context, teller: &Teller, info: &Info, done: &str, change: &Change<'_>) -> Outcome {
    let Some(pointer) = write::pod_spec(&info.object) else {
        return Err(write::no_template(info));
    };
    let mut next = info.object.clone();
    let Some(spec) = next.pointer_mut(pointer) else { return Err(write::no_template(info)) };
    change(spec, info)?;
    write::record(context, &mut next);
    if teller.dry_run == DryRun::Client || context.flags.on("local") {
        return teller.tell_built(&write::typed(&next), done);
    }
    if next == info.object {
        return Ok(());
    }
    let patch = write::merge_diff(&info.object, &next);
    let query = teller.query(context.flags.text("field-manager"));
    match write::patch(context, info, MERGE, &patch, &query, "").await {
        Ok(object) => teller.tell(&object, done),
        Err(Failure::Status(status)) if status["reason"] == "Invalid" => {
            let text = Failure::Status(status).text();
            if done == RESOURCES {
                return fail(format!("failed to patch resources update to pod template {text}"));
            }
            fail(format!("failed to patch {} to pod template: {text}", done.replace("updated", "update")))
        }
        Err(error) => Err(error),
    }
}

/// Resources, and what comes with `=`.
fn split(args: &[String]) -> (Vec<String>, Vec<String>) {
    args.iter().cloned().partition(|arg| !arg.contains('='))
}

/// Runs `set image`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn image(context: &Context) -> Outcome {
    let flags = &context.flags;
    let (resources, images) = split(&flags.args);
    let mut errors = Vec::new();
    let mut error = |text: &str| errors.push(Failure::Message(text.into()));
    if flags.on("all") && !flags.text("selector").is_empty() {
        error("cannot set --all and --selector at the same time");
    }
    if resources.is_empty() && flags.list("filename").is_empty() {
        return Err(builder::missing());
    }
    if resources.is_empty() && flags.list("filename").is_empty() {
        error("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    if images.is_empty() {
        error("at least one image update is required");
    } else if images.len() > 1 && images.iter().any(|pair| pair.starts_with("*=")) {
        error(
            "all containers are already specified by *, but saw more than one container_name=container_image pairs",
        );
    }
    Failure::aggregate(errors)?;
    pod_specs(context, &resources, "image updated", &|spec, _| {
        let mut errors = Vec::new();
        for pair in &images {
            let (name, image) = pair.split_once('=').unwrap_or((pair, ""));
            let mut found = false;
            for list in ["initContainers", "containers"] {
                for container in spec[list].as_array_mut().into_iter().flatten() {
                    if container["name"] == name || name == "*" {
                        container["image"] = image.into();
                        found = true;
                    }
                }
            }
            if !found {
                errors
                    .push(Failure::Message(format!("error: unable to find container named {}", quote(name))));
            }
        }
        if spec["initContainers"].is_null()
            && let Some(map) = spec.as_object_mut()
        {
            map.remove("initContainers");
        }
        Failure::aggregate(errors)
    })
    .await
}

/// Runs `set serviceaccount`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn service_account(context: &Context) -> Outcome {
    let Some((name, resources)) = context.flags.args.split_last() else {
        return fail("serviceaccount is required");
    };
    pod_specs(context, resources, "serviceaccount updated", &|spec, _| {
        spec["serviceAccountName"] = name.clone().into();
        Ok(())
    })
    .await
}

/// Runs `set resources`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn resources(context: &Context) -> Outcome {
    let flags = &context.flags;
    if flags.text("limits").is_empty() && flags.text("requests").is_empty() {
        return fail("you must specify an update to requests or limits (in the form of --requests/--limits)");
    }
    let parse = |text: &str| -> Outcome<Vec<(String, String)>> {
        let mut all = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return fail(format!("Invalid argument syntax {part}, expected <resource>=<value>"));
            };
            if value.parse::<sagong_api::quantity::Amount>().is_err() {
                return fail(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                );
            }
            all.push((name.to_owned(), value.to_owned()));
        }
        Ok(all)
    };
    let (limits, requests) = (parse(flags.text("limits"))?, parse(flags.text("requests"))?);
    let wanted = flags.text("containers").to_owned();
    pod_specs(context, &flags.args, RESOURCES, &|spec, _| {
        let mut found = false;
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            if !wild(&wanted, container["name"].as_str().unwrap_or_default()) {
                continue;
            }
            found = true;
            for (field, values) in [("limits", &limits), ("requests", &requests)] {
                for (name, value) in values {
                    container["resources"][field][name] = value.clone().into();
                }
            }
        }
        if found { Ok(()) } else { fail(format!("error: unable to find container named {wanted}")) }
    })
    .await
}

fn wild(pattern: &str, name: &str) -> bool {
    pattern == "*"
        || pattern == name
        || pattern.strip_suffix('*').is_some_and(|start| name.starts_with(start))
}

/// Runs `set env`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn env(context: &Context) -> Outcome {
    let flags = &context.flags;
    let is_change =
        |arg: &String| arg.contains('=') || arg.ends_with('-') && arg.len() > 1 && !arg.contains('/');
    let (changes, mut resources): (Vec<String>, Vec<String>) =
        flags.args.iter().cloned().partition(is_change);
    let mut changes = changes;
    changes.extend(flags.list("env"));
    if let Some(at) = resources.iter().position(|resource| resource == "-") {
        resources.remove(at);
        changes.extend(std::io::stdin().lines().map_while(Result::ok).filter(|line| !line.starts_with('#')));
    }
    check_names(&changes)?;
    if resources.is_empty() && flags.list("filename").is_empty() {
        return fail("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    if flags.on("list") && !flags.text("output").is_empty() {
        return fail("--list and --output may not be specified together");
    }
    let wanted = flags.text("containers").to_owned();
    if flags.on("list") {
        return list_env(context, &resources, &wanted).await;
    }
    let from = from_object(context).await?;
    if changes.is_empty() && from.is_empty() {
        return Ok(());
    }
    let overwrite = flags.on("overwrite");
    pod_specs(context, &resources, "env updated", &|spec, info| {
        warn_of_none(context, info, spec, &wanted);
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            if wild(&wanted, container["name"].as_str().unwrap_or_default()) {
                change_env(container, &changes, &from, overwrite).map_err(|error| {
                    Failure::Message(format!("{}/{} {}", info.mapping.plural, info.name, error.text()))
                })?;
            }
        }
        Ok(())
    })
    .await
}

/// Whether these can be names of variables, and none is both changed and removed.
///
/// # Errors
/// The first that cannot.
fn check_names(changes: &[String]) -> Outcome {
    let removed: Vec<&str> =
        changes.iter().filter(|c| !c.contains('=')).filter_map(|c| c.strip_suffix('-')).collect();
    for (name, _) in changes.iter().filter_map(|change| change.split_once('=')) {
        // kubectl says nothing of a name that is empty, either.
        if !name.is_empty() {
            check_variable(name)?;
        }
        if removed.contains(&name) {
            return fail("can not both modify and remove the same environment variable in the same command");
        }
    }
    Ok(())
}

/// Says that no container of an object has such a name.
fn warn_of_none(context: &Context, info: &Info, spec: &Value, wanted: &str) {
    let all = object::list(spec, "/containers").iter().chain(object::list(spec, "/initContainers"));
    if !all.into_iter().any(|container| wild(wanted, object::text(container, "/name"))) {
        context.err(&format!(
            "Warning: {}/{} does not have any containers matching {}\n",
            info.mapping.kind,
            info.name,
            quote(wanted)
        ));
    }
}

fn change_env(container: &mut Value, changes: &[String], from: &[Value], overwrite: bool) -> Outcome {
    let mut env: Vec<Value> = container["env"].as_array().cloned().unwrap_or_default();
    let had = !env.is_empty();
    let additions = changes
        .iter()
        .filter_map(|change| change.split_once('='))
        .map(|(name, value)| json!({"name": name, "value": value}));
    for entry in additions.chain(from.iter().cloned()) {
        match env.iter_mut().find(|known| known["name"] == entry["name"]) {
            Some(known) if !overwrite => {
                let (name, value) = (object::text(known, "/name"), object::text(known, "/value"));
                return fail(format!("'{name}' already has a value ({value}), and --overwrite is false"));
            }
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    }
    for name in changes.iter().filter(|c| !c.contains('=')).filter_map(|c| c.strip_suffix('-')) {
        env.retain(|known| known["name"] != name);
    }
    if env.is_empty() {
        if had && let Some(map) = container.as_object_mut() {
            map.remove("env");
        } else if let Some(map) = container.as_object_mut() {
            map.remove("env");
        }
    } else {
        container["env"] = env.into();
    }
    Ok(())
}

async fn list_env(context: &Context, resources: &[String], wanted: &str) -> Outcome {
    let found = Builder::new(context, resources).run(context).await?;
    for info in found.all()? {
        let Some(pointer) = write::pod_spec(&info.object) else { return Err(write::no_template(&info)) };
        warn_of_none(context, &info, info.object.pointer(pointer).unwrap_or(&Value::Null), wanted);
        for container in object::list(&info.object, &format!("{pointer}/containers")) {
            let name = object::text(container, "/name");
            if !wild(wanted, name) {
                continue;
            }
            out(&format!("# {} {}, container {name}\n", info.mapping.kind, info.name));
            for entry in object::list(container, "/env") {
                let name = object::text(entry, "/name");
                if entry["valueFrom"].is_object() {
                    out(&format!("# {name} from {}\n", reference(&entry["valueFrom"])));
                } else {
                    out(&format!("{name}={}\n", object::text(entry, "/value")));
                }
            }
        }
    }
    Ok(())
}

fn reference(from: &Value) -> String {
    let text = |pointer| object::text(from, pointer);
    if from["configMapKeyRef"].is_object() {
        return format!("configmap {}, key {}", text("/configMapKeyRef/name"), text("/configMapKeyRef/key"));
    }
    if from["secretKeyRef"].is_object() {
        return format!("secret {}, key {}", text("/secretKeyRef/name"), text("/secretKeyRef/key"));
    }
    if from["fieldRef"].is_object() {
        return format!("field path {}", text("/fieldRef/fieldPath"));
    }
    format!("resource {}", text("/resourceFieldRef/resource"))
}

/// The variables of `--from`.
async fn from_object(context: &Context) -> Outcome<Vec<Value>> {
    let flags = &context.flags;
    let from = flags.text("from");
    let keys = flags.list("keys");
    if from.is_empty() {
        if !keys.is_empty() {
            return fail("when specifying --keys, a configmap or secret must be provided with --from");
        }
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for info in Builder::new(context, &[from.to_owned()]).run(context).await?.all()? {
        let field = match info.mapping.kind.as_str() {
            "ConfigMap" => "configMapKeyRef",
            "Secret" => "secretKeyRef",
            _ => return fail("unsupported resource specified in --from"),
        };
        for key in info.object["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
            if !keys.is_empty() && !keys.contains(key) {
                continue;
            }
            let upper: String =
                key.to_uppercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            if upper != *key {
                context.err(&format!("Warning: key {key} transferred to {upper}\n"));
            }
            let name = format!("{}{upper}", flags.text("prefix"));
            all.push(json!({"name": name, "valueFrom": {field: {"name": info.name, "key": key}}}));
        }
    }
    Ok(all)
}

/// Runs `set selector`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn selector(context: &Context) -> Outcome {
    let flags = &context.flags;
    let teller = Teller::from_flags(context)?;
    let (resources, selectors) = split(&flags.args);
    let [selector] = selectors.as_slice() else { return fail("one selector is required") };
    let labels = super::expose::parse_labels(selector)?;
    let mut builder = Builder::new(context, &resources);
    builder.latest = true;
    for info in builder.run(context).await?.all()? {
        if info.mapping.kind != "Service" {
            return fail("setting a selector is only supported for Services");
        }
        let mut next = info.object.clone();
        next["spec"]["selector"] = Value::Object(labels.clone());
        write::record(context, &mut next);
        if teller.dry_run == DryRun::Client || flags.on("local") {
            teller.tell(&next, "selector updated")?;
            continue;
        }
        let patch = write::merge_diff(&info.object, &next);
        let query = teller.query(flags.text("field-manager"));
        let object = write::patch(context, &info, STRATEGIC, &patch, &query, "").await?;
        teller.tell(&object, "selector updated")?;
    }
    Ok(())
}
