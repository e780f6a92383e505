//! PUT of an object or its status.

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::input;
use crate::rest::modify::modify;
use http::{Response, StatusCode};
use sagong_api::kind::{Object, Part};

/// Replaces the object, or the part of it.
pub(crate) async fn update(context: &Context, part: Part) -> Outcome<Response<Body>> {
    let wanted = context.wanted()?;
    let dry_run = context.dry_run("UpdateOptions", None)?;
    let (mut object, mut warnings) = input::object(context, "UpdateOptions")?;
    input::settle_namespace(object.as_mut(), &context.resource, context.namespace.as_deref())?;
    check_name(object.as_mut(), context.name())?;
    let done = modify(
        &context.core,
        &context.resource,
        context.namespace.as_deref(),
        context.name(),
        context.change(part, dry_run),
        |_, _| Ok(object.boxed_clone()),
    )
    .await?;
    warnings.extend(input::warnings(&context.resource, object.as_ref()));
    let response =
        answer::object(StatusCode::OK, wanted, context.include()?, &context.resource, &done.stored)?;
    Ok(answer::with_warnings(response, &warnings))
}

/// The name in the body must be the one in the URL; it may be left out.
pub(crate) fn check_name(object: &mut dyn Object, name: &str) -> Outcome<()> {
    let meta = object.metadata_mut();
    match meta.name.as_deref() {
        None | Some("") => meta.name = Some(name.to_owned()),
        Some(given) if given == name => {}
        Some(given) => {
            return Err(Failure::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
    }
    Ok(())
}
