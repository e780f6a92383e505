//! `create token`: a token of a service account.

use super::one_name;
use crate::client::JSON;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::text;
use crate::printers::{Format, PRINT};
use http::Method;
use serde_json::json;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 2] = [
    &PRINT,
    &[
        flag("audience", Takes::Array, "[]", "Who is to accept it"),
        flag("duration", Takes::Span, "0s", "How long it lasts; 0 leaves that to the server"),
        flag(
            "bound-object-kind",
            Takes::Text,
            "",
            "Kind of an object it lives no longer than: Pod, Secret or Node",
        ),
        flag("bound-object-name", Takes::Text, "", "Name of that object"),
        flag("bound-object-uid", Takes::Text, "", "UID of that object"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let format = Format::from_flags(context, false)?;
    let duration = flags.span("duration");
    if duration < 0 {
        return fail("--duration must be greater than or equal to 0");
    }
    if duration % 1_000_000_000 != 0 {
        return fail("--duration cannot be expressed in units less than seconds");
    }
    let audiences = flags.list("audience");
    if audiences.iter().any(String::is_empty) {
        return fail("--audience must not be an empty string");
    }
    let (kind, bound, uid) =
        (flags.text("bound-object-kind"), flags.text("bound-object-name"), flags.text("bound-object-uid"));
    let mut spec = json!({"audiences": audiences});
    if kind.is_empty() {
        for (value, flag) in [(bound, "name"), (uid, "uid")] {
            if !value.is_empty() {
                return fail(format!(
                    "--bound-object-{flag} can only be set if --bound-object-kind is provided"
                ));
            }
        }
    } else {
        if !matches!(kind, "Pod" | "Secret" | "Node") {
            return fail("supported --bound-object-kind values are Node, Pod, Secret");
        }
        if bound.is_empty() {
            return fail("--bound-object-name is required if --bound-object-kind is provided");
        }
        spec["boundObjectRef"] = json!({"kind": kind, "apiVersion": "v1", "name": bound});
        if !uid.is_empty() {
            spec["boundObjectRef"]["uid"] = uid.into();
        }
    }
    if duration > 0 {
        spec["expirationSeconds"] = i64::try_from(duration / 1_000_000_000).unwrap_or(0).into();
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let (namespace, _) = context.namespace().await?;
    let path = format!("{}/token", context.resource("serviceaccounts").await?.object(&namespace, &name));
    let answer = context.client().await?.call(Method::POST, &path, &[], Some((JSON, &body))).await;
    let answer = answer.map_err(|error| match error {
        Failure::Status(_) => Failure::Message(format!("failed to create token: {}", error.text())),
        other => other,
    })?;
    if format.human() {
        out(&format!("{}\n", text(&answer, "/status/token")));
    } else {
        out(&format.show(&answer, false)?);
    }
    Ok(())
}
