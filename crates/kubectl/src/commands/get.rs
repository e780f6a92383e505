//! `get`: tables by the server, and every other format.

use crate::builder::{self, Builder, Found, Info};
use crate::client::JSON;
use crate::context::{Context, out, out_bytes};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::object;
use crate::printers::jsonpath::Template;
use crate::printers::table::{self, Growing, Options};
use crate::printers::{Format, PRINT, list_of};
use crate::watch;
use http::Method;
use sagong_api::quantity::Amount;
use serde_json::{Value, json};
use std::cmp::Ordering;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 4] = [
    &PRINT,
    &builder::FILES,
    &[builder::SELECTOR, builder::FIELD_SELECTOR, builder::ALL_NAMESPACES],
    &[
        flag("raw", Takes::Text, "", "A path to request from the server as it is"),
        short("watch", 'w', Takes::Bool, "false", "After listing, watch for changes"),
        flag("watch-only", Takes::Bool, "false", "Watch for changes without listing"),
        flag("output-watch-events", Takes::Bool, "false", "Show watch events rather than objects"),
        flag("ignore-not-found", Takes::Bool, "false", "A missing object is no failure"),
        flag("no-headers", Takes::Bool, "false", "No headings"),
        flag("show-labels", Takes::Bool, "false", "Labels in the last column"),
        short("label-columns", 'L', Takes::List, "[]", "Labels to show as columns"),
        flag("show-kind", Takes::Bool, "false", "Kinds before names"),
        flag("sort-by", Takes::Text, "", "A JSONPath to sort by"),
        flag("server-print", Takes::Bool, "true", "Let the server make the tables"),
        flag("chunk-size", Takes::Number, "500", "How many objects to ask for at once"),
        flag("subresource", Takes::Text, "", "Get a subresource"),
    ],
];

/// What the server is asked for when people are to read it.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// Runs it.
///
/// # Errors
/// What the server or the command line is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let raw = flags.text("raw").to_owned();
    if !raw.is_empty() {
        return get_raw(context, &raw).await;
    }
    let watching = flags.on("watch") || flags.on("watch-only");
    if !watching && flags.args.is_empty() && flags.list("filename").is_empty() && !flags.given("kustomize") {
        context.err(&format!("You must specify the type of resource to get. Use \"{} api-resources\" for a complete list of supported resources.\n\n", context.name));
        return Err(context.usage(&format!("Required resource not specified.\nUse \"{0} explain <resource>\" for a detailed description of that resource (e.g. {0} explain pods).", context.name)));
    }
    let output = flags.text("output");
    if flags.on("show-labels") && !output.is_empty() && output != "wide" {
        return fail(format!("--show-labels option cannot be used with {output} printer"));
    }
    if !flags.list("label-columns").is_empty() && output.starts_with("custom-columns") {
        return fail(format!("--label-columns option cannot be used with {output} printer"));
    }
    if flags.on("output-watch-events") && !watching {
        return fail("--output-watch-events option can only be used with --watch or --watch-only");
    }
    if watching {
        return watch_it(context).await;
    }
    let mut builder = Builder::new(context, &flags.args);
    builder.empty_selector = true;
    builder.latest = true;
    builder.chunk = flags.number("chunk-size");
    let human = matches!(output, "" | "wide") && flags.text("template").is_empty();
    let by = flags.text("sort-by").to_owned();
    if human {
        if flags.on("server-print") {
            builder.accept = TABLE.into();
        }
        if !by.is_empty() {
            builder.query.push(("includeObject".into(), "Object".into()));
        }
    }
    if !by.is_empty() {
        builder.chunk = 0;
    }
    let mut found = builder.run(context).await?;
    if flags.on("ignore-not-found") {
        found.failures.retain(|failure| !failure.is_not_found());
    }
    if human { tables(context, found, &by).await } else { generic(context, found, &by) }
}

async fn get_raw(context: &Context, raw: &str) -> Outcome {
    let flags = &context.flags;
    if !flags.args.is_empty() {
        return fail("arguments may not be passed when --raw is specified");
    }
    if flags.on("watch") || flags.on("watch-only") || !flags.text("selector").is_empty() {
        return fail(
            "--raw may not be specified with other flags that filter the server request or alter the output",
        );
    }
    if !flags.text("output").is_empty() {
        return fail("--raw and --output are mutually exclusive");
    }
    if !raw.starts_with('/') {
        return fail(format!("--raw must be a valid URL path: parse \"{raw}\": invalid URI for request"));
    }
    let bytes = context.client().await?.bytes(Method::GET, raw, &[], None, "application/json, */*").await?;
    out_bytes(&bytes);
    Ok(())
}

fn generic(context: &Context, found: Found, by: &str) -> Outcome {
    if found.single && !found.failures.is_empty() {
        return Failure::aggregate(found.failures);
    }
    if found.infos.is_empty() && context.flags.on("ignore-not-found") {
        return Failure::aggregate(found.failures);
    }
    let format = Format::from_flags(context, true)?;
    let mut items: Vec<Value> = found.infos.into_iter().map(|info| info.object).collect();
    if !by.is_empty() && items.len() > 1 {
        let keys = keys(&items, by)?;
        items = sorted(items, keys);
    }
    let object = if found.single && items.len() == 1 { items.remove(0) } else { list_of(items) };
    let keep = context.flags.on("show-managed-fields");
    if let Format::Name = format
        && object["items"].is_array()
    {
        for item in object::list(&object, "/items") {
            out(&format.show(item, keep)?);
        }
    } else {
        out(&format.show(&object, keep)?);
    }
    Failure::aggregate(found.failures)
}

fn options(context: &Context) -> Options {
    let flags = &context.flags;
    Options {
        wide: flags.text("output") == "wide",
        no_headers: flags.on("no-headers"),
        with_namespace: false,
        kind: None,
        show_labels: flags.on("show-labels"),
        label_columns: flags.list("label-columns"),
    }
}

async fn tables(context: &Context, found: Found, by: &str) -> Outcome {
    let Found { mut infos, failures, .. } = found;
    // Several answers are sorted among each other as they are, tables though they may be.
    if !by.is_empty() && infos.len() > 1 {
        let answers: Vec<Value> = infos.iter().map(|info| info.object.clone()).collect();
        let mut pairs: Vec<_> = keys(&answers, by)?.into_iter().zip(infos).collect();
        pairs.sort_by(|(a, _), (b, _)| order(a.as_ref(), b.as_ref()));
        infos = pairs.into_iter().map(|(_, info)| info).collect();
    }
    let many = infos.iter().any(|info| info.mapping != infos[0].mapping) || context.flags.on("show-kind");
    let all_namespaces = context.flags.on("all-namespaces");
    let namespaced = !all_namespaces && infos.iter().all(|info| info.mapping.namespaced);
    let mut text = String::new();
    let mut start = 0;
    while start < infos.len() {
        let mapping = &infos[start].mapping;
        let end =
            infos[start..].iter().position(|i| i.mapping != *mapping).map_or(infos.len(), |n| start + n);
        let mut options = options(context);
        options.with_namespace = all_namespaces && mapping.namespaced;
        options.kind = many.then(|| mapping.named());
        let part = group(&infos[start..end], &options, by)?;
        if !part.is_empty() && !text.is_empty() && !options.no_headers {
            text.push('\n');
        }
        text.push_str(&part);
        start = end;
    }
    out(&text);
    if text.is_empty() && !context.flags.on("ignore-not-found") && failures.is_empty() {
        if namespaced {
            let (namespace, _) = context.namespace().await?;
            context.err(&format!("No resources found in {namespace} namespace.\n"));
        } else {
            context.err("No resources found\n");
        }
    }
    Failure::aggregate(failures)
}

/// The table of neighbours of one type; empty without rows.
fn group(infos: &[Info], options: &Options, by: &str) -> Outcome<String> {
    let mut merged: Option<Value> = None;
    for info in infos {
        let mut table = as_table(&info.object);
        match &mut merged {
            None => merged = Some(table),
            Some(all) => {
                let more = table["rows"].as_array_mut().map(std::mem::take).unwrap_or_default();
                if let Some(rows) = all["rows"].as_array_mut() {
                    rows.extend(more);
                }
            }
        }
    }
    let Some(mut table) = merged else { return Ok(String::new()) };
    if !by.is_empty() {
        match sort_rows(&mut table, by) {
            // Where nothing has the field, there is nothing to show.
            Err(error) if !error.text().contains("cannot be sorted by") => return Ok(String::new()),
            other => other?,
        }
    }
    if object::list(&table, "/rows").is_empty() {
        return Ok(String::new());
    }
    Ok(table::layout(&table::lines(&table, options, true)))
}

fn as_table(object: &Value) -> Value {
    if object["kind"] == "Table" { object.clone() } else { table::of_object(object) }
}

fn sort_rows(table: &mut Value, by: &str) -> Outcome {
    let Some(rows) = table["rows"].as_array_mut() else { return Ok(()) };
    let objects: Vec<Value> = rows.iter().map(|row| row["object"].clone()).collect();
    let keys = keys(&objects, by)?;
    *rows = sorted(std::mem::take(rows), keys);
    Ok(())
}

fn keys(objects: &[Value], by: &str) -> Outcome<Vec<Option<Value>>> {
    let path = crate::printers::jsonpath::relax(by).unwrap_or_else(|_| by.to_owned());
    let template = Template::parse(&path).map_err(Failure::Message)?;
    let mut keys = Vec::new();
    for object in objects {
        keys.push(template.find(object, false).map_err(Failure::Message)?.into_iter().next());
    }
    if !objects.is_empty() && keys.iter().all(Option::is_none) {
        return fail(format!("couldn't find any field with path \"{path}\" in the list of objects"));
    }
    let unsortable = |key: &&Value| key.is_array() || key.is_object();
    if objects.len() > 1
        && let Some(key) = keys.iter().flatten().find(unsortable)
    {
        return fail(format!(
            "the field {path} cannot be sorted by: unsortable type: {}",
            crate::printers::go_template::go_type(key)
        ));
    }
    Ok(keys)
}

fn sorted(items: Vec<Value>, keys: Vec<Option<Value>>) -> Vec<Value> {
    let mut pairs: Vec<_> = keys.into_iter().zip(items).collect();
    pairs.sort_by(|(a, _), (b, _)| order(a.as_ref(), b.as_ref()));
    pairs.into_iter().map(|(_, item)| item).collect()
}

fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => texts(a, b),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Quantities compare by what they amount to (`9` before `10`, `1500m` before `2Ki`), other texts byte by byte.
fn texts(a: &str, b: &str) -> Ordering {
    match (a.parse::<Amount>(), b.parse::<Amount>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

async fn watch_it(context: &Context) -> Outcome {
    let flags = &context.flags;
    let only = flags.on("watch-only") && !flags.on("watch") || flags.on("watch-only");
    if !flags.text("sort-by").is_empty() {
        let which = if flags.on("watch") {
            "--watch requested, --sort-by will be ignored for watch events received"
        } else {
            "--watch-only requested, --sort-by will be ignored"
        };
        context.err(&format!("warning: {which}\n"));
    }
    let format = Format::from_flags(context, true)?;
    let mut builder = Builder::new(context, &flags.args);
    builder.empty_selector = true;
    builder.latest = true;
    builder.flatten = false;
    let accept = if format.human() { TABLE } else { JSON };
    builder.accept = accept.into();
    let found = builder.run(context).await?;
    if flags.on("ignore-not-found") && found.failures.iter().any(Failure::is_not_found) {
        return Ok(());
    }
    let infos = found.all()?;
    let Some(info) = infos.first() else { return Ok(()) };
    if infos.iter().any(|other| other.mapping != info.mapping) {
        return fail("you may only specify a single resource type");
    }
    if infos.len() > 1 && !info.name.is_empty() {
        return fail(
            "watch is only supported on individual resources and resource collections - more than 1 resource was found",
        );
    }
    let mut screen =
        Screen { context, format, growing: Growing::default(), headers: true, info, columns: Value::Null };
    let list = info.name.is_empty();
    if !only {
        for info in &infos {
            screen.first(&info.object, list)?;
        }
    }
    let version = if list {
        object::text(&infos[infos.len() - 1].object, "/metadata/resourceVersion").to_owned()
    } else {
        "0".to_owned()
    };
    let mut query: Vec<(String, String)> =
        vec![("watch".into(), "true".into()), ("resourceVersion".into(), version)];
    let own = format!("metadata.name={}", info.name);
    let fields = if list { flags.text("field-selector").to_owned() } else { own };
    for (key, value) in [("labelSelector", flags.text("selector").to_owned()), ("fieldSelector", fields)] {
        if !value.is_empty() {
            query.push((key.into(), value));
        }
    }
    let mut events =
        watch::open_for_a_time(context, &info.mapping.collection(&info.namespace), &query, accept).await?;
    // A watch of one object begins with what was shown already.
    let mut skip = !list && !only;
    while let Some(event) = watch::next_or_interrupt(&mut events).await {
        let event = event?;
        if event["type"] == "ERROR" {
            return Err(Failure::Status(Box::new(event["object"].clone())));
        }
        if event["type"] == "BOOKMARK" {
            continue;
        }
        if std::mem::take(&mut skip) {
            continue;
        }
        screen.event(&event)?;
    }
    Ok(())
}

/// What a watch shows.
struct Screen<'a> {
    context: &'a Context,
    format: Format,
    growing: Growing,
    headers: bool,
    info: &'a Info,
    columns: Value,
}

impl Screen<'_> {
    fn first(&mut self, object: &Value, list: bool) -> Outcome {
        if self.format.human() {
            return self.table(object, "ADDED");
        }
        let items = if list { builder::unlist(object.clone()) } else { vec![object.clone()] };
        for item in items {
            self.object(&item, "ADDED")?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Value) -> Outcome {
        let kind = event["type"].as_str().unwrap_or_default();
        if self.format.human() {
            self.table(&event["object"], kind)
        } else {
            self.object(&event["object"], kind)
        }
    }

    fn table(&mut self, object: &Value, kind: &str) -> Outcome {
        let mut table = as_table(object);
        // Only the first table of a watch says what its columns are.
        if object::list(&table, "/columnDefinitions").is_empty() {
            table["columnDefinitions"] = self.columns.clone();
        } else {
            self.columns = table["columnDefinitions"].clone();
        }
        if object::list(&table, "/rows").is_empty() {
            return Ok(());
        }
        let mut options = options(self.context);
        options.with_namespace = self.context.flags.on("all-namespaces") && self.info.mapping.namespaced;
        if self.context.flags.on("show-kind") {
            options.kind = Some(self.info.mapping.named());
        }
        let mut text = table::lines(&table, &options, self.headers);
        if self.context.flags.on("output-watch-events") {
            let mut lines = text.lines();
            let mut with = String::new();
            if self.headers && !options.no_headers {
                with.push_str(&format!("EVENT   \t{}\n", lines.next().unwrap_or_default()));
            }
            lines.for_each(|line| with.push_str(&format!("{kind:<8}\t{line}\n")));
            text = with;
        }
        self.headers = false;
        out(&self.growing.layout(&text));
        Ok(())
    }

    fn object(&mut self, object: &Value, kind: &str) -> Outcome {
        let keep = self.context.flags.on("show-managed-fields");
        let shown = if self.context.flags.on("output-watch-events") {
            json!({"type": kind, "object": object})
        } else {
            object.clone()
        };
        let text = self.format.show(&shown, keep)?;
        let text = match (&self.format, self.headers) {
            (Format::Yaml, false) => format!("---\n{text}"),
            (Format::Columns(_), false) if !self.context.flags.on("no-headers") => {
                text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned())
            }
            _ => text,
        };
        self.headers = false;
        out(&text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_sorted_by_amount_and_other_texts_byte_by_byte() {
        assert_eq!(texts("9", "10"), Ordering::Less);
        assert_eq!(texts("2Ki", "1500m"), Ordering::Greater);
        assert_eq!(texts("kubia-54fpd", "kubia-5q9rr"), Ordering::Less);
        assert_eq!(texts("x-1", "x1"), Ordering::Less);
    }
}
