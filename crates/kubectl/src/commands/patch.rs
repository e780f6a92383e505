//! `patch`.

use crate::builder::{self, Builder};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write::{self, JSON_PATCH, MERGE, STRATEGIC};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        write::RECORD,
        write::LOCAL,
        write::manager("kubectl-patch"),
        short("patch", 'p', Takes::Text, "", "The patch, in JSON or YAML"),
        flag("patch-file", Takes::Text, "", "A file with the patch"),
        flag("type", Takes::Text, "strategic", "json, merge or strategic"),
        flag("subresource", Takes::Text, "", "Patch a subresource"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let teller = Teller::from_flags(context)?;
    let (text, file) = (flags.text("patch"), flags.text("patch-file"));
    if !text.is_empty() && !file.is_empty() {
        return fail("cannot specify --patch and --patch-file together");
    }
    if text.is_empty() && file.is_empty() {
        return fail("must specify --patch or --patch-file containing the contents of the patch");
    }
    if flags.on("local") && !flags.args.is_empty() {
        return fail("cannot specify --local and server resources");
    }
    let kind = match flags.text("type").to_lowercase().as_str() {
        "json" => JSON_PATCH,
        "merge" => MERGE,
        "strategic" => STRATEGIC,
        _ => {
            return fail(format!(
                "--type must be one of [json merge strategic], not {}",
                quote(flags.text("type"))
            ));
        }
    };
    let text = if file.is_empty() {
        text.to_owned()
    } else {
        std::fs::read_to_string(file).map_err(|error| {
            Failure::Message(format!(
                "unable to read patch file: open {file}: {}",
                crate::failure::io_text(&error)
            ))
        })?
    };
    // What looks like JSON is for the server to read.
    let patch = if text.trim_start().starts_with('{') {
        text.clone().into_bytes()
    } else {
        let parsed = crate::manifest::parse(&text)
            .map_err(|error| Failure::Message(format!("unable to parse {}: yaml: {error}", quote(&text))))?;
        crate::printers::json::compact(&parsed).into_bytes()
    };
    let mut builder = Builder::new(context, &flags.args);
    let subresource = std::mem::take(&mut builder.subresource);
    builder.latest = true;
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let mut any = false;
    // That it was tried only is not told, by kubectl neither.
    let plain =
        Teller { format: teller.format.clone(), dry_run: DryRun::No, keep_managed: teller.keep_managed };
    let tell = |object: &serde_json::Value, changed: bool| {
        plain.tell(object, if changed { "patched" } else { "patched (no change)" })
    };
    for info in found.infos {
        any = true;
        if teller.dry_run == DryRun::Client || flags.on("local") {
            let shown = locally(&info.mapping, &info.object, kind, &patch)?;
            tell(&shown, shown != info.object)?;
            continue;
        }
        let query = teller.query(flags.text("field-manager"));
        match write::patch_bytes(context, &info, kind, patch.clone(), &query, &subresource).await {
            Ok(mut object) => {
                // Of a subresource one cannot tell: it is another object.
                let changed = object != info.object || !subresource.is_empty();
                if let Some(cause) = write::cause(context).filter(|_| changed) {
                    let record =
                        serde_json::json!({"metadata": {"annotations": {write::CHANGE_CAUSE: cause}}});
                    object = write::patch(context, &info, MERGE, &record, &query, "").await?;
                }
                tell(&object, changed)?;
            }
            Err(error) => failures.push(error),
        }
    }
    if !any && failures.is_empty() {
        return fail("no objects passed to patch");
    }
    Failure::aggregate(failures)
}

/// What the patch would make of the object, computed here.
fn locally(
    mapping: &crate::mapping::Mapping,
    object: &serde_json::Value,
    kind: &str,
    body: &[u8],
) -> Outcome<serde_json::Value> {
    use sagong_api::patch as api;
    let result = match (kind, served(&mapping.api_version(), &mapping.kind)) {
        (JSON_PATCH, _) => api::json(object, body),
        (STRATEGIC, Some(identity)) => api::strategic(&identity, object.clone(), body),
        (STRATEGIC, None) => {
            return fail(format!(
                "strategic merge patch is not supported for {} locally, try --type merge",
                mapping.kind
            ));
        }
        _ => api::merge(object, body),
    };
    result.map_err(|error| Failure::Message(error.to_string()))
}

/// The kind as the binary itself knows it, with what its lists are keyed by.
pub(super) fn served(api_version: &str, kind: &str) -> Option<sagong_api::kind::Identity> {
    let known = sagong_api::kinds::registry();
    known.iter().map(|k| k.identity()).find(|i| i.kind == kind && i.api_version() == api_version)
}
