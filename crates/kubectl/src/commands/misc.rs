//! `options`, `plugin list`, `top`, `completion`.

use crate::context::{Context, out};
use crate::failure::{Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::global::GLOBAL;

/// No flags.
pub(crate) const NONE: [&[Flag]; 1] = [&[]];

/// Runs `options`.
///
/// # Errors
/// Never.
pub(crate) async fn options(_context: &Context) -> Outcome {
    let mut text = String::from("The following options can be passed to any command:\n\n");
    for flag in &GLOBAL {
        let letter = if flag.short == ' ' { String::new() } else { format!("-{}, ", flag.short) };
        let default =
            if flag.takes == Takes::Text { format!("'{}'", flag.default) } else { flag.default.to_owned() };
        text.push_str(&format!("    {letter}--{}={default}:\n\t{}\n\n", flag.name, flag.help));
    }
    out(&text);
    Ok(())
}

/// Runs `help`.
///
/// # Errors
/// There is no such command.
pub(crate) async fn help(context: &Context) -> Outcome {
    let mut args = context.flags.args.clone();
    args.push("--help".into());
    Box::pin(super::run(args, &context.name)).await
}

/// Runs `alpha`.
///
/// # Errors
/// Never.
pub(crate) async fn alpha(context: &Context) -> Outcome {
    context.err(&format!("No alpha commands are available in this version of {}\n", context.name));
    Ok(())
}

/// Flags of `plugin list`.
pub(crate) const PLUGIN_FLAGS: [&[Flag]; 1] =
    [&[flag("name-only", Takes::Bool, "false", "Names without paths")]];

/// Runs `plugin list`.
///
/// # Errors
/// There are none.
pub(crate) async fn plugins(context: &Context) -> Outcome {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut found = Vec::new();
    for directory in path.split(':').filter(|d| !d.is_empty()) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("kubectl-") {
                found.push(entry.path().display().to_string());
            }
        }
    }
    if found.is_empty() {
        return fail("unable to find any kubectl plugins in your PATH");
    }
    found.sort();
    out("The following compatible plugins are available:\n\n");
    for path in &found {
        let name = path.rsplit('/').next().unwrap_or_default();
        out(&format!("{}\n", if context.flags.on("name-only") { name } else { path }));
    }
    Ok(())
}

const TOP_SHARED: [Flag; 4] = [
    flag("no-headers", Takes::Bool, "false", "No headings"),
    crate::builder::SELECTOR,
    flag("sort-by", Takes::Text, "", "cpu or memory"),
    flag("use-protocol-buffers", Takes::Bool, "true", "Unused"),
];
/// Flags of `top node`.
pub(crate) const TOP_NODE_FLAGS: [&[Flag]; 2] = [
    &TOP_SHARED,
    &[flag("show-capacity", Takes::Bool, "false", "Of the capacity, not of what is allocatable")],
];
/// Flags of `top pod`.
pub(crate) const TOP_POD_FLAGS: [&[Flag]; 2] = [
    &TOP_SHARED,
    &[
        crate::builder::ALL_NAMESPACES,
        crate::builder::FIELD_SELECTOR,
        flag("containers", Takes::Bool, "false", "Container by container"),
        flag("sum", Takes::Bool, "false", "With a sum"),
    ],
];

/// Runs `top …`.
///
/// # Errors
/// Always, while there are no metrics.
pub(crate) async fn top(context: &Context) -> Outcome {
    if !matches!(context.flags.text("sort-by"), "" | "cpu" | "memory") {
        return fail("--sort-by accepts only cpu or memory");
    }
    fail("Metrics API not available")
}

/// Runs `completion`.
///
/// # Errors
/// The shell is missing or unknown.
pub(crate) async fn completion(context: &Context) -> Outcome {
    let shell = match context.flags.args.as_slice() {
        [] => return Err(context.usage("Shell not specified.")),
        [shell] => shell.as_str(),
        _ => return Err(context.usage("Too many arguments. Expected only the shell type.")),
    };
    use clap_complete::Shell;
    let shell = match shell {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        "powershell" => Shell::PowerShell,
        other => return Err(context.usage(&format!("Unsupported shell type {}.", quote(other)))),
    };
    let mut command = described(context);
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut command, context.name.clone(), &mut bytes);
    crate::context::out_bytes(&bytes);
    Ok(())
}

/// The commands as clap knows them, only for completion.
fn described(context: &Context) -> clap::Command {
    fn one(command: &'static super::Command) -> clap::Command {
        let mut described = clap::Command::new(command.name).about(command.about).disable_help_flag(true);
        let mut seen: Vec<&str> = Vec::new();
        for flag in command.flags.iter().flat_map(|flags| flags.iter()) {
            if seen.contains(&flag.name) {
                continue;
            }
            seen.push(flag.name);
            described = described.arg(argument(flag));
        }
        described.subcommands(command.commands.iter().map(one))
    }
    let root = clap::Command::new(if context.name == "kubectl" { "kubectl" } else { "sagong" })
        .disable_help_flag(true);
    let root = root.args(GLOBAL.iter().map(|flag| argument(flag).global(true)));
    root.subcommands(super::COMMANDS.iter().map(one))
}

fn argument(flag: &Flag) -> clap::Arg {
    let action = if flag.takes == Takes::Bool { clap::ArgAction::SetTrue } else { clap::ArgAction::Append };
    clap::Arg::new(flag.name).long(flag.name).help(flag.help).action(action)
}
