//! Descriptions: what `describe` tells of one object, a file per family of kinds.

mod containers;
mod generic;
mod node;
mod plain;
mod pod;
mod service;
mod workload;

pub(crate) use containers::template_text;

use crate::context::Context;
use crate::failure::Outcome;
use crate::mapping::Mapping;
use crate::object;
use crate::printers::table::age;
use crate::printers::tabs;
use serde_json::Value;
use std::collections::BTreeMap;

/// Text of cells and lines, two spaces per level.
#[derive(Default)]
pub(crate) struct Writer {
    text: String,
}

impl Writer {
    /// A piece of text, after the indentation of a level.
    pub(crate) fn put(&mut self, level: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', 2 * level));
        self.text.push_str(text);
    }

    /// The same, with a newline.
    pub(crate) fn line(&mut self, level: usize, text: &str) {
        self.put(level, text);
        self.text.push('\n');
    }

    /// `Name:  value`.
    pub(crate) fn field(&mut self, level: usize, name: &str, value: impl std::fmt::Display) {
        self.line(level, &format!("{name}:\t{value}"));
    }

    /// Laid out in columns.
    pub(crate) fn finish(self) -> String {
        tabs::description(&self.text)
    }

    /// `key=value` lines below a title.
    pub(crate) fn labels(&mut self, title: &str, labels: &BTreeMap<String, String>) {
        self.put(0, &format!("{title}:\t"));
        if labels.is_empty() {
            self.line(0, "<none>");
        }
        for (index, (key, value)) in labels.iter().enumerate() {
            if index > 0 {
                self.put(0, "\t");
            }
            self.line(0, &format!("{key}={value}"));
        }
    }

    /// `key: value` lines below a title; long values below their key.
    pub(crate) fn annotations(&mut self, title: &str, annotations: &BTreeMap<String, String>) {
        const WIDTH: usize = 140;
        self.put(0, &format!("{title}:\t"));
        let shown = annotations.iter().filter(|(key, _)| *key != crate::write::LAST_APPLIED);
        let shown: Vec<_> = shown.collect();
        if shown.is_empty() {
            self.line(0, "<none>");
        }
        for (index, (key, value)) in shown.iter().enumerate() {
            if index > 0 {
                self.put(0, "\t");
            }
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + key.len() + 2 > WIDTH || value.contains('\n') {
                self.line(0, &format!("{key}:"));
                for part in value.split('\n') {
                    let part = if part.len() > WIDTH - 2 {
                        let end = (0..=WIDTH - 2).rev().find(|at| part.is_char_boundary(*at)).unwrap_or(0);
                        format!("{}...", &part[..end])
                    } else {
                        part.to_owned()
                    };
                    self.line(0, &format!("\t  {part}"));
                }
            } else {
                self.line(0, &format!("{key}: {value}"));
            }
        }
    }

    /// Name, namespace, labels and annotations.
    pub(crate) fn head(&mut self, object: &Value) {
        self.field(0, "Name", object::name(object));
        self.field(0, "Namespace", object::namespace(object));
        self.labels("Labels", &object::labels(object));
        self.annotations("Annotations", &object::strings(object, "/metadata/annotations"));
    }

    /// The conditions of controllers.
    pub(crate) fn conditions(&mut self, object: &Value) {
        let conditions = object::list(object, "/status/conditions");
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:\n  Type\tStatus\tReason");
        self.line(1, "----\t------\t------");
        for condition in conditions {
            let text = |field| object::text(condition, field);
            self.line(1, &format!("{} \t{}\t{}", text("/type"), text("/status"), text("/reason")));
        }
    }

    /// What happened to it.
    pub(crate) fn events(&mut self, events: Option<&[Value]>) {
        let Some(events) = events else { return };
        if events.is_empty() {
            self.line(0, "Events:\t<none>");
            return;
        }
        self.line(0, "Events:\n  Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in events {
            let text = |pointer| object::text(event, pointer);
            let first =
                if text("/eventTime").is_empty() { text("/firstTimestamp") } else { text("/eventTime") };
            let count = object::number(event, "/count");
            let interval = if event["series"].is_object() {
                let last = text("/series/lastObservedTime");
                format!("{} (x{} over {})", age(last), object::number(event, "/series/count"), age(first))
            } else if count > 1 {
                format!("{} (x{count} over {})", age(text("/lastTimestamp")), age(first))
            } else {
                age(first)
            };
            let source = match text("/source/component") {
                "" => text("/reportingComponent"),
                source => source,
            };
            let message = text("/message").trim();
            self.line(1, &format!("{}\t{}\t{interval}\t{source}\t{message}", text("/type"), text("/reason")));
        }
    }
}

/// `Tue, 24 Nov 2026 00:02:11 +0000`.
pub(crate) fn date(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
        }
        Err(_) => "Mon, 01 Jan 0001 00:00:00 +0000".into(),
    }
}

/// `<none>` for nothing.
pub(crate) fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// The description of an object.
///
/// # Errors
/// The server refuses what belongs to it.
pub(crate) async fn describe(context: &Context, mapping: &Mapping, object: &Value) -> Outcome<String> {
    let mut writer = Writer::default();
    match (mapping.group.as_str(), mapping.kind.as_str()) {
        ("", "Pod") => pod::describe(context, object, &mut writer).await?,
        ("apps", "Deployment") => workload::deployment(context, object, &mut writer).await?,
        ("apps", "ReplicaSet") => workload::replica_set(context, object, &mut writer).await?,
        ("", "ReplicationController") => {
            workload::replication_controller(context, object, &mut writer).await?
        }
        ("", "Service") => service::service(context, object, &mut writer).await?,
        ("", "Endpoints") => service::endpoints(context, object, &mut writer).await?,
        ("discovery.k8s.io", "EndpointSlice") => service::slice(context, object, &mut writer).await?,
        ("", "Node") => node::describe(context, object, &mut writer).await?,
        ("", "Namespace") => plain::namespace(context, object, &mut writer).await?,
        ("", "ConfigMap") => plain::config_map(context, object, &mut writer).await?,
        ("", "Secret") => plain::secret(object, &mut writer),
        ("", "ServiceAccount") => plain::service_account(context, object, &mut writer).await?,
        _ => generic::describe(context, object, &mut writer).await?,
    }
    Ok(writer.finish())
}

/// The events of an object, oldest first; None if they are not to be shown.
pub(crate) async fn events(context: &Context, object: &Value, kind: bool) -> Outcome<Option<Vec<Value>>> {
    let uid = object::text(object, "/metadata/uid").to_owned();
    events_of(context, object, kind.then(|| object::text(object, "/kind")), &uid).await
}

/// The same with another uid.
pub(crate) async fn events_of(
    context: &Context,
    object: &Value,
    kind: Option<&str>,
    uid: &str,
) -> Outcome<Option<Vec<Value>>> {
    if !context.flags.on("show-events") {
        return Ok(None);
    }
    let mut fields = vec![format!("involvedObject.name={}", object::name(object))];
    let namespace = object::namespace(object);
    if !namespace.is_empty() {
        fields.push(format!("involvedObject.namespace={namespace}"));
    }
    if let Some(kind) = kind {
        fields.push(format!("involvedObject.kind={kind}"));
    }
    if !uid.is_empty() {
        fields.push(format!("involvedObject.uid={uid}"));
    }
    let mapping = context.resource("events").await?;
    let fields = fields.join(",");
    let query = [("fieldSelector", fields.as_str())];
    // Without the right to read events there are none to show.
    let Ok(list) = context.client().await?.get(&mapping.collection(namespace), &query).await else {
        return Ok(Some(Vec::new()));
    };
    let mut events = object::list(&list, "/items").to_vec();
    events.sort_by(|a, b| object::text(a, "/lastTimestamp").cmp(object::text(b, "/lastTimestamp")));
    Ok(Some(events))
}
