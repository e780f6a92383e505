//! `kustomize`: not built in, and says so.

use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, io_text};
use crate::flags::{Flag, Takes, flag, short};
use std::path::Path;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    short("output", 'o', Takes::Text, "", "Where to write"),
    flag("enable-helm", Takes::Bool, "false", "Unused"),
    flag("load-restrictor", Takes::Text, "LoadRestrictionsRootOnly", "Unused"),
]];

/// Runs it.
///
/// # Errors
/// Always.
pub(crate) async fn run(context: &Context) -> Outcome {
    let directory = match context.flags.args.as_slice() {
        [] => ".",
        [one] => one.as_str(),
        _ => return fail("specify one path to kustomization.yaml"),
    };
    Err(missing(
        directory,
        &format!(
            "run the kustomize program, as in: kustomize build {directory} | {} apply -f -",
            context.name
        ),
    ))
}

/// Why a directory is not rendered: it is none, there is nothing in it to render, or this program cannot. Then `instead`.
pub(crate) fn missing(directory: &str, instead: &str) -> Failure {
    const FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    let path = Path::new(directory);
    Failure::Message(match std::fs::canonicalize(path) {
        Err(error) => format!(
            "must build at directory: not a valid directory: evalsymlink failure on '{directory}' : lstat {directory}: {}",
            io_text(&error)
        ),
        Ok(found) if !FILES.iter().any(|file| found.join(file).is_file()) => format!(
            "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{}'",
            found.display()
        ),
        Ok(_) => format!("kustomize is not built in: {instead}"),
    })
}
