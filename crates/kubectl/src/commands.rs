//! The commands: their names, their flags, and how a command line finds one.

mod apply;
mod certificate;
mod cluster_info;
mod config;
mod cp;
mod create;
mod debug;
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
mod kustomize;
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
            return Err(Failure::Verbatim(format!("error: {text}\nSee '{path} --help' for usage.")));
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
        None if context.flags.args.is_empty() => {
            help::show(command, &path, true);
            Err(Failure::Exit(1))
        }
        None => Err(context.usage(&format!("unknown command {}", quote(&context.flags.args.join(" "))))),
    }
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
        let Some(at) = word(&rest) else { break };
        let typed = rest[at].clone();
        // What Kubernetes never had, or no longer has, is not there for who asks for kubectl.
        let foreign =
            name == "kubectl" && (typed == "rolling-update" || path == "kubectl rollout" && typed == "watch");
        let known = command.commands.iter().find(|c| c.name == typed || c.aliases.contains(&typed.as_str()));
        let known = known.filter(|_| !foreign);
        let Some(found) = known else {
            if command.run.is_some() {
                break;
            }
            if path == name {
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

/// Where the first argument is that is no flag, nor the value of a global one.
fn word(args: &[String]) -> Option<usize> {
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
        skip = global.is_some_and(|flag| flag.takes != flags::Takes::Bool);
    }
    None
}
