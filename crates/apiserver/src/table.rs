//! Objects as rows of a `meta.k8s.io Table`, and as `PartialObjectMetadata`.

use crate::resources::Resource;
use crate::wire::{self, Stored};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sagong_api::error::ApiError;
use sagong_api::kind::{Column, Object};
use serde_json::{Value, json};

/// How much of each object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads `includeObject`.
    pub(crate) fn parse(value: Option<&str>) -> Result<Self, ApiError> {
        match value {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::BadRequest(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// What kinds without columns of their own show.
const DEFAULT_COLUMNS: [Column; 2] = [
    Column { name: "Name", type_: "string", format: "name", description: "Name of the object.", priority: 0 },
    Column {
        name: "Created At",
        type_: "date",
        format: "",
        description: "When the object was created.",
        priority: 0,
    },
];

/// `columnDefinitions`.
pub(crate) fn definitions(resource: &Resource) -> Value {
    let own = resource.kind().columns();
    let columns = if own.is_empty() { &DEFAULT_COLUMNS[..] } else { own };
    columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.type_, "format": c.format, "description": c.description,
                   "priority": c.priority})
        })
        .collect()
}

fn cells(resource: &Resource, object: &dyn Object, now: Timestamp) -> Vec<Value> {
    if resource.kind().columns().is_empty() {
        let meta = object.metadata();
        return vec![json!(meta.name), json!(meta.creation_timestamp)];
    }
    resource.kind().cells(object, now)
}

/// One row.
pub(crate) fn row(
    resource: &Resource,
    stored: &Stored,
    include: Include,
    version: &str,
    now: Timestamp,
) -> Result<Vec<u8>, ApiError> {
    let object = resource.decode_stored(stored)?;
    let mut out = br#"{"cells":"#.to_vec();
    out.extend_from_slice(Value::from(cells(resource, object.as_ref(), now)).to_string().as_bytes());
    out.extend_from_slice(br#","object":"#);
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Metadata => out.extend(partial(object.metadata(), stored, version)),
        Include::Object => wire::splice(&mut out, &stored.bytes, stored.revision),
    }
    out.push(b'}');
    Ok(out)
}

/// A `PartialObjectMetadata`.
pub(crate) fn partial(metadata: &ObjectMeta, stored: &Stored, version: &str) -> Vec<u8> {
    let value = json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
    });
    // Built by hand so that `metadata` comes first enough for the splice: the members are sorted by name
    // (`apiVersion`, `kind`, `metadata`), and none before it contains the word.
    let mut out = Vec::new();
    wire::splice(&mut out, value.to_string().as_bytes(), stored.revision);
    out
}

/// A whole table with these rows.
pub(crate) fn table(version: &str, list_meta: &Value, definitions: &Value, rows: &[Vec<u8>]) -> Vec<u8> {
    let head = format!(
        r#"{{"kind":"Table","apiVersion":"meta.k8s.io/{version}","metadata":{list_meta},"columnDefinitions":{definitions},"rows":["#
    );
    let mut out = head.into_bytes();
    out.extend_from_slice(&rows.join(&b','));
    out.extend_from_slice(b"]}");
    out
}
