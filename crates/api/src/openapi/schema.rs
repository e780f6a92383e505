//! The schemas of the types, in the form upstream publishes them.

use super::{Dialect, group_version_kind, values};
use crate::kind::ServedKind;
use crate::patch::strategy;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Patch, Status};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Object = Map<String, Value>;

/// The schemas of the kinds, their lists and everything they refer to, by upstream's names.
pub(super) fn schemas(kinds: &[&dyn ServedKind], dialect: Dialect) -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for kind in kinds {
        let identity = kind.identity();
        let root = add(&mut schemas, kind.schema(), dialect);
        mark_root(&mut schemas, &root, group_version_kind(&identity, identity.kind));
        let list = format!("{root}List");
        schemas.insert(list.clone(), list_schema(&root, identity.kind, dialect));
        mark_root(&mut schemas, &list, group_version_kind(&identity, &format!("{}List", identity.kind)));
    }
    for schema in [of::<Status>(), of::<DeleteOptions>(), of::<ListMeta>(), of::<Patch>()] {
        add(&mut schemas, schema, dialect);
    }
    mark_root(&mut schemas, STATUS, json!({"group": "", "version": "v1", "kind": "Status"}));
    mark_root(&mut schemas, DELETE_OPTIONS, json!({"group": "", "version": "v1", "kind": "DeleteOptions"}));
    if kinds.iter().any(|kind| kind.subresources().scale) {
        add(&mut schemas, of::<Scale>(), dialect);
        mark_root(&mut schemas, SCALE, json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    }
    schemas
}

pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

fn of<T: JsonSchema>() -> Value {
    schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// Adds a schema and all it refers to; gives its name.
fn add(schemas: &mut BTreeMap<String, Value>, schema: Value, dialect: Dialect) -> String {
    let Value::Object(mut schema) = schema else { return String::new() };
    schema.remove("$schema");
    let name = match schema.remove("title") {
        Some(Value::String(name)) => name,
        _ => String::new(),
    };
    if let Some(Value::Object(definitions)) = schema.remove("$defs") {
        for (name, definition) in definitions {
            let converted = || convert_type(&name, definition, dialect);
            schemas.entry(name.clone()).or_insert_with(converted);
        }
    }
    let converted = convert_type(&name, Value::Object(schema), dialect);
    schemas.entry(name.clone()).or_insert(converted);
    name
}

fn mark_root(schemas: &mut BTreeMap<String, Value>, name: &str, group_version_kind: Value) {
    if let Some(Value::Object(schema)) = schemas.get_mut(name) {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), json!([group_version_kind]));
    }
}

fn list_schema(item: &str, kind: &str, dialect: Dialect) -> Value {
    let field = |description: &str| json!({"description": description, "type": "string"});
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": field("The version of this representation."),
            "kind": field("What this is a representation of."),
            "metadata": with_siblings(dialect.reference(LIST_META), described("Standard list metadata."), dialect),
            "items": {"type": "array", "description": "The objects.", "items": dialect.reference(item)},
        },
    })
}

fn described(text: &str) -> Object {
    Object::from_iter([("description".to_owned(), text.into())])
}

/// The schema of a type, with the patch strategies of its fields and the values they may have.
fn convert_type(name: &str, schema: Value, dialect: Dialect) -> Value {
    if let Some(special) = special_type(name, &schema, dialect) {
        return special;
    }
    let mut schema = convert(schema, dialect);
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (field, property) in properties.into_iter().flatten() {
        let Value::Object(property) = property else { continue };
        values::add(name, field, property);
        let strategy = strategy(name, field);
        let Some(text) = strategy.name() else { continue };
        property.insert("x-kubernetes-patch-strategy".to_owned(), text.into());
        if !strategy.merge_key.is_empty() {
            property.insert("x-kubernetes-patch-merge-key".to_owned(), strategy.merge_key.into());
        }
    }
    schema
}

/// The two types that are a number or a string.
fn special_type(name: &str, schema: &Value, dialect: Dialect) -> Option<Value> {
    let (format, number) = match name {
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => (Some("int-or-string"), "integer"),
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => (None, "number"),
        _ => return None,
    };
    let mut special = described(schema["description"].as_str().unwrap_or_default());
    match dialect {
        Dialect::V2 => special.insert("type".to_owned(), "string".into()),
        Dialect::V3 => special.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": number}])),
    };
    if let Some(format) = format {
        special.insert("format".to_owned(), format.into());
    }
    Some(Value::Object(special))
}

/// JSON Schema 2020-12 to the dialect: they differ in what may stand beside a reference.
fn convert(schema: Value, dialect: Dialect) -> Value {
    match schema {
        Value::Object(mut schema) => {
            let reference = schema.remove("$ref");
            let converted: Object =
                schema.into_iter().map(|(key, value)| (key, convert(value, dialect))).collect();
            let Some(reference) = reference else { return Value::Object(converted) };
            let name = reference.as_str().unwrap_or_default().trim_start_matches("#/$defs/");
            with_siblings(dialect.reference(name), converted, dialect)
        }
        Value::Array(items) => items.into_iter().map(|item| convert(item, dialect)).collect(),
        leaf => leaf,
    }
}

/// OpenAPI 3.0 ignores what stands beside a reference, so the reference goes into an `allOf`.
fn with_siblings(reference: Value, mut siblings: Object, dialect: Dialect) -> Value {
    if siblings.is_empty() {
        return reference;
    }
    match (dialect, reference) {
        (Dialect::V2, Value::Object(reference)) => siblings.extend(reference),
        (_, reference) => {
            siblings.insert("allOf".to_owned(), json!([reference]));
        }
    }
    Value::Object(siblings)
}
