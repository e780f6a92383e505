//! `wait`.

use crate::builder::{self, Builder, Info};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::object::{self, list, text};
use crate::printers::jsonpath::{self, Template};
use crate::printers::{Format, PRINT, Teller};
use crate::watch;
use serde_json::Value;
use std::time::Duration;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        builder::SELECTOR,
        builder::FIELD_SELECTOR,
        builder::ALL,
        builder::ALL_NAMESPACES,
        crate::write::LOCAL,
        flag("for", Takes::Text, "", "delete, create, condition=NAME[=VALUE], jsonpath='{…}'[=VALUE]"),
        flag("timeout", Takes::Span, "30s", "How long to wait"),
    ],
];

enum For {
    Delete,
    Create,
    Condition(String, String),
    Path(Template, Option<String>),
}

/// Runs it.
///
/// # Errors
/// It takes too long; what the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let teller = Teller::from_flags(context)?;
    let what = parse(flags.text("for"))?;
    let mut timeout = flags.span("timeout");
    if timeout < 0 {
        timeout = 7 * 24 * 3_600_000_000_000;
    }
    let timeout = Duration::from_nanos(timeout as u64);
    let began = std::time::Instant::now();
    let mut failures = Vec::new();
    let infos = loop {
        let mut builder = Builder::new(context, &flags.args);
        builder.empty_selector = flags.on("all");
        builder.all = false;
        builder.latest = true;
        builder.fetch = true;
        let found = builder.run(context).await?;
        match what {
            For::Delete => {
                let missing: Vec<Failure> =
                    found.failures.into_iter().filter(|f| !f.is_not_found()).collect();
                Failure::aggregate(missing)?;
                if found.infos.is_empty() {
                    return Ok(());
                }
                break found.infos;
            }
            For::Create if found.infos.is_empty() => {
                if began.elapsed() >= timeout {
                    return fail("timed out waiting for the condition");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            _ => {
                failures = found.failures;
                break found.infos;
            }
        }
    };
    if infos.is_empty() {
        Failure::aggregate(failures)?;
        return fail("no matching resources found");
    }
    let mut refused = std::mem::take(&mut failures);
    for info in infos {
        let left = timeout.saturating_sub(began.elapsed());
        match one(context, &info, &what, left).await {
            Ok(object) => {
                if teller.format.human() || matches!(teller.format, Format::Name) {
                    let mut shown = object;
                    if shown["kind"].is_null() {
                        shown = info.object.clone();
                    }
                    teller.tell(&shown, "condition met")?;
                } else {
                    teller.tell(&object, "")?;
                }
            }
            Err(error) => failures.push(error),
        }
    }
    failures.append(&mut refused);
    Failure::aggregate(failures)
}

fn parse(text: &str) -> Outcome<For> {
    let lower = text.to_lowercase();
    if lower == "delete" {
        return Ok(For::Delete);
    }
    if lower == "create" {
        return Ok(For::Create);
    }
    if let Some(condition) = text.strip_prefix("condition=") {
        let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
        return Ok(For::Condition(name.into(), value.into()));
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        if rest.is_empty() {
            return fail("jsonpath expression cannot be empty");
        }
        let (path, value) = match rest.rfind('}').map(|end| (&rest[..=end], &rest[end + 1..])) {
            Some((path, "")) => (path, None),
            Some((_, value)) if value.matches('=').count() > 1 => {
                return fail(
                    "jsonpath wait format must be --for=jsonpath='{.status.readyReplicas}'=3 or --for=jsonpath='{.status.readyReplicas}'",
                );
            }
            Some((path, value)) => (path, Some(value.trim_start_matches('='))),
            None => match rest.split_once('=') {
                Some((path, value)) => (path, Some(value)),
                None => (rest, None),
            },
        };
        if value == Some("") {
            return fail(
                "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{.status.readyReplicas}'=3",
            );
        }
        let relaxed = jsonpath::relax(path.trim_matches('\'')).map_err(Failure::Message)?;
        let template = Template::parse(&relaxed).map_err(Failure::Message)?;
        return Ok(For::Path(template, value.map(str::to_owned)));
    }
    fail(format!("unrecognized condition: {}", quote(text)))
}

async fn one(context: &Context, info: &Info, what: &For, timeout: Duration) -> Outcome<Value> {
    if let For::Create = what {
        return Ok(info.object.clone());
    }
    let wait = async {
        let mut object = info.object.clone();
        let version = text(&object, "/metadata/resourceVersion").to_owned();
        let uid = object["metadata"]["uid"].clone();
        if holds(what, &object)? {
            return Ok(object);
        }
        let query = vec![
            ("watch".to_owned(), "true".to_owned()),
            ("resourceVersion".to_owned(), version),
            ("fieldSelector".to_owned(), format!("metadata.name={}", info.name)),
        ];
        let path = info.mapping.collection(&info.namespace);
        let mut events = watch::open(context, &path, &query, crate::client::JSON).await?;
        while let Some(event) = watch::next_or_interrupt(&mut events).await {
            let event = event?;
            if event["type"] == "DELETED" {
                return match what {
                    For::Delete => Ok(object),
                    _ => fail(format!("{}/{} was deleted", info.mapping.plural, info.name)),
                };
            }
            object = event["object"].clone();
            if matches!(what, For::Delete) && object["metadata"]["uid"] != uid || holds(what, &object)? {
                return Ok(object);
            }
        }
        Err(Failure::Exit(130))
    };
    if timeout.is_zero() && !holds(what, &info.object)? {
        return fail(format!("condition not met for {}/{}", info.mapping.plural, info.name));
    }
    tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| {
        fail(format!("timed out waiting for the condition on {}/{}", info.mapping.plural, info.name))
    })
}

/// Whether what is waited for is so.
///
/// # Errors
/// The path leads to something that no value can be compared with.
fn holds(what: &For, object: &Value) -> Outcome<bool> {
    Ok(match what {
        For::Condition(name, value) => list(object, "/status/conditions").iter().any(|c| {
            text(c, "/type").eq_ignore_ascii_case(name) && text(c, "/status").eq_ignore_ascii_case(value)
        }),
        For::Path(template, value) => {
            let found = template.find(object, false).unwrap_or_default();
            match value {
                None => !found.is_empty(),
                Some(_) if found.len() > 1 => {
                    return fail("given jsonpath expression matches more than one value");
                }
                Some(_) if found.iter().any(|one| one.is_object() || one.is_array()) => {
                    return fail("jsonpath leads to a nested object or list which is not supported");
                }
                Some(value) => {
                    found.len() == 1
                        && crate::printers::go_template::go_value(&found[0])
                            == value.trim_matches(['"', '\''])
                }
            }
        }
        For::Delete => object::name(object).is_empty(),
        For::Create => true,
    })
}
