//! `--help`: what a command is for, its commands and flags.

use super::Command;
use crate::flags::Flag;

/// Shows it; on standard error if it is shown as a complaint.
pub(super) fn show(command: &Command, path: &str, complain: bool) {
    let mut text = format!("{}\n", command.about);
    if !command.commands.is_empty() {
        text.push_str("\nAvailable Commands:\n");
        // What kubectl does not have is not offered under its name.
        let shown = command.commands.iter().filter(|inner| !super::foreign(path, inner.name));
        let width = shown.clone().map(|inner| inner.name.len()).max().unwrap_or(0) + 3;
        for inner in shown {
            text.push_str(&format!("  {:<width$}{}\n", inner.name, inner.about));
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
    if complain {
        eprint!("{text}");
    } else {
        crate::context::out(&text);
    }
}
