//! kubectl's commands, over nothing but the Kubernetes API.
//!
//! [`run`] reads a command line, finds the command in [`commands`] and words its failure. One file per command;
//! `printers` knows how objects are shown, `failure` how failures are worded, `builder` which objects are meant.

mod apply_diff;
mod builder;
mod client;
mod commands;
mod context;
mod describe;
mod failure;
mod flags;
mod global;
mod kubeconfig;
mod manifest;
mod mapping;
mod nearest;
mod object;
mod pod_target;
mod printers;
mod remote;
mod revisions;
mod terminal;
mod trace;
mod watch;
mod write;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command line without its first word. `name` is how the program was called, `kubectl` or `sagong`: it is
/// what messages call it.
pub async fn run(args: Vec<OsString>, name: &str) -> ExitCode {
    let args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match commands::run(args, name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.shown());
            // Under kubectl's name nothing is said that kubectl would not say.
            if name != "kubectl"
                && let Some(next) = failure.next()
            {
                eprintln!("next: {}", next.replace("PROGRAM", name));
            }
            ExitCode::from(failure.code())
        }
    }
}

/// What is said of a command that the program `name` does not have, and which of those `known` may have been meant.
pub fn unknown_command<'a>(typed: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let meant = nearest::did_you_mean(&nearest::nearest(typed, known), "");
    let text =
        format!("error: unknown command {} for {}{meant}", failure::quote(typed), failure::quote(name));
    text.trim_end().to_owned()
}

/// The names of all commands, for the program's own command line.
pub fn verbs() -> impl Iterator<Item = &'static str> {
    // What these two say is about kubectl alone.
    commands::COMMANDS.iter().map(|command| command.name).filter(|name| !matches!(*name, "help" | "alpha"))
}
