//! The paths of a kind and the verbs on them.

use super::operation::{Body, DELETE, FORCE, LIST, NAME, NAMESPACE, Operation, Parameter, WRITE};
use super::schema::SCALE;
use super::{Dialect, group_version_kind, path_of};
use crate::kind::{Identity, ServedKind};
use serde_json::{Map, Value, json};

type Paths = Map<String, Value>;

pub(super) fn paths(kinds: &[&dyn ServedKind], dialect: Dialect) -> Paths {
    let mut paths = Paths::new();
    for kind in kinds {
        let schema = kind.schema()["title"].as_str().unwrap_or_default().to_owned();
        let writer = Writer::new(kind.identity(), schema, dialect);
        writer.collection(&mut paths);
        writer.object(&mut paths);
        let subresources = kind.subresources();
        if subresources.status {
            writer.subresource("status", &mut paths);
        }
        if subresources.scale {
            writer.subresource("scale", &mut paths);
        }
    }
    paths
}

/// Writes the paths of one kind.
struct Writer {
    identity: Identity,
    /// The schema names of the object and of its list.
    object: String,
    list: String,
    /// `/apis/apps/v1`.
    root: String,
    /// `apps_v1`.
    tag: String,
    dialect: Dialect,
}

impl Writer {
    fn new(identity: Identity, object: String, dialect: Dialect) -> Self {
        let group = if identity.group.is_empty() { "core" } else { identity.group };
        let group = group.split('.').next().unwrap_or_default();
        Self {
            root: format!("/{}", path_of(&identity)),
            tag: format!("{group}_{}", identity.version),
            list: format!("{object}List"),
            object,
            identity,
            dialect,
        }
    }

    fn collection_path(&self) -> String {
        let plural = self.identity.plural;
        match self.identity.namespaced {
            true => format!("{}/namespaces/{{namespace}}/{plural}", self.root),
            false => format!("{}/{plural}", self.root),
        }
    }

    /// The parameters in the path of an object or, without its name, of a collection.
    fn path_parameters(&self, named: bool) -> Value {
        let namespace = self.identity.namespaced.then_some(NAMESPACE);
        let name = named.then_some(NAME);
        name.into_iter().chain(namespace).map(|parameter| parameter.write("path", self.dialect)).collect()
    }

    /// `createAppsV1NamespacedDeployment`.
    fn id(&self, verb: &str, suffix: &str) -> String {
        let tag: String = self.tag.split('_').map(capitalised).collect();
        let scope = if self.identity.namespaced { "Namespaced" } else { "" };
        format!("{verb}{tag}{scope}{}{suffix}", self.identity.kind)
    }

    fn operation<'a>(&'a self, action: &'a str, id: String, description: String) -> Operation<'a> {
        Operation {
            id,
            description,
            tag: &self.tag,
            action,
            group_version_kind: group_version_kind(&self.identity, self.identity.kind),
            query: Vec::new(),
            body: Body::None,
            answer: Some(&self.object),
            codes: &["200"],
        }
    }

    fn collection(&self, paths: &mut Paths) {
        let kind = self.identity.kind;
        let list = |id: String| Operation {
            query: LIST.to_vec(),
            answer: Some(&self.list),
            ..self.operation("list", id, format!("list or watch objects of kind {kind}"))
        };
        let post = Operation {
            query: WRITE.to_vec(),
            body: Body::Object(&self.object),
            codes: &["200", "201", "202"],
            ..self.operation("post", self.id("create", ""), format!("create a {kind}"))
        };
        let delete = Operation {
            query: both(&LIST, &DELETE),
            body: Body::DeleteOptions,
            answer: None,
            ..self.operation(
                "deletecollection",
                self.id("delete", "Collection"),
                format!("delete collection of {kind}"),
            )
        };
        let item = json!({
            "get": list(self.id("list", "")).write(self.dialect),
            "post": post.write(self.dialect),
            "delete": delete.write(self.dialect),
            "parameters": self.path_parameters(false),
        });
        paths.insert(self.collection_path(), item);
        if self.identity.namespaced {
            let everywhere =
                list(self.id("list", "ForAllNamespaces").replace("Namespaced", "")).write(self.dialect);
            let path = format!("{}/{}", self.root, self.identity.plural);
            paths.insert(path, json!({"get": everywhere}));
        }
    }

    fn object(&self, paths: &mut Paths) {
        let delete = Operation {
            query: DELETE.to_vec(),
            body: Body::DeleteOptions,
            answer: None,
            codes: &["200", "202"],
            ..self.operation("delete", self.id("delete", ""), format!("delete a {}", self.identity.kind))
        };
        let mut item = self.read_and_write("", &self.object, None);
        item.insert("delete".to_owned(), delete.write(self.dialect));
        item.insert("parameters".to_owned(), self.path_parameters(true));
        paths.insert(format!("{}/{{name}}", self.collection_path()), Value::Object(item));
    }

    fn subresource(&self, name: &str, paths: &mut Paths) {
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        let mut item = match name {
            "scale" => self.read_and_write("scale", SCALE, Some(scale)),
            other => self.read_and_write(other, &self.object, None),
        };
        item.insert("parameters".to_owned(), self.path_parameters(true));
        paths.insert(format!("{}/{{name}}/{name}", self.collection_path()), Value::Object(item));
    }

    /// GET, PUT and PATCH of an object or of one of its subresources.
    fn read_and_write(&self, part: &str, schema: &str, gvk: Option<Value>) -> Map<String, Value> {
        let kind = self.identity.kind;
        let of = if part.is_empty() { String::new() } else { format!("{part} of ") };
        let make = |action: &'static str, verb: &str, query: Vec<Parameter>, body| {
            let description = format!("{verb} {of}the specified {kind}");
            let mut operation = self.operation(action, self.id(verb, &capitalised(part)), description);
            operation.group_version_kind = gvk.clone().unwrap_or(operation.group_version_kind);
            let codes: &[&str] = if action == "get" { &["200"] } else { &["200", "201"] };
            Operation { query, body, answer: Some(schema), codes, ..operation }.write(self.dialect)
        };
        Map::from_iter([
            ("get".to_owned(), make("get", "read", Vec::new(), Body::None)),
            ("put".to_owned(), make("put", "replace", WRITE.to_vec(), Body::Object(schema))),
            ("patch".to_owned(), make("patch", "patch", both(&WRITE, &[FORCE]), Body::Patch)),
        ])
    }
}

/// Both lists of parameters, each name once.
fn both(first: &[Parameter], second: &[Parameter]) -> Vec<Parameter> {
    let new = |parameter: &&Parameter| first.iter().all(|other| other.name != parameter.name);
    first.iter().chain(second.iter().filter(new)).copied().collect()
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
