//! Tables as the server makes them, shown as kubectl does.

use super::go_template::go_value;
use super::tabs;
use crate::object;
use serde_json::Value;

/// What a table shows besides the server's columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) wide: bool,
    pub(crate) no_headers: bool,
    pub(crate) with_namespace: bool,
    /// `pod`: put before every name.
    pub(crate) kind: Option<String>,
    pub(crate) show_labels: bool,
    pub(crate) label_columns: Vec<String>,
}

/// The lines of a table, cells ending with tabs; headers unless `no_headers`.
pub(crate) fn lines(table: &Value, options: &Options, headers: bool) -> String {
    let columns = object::list(table, "/columnDefinitions");
    let shown: Vec<usize> = (0..columns.len())
        .filter(|index| options.wide || columns[*index]["priority"].as_i64().unwrap_or(0) == 0)
        .collect();
    let mut text = String::new();
    if headers && !options.no_headers {
        let mut cells: Vec<String> = Vec::new();
        if options.with_namespace {
            cells.push("NAMESPACE".into());
        }
        cells.extend(
            shown.iter().map(|index| columns[*index]["name"].as_str().unwrap_or_default().to_uppercase()),
        );
        cells.extend(
            options.label_columns.iter().map(|l| l.rsplit('/').next().unwrap_or_default().to_uppercase()),
        );
        if options.show_labels {
            cells.push("LABELS".into());
        }
        text.push_str(&cells.join("\t"));
        text.push('\n');
    }
    for row in object::list(table, "/rows") {
        text.push_str(&line(row, &shown, options));
        text.push('\n');
    }
    text
}

fn line(row: &Value, shown: &[usize], options: &Options) -> String {
    let mut cells: Vec<String> = Vec::new();
    if options.with_namespace {
        cells.push(object::text(row, "/object/metadata/namespace").to_owned());
    }
    for (position, index) in shown.iter().enumerate() {
        let mut cell = go_value(row.pointer(&format!("/cells/{index}")).unwrap_or(&Value::Null));
        if let Some(end) = cell.find(['\n', '\r', '\u{c}']) {
            cell.truncate(end);
            cell.push_str("...");
        }
        if position == 0
            && let Some(kind) = &options.kind
        {
            cell = format!("{kind}/{cell}");
        }
        cells.push(cell);
    }
    let labels = object::strings(row, "/object/metadata/labels");
    for wanted in &options.label_columns {
        cells.push(labels.get(wanted).cloned().unwrap_or_default());
    }
    if options.show_labels {
        cells.push(if labels.is_empty() { "<none>".into() } else { object::joined(&labels) });
    }
    cells.join("\t")
}

/// A table of plain objects, when the server makes none.
pub(crate) fn of_object(item: &Value) -> Value {
    let created = object::text(item, "/metadata/creationTimestamp");
    serde_json::json!({
        "kind": "Table",
        "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}],
        "rows": [{"cells": [object::name(item), age(created)], "object": item}],
    })
}

/// How long ago an RFC 3339 time was.
pub(crate) fn age(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => sagong_api::duration::human_duration(time, jiff::Timestamp::now()),
        Err(_) => "<unknown>".into(),
    }
}

/// Lays out lines as one table.
pub(crate) fn layout(text: &str) -> String {
    tabs::table(text)
}

/// Lays out lines one by one, columns never narrower than they were before.
#[derive(Default)]
pub(crate) struct Growing {
    widths: Vec<usize>,
}

impl Growing {
    /// The lines with what is known of widths so far.
    pub(crate) fn layout(&mut self, text: &str) -> String {
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        for row in &rows {
            for (index, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
                if self.widths.len() <= index {
                    self.widths.push(6);
                }
                self.widths[index] = self.widths[index].max(cell.chars().count() + 3);
            }
        }
        let mut out = String::new();
        for row in &rows {
            for (index, cell) in row.iter().enumerate() {
                out.push_str(cell);
                if index + 1 < row.len() {
                    let pad = self.widths[index].saturating_sub(cell.chars().count());
                    out.extend(std::iter::repeat_n(' ', pad));
                }
            }
            out.push('\n');
        }
        out
    }
}
