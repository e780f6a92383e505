//! The commands: their names, their flags, and how a command line finds one.

pub(crate) mod get;

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

macro_rules! command {
    ($name:literal, $about:literal, $module:ident) => {
        Command {
            name: $name,
            aliases: &[],
            about: $about,
            flags: &$module::FLAGS,
            commands: &[],
            run: Some(|context| Box::pin($module::run(context))),
        }
    };
}

/// All of them.
pub(crate) const COMMANDS: &[Command] = &[command!("get", "Display one or many resources", get)];

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
            help(command, &path);
            return Ok(());
        }
        Err(Failure::Message(text)) => {
            return Err(Failure::Verbatim(format!("error: {text}\nSee '{path} --help' for usage.")));
        }
        Err(other) => return Err(other),
    };
    let context = Context::new(name, &path, parsed);
    match command.run {
        Some(run) => run(&context).await,
        None => {
            help(command, &path);
            Ok(())
        }
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

/// The command that the words name, its path, and the arguments without its words.
fn find(args: &[String], name: &str) -> Outcome<(&'static Command, String, Vec<String>)> {
    const ROOT_COMMAND: &Command = &ROOT;
    let mut command = ROOT_COMMAND;
    let mut path = name.to_owned();
    let mut rest = args.to_vec();
    while !command.commands.is_empty() {
        let Some(at) = word(&rest) else { break };
        let typed = rest[at].clone();
        let known = command.commands.iter().find(|c| c.name == typed || c.aliases.contains(&typed.as_str()));
        let Some(found) = known else {
            if command.run.is_some() {
                break;
            }
            if path == name {
                return Err(unknown(&typed, name));
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
            if arg.starts_with("--") { flag.name == name } else { name.len() == 1 && name.starts_with(flag.short) }
        });
        skip = global.is_some_and(|flag| flag.takes != flags::Takes::Bool);
    }
    None
}

fn unknown(typed: &str, name: &str) -> Failure {
    let mut text = format!("error: unknown command {} for {}", quote(typed), quote(name));
    let near: Vec<&str> = COMMANDS
        .iter()
        .map(|command| command.name)
        .filter(|known| distance(typed, known) <= 2 || known.starts_with(&typed.to_lowercase()))
        .collect();
    if !near.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        near.iter().for_each(|known| text.push_str(&format!("\t{known}\n")));
    }
    Failure::Verbatim(text)
}

/// How many letters two words differ by.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

fn help(command: &Command, path: &str) {
    let mut text = format!("{}\n", command.about);
    if !command.commands.is_empty() {
        text.push_str("\nAvailable Commands:\n");
        for inner in command.commands {
            text.push_str(&format!("  {:<16}{}\n", inner.name, inner.about));
        }
    }
    let flags: Vec<&Flag> = command.flags.iter().flat_map(|flags| flags.iter()).collect();
    if !flags.is_empty() {
        text.push_str("\nOptions:\n");
        for flag in flags {
            let letter = if flag.short == ' ' { "    ".to_owned() } else { format!("-{}, ", flag.short) };
            let default = if flag.default.is_empty() { "''" } else { flag.default };
            text.push_str(&format!("    {letter}--{}={default}:\n\t{}\n\n", flag.name, flag.help));
        }
    }
    let what = if command.commands.is_empty() { "[flags] [options]" } else { "[command]" };
    text.push_str(&format!("\nUsage:\n  {path} {what}\n\nUse \"{} options\" for a list of global command-line options (applies to all commands).\n", path.split(' ').next().unwrap_or("kubectl")));
    crate::context::out(&text);
}
