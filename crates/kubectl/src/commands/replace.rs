//! `replace`.

use crate::builder::{self, Builder};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write;
use http::Method;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        write::RECORD,
        write::VALIDATE,
        write::SAVE_CONFIG,
        write::manager("kubectl-replace"),
        flag("force", Takes::Bool, "false", "Delete and create again"),
        flag("grace-period", Takes::Number, "-1", "Seconds to end in"),
        flag("timeout", Takes::Span, "0s", "How long to wait"),
        flag("cascade", Takes::Maybe("background"), "background", "background, foreground or orphan"),
        flag("wait", Takes::Bool, "false", "Wait for deletions"),
        flag("raw", Takes::Text, "", "A path to PUT to"),
        flag("subresource", Takes::Text, "", "Replace a subresource"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the files, the command line or the server are to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let force = flags.on("force");
    let raw = flags.text("raw");
    if !raw.is_empty() {
        return super::create::raw(context, Method::PUT, raw).await;
    }
    if flags.number("grace-period") >= 0 && !force {
        return fail("--grace-period must have --force specified");
    }
    if flags.span("timeout") != 0 && !force {
        return fail("--timeout must have --force specified");
    }
    if flags.list("filename").is_empty() {
        return fail("must specify one of -f and -k");
    }
    let teller = Teller::from_flags(context)?;
    if force && teller.dry_run != DryRun::No {
        return fail("--dry-run can not be used when --force is set");
    }
    let mut builder = Builder::new(context, &[]);
    builder.validate = write::validation(context)? != "Ignore";
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let mut any = false;
    let mut query = teller.query(flags.text("field-manager"));
    query.push(("fieldValidation", write::validation(context)?.to_owned()));
    for mut info in found.infos {
        any = true;
        write::record(context, &mut info.object);
        if flags.on("save-config") {
            let configuration = write::configuration(&info.object);
            write::annotate(&mut info.object, write::LAST_APPLIED, &configuration);
        }
        if teller.dry_run == DryRun::Client {
            teller.tell(&info.object, "replaced")?;
            continue;
        }
        if force {
            match context.client().await?.call(Method::DELETE, &info.path(), &[], None).await {
                Ok(answer) => {
                    crate::context::out(&format!("{} \"{}\" deleted\n", info.mapping.named(), info.name));
                    super::delete::gone(context, &info, &answer, None).await?;
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            teller.tell(&write::create(context, &info, &query).await?, "replaced")?;
            continue;
        }
        // Not every kind may be replaced without a version; what is not there is for the server to say.
        if info.object["metadata"]["resourceVersion"].is_null()
            && let Ok(live) = context.client().await?.get(&info.path(), &[]).await
        {
            info.object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        }
        match write::replace(context, &info, &query, flags.text("subresource")).await {
            Ok(object) => teller.tell(&object, "replaced")?,
            Err(error) => failures.push(error.with_source("replacing", &info.source)),
        }
    }
    if !any && failures.is_empty() {
        return fail("no objects passed to replace");
    }
    Failure::aggregate(failures)
}
