//! `-o custom-columns=NAME:.metadata.name,…`.

use super::go_template::go_value;
use super::jsonpath::{self, Template};
use super::tabs;
use crate::context::out;
use crate::failure::{Failure, Outcome, fail};
use serde_json::Value;

/// Headings and paths.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// Paths are read when they are shown: what is wrong with one comes after the headings.
    columns: Vec<(String, String)>,
    no_headers: bool,
}

impl Columns {
    /// Reads `HEADER:PATH,…`, or a file with a line of headings and a line of paths.
    ///
    /// # Errors
    /// It is not of that form.
    pub(crate) fn new(name: &str, argument: Option<String>, no_headers: bool) -> Outcome<Self> {
        let Some(argument) = argument.filter(|a| !a.is_empty()) else {
            return fail("custom-columns format specified but no custom columns given");
        };
        let pairs: Vec<(String, String)> = if name == "custom-columns-file" {
            let text = std::fs::read_to_string(&argument).map_err(|error| {
                Failure::Message(format!(
                    "error reading template {argument}, open {argument}: {}\n",
                    crate::failure::io_text(&error)
                ))
            })?;
            from_file(&text)?
        } else {
            let mut pairs = Vec::new();
            for part in argument.split(',') {
                let Some((header, path)) = part.split_once(':') else {
                    return fail(format!(
                        "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                    ));
                };
                pairs.push((header.to_owned(), path.to_owned()));
            }
            pairs
        };
        let mut columns = Vec::new();
        for (header, path) in pairs {
            columns.push((header, jsonpath::relax(&path).map_err(Failure::Message)?));
        }
        Ok(Self { columns, no_headers })
    }

    /// The table of an object or the items of a list.
    ///
    /// # Errors
    /// A path does not fit.
    pub(crate) fn show(&self, object: &Value) -> Outcome<String> {
        let mut text = String::new();
        if !self.no_headers {
            let headers: Vec<&str> = self.columns.iter().map(|(header, _)| header.as_str()).collect();
            text.push_str(&headers.join("\t"));
            text.push('\n');
        }
        let paths = self.columns.iter().map(|(_, path)| Template::parse(path));
        let rows = paths.collect::<Result<Vec<_>, _>>().and_then(|paths| rows(&paths, object));
        match rows {
            Ok(rows) => Ok(tabs::table(&(text + &rows))),
            Err(error) => {
                out(&tabs::table(&text));
                fail(error)
            }
        }
    }
}

fn rows(paths: &[Template], object: &Value) -> Result<String, String> {
    let items = match object["items"].as_array() {
        Some(items) if object["kind"].as_str().is_some_and(|k| k.ends_with("List")) => items.as_slice(),
        _ => std::slice::from_ref(object),
    };
    let mut text = String::new();
    for item in items {
        let mut cells = Vec::new();
        for path in paths {
            let found = path.find(item, false)?;
            let values: Vec<String> = found.iter().map(go_value).collect();
            cells.push(if values.is_empty() { "<none>".to_owned() } else { values.join(",") });
        }
        text.push_str(&cells.join("\t"));
        text.push('\n');
    }
    Ok(text)
}

fn from_file(text: &str) -> Outcome<Vec<(String, String)>> {
    let mut lines = text.lines();
    let (Some(headers), Some(paths)) = (lines.next(), lines.next()) else {
        return fail("invalid template, expected a line of headings and a line of paths");
    };
    let headers: Vec<&str> = headers.split_whitespace().collect();
    let paths: Vec<&str> = paths.split_whitespace().collect();
    if headers.len() != paths.len() {
        return fail(format!(
            "number of headers ({}) and field specifications ({}) don't match",
            headers.len(),
            paths.len()
        ));
    }
    Ok(headers.iter().zip(paths).map(|(h, p)| ((*h).to_owned(), p.to_owned())).collect())
}
