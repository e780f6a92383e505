//! `describe`.

use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::describe;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 2] = [
    &builder::FILES,
    &[
        builder::SELECTOR,
        builder::ALL_NAMESPACES,
        flag("show-events", Takes::Bool, "true", "Show what happened to it"),
        flag("chunk-size", Takes::Number, "500", "How many objects to ask for at once"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    if flags.args.is_empty() && flags.list("filename").is_empty() {
        return fail(format!(
            "You must specify the type of resource to describe. Use \"{} api-resources\" for a complete list of supported resources.\n",
            context.name
        ));
    }
    let mut builder = Builder::new(context, &flags.args);
    builder.empty_selector = true;
    builder.chunk = flags.number("chunk-size");
    builder.latest = true;
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let mut infos = found.infos;
    let mut by_beginning = false;
    // A name that does not exist may be the beginning of others.
    let two = flags.args.len() == 2 && failures.len() == 1 && failures[0].is_not_found();
    if two && flags.args[0].contains('/') {
        return Failure::aggregate(failures);
    }
    if two && infos.is_empty() {
        infos = by_prefix(context, &flags.args[0], &flags.args[1]).await?;
        if !infos.is_empty() {
            failures.clear();
            by_beginning = true;
        }
    }
    let mut first = true;
    for info in &infos {
        match describe::describe(context, &info.mapping, &info.object).await {
            Ok(text) => {
                if !std::mem::take(&mut first) && !by_beginning {
                    out("\n\n");
                }
                out(&text);
                if by_beginning {
                    out("\n");
                }
            }
            Err(error) => failures.push(error),
        }
    }
    if infos.is_empty() && failures.is_empty() {
        let (namespace, _) = context.namespace().await?;
        if flags.on("all-namespaces")
            || flags
                .args
                .first()
                .is_some_and(|kind| matches!(kind.as_str(), "nodes" | "no" | "ns" | "namespaces"))
        {
            context.err("No resources found\n");
        } else {
            context.err(&format!("No resources found in {namespace} namespace.\n"));
        }
    }
    // The same failure is told once.
    let mut told: Vec<Failure> = Vec::new();
    for failure in failures {
        if !told.iter().any(|known| known.text() == failure.text()) {
            told.push(failure);
        }
    }
    Failure::aggregate(told)
}

async fn by_prefix(context: &Context, kind: &str, prefix: &str) -> Outcome<Vec<Info>> {
    let mut builder = Builder::new(context, &[kind.to_owned()]);
    builder.empty_selector = true;
    let mut infos = builder.run(context).await?.all()?;
    infos.retain(|info| object::name(&info.object).starts_with(prefix));
    Ok(infos)
}
