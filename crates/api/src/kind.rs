//! What a kind is to the API server.
//!
//! A kind implements the typed [`Kind`] trait in one file of [`crate::kinds`] and is listed by one line of
//! [`crate::kinds::registry`]. The API server sees it erased, as `&dyn ServedKind`, so that it has no code
//! for any particular kind.

use crate::field::Errors;
use crate::name::NameRule;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::any::Any;

/// The names under which a kind is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version within the group.
    pub version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// `deployments`.
    pub plural: &'static str,
    /// `deployment`.
    pub singular: &'static str,
    /// `["deploy"]`.
    pub short_names: &'static [&'static str],
    /// `["all"]` for kinds that `kubectl get all` shows.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
}

impl Identity {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`, as error messages name a resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() { self.plural.into() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Pod` or `Deployment.apps`, as error messages name a kind.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.into() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// Which subresources a kind has beyond the object itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subresources {
    /// `/status`: status changes only there, everything else only on the object.
    pub status: bool,
    /// `/scale` (autoscaling/v1 Scale).
    pub scale: bool,
}

/// Which half of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status (for kinds that have the status subresource).
    Main,
    /// Only the status (and metadata upstream lets the status subresource change).
    Status,
}

/// A printer column, as in `meta.k8s.io/v1 TableColumnDefinition`.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`…
    pub type_: &'static str,
    /// OpenAPI format; `name` for the name column.
    pub format: &'static str,
    /// What the column shows.
    pub description: &'static str,
    /// 0 is shown always, 1 only with `-o wide`.
    pub priority: i32,
}

/// The counts and selector behind `/scale`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub current: i32,
    /// The label selector, as a string.
    pub selector: String,
}

/// An object of any kind, behind a box.
pub trait Object: Any + Send + Sync {
    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// The JSON that is stored and sent, with `apiVersion` and `kind`.
    fn encode(&self) -> Vec<u8>;
    /// The same as a JSON tree.
    fn to_value(&self) -> Value;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn Object>;
    /// For downcasts to the typed object.
    fn as_any(&self) -> &dyn Any;
    /// For downcasts to the typed object.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Everything k8s-openapi's types offer that a kind needs.
pub trait TypedObject:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + schemars::JsonSchema
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> TypedObject for T where
    T: k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Send
        + Sync
        + 'static
{
}

impl<T: TypedObject> Object for T {
    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }
    fn encode(&self) -> Vec<u8> {
        // Serialising to memory a type without maps of non-string keys cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
    fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// All that is particular to one kind, typed. Every method is pure.
///
/// The order in a write: decode, `default`, (patch is applied on the JSON before decode), `prepare_*`,
/// `validate_*`, encode, store.
pub trait Kind: Send + Sync + 'static {
    /// The k8s-openapi type.
    type Object: TypedObject;

    /// Names.
    fn identity(&self) -> Identity;

    /// Subresources beyond the object itself.
    fn subresources(&self) -> Subresources {
        Subresources::default()
    }

    /// What `metadata.name` must look like.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Fills in upstream's defaults. Idempotent.
    fn default(&self, _object: &mut Self::Object) {}

    /// Resets what a client may not set on create (status, for kinds with that subresource). Generation,
    /// uid and creation time are the API server's.
    fn prepare_create(&self, _object: &mut Self::Object) {}

    /// Carries over from `old` what this write may not change (the status for [`Part::Main`], all but the
    /// status for [`Part::Status`]), immutable values a client may leave out included (`clusterIP`).
    fn prepare_update(&self, _new: &mut Self::Object, _old: &Self::Object, _part: Part) {}

    /// Whether `metadata.generation` is to grow: whether the spec (what the controllers act on) differs.
    fn spec_changed(&self, _new: &Self::Object, _old: &Self::Object) -> bool {
        false
    }

    /// Everything wrong with a new object beyond its metadata, which the API server validates itself.
    fn validate_create(&self, _object: &Self::Object) -> Errors {
        Errors::new()
    }

    /// Everything wrong with a change, immutable fields included.
    fn validate_update(&self, _new: &Self::Object, _old: &Self::Object, _part: Part) -> Errors {
        Errors::new()
    }

    /// Warnings for the client (`Warning: 299` headers) about an object that is valid yet dubious.
    fn warnings(&self, _object: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    /// The printer columns. The first is the name.
    fn columns(&self) -> &'static [Column];

    /// The cells under [`Kind::columns`]; `now` is for ages.
    fn cells(&self, object: &Self::Object, now: Timestamp) -> Vec<Value>;

    /// The values field selectors can ask for beyond `metadata.name` and `metadata.namespace`, each with
    /// its path, e.g. `("status.phase", "Running")`. Every supported path is listed, with an empty value
    /// when unset.
    fn selectable_fields(&self, _object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What `/scale` shows.
    fn scale(&self, _object: &Self::Object) -> Option<Scale> {
        None
    }

    /// What a write to `/scale` changes.
    fn set_replicas(&self, _object: &mut Self::Object, _replicas: i32) {}

    /// The grace period, in seconds, of a delete: `requested` from the options, if any. None: the object
    /// is removed at once (every kind but Pod).
    fn deletion_grace_period(&self, _object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
}

/// A field that strict validation complains about: unknown or given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldIssue {
    /// `unknown field "spec.replicass"`.
    Unknown(String),
    /// `duplicate field "spec.replicas"`.
    Duplicate(String),
}

impl std::fmt::Display for FieldIssue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field \"{path}\""),
            Self::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// Why a body could not be read as an object of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// In upstream's form where there is one, e.g.
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    pub message: String,
}

/// A kind as the API server sees it. Objects passed in must come from this kind's [`ServedKind::decode`];
/// one of another kind is a bug of the caller and panics.
pub trait ServedKind: Send + Sync {
    /// Names.
    fn identity(&self) -> Identity;
    /// Subresources beyond the object itself.
    fn subresources(&self) -> Subresources;
    /// [`Kind::name_rule`].
    fn name_rule(&self) -> NameRule;
    /// Reads an object; the issues are for `fieldValidation=Strict|Warn` and do not stop it.
    fn decode(&self, json: &[u8]) -> Result<(Box<dyn Object>, Vec<FieldIssue>), DecodeError>;
    /// The same of a JSON tree: cheaper than to write it out and read that. A tree has no field twice.
    fn decode_tree(&self, json: &Value) -> Result<(Box<dyn Object>, Vec<FieldIssue>), DecodeError>;
    /// Reads an object that this server wrote, without looking for issues: cheaper than [`Self::decode`].
    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, DecodeError>;
    /// The JSON schema (schemars, draft 2020-12, with `$defs`) of the type, for OpenAPI.
    fn schema(&self) -> Value;
    /// [`Kind::default`].
    fn default(&self, object: &mut dyn Object);
    /// [`Kind::prepare_create`].
    fn prepare_create(&self, object: &mut dyn Object);
    /// [`Kind::prepare_update`].
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object, part: Part);
    /// [`Kind::spec_changed`].
    fn spec_changed(&self, new: &dyn Object, old: &dyn Object) -> bool;
    /// [`Kind::validate_create`].
    fn validate_create(&self, object: &dyn Object) -> Errors;
    /// [`Kind::validate_update`].
    fn validate_update(&self, new: &dyn Object, old: &dyn Object, part: Part) -> Errors;
    /// [`Kind::warnings`].
    fn warnings(&self, object: &dyn Object) -> Vec<String>;
    /// [`Kind::columns`].
    fn columns(&self) -> &'static [Column];
    /// [`Kind::cells`].
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    /// [`Kind::selectable_fields`].
    fn selectable_fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    /// [`Kind::scale`].
    fn scale(&self, object: &dyn Object) -> Option<Scale>;
    /// [`Kind::set_replicas`].
    fn set_replicas(&self, object: &mut dyn Object, replicas: i32);
    /// [`Kind::deletion_grace_period`].
    fn deletion_grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
}
