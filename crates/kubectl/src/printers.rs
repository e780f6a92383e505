//! How objects are shown: the one place that knows formats and their names.

pub(crate) mod custom_columns;
pub(crate) mod go_template;
pub(crate) mod json;
pub(crate) mod jsonpath;
pub(crate) mod order;
pub(crate) mod table;
pub(crate) mod tabs;
mod unquote;
pub(crate) mod yaml;

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use serde_json::{Value, json};

/// The flags of commands that print what they wrote.
pub(crate) const PRINT: [Flag; 4] = [
    short("output", 'o', Takes::Text, "", "json, yaml, name, jsonpath=…, go-template=…, …"),
    flag("template", Takes::Text, "", "Template of -o go-template or jsonpath, or its file"),
    flag("allow-missing-template-keys", Takes::Bool, "true", "Missing fields of a template are empty"),
    flag("show-managed-fields", Takes::Bool, "false", "Keep managedFields in JSON and YAML"),
];

/// A format.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// A table, or a line that says what was done.
    Human,
    Json,
    Yaml,
    Name,
    JsonPath {
        template: jsonpath::Template,
        raw: String,
        strict: bool,
        as_json: bool,
    },
    Columns(custom_columns::Columns),
    Template {
        template: go_template::Template,
        raw: String,
        strict: bool,
    },
}

const WRITE_FORMATS: &str = "go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,yaml";
const GET_FORMATS: &str = "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,wide,yaml";

impl Format {
    /// What `-o` and `--template` say. Tables and columns only if `get`.
    ///
    /// # Errors
    /// There is no such format, or its template is missing or wrong.
    pub(crate) fn from_flags(context: &Context, get: bool) -> Outcome<Self> {
        let flags = &context.flags;
        let (output, template) = (flags.text("output"), flags.text("template"));
        let output = if output.is_empty() && !template.is_empty() { "go-template" } else { output };
        let (name, argument) = match output.split_once('=') {
            Some((name, argument)) => (name, Some(argument.to_owned())),
            None => (output, (!template.is_empty()).then(|| template.to_owned())),
        };
        let strict = !flags.on("allow-missing-template-keys");
        match name {
            "" => return Ok(Format::Human),
            "wide" if get => return Ok(Format::Human),
            _ => {}
        }
        match output.to_lowercase().as_str() {
            "json" => return Ok(Format::Json),
            "yaml" => return Ok(Format::Yaml),
            "name" => return Ok(Format::Name),
            _ => {}
        }
        match name {
            "jsonpath" | "jsonpath-file" | "jsonpath-as-json" => {
                let raw = template_text(name == "jsonpath-file", argument)?;
                let parsed = jsonpath::Template::parse(&raw)
                    .map_err(|error| Failure::Message(format!("error parsing jsonpath {raw}, {error}")))?;
                Ok(Format::JsonPath { template: parsed, raw, strict, as_json: name == "jsonpath-as-json" })
            }
            "go-template" | "go-template-file" | "template" | "templatefile" => {
                let raw = template_text(name == "go-template-file" || name == "templatefile", argument)?;
                let parsed = go_template::Template::parse(&raw)
                    .map_err(|error| Failure::Message(format!("error parsing template {raw}, {error}")))?;
                Ok(Format::Template { template: parsed, raw, strict })
            }
            "custom-columns" | "custom-columns-file" if get => {
                custom_columns::Columns::new(name, argument, flags.on("no-headers")).map(Format::Columns)
            }
            _ => fail(format!(
                "unable to match a printer suitable for the output format {}, allowed formats are: {}",
                quote(output),
                if get { GET_FORMATS } else { WRITE_FORMATS }
            )),
        }
    }

    /// Whether it is for people.
    pub(crate) fn human(&self) -> bool {
        matches!(self, Format::Human)
    }

    /// One object, in any format but a table.
    ///
    /// # Errors
    /// The template does not fit the object.
    pub(crate) fn show(&self, object: &Value, keep_managed: bool) -> Outcome<String> {
        self.shown(object, keep_managed, json::pretty)
    }

    /// The same for an object that was built here, or read into a type: its JSON is in the order of Go's structs, and what has
    /// no name is called so.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub(crate) fn show_built(&self, object: &Value, keep_managed: bool) -> Outcome<String> {
        if matches!(self, Format::Name) && crate::object::name(object).is_empty() && object["items"].is_null()
        {
            return Ok(format!("{}/<unknown>\n", qualified_kind(object)));
        }
        self.shown(object, keep_managed, |object| order::pretty(object, "    "))
    }

    fn shown(
        &self,
        object: &Value,
        keep_managed: bool,
        pretty: impl Fn(&Value) -> String,
    ) -> Outcome<String> {
        Ok(match self {
            Format::Human => String::new(),
            Format::Json => pretty(&without_managed(object, keep_managed)) + "\n",
            Format::Yaml => yaml::document(&without_managed(object, keep_managed)),
            Format::Name => name(object),
            Format::JsonPath { template, raw, strict, as_json } => {
                template.show(object, *strict, *as_json).map_err(|error| {
                    Failure::Message(format!("error executing jsonpath {}: Error executing template: {error}. Printing more information for debugging the template:\n\ttemplate was:\n\t\t{raw}\n\tobject given to jsonpath engine was:\n\t\t{}\n\n\n", quote(raw), go_template::go_syntax(object)))
                })?
            }
            Format::Columns(columns) => columns.show(object)?,
            Format::Template { template, raw, strict } => {
                template.show(object, *strict).map_err(|unfilled| unfilled_template(&unfilled, raw, object))?
            }
        })
    }
}

/// What was shown before the error, and what helps to find it, go where the output goes.
fn unfilled_template(unfilled: &go_template::Unfilled, raw: &str, object: &Value) -> Failure {
    let error = &unfilled.error;
    out(&format!(
        "{}Error executing template: {error}. Printing more information for debugging the template:\n\ttemplate was:\n\t\t{raw}\n\traw data was:\n\t\t{}\n\tobject given to template engine was:\n\t\t{}\n\n",
        unfilled.shown,
        json::compact(object),
        go_template::go_value(object),
    ));
    Failure::Message(format!("error executing template {}: {error}", quote(raw)))
}

fn template_text(is_file: bool, argument: Option<String>) -> Outcome<String> {
    let Some(argument) = argument.filter(|a| !a.is_empty()) else {
        return fail("template format specified but no template given");
    };
    if !is_file {
        return Ok(argument);
    }
    std::fs::read_to_string(&argument).map_err(|error| {
        Failure::Message(format!(
            "error reading --template {argument}, open {argument}: {}\n",
            crate::failure::io_text(&error)
        ))
    })
}

fn without_managed(object: &Value, keep: bool) -> Value {
    let mut object = object.clone();
    if !keep {
        let strip = |object: &mut Value| {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
        };
        if object["metadata"].is_object() {
            strip(&mut object);
        }
        if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
            items.iter_mut().filter(|item| item["metadata"].is_object()).for_each(strip);
        }
    }
    object
}

/// `pod/kubia-4f2xs`, a line each for lists.
fn name(object: &Value) -> String {
    if let Some(items) = object["items"].as_array() {
        return items.iter().map(name).collect();
    }
    format!("{}/{}\n", qualified_kind(object), crate::object::name(object))
}

/// `pod` or `deployment.apps`, from the object itself.
pub(crate) fn qualified_kind(object: &Value) -> String {
    let kind = crate::object::text(object, "/kind").to_lowercase();
    match crate::object::text(object, "/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    }
}

/// How a write is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DryRun {
    No,
    Client,
    Server,
}

/// The flag.
pub(crate) const DRY_RUN: Flag = flag(
    "dry-run",
    Takes::Maybe("unchanged"),
    "none",
    "none, server (the server tries it), client (only shown)",
);

impl DryRun {
    /// What `--dry-run` says.
    ///
    /// # Errors
    /// It says neither none, client, server, nor a boolean of old.
    pub(crate) fn from_flags(context: &Context) -> Outcome<Self> {
        match context.flags.text("dry-run") {
            "none" | "" => Ok(DryRun::No),
            "client" => Ok(DryRun::Client),
            "server" => Ok(DryRun::Server),
            "unchanged" => {
                deprecated(context, 703, "--dry-run is deprecated", "client");
                Ok(DryRun::Client)
            }
            other => match crate::flags::boolean(other) {
                Some(true) => {
                    deprecated(
                        context,
                        717,
                        &format!("--dry-run={other} is deprecated (boolean value)"),
                        "client",
                    );
                    Ok(DryRun::Client)
                }
                Some(false) => {
                    deprecated(
                        context,
                        720,
                        &format!("--dry-run={other} is deprecated (boolean value)"),
                        "none",
                    );
                    Ok(DryRun::No)
                }
                None => fail(format!(
                    "Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."
                )),
            },
        }
    }

    /// What is put behind the operation.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            DryRun::No => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }
}

/// A warning that a value of `--dry-run` is of old.
fn deprecated(context: &Context, line: u32, what: &str, instead: &str) {
    let place = format!("helpers.go:{line}");
    context.err(&crate::trace::logged(
        'W',
        &place,
        &format!("{what} and can be replaced with --dry-run={instead}."),
    ));
}

/// Tells what was done to an object: in words, or as `-o` says.
pub(crate) struct Teller {
    pub(crate) format: Format,
    pub(crate) dry_run: DryRun,
    pub(crate) keep_managed: bool,
}

impl Teller {
    /// As the flags say.
    ///
    /// # Errors
    /// They say nothing known.
    pub(crate) fn from_flags(context: &Context) -> Outcome<Self> {
        let dry_run = DryRun::from_flags(context)?;
        let format = Format::from_flags(context, false)?;
        Ok(Self { format, dry_run, keep_managed: context.flags.on("show-managed-fields") })
    }

    /// `deployment.apps/kubia scaled`.
    ///
    /// # Errors
    /// A template does not fit.
    pub(crate) fn tell(&self, object: &Value, operation: &str) -> Outcome {
        self.told(object, operation, Format::show)
    }

    /// The same for an object that was built here; see [`Format::show_built`].
    ///
    /// # Errors
    /// A template does not fit.
    pub(crate) fn tell_built(&self, object: &Value, operation: &str) -> Outcome {
        self.told(object, operation, Format::show_built)
    }

    fn told(
        &self,
        object: &Value,
        operation: &str,
        show: impl Fn(&Format, &Value, bool) -> Outcome<String>,
    ) -> Outcome {
        if self.format.human() {
            let name = format!("{}/{}", qualified_kind(object), crate::object::name(object));
            out(&format!("{name} {operation}{}\n", self.dry_run.suffix()));
            return Ok(());
        }
        out(&show(&self.format, object, self.keep_managed)?);
        Ok(())
    }

    /// The query of a write: dry run and who writes.
    pub(crate) fn query(&self, manager: &str) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if self.dry_run == DryRun::Server {
            query.push(("dryRun", "All".to_owned()));
        }
        if !manager.is_empty() {
            query.push(("fieldManager", manager.to_owned()));
        }
        query
    }
}

/// `v1 List` of objects.
pub(crate) fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}
