//! What is said of a command that does not exist: what may have been meant.

use super::COMMANDS;
use crate::failure::Failure;

/// The failure, naming the commands that are spelled alike.
pub(super) fn failure(typed: &str, name: &str) -> Failure {
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
    let known = ORDER
        .into_iter()
        .filter(|known| COMMANDS.iter().any(|command| command.name == *known))
        .filter(|known| name != "kubectl" || *known != "rolling-update");
    Failure::Verbatim(crate::unknown_command(typed, name, known))
}
