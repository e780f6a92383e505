//! The graph of the served types: which type each field of each type has. Taken from the types' own schemas,
//! once; used where JSON is walked by type (strategic merge patches, error messages).

use crate::kind::Identity;
use crate::kinds;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::OnceLock;

/// What a field holds, as far as the walk cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string, number or boolean, or anything the graph does not know.
    Leaf,
    /// An object of that type.
    Object(Box<str>),
    /// A list of leaves, or of objects of that type.
    List(Option<Box<str>>),
    /// A map with string keys to leaves, or to objects of that type.
    Map(Option<Box<str>>),
}

/// Every type that the served kinds reach, by its upstream schema name (`io.k8s.api.apps.v1.Deployment`).
pub struct Types {
    roots: HashMap<(String, &'static str), Box<str>>,
    fields: HashMap<Box<str>, HashMap<Box<str>, Shape>>,
}

/// How a schema refers to another.
const REF_PREFIX: &str = "#/$defs/";

impl Types {
    /// The graph of [`kinds::registry`].
    pub fn get() -> &'static Self {
        static TYPES: OnceLock<Types> = OnceLock::new();
        TYPES.get_or_init(|| {
            let mut types = Self { roots: HashMap::new(), fields: HashMap::new() };
            for kind in kinds::registry() {
                types.add(&kind.identity(), &kind.schema());
            }
            types
        })
    }

    fn add(&mut self, identity: &Identity, schema: &Value) {
        let root = schema["title"].as_str().unwrap_or_default();
        self.roots.insert((identity.api_version(), identity.kind), root.into());
        self.add_type(root, schema);
        for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
            self.add_type(name, definition);
        }
    }

    fn add_type(&mut self, name: &str, schema: &Value) {
        if self.fields.contains_key(name) {
            return;
        }
        let properties = schema["properties"].as_object();
        let fields =
            properties.into_iter().flatten().map(|(field, schema)| (field.as_str().into(), shape(schema)));
        let fields = fields.filter(|(_, shape)| *shape != Shape::Leaf).collect();
        self.fields.insert(name.into(), fields);
    }

    /// The schema name of a kind.
    pub fn root(&self, identity: &Identity) -> Option<&str> {
        self.roots.get(&(identity.api_version(), identity.kind)).map(AsRef::as_ref)
    }

    /// What a field of a type holds; a leaf if either is unknown.
    pub fn shape(&self, type_: &str, field: &str) -> &Shape {
        self.fields.get(type_).and_then(|fields| fields.get(field)).unwrap_or(&Shape::Leaf)
    }
}

fn shape(schema: &Value) -> Shape {
    let none = Map::new();
    let schema = schema.as_object().unwrap_or(&none);
    if let Some(type_) = reference(schema) {
        return Shape::Object(type_);
    }
    let inner = |key: &str| schema.get(key).and_then(Value::as_object);
    if let Some(items) = inner("items") {
        return Shape::List(reference(items));
    }
    if let Some(values) = inner("additionalProperties") {
        return Shape::Map(reference(values));
    }
    Shape::Leaf
}

fn reference(schema: &Map<String, Value>) -> Option<Box<str>> {
    schema.get("$ref")?.as_str()?.strip_prefix(REF_PREFIX).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_leads_from_a_deployment_to_the_environment_of_its_containers() {
        let types = Types::get();
        let deployment =
            kinds::registry().iter().map(|k| k.identity()).find(|i| i.kind == "Deployment").unwrap();
        let mut at: Box<str> = types.root(&deployment).unwrap().into();
        assert_eq!(&*at, "io.k8s.api.apps.v1.Deployment");
        for field in ["spec", "template", "spec", "containers", "env"] {
            at = match types.shape(&at, field) {
                Shape::Object(next) | Shape::List(Some(next)) => next.clone(),
                other => panic!("{field} of {at} is {other:?}"),
            };
        }
        assert_eq!(&*at, "io.k8s.api.core.v1.EnvVar");
        assert_eq!(
            types.shape("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "labels"),
            &Shape::Map(None)
        );
        assert_eq!(types.shape("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "name"), &Shape::Leaf);
    }
}
