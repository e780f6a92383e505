//! What the arguments of a command line name: types, names, `TYPE/NAME`.

use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::mapping::Mapping;

/// Types, names and `TYPE/NAME`s of the arguments.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    pub(super) resources: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) tuples: Vec<(String, String)>,
}

/// Reads the arguments.
///
/// # Errors
/// They contradict each other.
pub(super) async fn targets(context: &Context, args: &[String]) -> Outcome<Targets> {
    let mut targets = Targets::default();
    let types = args.first().map(|types| split(types)).unwrap_or_default();
    let normalised: Vec<String> = if types.len() > 1 && args.len() > 1 {
        types.iter().flat_map(|one| args[1..].iter().map(move |name| format!("{one}/{name}"))).collect()
    } else {
        args.to_vec()
    };
    let args = normalised.as_slice();
    let slashes = args.iter().filter(|arg| arg.contains('/')).count();
    if slashes > 0 {
        if slashes < args.len() {
            return fail(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
            );
        }
        for arg in args {
            let parts: Vec<&str> = arg.split('/').collect();
            if parts.len() != 2 {
                return fail("arguments in resource/name form may not have more than one slash");
            }
            if parts[0].is_empty() || parts[1].is_empty() || split(parts[0]).len() != 1 {
                return fail("arguments in resource/name form must have a single resource and name");
            }
            targets.tuples.push((parts[0].to_owned(), parts[1].to_owned()));
        }
        return Ok(targets);
    }
    let Some(types) = args.first() else { return Ok(targets) };
    for resource in split(types) {
        let is_category = resource == "all" || resource == "api-extensions";
        let expanded = if is_category {
            context.mapper.category(context.client().await?, &resource).await?
        } else {
            Vec::new()
        };
        if expanded.is_empty() {
            targets.resources.push(resource);
        } else {
            targets.resources.extend(expanded.iter().map(Mapping::qualified));
        }
    }
    targets.names = args[1..].to_vec();
    Ok(targets)
}

/// Parts by comma, each once.
fn split(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        if !parts.iter().any(|known| known == part) {
            parts.push(part.to_owned());
        }
    }
    parts
}

/// The types, each once.
///
/// # Errors
/// There is no such type.
pub(super) async fn mappings(context: &Context, resources: &[String]) -> Outcome<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for resource in resources {
        let mapping = context.resource(resource).await?;
        if !mappings.contains(&mapping) {
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}
