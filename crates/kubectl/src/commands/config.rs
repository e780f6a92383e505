//! `config …`: kubeconfig files.

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::kubeconfig::{self, Kubeconfig};
use crate::printers::{Format, PRINT, json, table, yaml};
use serde_json::{Map, Value, json};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// No flags.
pub(crate) const NONE: [&[Flag]; 1] = [&[]];
/// Flags of `config view`.
pub(crate) const VIEW_FLAGS: [&[Flag]; 2] = [
    &PRINT,
    &[
        flag("minify", Takes::Bool, "false", "Only what the context in use needs"),
        flag("raw", Takes::Bool, "false", "With keys and certificates"),
        flag("flatten", Takes::Bool, "false", "With files put in"),
        flag("merge", Takes::Bool, "true", "All files as one"),
    ],
];
/// Flags of `config get-contexts`.
pub(crate) const CONTEXTS_FLAGS: [&[Flag]; 1] = [&[
    short("output", 'o', Takes::Text, "", "name"),
    flag("no-headers", Takes::Bool, "false", "No headings"),
]];
/// Flags of `config set-context`.
pub(crate) const SET_CONTEXT_FLAGS: [&[Flag]; 1] =
    [&[flag("current", Takes::Bool, "false", "The context in use")]];
/// Flags of `config set-cluster` and `config set-credentials`.
pub(crate) const SET_FLAGS: [&[Flag]; 1] = [&[
    flag("embed-certs", Takes::Bool, "false", "Put the files in"),
    flag("proxy-url", Takes::Text, "", "Proxy"),
]];

fn usage_count(context: &Context, count: usize, usage: &str) -> Outcome {
    if context.flags.args.len() == count {
        return Ok(());
    }
    let _ = usage;
    fail(format!("Unexpected args: [{}]", context.flags.args.join(" ")))
}

/// The file that is written: the one an entry came from, or the first.
fn target(context: &Context, config: &Kubeconfig, entry: &str) -> PathBuf {
    if let Some(origin) = config.origins.get(entry) {
        return origin.clone();
    }
    let (files, _) = kubeconfig::files(&context.flags);
    let existing = files.iter().find(|file| file.exists()).or(files.last());
    existing.cloned().unwrap_or_else(|| kubeconfig::home().join(".kube/config"))
}

fn save(file: &PathBuf, config: &Kubeconfig) -> Outcome {
    let mut value = config.to_value();
    for list in ["clusters", "contexts", "users"] {
        if value[list].is_null() {
            value[list] = json!([]);
        }
    }
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Written beside and renamed, so that nobody reads half a file.
    let beside = file.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    std::io::Write::write_all(&mut opened, yaml::document(&value).as_bytes())?;
    std::fs::rename(&beside, file)?;
    Ok(())
}

/// `config view`.
///
/// # Errors
/// The kubeconfig is broken.
pub(crate) async fn view(context: &Context) -> Outcome {
    let flags = &context.flags;
    let config = context.config().await?;
    let mut shown = config.clone();
    if flags.on("minify") {
        let named = flags.text("context");
        let current = if named.is_empty() { config.current.clone() } else { named.to_owned() };
        let Some(chosen) = config.contexts.get(&current) else {
            return fail(if current.is_empty() {
                "current-context must exist in order to minify".to_owned()
            } else {
                format!("cannot locate context {current}")
            });
        };
        let (cluster, user) = (
            chosen["cluster"].as_str().unwrap_or_default().to_owned(),
            chosen["user"].as_str().unwrap_or_default().to_owned(),
        );
        shown.contexts.retain(|name, _| *name == current);
        shown.clusters.retain(|name, _| *name == cluster);
        shown.users.retain(|name, _| *name == user);
        shown.current = current;
    }
    if !flags.on("raw") && !flags.on("flatten") {
        redact(&mut shown);
    }
    let value = shown.to_value();
    match Format::from_flags(context, false)? {
        Format::Human | Format::Yaml => out(&yaml::document(&value)),
        Format::Json => out(&(json::pretty(&value) + "\n")),
        format => out(&format.show(&value, true)?),
    }
    Ok(())
}

fn redact(config: &mut Kubeconfig) {
    for (entries, fields, word) in [
        (&mut config.clusters, ["certificate-authority-data"].as_slice(), "DATA+OMITTED"),
        (&mut config.users, ["client-certificate-data", "client-key-data"].as_slice(), "DATA+OMITTED"),
    ] {
        for entry in entries.values_mut() {
            for field in fields {
                if entry[*field].is_string() {
                    entry[*field] = word.into();
                }
            }
        }
    }
    for entry in config.users.values_mut() {
        for field in ["token", "password"] {
            if entry[field].is_string() {
                entry[field] = "REDACTED".into();
            }
        }
        if let Some(map) = entry.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
    }
    for entry in config.clusters.values_mut() {
        if let Some(map) = entry.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
    }
}

/// `config current-context`.
///
/// # Errors
/// There is none.
pub(crate) async fn current_context(context: &Context) -> Outcome {
    let config = context.config().await?;
    if config.current.is_empty() {
        return fail("current-context is not set");
    }
    out(&format!("{}\n", config.current));
    Ok(())
}

/// `config get-contexts`.
///
/// # Errors
/// A context that is named does not exist.
pub(crate) async fn get_contexts(context: &Context) -> Outcome {
    let flags = &context.flags;
    let config = context.config().await?;
    let output = flags.text("output");
    if !matches!(output, "" | "name") {
        return fail(format!("output must be one of '' or 'name': {output}"));
    }
    let mut failures = Vec::new();
    let names: Vec<String> =
        if flags.args.is_empty() { config.contexts.keys().cloned().collect() } else { flags.args.clone() };
    let mut lines = String::new();
    for name in &names {
        let Some(entry) = config.contexts.get(name) else {
            failures.push(Failure::Message(format!("context {name} not found")));
            continue;
        };
        if output == "name" {
            lines.push_str(&format!("{name}\n"));
            continue;
        }
        let mark = if *name == config.current { "*" } else { "" };
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        lines.push_str(&format!(
            "{mark}\t{name}\t{}\t{}\t{}\n",
            text("cluster"),
            text("user"),
            text("namespace")
        ));
    }
    if output != "name" && !flags.on("no-headers") {
        lines = format!("CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n{lines}");
    }
    out(&table::layout(&lines));
    Failure::aggregate(failures)
}

/// `config get-clusters`.
///
/// # Errors
/// The kubeconfig is broken.
pub(crate) async fn get_clusters(context: &Context) -> Outcome {
    out("NAME\n");
    context.config().await?.clusters.keys().for_each(|name| out(&format!("{name}\n")));
    Ok(())
}

/// `config get-users`.
///
/// # Errors
/// The kubeconfig is broken.
pub(crate) async fn get_users(context: &Context) -> Outcome {
    out("NAME\n");
    context.config().await?.users.keys().for_each(|name| out(&format!("{name}\n")));
    Ok(())
}

/// `config use-context`.
///
/// # Errors
/// There is no such context.
pub(crate) async fn use_context(context: &Context) -> Outcome {
    usage_count(context, 1, "use-context CONTEXT_NAME")?;
    let name = &context.flags.args[0];
    let config = context.config().await?;
    if !config.contexts.contains_key(name) {
        return fail(format!("no context exists with the name: \"{name}\""));
    }
    let (files, _) = kubeconfig::files(&context.flags);
    let file = files
        .iter()
        .find(|file| Kubeconfig::load_file(file).is_ok_and(|c| !c.current.is_empty()))
        .cloned()
        .unwrap_or_else(|| target(context, config, ""));
    let mut one = Kubeconfig::load_file(&file)?;
    one.current = name.clone();
    save(&file, &one)?;
    out(&format!("Switched to context \"{name}\".\n"));
    Ok(())
}

/// `config set-context`.
///
/// # Errors
/// The file cannot be written.
pub(crate) async fn set_context(context: &Context) -> Outcome {
    let flags = &context.flags;
    let config = context.config().await?;
    let name = if flags.on("current") {
        if config.current.is_empty() {
            return fail("no current context is set");
        }
        config.current.clone()
    } else {
        match flags.args.as_slice() {
            [name] => name.clone(),
            _ => return Err(context.usage(&format!("Unexpected args: [{}]", flags.args.join(" ")))),
        }
    };
    set(
        context,
        "contexts",
        "Context",
        &name,
        &[("cluster", "cluster"), ("user", "user"), ("namespace", "namespace")],
    )
}

/// `config set-cluster`.
///
/// # Errors
/// The file cannot be written.
pub(crate) async fn set_cluster(context: &Context) -> Outcome {
    usage_count(context, 1, "set-cluster NAME")?;
    let name = context.flags.args[0].clone();
    context.config().await?;
    let fields = [
        ("server", "server"),
        ("certificate-authority", "certificate-authority"),
        ("insecure-skip-tls-verify", "insecure-skip-tls-verify"),
        ("tls-server-name", "tls-server-name"),
        ("proxy-url", "proxy-url"),
    ];
    set(context, "clusters", "Cluster", &name, &fields)
}

/// `config set-credentials`.
///
/// # Errors
/// The file cannot be written.
pub(crate) async fn set_credentials(context: &Context) -> Outcome {
    usage_count(context, 1, "set-credentials NAME")?;
    let name = context.flags.args[0].clone();
    context.config().await?;
    let fields = [
        ("token", "token"),
        ("username", "username"),
        ("password", "password"),
        ("client-certificate", "client-certificate"),
        ("client-key", "client-key"),
    ];
    set(context, "users", "User", &name, &fields)
}

fn set(context: &Context, list: &str, what: &str, name: &str, fields: &[(&str, &str)]) -> Outcome {
    let flags = &context.flags;
    let all = Kubeconfig::load(flags).unwrap_or_default();
    let file = target(context, &all, &format!("{list}/{name}"));
    let mut config = Kubeconfig::load_file(&file)?;
    let entries = match list {
        "contexts" => &mut config.contexts,
        "clusters" => &mut config.clusters,
        _ => &mut config.users,
    };
    let existed = entries.contains_key(name);
    let entry = entries.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    for (flag, field) in fields.iter().filter(|(flag, _)| flags.given(flag)) {
        let value = flags.text(flag);
        entry[*field] =
            if *flag == "insecure-skip-tls-verify" { flags.on(flag).into() } else { value.into() };
        if flags.on("embed-certs") && (field.starts_with("certificate") || field.starts_with("client")) {
            use base64::Engine;
            let bytes = std::fs::read(value).map_err(|e| {
                Failure::Message(format!(
                    "could not read {field} data from {value}: open {value}: {}",
                    crate::failure::io_text(&e)
                ))
            })?;
            entry[format!("{field}-data")] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
            if let Some(map) = entry.as_object_mut() {
                map.remove(*field);
            }
        }
    }
    save(&file, &config)?;
    match (what, existed) {
        ("Context", true) => out(&format!("Context \"{name}\" modified.\n")),
        ("Context", false) => out(&format!("Context \"{name}\" created.\n")),
        _ => out(&format!("{what} \"{name}\" set.\n")),
    }
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
        return Err(context.usage(&format!("you must specify a {what} to delete")));
    };
    let all = context.config().await?;
    let file = target(context, all, &format!("{list}/{name}"));
    let mut config = Kubeconfig::load_file(&file)?;
    let entries = match list {
        "contexts" => &mut config.contexts,
        "clusters" => &mut config.clusters,
        _ => &mut config.users,
    };
    if entries.remove(name).is_none() {
        return fail(format!("cannot delete {what} {name}, not in {}", file.display()));
    }
    if what == "context" && all.current == *name {
        context.err("warning: this removed your active context, use \"kubectl config use-context\" to select a different one\n");
    }
    save(&file, &config)?;
    let shown = if what == "context" || what == "cluster" || what == "user" {
        format!("deleted {what} {name} from {}\n", file.display())
    } else {
        String::new()
    };
    out(&shown);
    Ok(())
}

/// `config rename-context`.
///
/// # Errors
/// The old one is missing, or the new one is there.
pub(crate) async fn rename_context(context: &Context) -> Outcome {
    usage_count(context, 2, "rename-context CONTEXT_NAME NEW_NAME")?;
    let (old, new) = (&context.flags.args[0], &context.flags.args[1]);
    let all = context.config().await?;
    let file = target(context, all, &format!("contexts/{old}"));
    let mut config = Kubeconfig::load_file(&file)?;
    if !all.contexts.contains_key(old) {
        return fail(format!("cannot rename the context \"{old}\", it's not in {}", file.display()));
    }
    if all.contexts.contains_key(new) {
        return fail(format!(
            "cannot rename the context \"{old}\", the context \"{new}\" already exists in {}",
            file.display()
        ));
    }
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

/// `config set` and `config unset`.
///
/// # Errors
/// There is no such property.
pub(crate) async fn set_property(context: &Context) -> Outcome {
    let unset = context.command.ends_with("unset");
    usage_count(
        context,
        if unset { 1 } else { 2 },
        if unset { "unset PROPERTY_NAME" } else { "set PROPERTY_NAME PROPERTY_VALUE" },
    )?;
    let property = &context.flags.args[0];
    let all = context.config().await?;
    let file = target(context, all, "");
    let mut config = Kubeconfig::load_file(&file)?;
    let parts: Vec<&str> = property.split('.').collect();
    let value = context.flags.args.get(1).cloned().unwrap_or_default();
    match parts.as_slice() {
        ["current-context"] => config.current = value.clone(),
        [list @ ("contexts" | "clusters" | "users"), name, rest @ ..] => {
            let entries = match *list {
                "contexts" => &mut config.contexts,
                "clusters" => &mut config.clusters,
                _ => &mut config.users,
            };
            match rest {
                [] if unset => {
                    entries.remove(*name);
                }
                [field] if unset => {
                    if let Some(map) = entries.get_mut(*name).and_then(Value::as_object_mut) {
                        map.remove(*field);
                    }
                }
                [field] => {
                    let entry = entries.entry((*name).to_owned()).or_insert_with(|| json!({}));
                    entry[*field] = match value.as_str() {
                        "true" => true.into(),
                        "false" => false.into(),
                        text => text.into(),
                    };
                }
                _ => return fail(format!("unable to parse {property}")),
            }
        }
        _ => return fail(format!("unable to locate path {property}")),
    }
    save(&file, &config)?;
    out(&format!("Property \"{property}\" {}.\n", if unset { "unset" } else { "set" }));
    Ok(())
}
