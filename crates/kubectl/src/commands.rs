//! The commands: their names, their flags, and how a command line finds one.

mod apply;
mod certificate;
mod cluster_info;
mod config;
mod cp;
mod create;
mod debug;
mod debug_copy;
mod delete;
mod describe;
mod drain;
mod edit;
mod events;
mod exec;
mod explain;
mod expose;
mod get;
mod help;
pub(crate) mod kustomize;
mod label;
mod last_applied;
mod logs;
mod misc;
mod patch;
mod port_forward;
mod proxy;
mod replace;
mod rolling_update;
mod rollout;
mod run;
mod scale;
mod server;
mod set;
mod set_subject;
mod table;
mod taint;
mod unknown;
mod wait;
mod watch_rollout;

pub(crate) use table::COMMANDS;

use crate::context::Context;
use crate::failure::{Failure, Outcome, quote};
use crate::flags::{self, Flag};
use crate::global::GLOBAL;
use crate::nearest::{did_you_mean, nearest};
use std::future::Future;
use std::pin::Pin;

/// What running a command gives.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A command, or a group of them.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// One line on what it does.
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) commands: &'static [Command],
    pub(crate) run: Option<for<'a> fn(&'a Context) -> Running<'a>>,
}

/// Runs a command line.
///
/// # Errors
/// Whatever the command fails with.
pub(crate) async fn run(args: Vec<String>, name: &str) -> Outcome {
    let (command, path, rest) = find(&args, name)?;
    let mut sets: Vec<&[Flag]> = command.flags.to_vec();
    sets.push(&GLOBAL);
    let parsed = match flags::parse(&sets, &rest) {
        Ok(parsed) => parsed,
        Err(Failure::Exit(flags::HELP)) => {
            help::show(command, &path, false);
            return Ok(());
        }
        Err(Failure::Message(text)) => {
            let bare = command.name == ROOT.name && text.starts_with("flag needs an argument");
            let complaint = if bare { "Error" } else { "error" };
            let meant = if name == "kubectl" { String::new() } else { flags_meant(&sets, &text) };
            return Err(Failure::Verbatim(format!(
                "{complaint}: {text}\nSee '{path} --help' for usage.{meant}"
            )));
        }
        Err(other) => return Err(other),
    };
    let context = Context::new(name, &path, parsed);
    if context.flags.given("record") {
        context.err("Flag --record has been deprecated, --record will be removed in the future\n");
    }
    match command.run {
        Some(run) => match warned(&context, checked(&context, run).await) {
            Err(Failure::HelpOnly) => {
                help::show(command, &path, false);
                Ok(())
            }
            Err(error @ Failure::WithHelp(_)) => {
                help::show(command, &path, false);
                Err(error)
            }
            other => other,
        },
        None if command.name == ROOT.name => {
            help::show(command, &path, false);
            Ok(())
        }
        // Of these two the help is what was asked for, to kubectl.
        None if context.flags.args.is_empty() => {
            help::show(command, &path, !matches!(command.name, "rollout" | "certificate"));
            if command.name == "certificate" { Ok(()) } else { Err(Failure::Exit(1)) }
        }
        None => Err(unknown_inside(&context, command)),
    }
}

/// The failure for a word that no command of a group has as its name.
fn unknown_inside(context: &Context, command: &Command) -> Failure {
    let args = &context.flags.args;
    let failure = context.usage(&format!("unknown command {}", quote(&args.join(" "))));
    if context.name == "kubectl" {
        return failure;
    }
    let near = nearest(&args[0], command.commands.iter().map(|inner| inner.name));
    Failure::Verbatim(failure.text() + &did_you_mean(&near, ""))
}

/// What may have been meant by the flag of which `complaint` says that it is unknown.
fn flags_meant(sets: &[&[Flag]], complaint: &str) -> String {
    let Some(typed) = complaint.strip_prefix("unknown flag: --") else { return String::new() };
    let mut near = nearest(typed, sets.iter().flat_map(|set| set.iter()).map(|flag| flag.name));
    near.dedup();
    did_you_mean(&near, "--")
}

const ROOT: Command = Command {
    name: "kubectl",
    aliases: &[],
    about: "kubectl controls the Kubernetes cluster manager.",
    flags: &[],
    commands: COMMANDS,
    run: None,
};

/// Runs a command; first, if it is wished, whether the server speaks this client's version.
async fn checked(context: &Context, run: for<'a> fn(&'a Context) -> Running<'a>) -> Outcome {
    if context.flags.on("match-server-version") {
        server::same_version(context).await?;
    }
    run(context).await
}

/// With `--warnings-as-errors`, warnings of the server fail what went well otherwise.
fn warned(context: &Context, result: Outcome) -> Outcome {
    result?;
    match context.warnings() {
        0 => Ok(()),
        _ if !context.flags.on("warnings-as-errors") => Ok(()),
        1 => Err(Failure::Message("1 warning received".into())),
        count => Err(Failure::Message(format!("{count} warnings received"))),
    }
}

/// The command that the words name, its path, and the arguments without its words.
fn find(args: &[String], name: &str) -> Outcome<(&'static Command, String, Vec<String>)> {
    const ROOT_COMMAND: &Command = &ROOT;
    let mut command = ROOT_COMMAND;
    let mut path = name.to_owned();
    let mut rest = args.to_vec();
    while !command.commands.is_empty() {
        let Some(at) = word(&rest, path == name) else { break };
        let typed = rest[at].clone();
        let known = command.commands.iter().find(|c| c.name == typed || c.aliases.contains(&typed.as_str()));
        let known = known.filter(|_| !foreign(&path, &typed));
        let Some(found) = known else {
            if command.run.is_some() {
                break;
            }
            if path == name {
                // What is no command may be a plugin, and a plugin's flags come behind its name.
                if args[0].starts_with('-') && name == "kubectl" {
                    return Err(Failure::Verbatim(format!(
                        "Error: flags cannot be placed before plugin name: {}",
                        args[0]
                    )));
                }
                return Err(unknown::failure(&typed, name));
            }
            break;
        };
        rest.remove(at);
        path = format!("{path} {}", found.name);
        command = found;
    }
    Ok((command, path, rest))
}

/// Whether a command below `path` is one that Kubernetes never had, or no longer has: it is not there for who asks for kubectl.
fn foreign(path: &str, command: &str) -> bool {
    matches!((path, command), ("kubectl", "rolling-update") | ("kubectl rollout", "watch"))
}

/// Where the first argument is that is no flag, nor the value of a global one.
fn word(args: &[String], path_is_root: bool) -> Option<usize> {
    let mut skip = false;
    for (index, arg) in args.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        if arg == "--" {
            return None;
        }
        if !arg.starts_with('-') || arg == "-" {
            return Some(index);
        }
        if arg.contains('=') {
            continue;
        }
        let name = arg.trim_start_matches('-');
        let global = GLOBAL.iter().find(|flag| {
            if arg.starts_with("--") {
                flag.name == name
            } else {
                name.len() == 1 && name.starts_with(flag.short)
            }
        });
        // A flag that no command has takes a value, as far as anybody knows.
        skip = match global {
            Some(flag) => flag.takes != flags::Takes::Bool,
            None => arg.starts_with("--") && name != "help" && path_is_root,
        };
    }
    None
}
