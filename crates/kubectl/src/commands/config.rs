//! `config …`: kubeconfig files. Here what only reads them; `file` writes, `entry` and `property` change.

pub(crate) mod entry;
mod file;
pub(crate) mod property;

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::kubeconfig::Kubeconfig;
use crate::printers::{Format, PRINT, table, yaml};

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
/// `config view`.
///
/// # Errors
/// The kubeconfig is broken.
pub(crate) async fn view(context: &Context) -> Outcome {
    let flags = &context.flags;
    if !flags.args.is_empty() {
        return Err(context.usage(&format!("unexpected arguments: [{}]", flags.args.join(" "))));
    }
    if !flags.on("merge") && flags.text("kubeconfig").is_empty() {
        return fail("if merge==false a precise file must be specified");
    }
    let config = &Kubeconfig::load_or_empty(flags)?;
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
    if flags.on("flatten") {
        flatten(&mut shown)?;
    } else if !flags.on("raw") {
        redact(&mut shown);
    }
    let value = shown.to_value();
    match Format::from_flags(context, false)? {
        Format::Human | Format::Yaml => out(&yaml::document(&value)),
        format => out(&format.show_built(&value, true)?),
    }
    Ok(())
}

/// Puts files into the entries that name them.
fn flatten(config: &mut Kubeconfig) -> Outcome {
    let origins = config.origins.clone();
    let of = |list: &str, name: &str| origins.get(&format!("{list}/{name}")).cloned();
    for (list, entries, fields) in [
        ("clusters", &mut config.clusters, ["certificate-authority"].as_slice()),
        ("users", &mut config.users, ["client-certificate", "client-key"].as_slice()),
    ] {
        for (name, entry) in entries.iter_mut() {
            for field in fields {
                let Some(path) = entry[*field].as_str().filter(|path| !path.is_empty()) else { continue };
                let directory = of(list, name).and_then(|file| file.parent().map(|d| d.to_owned()));
                let path = directory.unwrap_or_default().join(path);
                let data = file::base64_of(&path)?;
                entry[format!("{field}-data")] = data.into();
                if let Some(map) = entry.as_object_mut() {
                    map.remove(*field);
                }
            }
        }
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
    let config = &Kubeconfig::load_or_empty(&context.flags)?;
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
    let config = &Kubeconfig::load_or_empty(flags)?;
    let output = flags.text("output");
    if !matches!(output, "" | "name") {
        return fail(format!(
            "--output {output} is not available in kubectl config get-contexts; resetting to default output format"
        ));
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
    Kubeconfig::load_or_empty(&context.flags)?.clusters.keys().for_each(|name| out(&format!("{name}\n")));
    Ok(())
}

/// `config get-users`.
///
/// # Errors
/// The kubeconfig is broken.
pub(crate) async fn get_users(context: &Context) -> Outcome {
    out("NAME\n");
    Kubeconfig::load_or_empty(&context.flags)?.users.keys().for_each(|name| out(&format!("{name}\n")));
    Ok(())
}
