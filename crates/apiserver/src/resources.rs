//! The kinds that are served, found by the names in a URL.

use crate::wire::Stored;
use sagong_api::error::ApiError;
use sagong_api::kind::{Identity, Object, ServedKind};
use std::collections::HashMap;
use std::sync::Arc;

/// All kinds, shared.
pub(crate) type Kinds = Arc<[Box<dyn ServedKind>]>;

/// A kind with what is derived from its identity once.
pub(crate) struct Resource {
    kinds: Kinds,
    index: usize,
    pub(crate) id: Identity,
    /// `v1` or `apps/v1`.
    pub(crate) api_version: String,
    /// `pods` or `deployments.apps`.
    pub(crate) qualified: String,
    /// `Pod` or `Deployment.apps`.
    pub(crate) qualified_kind: String,
}

impl Resource {
    fn new(kinds: Kinds, index: usize) -> Self {
        let id = kinds[index].identity();
        Self {
            api_version: id.api_version(),
            qualified: id.qualified_resource(),
            qualified_kind: id.qualified_kind(),
            id,
            kinds,
            index,
        }
    }

    /// All that is particular to the kind.
    pub(crate) fn kind(&self) -> &dyn ServedKind {
        self.kinds[self.index].as_ref()
    }

    /// The store key of an object: `/deployments.apps/default/kubia`, `/nodes/n1`.
    pub(crate) fn key(&self, namespace: Option<&str>, name: &str) -> String {
        match namespace {
            Some(namespace) if self.id.namespaced => format!("/{}/{namespace}/{name}", self.qualified),
            _ => format!("/{}/{name}", self.qualified),
        }
    }

    /// The prefix of the store keys of a collection.
    pub(crate) fn prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.id.namespaced => format!("/{}/{namespace}/", self.qualified),
            _ => format!("/{}/", self.qualified),
        }
    }

    /// Reads an object the API server itself has written.
    pub(crate) fn decode_stored(&self, stored: &Stored) -> Result<Box<dyn Object>, ApiError> {
        let read = self.kind().decode_stored(&stored.bytes);
        read.map_err(|error| ApiError::Internal(format!("stored {} is unreadable: {error}", self.id.kind)))
    }

    /// 404 for an object of this kind.
    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::NotFound { resource: self.qualified.clone(), name: name.to_owned() }
    }

    /// 409 for an object of this kind.
    pub(crate) fn conflict(&self, name: &str, detail: impl Into<String>) -> ApiError {
        ApiError::Conflict { resource: self.qualified.clone(), name: name.to_owned(), detail: detail.into() }
    }

    /// 403 for an object of this kind.
    pub(crate) fn forbidden(&self, name: &str, detail: impl Into<String>) -> ApiError {
        ApiError::Forbidden { resource: self.qualified.clone(), name: name.to_owned(), detail: detail.into() }
    }
}

/// Every resource, in the order of the registry.
pub(crate) struct Resources {
    pub(crate) kinds: Kinds,
    all: Vec<Arc<Resource>>,
    by_path: HashMap<(&'static str, &'static str, &'static str), usize>,
}

impl Resources {
    pub(crate) fn new(kinds: Vec<Box<dyn ServedKind>>) -> Self {
        let kinds: Kinds = kinds.into();
        let all: Vec<Arc<Resource>> =
            (0..kinds.len()).map(|index| Arc::new(Resource::new(kinds.clone(), index))).collect();
        let path = |r: &Resource| (r.id.group, r.id.version, r.id.plural);
        let by_path = all.iter().enumerate().map(|(index, r)| (path(r), index)).collect();
        Self { kinds, all, by_path }
    }

    /// The resource behind `/apis/GROUP/VERSION/PLURAL`.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&(group, version, plural)).map(|index| &self.all[*index])
    }

    /// The core resource of this name; every registry has the ones the API server itself needs.
    pub(crate) fn core(&self, plural: &str) -> Result<&Arc<Resource>, ApiError> {
        self.find("", "v1", plural).ok_or_else(|| ApiError::Internal(format!("{plural} are not served")))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.all.iter()
    }
}
