//! Clusters, users and contexts of a kubeconfig: `set-…`, `delete-…`, `rename-context`, `use-context`.

use super::file::{base64_of, default_file, file_of, kept, save};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, io_text};
use crate::flags::{Flag, Takes, flag};
use crate::kubeconfig::Kubeconfig;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Flags of `set-context`.
pub(crate) const CONTEXT_FLAGS: [&[Flag]; 1] =
    [&[flag("current", Takes::Bool, "false", "The context in use")]];
/// Flags of `set-cluster`.
pub(crate) const CLUSTER_FLAGS: [&[Flag]; 1] = [&[
    flag("embed-certs", Takes::Bool, "false", "Put the files in"),
    flag("proxy-url", Takes::Text, "", "Proxy"),
]];
/// Flags of `set-credentials`.
pub(crate) const USER_FLAGS: [&[Flag]; 1] = [&[
    flag("embed-certs", Takes::Bool, "false", "Put the files in"),
    flag("auth-provider", Takes::Text, "", "Name of an authentication provider"),
    flag("auth-provider-arg", Takes::List, "[]", "KEY=VALUE for it, KEY- to remove"),
    flag("exec-command", Takes::Text, "", "Program that gives credentials"),
    flag("exec-api-version", Takes::Text, "", "API version it speaks"),
    flag("exec-arg", Takes::List, "[]", "Its arguments"),
    flag("exec-env", Takes::Array, "[]", "KEY=VALUE in its environment, KEY- to remove"),
    flag("exec-interactive-mode", Takes::Text, "", "IfAvailable, Never or Always"),
    flag("exec-provide-cluster-info", Takes::Bool, "false", "Tell it about the cluster"),
]];

/// Exactly so many arguments.
///
/// # Errors
/// There are others; help is shown with it.
pub(super) fn count(context: &Context, count: usize) -> Outcome<&[String]> {
    let args = &context.flags.args;
    if args.len() == count {
        return Ok(args);
    }
    Err(Failure::WithHelp(format!("Unexpected args: [{}]", args.join(" "))))
}

/// `config set-cluster`.
///
/// # Errors
/// A file cannot be read or written; flags contradict each other.
pub(crate) async fn set_cluster(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = &count(context, 1)?[0];
    let (ca, embed) = (flags.text("certificate-authority"), flags.on("embed-certs"));
    if flags.on("insecure-skip-tls-verify") && !ca.is_empty() {
        return fail("you cannot specify a certificate authority and insecure mode at the same time");
    }
    if embed {
        if ca.is_empty() {
            return fail("you must specify a --certificate-authority to embed");
        }
        there("certificate-authority", ca)?;
    }
    change(context, "clusters", name, |entry, file| {
        for field in ["server", "tls-server-name", "proxy-url"] {
            if flags.given(field) {
                entry[field] = flags.text(field).into();
            }
        }
        if flags.given("insecure-skip-tls-verify") {
            let insecure = flags.on("insecure-skip-tls-verify");
            entry["insecure-skip-tls-verify"] = insecure.into();
            if insecure {
                entry["certificate-authority"] = Value::Null;
                entry["certificate-authority-data"] = Value::Null;
            }
        }
        if flags.given("certificate-authority") {
            put_file(entry, "certificate-authority", ca, embed, file)?;
            if embed || !ca.is_empty() {
                entry["insecure-skip-tls-verify"] = Value::Null;
            }
        }
        Ok(())
    })?;
    out(&format!("Cluster \"{name}\" set.\n"));
    Ok(())
}

/// A file named by a flag exists.
fn there(flag: &str, path: &str) -> Outcome {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => fail(format!("could not stat {flag} file {path}: stat {path}: {}", io_text(&error))),
    }
}

/// Names a file in an entry, or puts in what it holds.
fn put_file(entry: &mut Value, field: &str, path: &str, embed: bool, file: &Path) -> Outcome {
    let data = format!("{field}-data");
    if embed {
        entry[data] = base64_of(Path::new(path))?.into();
        entry[field] = Value::Null;
    } else {
        entry[field] = kept(path, file).into();
        if !path.is_empty() {
            entry[data] = Value::Null;
        }
    }
    Ok(())
}

/// `config set-credentials`.
///
/// # Errors
/// As [`set_cluster`].
pub(crate) async fn set_credentials(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = &count(context, 1)?[0];
    let text = |flag: &str| flags.text(flag);
    let basic = !text("username").is_empty() || !text("password").is_empty();
    if !text("token").is_empty() && basic {
        return fail(
            "you cannot specify more than one authentication method at the same time: --token, --username/--password",
        );
    }
    let embed = flags.on("embed-certs");
    if embed {
        if text("client-certificate").is_empty() && text("client-key").is_empty() {
            return fail("you must specify a --client-certificate or --client-key to embed");
        }
        for flag in ["client-certificate", "client-key"] {
            if !text(flag).is_empty() {
                there(flag, text(flag))?;
            }
        }
    }
    if !matches!(text("exec-interactive-mode"), "" | "IfAvailable" | "Never" | "Always") {
        return fail("invalid interactive mode type, can be only IfAvailable, Never, Always");
    }
    let (env, gone) = pairs("exec-env", &flags.list("exec-env"))?;
    let provider = pairs("auth-provider-arg", &flags.list("auth-provider-arg"))?;
    change(context, "users", name, |entry, file| {
        for field in ["client-certificate", "client-key"] {
            if flags.given(field) {
                put_file(entry, field, text(field), embed, file)?;
            }
        }
        for field in ["token", "username", "password"] {
            if flags.given(field) {
                entry[field] = text(field).into();
            }
        }
        if !text("token").is_empty() {
            entry["username"] = Value::Null;
            entry["password"] = Value::Null;
        }
        if basic {
            entry["token"] = Value::Null;
        }
        put_provider(context, entry, &provider);
        put_exec(context, entry, &env, &gone);
        Ok(())
    })?;
    out(&format!("User \"{name}\" set.\n"));
    Ok(())
}

/// What to set, and what to remove.
type Pairs = (Vec<(String, String)>, Vec<String>);

fn pairs(flag: &str, given: &[String]) -> Outcome<Pairs> {
    let (mut set, mut gone) = (Vec::new(), Vec::new());
    for text in given {
        match text.split_once('=') {
            Some((key, value)) => set.push((key.to_owned(), value.to_owned())),
            None => match text.strip_suffix('-') {
                Some(key) => gone.push(key.to_owned()),
                None => return fail(format!("invalid {flag} format: {text}")),
            },
        }
    }
    Ok((set, gone))
}

fn put_provider(context: &Context, entry: &mut Value, (set, gone): &Pairs) {
    let name = context.flags.text("auth-provider");
    if !name.is_empty() && entry["auth-provider"]["name"] != name {
        entry["auth-provider"] = json!({"name": name, "config": null});
    }
    if !entry["auth-provider"].is_object() || set.is_empty() && gone.is_empty() {
        return;
    }
    let config = &mut entry["auth-provider"]["config"];
    if !config.is_object() {
        *config = json!({});
    }
    set.iter().for_each(|(key, value)| config[key] = value.clone().into());
    if let Some(map) = config.as_object_mut() {
        gone.iter().for_each(|key| {
            map.remove(key);
        });
    }
}

fn put_exec(context: &Context, entry: &mut Value, set: &[(String, String)], gone: &[String]) {
    let flags = &context.flags;
    if flags.given("exec-command") {
        if !entry["exec"].is_object() {
            entry["exec"] = json!({"args": null, "env": null, "provideClusterInfo": false});
        }
        entry["exec"]["command"] = flags.text("exec-command").into();
    }
    // Without a program there is nothing to say more about.
    if !entry["exec"].is_object() {
        return;
    }
    let exec = &mut entry["exec"];
    if flags.given("exec-api-version") {
        exec["apiVersion"] = flags.text("exec-api-version").into();
    }
    if flags.given("exec-interactive-mode") {
        exec["interactiveMode"] = flags.text("exec-interactive-mode").into();
    }
    if flags.given("exec-provide-cluster-info") {
        exec["provideClusterInfo"] = flags.on("exec-provide-cluster-info").into();
    }
    if flags.given("exec-arg") {
        exec["args"] = flags.list("exec-arg").into();
    }
    if set.is_empty() && gone.is_empty() {
        return;
    }
    let mut env: Vec<Value> = exec["env"].as_array().cloned().unwrap_or_default();
    env.retain(|known| !gone.iter().any(|key| known["name"] == key.as_str()));
    for (key, value) in set {
        match env.iter_mut().find(|known| known["name"] == key.as_str()) {
            Some(known) => known["value"] = value.clone().into(),
            None => env.push(json!({"name": key, "value": value})),
        }
    }
    exec["env"] = env.into();
}

/// `config set-context`.
///
/// # Errors
/// The file cannot be written.
pub(crate) async fn set_context(context: &Context) -> Outcome {
    let flags = &context.flags;
    if flags.args.len() > 1 {
        count(context, 1)?;
    }
    let config = Kubeconfig::load_or_empty(flags)?;
    let name = match flags.args.first() {
        Some(_) if flags.on("current") => {
            return fail("you cannot specify both a context name and --current");
        }
        Some(name) => name.clone(),
        None if !flags.on("current") => {
            return fail("you must specify a non-empty context name or --current");
        }
        None if config.current.is_empty() => return fail("no current context is set"),
        None => config.current.clone(),
    };
    let existed = change(context, "contexts", &name, |entry, _| {
        for field in ["cluster", "user", "namespace"] {
            if flags.given(field) {
                entry[field] = flags.text(field).into();
            }
        }
        Ok(())
    })?;
    out(&format!("Context \"{name}\" {}.\n", if existed { "modified" } else { "created" }));
    Ok(())
}

/// The entries of a list.
pub(super) fn entries<'a>(
    config: &'a mut Kubeconfig,
    list: &str,
) -> &'a mut std::collections::BTreeMap<String, Value> {
    match list {
        "contexts" => &mut config.contexts,
        "clusters" => &mut config.clusters,
        _ => &mut config.users,
    }
}

/// Changes or makes an entry, in the file it belongs to. Gives whether it was there.
fn change(
    context: &Context,
    list: &str,
    name: &str,
    edit: impl FnOnce(&mut Value, &Path) -> Outcome,
) -> Outcome<bool> {
    let all = Kubeconfig::load_or_empty(&context.flags)?;
    let file = file_of(context, &all, &format!("{list}/{name}"));
    let mut config = Kubeconfig::load_file(&file)?;
    let entries = entries(&mut config, list);
    let existed = entries.contains_key(name);
    let entry = entries.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    edit(entry, &file)?;
    save(&file, &config)?;
    Ok(existed)
}

/// `config use-context`.
///
/// # Errors
/// There is no such context.
pub(crate) async fn use_context(context: &Context) -> Outcome {
    let name = &count(context, 1)?[0];
    let config = context.config().await?;
    if !config.contexts.contains_key(name) {
        return fail(format!("no context exists with the name: \"{name}\""));
    }
    let file = default_file(context);
    let mut one = Kubeconfig::load_file(&file)?;
    one.current = name.clone();
    save(&file, &one)?;
    out(&format!("Switched to context \"{name}\".\n"));
    Ok(())
}

/// `config delete-context`.
///
/// # Errors
/// There is no such context.
pub(crate) async fn delete_context(context: &Context) -> Outcome {
    delete(context, "contexts", "context").await
}

/// `config delete-cluster`.
///
/// # Errors
/// There is no such cluster.
pub(crate) async fn delete_cluster(context: &Context) -> Outcome {
    delete(context, "clusters", "cluster").await
}

/// `config delete-user`.
///
/// # Errors
/// There is no such user.
pub(crate) async fn delete_user(context: &Context) -> Outcome {
    delete(context, "users", "user").await
}

async fn delete(context: &Context, list: &str, what: &str) -> Outcome {
    let [name] = context.flags.args.as_slice() else {
        return Err(if what == "user" {
            context.usage("user to delete is required")
        } else {
            Failure::HelpOnly
        });
    };
    let all = context.config().await?;
    let shown = default_file(context);
    let file = file_of(context, all, &format!("{list}/{name}"));
    let mut config = Kubeconfig::load_file(&file)?;
    if entries(&mut config, list).remove(name).is_none() {
        return fail(format!("cannot delete {what} {name}, not in {}", shown.display()));
    }
    if what == "context" && all.current == *name {
        context.err("warning: this removed your active context, use \"kubectl config use-context\" to select a different one\n");
    }
    save(&file, &config)?;
    out(&format!("deleted {what} {name} from {}\n", shown.display()));
    Ok(())
}

/// `config rename-context`.
///
/// # Errors
/// The old one is missing, or the new one is there.
pub(crate) async fn rename_context(context: &Context) -> Outcome {
    let args = count(context, 2)?;
    let (old, new) = (&args[0], &args[1]);
    if new.is_empty() {
        return fail("You must specify a new non-empty context name");
    }
    let all = context.config().await?;
    let shown = default_file(context);
    if !all.contexts.contains_key(old) {
        return fail(format!("cannot rename the context \"{old}\", it's not in {}", shown.display()));
    }
    if all.contexts.contains_key(new) {
        return fail(format!(
            "cannot rename the context \"{old}\", the context \"{new}\" already exists in {}",
            shown.display()
        ));
    }
    let file = file_of(context, all, &format!("contexts/{old}"));
    let mut config = Kubeconfig::load_file(&file)?;
    if let Some(entry) = config.contexts.remove(old) {
        config.contexts.insert(new.clone(), entry);
    }
    if config.current == *old {
        config.current = new.clone();
    }
    save(&file, &config)?;
    out(&format!("Context \"{old}\" renamed to \"{new}\".\n"));
    Ok(())
}
