//! POST of `/pods/NAME/eviction`: a delete that may be refused. Disruption budgets are not served yet, so it
//! never is.

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::delete::remove;
use crate::rest::{input, removal};
use http::{Response, StatusCode};
use k8s_openapi::api::policy::v1::Eviction;
use sagong_api::status;

/// Deletes the pod with the options in the eviction.
pub(crate) async fn evict(context: &Context) -> Outcome<Response<Body>> {
    let json = input::to_json(&context.headers, &context.body)?;
    input::check_type(&json, "policy/v1", "Eviction")?;
    let eviction: Eviction = serde_json::from_slice(&json).map_err(|error| {
        Failure::bad_request(format!("Eviction in version \"v1\" cannot be handled as a Eviction: {error}"))
    })?;
    let given = eviction.metadata.name.as_deref().unwrap_or_default();
    if !given.is_empty() && given != context.name() {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = eviction.delete_options.unwrap_or_default();
    removal::validate_options(&options)?;
    let dry_run = context.dry_run("DeleteOptions", options.dry_run.as_deref())?;
    let namespace = context.namespace.as_deref();
    remove(&context.core, &context.resource, namespace, context.name(), &options, dry_run).await?;
    Ok(answer::json_value(StatusCode::CREATED, &status::success(201)))
}
