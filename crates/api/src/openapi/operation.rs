//! One verb on one path.

use super::Dialect;
use super::schema::{DELETE_OPTIONS, PATCH, STATUS};
use serde_json::{Map, Value, json};

/// A query or path parameter.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    type_: &'static str,
    description: &'static str,
}

const fn text(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, type_: "string", description }
}

const fn number(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, type_: "integer", description }
}

const fn flag(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, type_: "boolean", description }
}

pub(super) const NAME: Parameter = text("name", "The name of the object.");
pub(super) const NAMESPACE: Parameter = text("namespace", "The namespace of the object.");
const DRY_RUN: Parameter = text("dryRun", "With the value All: everything is checked and nothing is stored.");

/// The parameters of every write.
pub(super) const WRITE: [Parameter; 3] = [
    DRY_RUN,
    text("fieldManager", "The name of whoever makes the change."),
    text("fieldValidation", "What to do about unknown and repeated fields: Ignore, Warn or Strict."),
];

/// Of a patch, beside those of every write.
pub(super) const FORCE: Parameter = flag("force", "Takes over fields that other managers own (apply only).");

/// The parameters of a list, a watch, or the deletion of a collection.
pub(super) const LIST: [Parameter; 10] = [
    flag("allowWatchBookmarks", "Whether a watch also tells how far it has got."),
    text("continue", "Where to go on, from the answer before."),
    text("fieldSelector", "Only objects whose fields match."),
    text("labelSelector", "Only objects whose labels match."),
    number("limit", "The most objects in one answer."),
    text("resourceVersion", "How new the answer must be, or where a watch begins."),
    text("resourceVersionMatch", "How resourceVersion is meant."),
    flag("sendInitialEvents", "Whether a watch begins with what there is."),
    number("timeoutSeconds", "When to end a watch."),
    flag("watch", "Tell of changes as they happen."),
];

/// The parameters of a delete.
pub(super) const DELETE: [Parameter; 4] = [
    DRY_RUN,
    number("gracePeriodSeconds", "How long the object has to end by itself."),
    flag("orphanDependents", "Deprecated: see propagationPolicy."),
    text("propagationPolicy", "What becomes of dependents: Orphan, Background or Foreground."),
];

impl Parameter {
    /// The parameter, in the query or (required) in the path.
    pub(super) fn write(self, place: &str, dialect: Dialect) -> Value {
        let mut parameter = Map::new();
        parameter.insert("name".to_owned(), self.name.into());
        parameter.insert("in".to_owned(), place.into());
        parameter.insert("description".to_owned(), self.description.into());
        if place == "path" {
            parameter.insert("required".to_owned(), true.into());
        }
        match dialect {
            Dialect::V2 => {
                parameter.insert("type".to_owned(), self.type_.into());
                parameter.insert("uniqueItems".to_owned(), true.into());
            }
            Dialect::V3 => {
                parameter.insert("schema".to_owned(), json!({"type": self.type_, "uniqueItems": true}));
            }
        }
        Value::Object(parameter)
    }
}

/// What the body of a request is.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    None,
    Object(&'a str),
    Patch,
    DeleteOptions,
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// One verb on one path, before it is written in a dialect.
pub(super) struct Operation<'a> {
    pub(super) id: String,
    pub(super) description: String,
    pub(super) tag: &'a str,
    /// `list`, `post`, …: upstream's `x-kubernetes-action`.
    pub(super) action: &'a str,
    pub(super) group_version_kind: Value,
    pub(super) query: Vec<Parameter>,
    pub(super) body: Body<'a>,
    /// The schema of the answer; None is `Status`.
    pub(super) answer: Option<&'a str>,
    /// The codes of success.
    pub(super) codes: &'a [&'a str],
}

impl Operation<'_> {
    pub(super) fn write(&self, dialect: Dialect) -> Value {
        let mut parameters: Vec<Value> = self.query.iter().map(|p| p.write("query", dialect)).collect();
        let mut operation = Map::new();
        let mut put = |key: &str, value: Value| operation.insert(key.to_owned(), value);
        put("description", self.description.clone().into());
        put("operationId", self.id.clone().into());
        put("tags", json!([self.tag]));
        put("x-kubernetes-action", self.action.into());
        put("x-kubernetes-group-version-kind", self.group_version_kind.clone());
        put("responses", self.responses(dialect));
        let (schema, types, required) = match self.body {
            Body::None => (None, &[][..], false),
            Body::Object(name) => (Some(name), &["*/*"][..], true),
            Body::Patch => (Some(PATCH), &PATCH_TYPES[..], true),
            Body::DeleteOptions => (Some(DELETE_OPTIONS), &["*/*"][..], false),
        };
        if let Some(schema) = schema {
            match dialect {
                Dialect::V2 => {
                    parameters.push(json!({
                        "name": "body", "in": "body", "required": required, "schema": dialect.reference(schema),
                    }));
                    put("consumes", json!(types));
                }
                Dialect::V3 => {
                    let content = content(schema, types, dialect);
                    put("requestBody", json!({"content": content, "required": required}));
                }
            }
        }
        if dialect == Dialect::V2 {
            put("produces", json!([JSON, YAML]));
            put("schemes", json!(["https"]));
        }
        put("parameters", parameters.into());
        Value::Object(operation)
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let mut responses = Map::new();
        for code in self.codes {
            let schema = self.answer.unwrap_or(STATUS);
            let description = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            let response = match dialect {
                Dialect::V2 => json!({"description": description, "schema": dialect.reference(schema)}),
                Dialect::V3 => {
                    json!({"description": description, "content": content(schema, &[JSON, YAML], dialect)})
                }
            };
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }
}

fn content(schema: &str, types: &[&str], dialect: Dialect) -> Value {
    let entry = |type_: &&str| ((*type_).to_owned(), json!({"schema": dialect.reference(schema)}));
    Value::Object(types.iter().map(entry).collect())
}
