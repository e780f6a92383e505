//! `certificate approve` and `deny`: answers to requests for certificates.

use crate::builder::{self, Builder};
use crate::client::JSON;
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::list;
use crate::printers::{PRINT, Teller};
use http::Method;
use serde_json::{Value, json};

/// Flags of both.
pub(crate) const FLAGS: [&[Flag]; 3] =
    [&PRINT, &builder::FILES, &[flag("force", Takes::Bool, "false", "Also when it was answered before")]];

/// Runs `approve`.
///
/// # Errors
/// What the command line or the server is to blame for; the server may have no such requests.
pub(crate) async fn approve(context: &Context) -> Outcome {
    answer(context, "Approved", "Approve", "approved").await
}

/// Runs `deny`.
///
/// # Errors
/// As [`approve`].
pub(crate) async fn deny(context: &Context) -> Outcome {
    answer(context, "Denied", "Deny", "denied").await
}

async fn answer(context: &Context, condition: &str, verb: &str, done: &str) -> Outcome {
    let flags = &context.flags;
    if flags.args.is_empty() && flags.list("filename").is_empty() {
        return fail("one or more CSRs must be specified as <name> or -f <filename>");
    }
    let teller = Teller::from_flags(context)?;
    let mut args = Vec::new();
    if !flags.args.is_empty() {
        args.push("certificatesigningrequests".to_owned());
        args.extend(flags.args.iter().map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()));
    }
    let mut builder = Builder::new(context, &args);
    builder.latest = true;
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    for info in found.infos {
        let mut object = info.object.clone();
        let answered = list(&object, "/status/conditions").iter().any(|c| c["type"] == condition);
        if answered && !flags.on("force") {
            teller.tell(&object, done)?;
            continue;
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut conditions: Vec<Value> = list(&object, "/status/conditions").to_vec();
        conditions.retain(|c| c["type"] != condition);
        conditions.push(json!({
            "type": condition, "status": "True", "reason": format!("Kubectl{verb}"),
            "message": format!("This CSR was {done} by kubectl certificate {}.", verb.to_lowercase()),
            "lastUpdateTime": now, "lastTransitionTime": Value::Null,
        }));
        object["status"]["conditions"] = conditions.into();
        let path = format!("{}/approval", info.path());
        match context.client().await?.call(Method::PUT, &path, &[], Some((JSON, &object))).await {
            Ok(object) => teller.tell(&object, done)?,
            Err(error) => failures.push(error),
        }
    }
    Failure::aggregate(failures)
}
