//! `kustomize`: not built in, and says so.

use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};

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
    fail(format!(
        "kustomize is not built in: run the kustomize program, as in: kustomize build {directory} | {} apply -f -",
        context.name
    ))
}
