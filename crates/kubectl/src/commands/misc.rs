//! `options`, `plugin list`, `top`, `completion`, and the commands the server has no part for yet.

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes};
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

/// Runs `plugin list`.
///
/// # Errors
/// There are none.
pub(crate) async fn plugins(_context: &Context) -> Outcome {
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
    found.iter().for_each(|path| out(&format!("{path}\n")));
    Ok(())
}

/// Runs `top …`.
///
/// # Errors
/// Always, while there are no metrics.
pub(crate) async fn top(_context: &Context) -> Outcome {
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

/// Runs `exec`, `attach`, `port-forward` and `cp`.
///
/// # Errors
/// Always, until the API server has streams; what the pod is, is checked first.
pub(crate) async fn streams(context: &Context) -> Outcome {
    let verb = context.command.rsplit(' ').next().unwrap_or_default().to_owned();
    let args = &context.flags.args;
    let Some(target) = args.first() else {
        if verb == "exec" {
            return fail("pod, type/name or --filename must be specified");
        }
        return Err(context.usage(match verb.as_str() {
            "attach" => "at least 1 argument is required for attach",
            "port-forward" => "TYPE/NAME and list of ports are required for port-forward",
            _ => "source and destination are required",
        }));
    };
    if verb == "exec" && args.len() < 2 {
        return fail("you must specify at least one command for the container");
    }
    if verb == "port-forward" && args.len() < 2 {
        return Err(context.usage("TYPE/NAME and list of ports are required for port-forward"));
    }
    if verb == "cp" {
        return fail("cp needs exec, which this build does not speak yet");
    }
    let name = target.trim_start_matches("pods/").trim_start_matches("pod/").trim_start_matches("po/");
    let (namespace, _) = context.namespace().await?;
    let client = context.client().await?;
    let path = context.resource("pods").await?.object(&namespace, name);
    let pod = client.get(&path, &[]).await?;
    let subresource = if verb == "port-forward" { "portforward" } else { verb.as_str() };
    let container = match context.flags.text("container") {
        "" => crate::object::text(&pod, "/spec/containers/0/name"),
        name => name,
    };
    let mut query = vec![("container", container), ("stdout", "true"), ("stderr", "true")];
    query.extend(args[1..].iter().filter(|_| verb == "exec").map(|word| ("command", word.as_str())));
    let answer = client.send(http::Method::POST, &format!("{path}/{subresource}"), &query, None, "*/*").await;
    match answer {
        Err(error) => Err(error),
        Ok(_) => Err(Failure::Message(format!("{verb} is not built in yet: use kubectl for it"))),
    }
}
