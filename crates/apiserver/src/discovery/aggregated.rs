//! Everything in one document (KEP-3352): `APIGroupDiscoveryList`.

use super::{Group, Listed, tagged};
use crate::body::Body;
use crate::negotiate::Clause;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

/// The version of the document that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V2Beta1,
}

impl Form {
    fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// The form the client likes best; None: the plain documents.
pub(super) fn wanted(clauses: &[Clause<'_>]) -> Option<Form> {
    for clause in clauses {
        if !matches!(clause.media_type, "application/json" | "*/*") {
            continue;
        }
        match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some(Form::V2),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => return Some(Form::V2Beta1),
            ("", ..) => return None,
            _ => {}
        }
    }
    None
}

/// The document for `/api` (only the core group) or `/apis` (all others).
pub(super) fn answer(headers: &HeaderMap, form: Form, groups: &[Group], core: bool) -> Response<Body> {
    let items: Vec<Value> = groups.iter().filter(|group| group.name.is_empty() == core).map(item).collect();
    let api_version = format!("apidiscovery.k8s.io/{}", form.version());
    let value =
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items});
    tagged(headers, form.media_type(), value.to_string().into_bytes())
}

fn item(group: &Group) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !group.name.is_empty() {
        metadata["name"] = json!(group.name);
    }
    let resources: Vec<Value> = group.resources.iter().map(|listed| resource(group, listed)).collect();
    let version = json!({"version": group.version, "resources": resources, "freshness": "Current"});
    json!({"metadata": metadata, "versions": [version]})
}

fn resource(group: &Group, listed: &Listed) -> Value {
    let own = (group.name.as_str(), group.version.as_str());
    let response_kind = |(group, version): (&str, &str), kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = listed
        .subresources
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": response_kind(sub.foreign.unwrap_or(own), &sub.kind),
                "verbs": sub.verbs,
            })
        })
        .collect();
    let mut value = json!({
        "resource": listed.plural,
        "responseKind": response_kind(own, &listed.kind),
        "scope": if listed.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": listed.singular,
        "verbs": listed.verbs,
    });
    if !listed.short_names.is_empty() {
        value["shortNames"] = json!(listed.short_names);
    }
    if !listed.categories.is_empty() {
        value["categories"] = json!(listed.categories);
    }
    if !subresources.is_empty() {
        value["subresources"] = json!(subresources);
    }
    value
}
