//! What is said of a command that does not exist: what may have been meant.

use super::COMMANDS;
use crate::failure::{Failure, quote};

/// The failure, naming the commands that are spelled alike.
pub(super) fn failure(typed: &str, name: &str) -> Failure {
    let mut text = format!("error: unknown command {} for {}", quote(typed), quote(name));
    // In the order in which kubectl's help names them.
    const ORDER: [&str; 46] = [
        "create",
        "expose",
        "run",
        "set",
        "explain",
        "get",
        "edit",
        "delete",
        "rollout",
        "scale",
        "autoscale",
        "certificate",
        "cluster-info",
        "top",
        "cordon",
        "uncordon",
        "drain",
        "taint",
        "describe",
        "logs",
        "attach",
        "exec",
        "port-forward",
        "proxy",
        "cp",
        "auth",
        "debug",
        "events",
        "diff",
        "apply",
        "patch",
        "replace",
        "wait",
        "kustomize",
        "label",
        "annotate",
        "completion",
        "api-resources",
        "api-versions",
        "config",
        "plugin",
        "version",
        "options",
        "alpha",
        "help",
        "rolling-update",
    ];
    let near: Vec<&str> = ORDER
        .into_iter()
        .filter(|known| COMMANDS.iter().any(|command| command.name == *known))
        .filter(|known| name != "kubectl" || *known != "rolling-update")
        .filter(|known: &&str| distance(typed, known) <= 2 || known.starts_with(&typed.to_lowercase()))
        .collect();
    if !near.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        near.iter().for_each(|known| text.push_str(&format!("\t{known}\n")));
    }
    Failure::Verbatim(text)
}

/// How many letters two words differ by.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
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
