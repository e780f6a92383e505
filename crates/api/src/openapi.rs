//! OpenAPI documents, built from the schemas of the types: what `kubectl explain`, `kubectl apply` and
//! `--validate` read.
//!
//! Building a document takes milliseconds and its JSON is large: callers keep what they serve as bytes, or
//! build it per request, but not as trees.

mod operation;
mod paths;
mod schema;
mod values;

use crate::kind::{Identity, ServedKind};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which of the two formats is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    /// How a schema is referred to.
    fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// The Kubernetes version whose API this is.
const VERSION: &str = "v1.33.0";

/// `/openapi/v3`: where the document of each group-version is. The hash in each address changes with the
/// document, so that clients may cache it for ever.
pub fn v3_index(kinds: &[Box<dyn ServedKind>]) -> Value {
    let versions: BTreeMap<String, String> =
        kinds.iter().map(|kind| kind.identity()).map(|i| (path_of(&i), i.api_version())).collect();
    let entry = |(path, version): (String, String)| {
        let hash = v3(&version, kinds).map_or(0, |document| fnv1a(document.to_string().as_bytes()));
        let url = format!("/openapi/v3/{path}?hash={hash:016X}");
        (path, json!({"serverRelativeURL": url}))
    };
    let paths: Map<String, Value> = versions.into_iter().map(entry).collect();
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`: the document of `v1`, `apps/v1`. None: not served.
pub fn v3(group_version: &str, kinds: &[Box<dyn ServedKind>]) -> Option<Value> {
    let kinds: Vec<&dyn ServedKind> = kinds
        .iter()
        .map(AsRef::as_ref)
        .filter(|kind| kind.identity().api_version() == group_version)
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let schemas = schema::schemas(&kinds, Dialect::V3);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths::paths(&kinds, Dialect::V3),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": bearer_token()},
        },
    }))
}

/// `/openapi/v2`: the one Swagger 2.0 document.
pub fn v2(kinds: &[Box<dyn ServedKind>]) -> Value {
    let kinds: Vec<&dyn ServedKind> = kinds.iter().map(AsRef::as_ref).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths::paths(&kinds, Dialect::V2),
        "definitions": schema::schemas(&kinds, Dialect::V2),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

fn bearer_token() -> Value {
    json!({
        "type": "apiKey",
        "name": "authorization",
        "in": "header",
        "description": "Bearer Token authentication",
    })
}

/// `api/v1`, `apis/apps/v1`.
fn path_of(identity: &Identity) -> String {
    let prefix = if identity.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", identity.api_version())
}

/// As `x-kubernetes-group-version-kind` has it.
fn group_version_kind(identity: &Identity, kind: &str) -> Value {
    json!({"group": identity.group, "version": identity.version, "kind": kind})
}

/// A hash that is the same in every process (RFC draft-eastlake-fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
