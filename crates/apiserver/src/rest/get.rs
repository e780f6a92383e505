//! GET of one object.

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::wire::Stored;
use http::{Response, StatusCode};

/// Answers with the object as it is now. A resource version asks for one not older, and is in the future only
/// by mistake: reads here are never stale.
pub(crate) async fn get(context: &Context) -> Outcome<Response<Body>> {
    if let Some(asked) = parse_version(context.query.get("resourceVersion"))? {
        let current = context.core.store.revision();
        if asked > current {
            return Err(Failure::future_version(asked, current));
        }
    }
    let entry = context.core.store.get(&context.key()).await?;
    let entry = entry.ok_or_else(|| context.resource.not_found(context.name()))?;
    let stored = Stored::from(&entry);
    answer::object(StatusCode::OK, context.wanted()?, context.include()?, &context.resource, &stored)
}

/// A resource version: opaque to clients, a number to us.
pub(crate) fn parse_version(text: Option<&str>) -> Outcome<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    let version = text.parse().map_err(|_| {
        Failure::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })?;
    Ok(Some(version))
}
