//! `events`.

use crate::builder;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::object::{list, text};
use crate::printers::table::{self, Growing, age};
use crate::printers::{Format, PRINT, list_of};
use crate::watch;
use serde_json::Value;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 2] = [
    &PRINT,
    &[
        builder::ALL_NAMESPACES,
        short("watch", 'w', Takes::Bool, "false", "Go on with what is still to come"),
        flag("for", Takes::Text, "", "Only of TYPE/NAME"),
        flag("types", Takes::List, "[]", "Normal, Warning"),
        flag("no-headers", Takes::Bool, "false", "No headings"),
        flag("chunk-size", Takes::Number, "500", "Unused"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let format = Format::from_flags(context, false)?;
    let types = flags.list("types");
    if types.iter().any(|t| !t.eq_ignore_ascii_case("normal") && !t.eq_ignore_ascii_case("warning")) {
        return fail("valid --types are Normal or Warning");
    }
    let everywhere = flags.on("all-namespaces");
    let (namespace, _) = context.namespace().await?;
    let mut fields = Vec::new();
    let target = flags.text("for");
    if !target.is_empty() {
        let Some((kind, name)) = target.split_once('/') else {
            return fail("--for must be in resource/name form");
        };
        let mapping = context.resource(kind).await?;
        fields.push(format!("involvedObject.kind={}", mapping.kind));
        fields.push(format!("involvedObject.name={name}"));
    }
    let fields = fields.join(",");
    let path = context.resource("events").await?.collection(if everywhere { "" } else { &namespace });
    let query: Vec<(&str, &str)> =
        if fields.is_empty() { Vec::new() } else { vec![("fieldSelector", fields.as_str())] };
    let answer = context.client().await?.get(&path, &query).await?;
    let mut events = list(&answer, "/items").to_vec();
    let wanted = |event: &Value| {
        types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case(text(event, "/type")))
    };
    events.retain(wanted);
    events.sort_by(|a, b| seen(a).cmp(seen(b)));
    for event in &mut events {
        event["kind"] = "Event".into();
        event["apiVersion"] = "v1".into();
    }
    let watching = flags.on("watch");
    if events.is_empty() && !watching {
        if !format.human() {
            return Ok(());
        }
        context.err(&if everywhere {
            "No events found.\n".to_owned()
        } else {
            format!("No events found in {namespace} namespace.\n")
        });
        return Ok(());
    }
    if !format.human() {
        out(&format.show(&list_of(events), flags.on("show-managed-fields"))?);
        return Ok(());
    }
    let mut lines = String::new();
    if !flags.on("no-headers") {
        lines.push_str(if everywhere { "NAMESPACE\t" } else { "" });
        lines.push_str("LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n");
    }
    events.iter().for_each(|event| lines.push_str(&line(event, everywhere)));
    if !watching {
        out(&table::layout(&lines));
        return Ok(());
    }
    let mut growing = Growing::default();
    out(&growing.layout(&lines));
    let mut query: Vec<(String, String)> =
        query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    query.push(("watch".into(), "true".into()));
    query.push(("resourceVersion".into(), text(&answer, "/metadata/resourceVersion").into()));
    let mut stream = watch::open_for_a_time(context, &path, &query, crate::client::JSON).await?;
    while let Some(event) = watch::next_or_interrupt(&mut stream).await {
        let event = event?;
        if event["type"] == "ERROR" {
            return Err(Failure::Status(Box::new(event["object"].clone())));
        }
        if event["type"] != "DELETED" && wanted(&event["object"]) {
            out(&growing.layout(&line(&event["object"], everywhere)));
        }
    }
    Ok(())
}

fn seen(event: &Value) -> &str {
    for field in ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp"] {
        if !text(event, field).is_empty() {
            return text(event, field);
        }
    }
    ""
}

fn line(event: &Value, everywhere: bool) -> String {
    let first = match text(event, "/eventTime") {
        "" => age(text(event, "/firstTimestamp")),
        time => age(time),
    };
    let count = event["count"].as_i64().unwrap_or(0);
    let interval = if let Some(count) = event["series"]["count"].as_i64() {
        format!("{} (x{count} over {first})", age(text(event, "/series/lastObservedTime")))
    } else if count > 1 {
        format!("{} (x{count} over {first})", age(text(event, "/lastTimestamp")))
    } else {
        first
    };
    let namespace =
        if everywhere { format!("{}\t", text(event, "/metadata/namespace")) } else { String::new() };
    format!(
        "{namespace}{interval}\t{}\t{}\t{}/{}\t{}\n",
        text(event, "/type"),
        text(event, "/reason"),
        text(event, "/involvedObject/kind"),
        text(event, "/involvedObject/name"),
        text(event, "/message").trim()
    )
}
