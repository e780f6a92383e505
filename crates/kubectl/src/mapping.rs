//! From what people type (`po`, `deploy/kubia`, `deployments.v1.apps`, `all`) to what the API serves.
//!
//! Kinds that every cluster serves are built in, so that the common commands need no discovery; anything else is
//! looked up.

use crate::client::Client;
use crate::failure::{Failure, Outcome, fail, quote};
use futures::future::join_all;
use serde_json::Value;

/// A resource as the API serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: Vec<String>,
    pub(crate) namespaced: bool,
}

impl Mapping {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `/api/v1` or `/apis/apps/v1`.
    pub(crate) fn root(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The path of a collection; all namespaces if `namespace` is empty.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/namespaces/{}/{}", self.root(), segment(namespace), self.plural)
        } else {
            format!("{}/{}", self.root(), self.plural)
        }
    }

    /// The path of an object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), segment(name))
    }

    /// `pod` or `deployment.apps`, as results name objects.
    pub(crate) fn named(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    /// `pods` or `deployments.apps`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

fn segment(text: &str) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const SET: &AsciiSet =
        &CONTROLS.add(b' ').add(b'/').add(b'?').add(b'#').add(b'%').add(b'"').add(b'<').add(b'>');
    utf8_percent_encode(text, SET).to_string()
}

/// Group, version, kind, plural, short names (by comma), namespaced.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, bool);

/// What every cluster serves.
const BUILT_IN: [Row; 14] = [
    ("", "v1", "Pod", "pods", "po", true),
    ("", "v1", "Service", "services", "svc", true),
    ("", "v1", "ReplicationController", "replicationcontrollers", "rc", true),
    ("", "v1", "Endpoints", "endpoints", "ep", true),
    ("", "v1", "Event", "events", "ev", true),
    ("", "v1", "Namespace", "namespaces", "ns", false),
    ("", "v1", "Node", "nodes", "no", false),
    ("", "v1", "ConfigMap", "configmaps", "cm", true),
    ("", "v1", "Secret", "secrets", "", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", true),
    ("apps", "v1", "Deployment", "deployments", "deploy", true),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", true),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", true),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", true),
];

fn built_in() -> Vec<Mapping> {
    let row = |(group, version, kind, plural, short, namespaced): &Row| Mapping {
        group: (*group).into(),
        version: (*version).into(),
        kind: (*kind).into(),
        plural: (*plural).into(),
        singular: kind.to_lowercase(),
        short_names: short.split(',').filter(|s| !s.is_empty()).map(Into::into).collect(),
        namespaced: *namespaced,
        ..Mapping::default()
    };
    BUILT_IN.iter().map(row).collect()
}

/// Everything the server serves, by group version in the server's order; failures are left out.
///
/// # Errors
/// The server cannot be reached.
pub(crate) async fn discover(client: &Client) -> Outcome<Vec<Mapping>> {
    let versions = group_versions(client).await?;
    let preferred = versions.iter().filter(|(_, _, preferred)| *preferred);
    let each = preferred.map(|(group, version, _)| resources_of(client, group, version));
    Ok(join_all(each).await.into_iter().flatten().flatten().collect())
}

/// Group, version, whether preferred; the core group first.
///
/// # Errors
/// The server cannot be reached.
pub(crate) async fn group_versions(client: &Client) -> Outcome<Vec<(String, String, bool)>> {
    let (core, groups) = futures::join!(client.get("/api", &[]), client.get("/apis", &[]));
    let mut all = Vec::new();
    for (index, version) in core?["versions"].as_array().into_iter().flatten().enumerate() {
        all.push((String::new(), version.as_str().unwrap_or_default().to_owned(), index == 0));
    }
    for group in groups?["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        let preferred = group["preferredVersion"]["version"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().into_iter().flatten() {
            let version = version["version"].as_str().unwrap_or_default();
            all.push((name.to_owned(), version.to_owned(), version == preferred));
        }
    }
    Ok(all)
}

async fn resources_of(client: &Client, group: &str, version: &str) -> Outcome<Vec<Mapping>> {
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let list = client.get(&path, &[]).await?;
    let resources = list["resources"].as_array().into_iter().flatten();
    Ok(resources
        .filter(|resource| !resource["name"].as_str().unwrap_or_default().contains('/'))
        .map(|resource| from_discovery(resource, group, version))
        .collect())
}

fn from_discovery(resource: &Value, group: &str, version: &str) -> Mapping {
    let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
    let list = |field: &str| {
        let all = resource[field].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let kind = text("kind");
    let singular = text("singularName");
    Mapping {
        group: group.into(),
        version: version.into(),
        singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
        kind,
        plural: text("name"),
        short_names: list("shortNames"),
        categories: list("categories"),
        verbs: list("verbs"),
        namespaced: resource["namespaced"].as_bool().unwrap_or(false),
    }
}

/// Finds mappings, remembering what it discovered.
#[derive(Default)]
pub(crate) struct Mapper {
    discovered: tokio::sync::OnceCell<Vec<Mapping>>,
}

impl Mapper {
    /// Everything the server serves.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn all(&self, client: &Client) -> Outcome<&[Mapping]> {
        self.discovered.get_or_try_init(|| discover(client)).await.map(Vec::as_slice)
    }

    /// The mapping of `deploy`, `deployments.apps`, `deployments.v1.apps`, `Deployment`.
    ///
    /// # Errors
    /// There is no such resource.
    pub(crate) async fn resource(&self, client: &Client, typed: &str) -> Outcome<Mapping> {
        if let Some(found) = search(&built_in(), typed) {
            return Ok(found);
        }
        let all = self.all(client).await?;
        if let Some(found) = search(all, typed) {
            return Ok(found);
        }
        let resource = typed.split('.').next().unwrap_or_default();
        fail(format!("the server doesn't have a resource type {}", quote(resource)))
    }

    /// The resources of a category such as `all`.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn category(&self, client: &Client, name: &str) -> Outcome<Vec<Mapping>> {
        // Resources that are built in are in no category but this, and their names are no categories.
        if name != "all" && search(&built_in(), name).is_some() {
            return Ok(Vec::new());
        }
        let all = self.all(client).await?;
        Ok(all.iter().filter(|mapping| mapping.categories.iter().any(|c| c == name)).cloned().collect())
    }

    /// The mapping of an object's `apiVersion` and `kind`.
    ///
    /// # Errors
    /// The server does not serve it.
    pub(crate) async fn kind(&self, client: &Client, api_version: &str, kind: &str) -> Outcome<Mapping> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let is = |m: &&Mapping| m.group == group && m.version == version && m.kind == kind;
        if let Some(found) = built_in().iter().find(is) {
            return Ok(found.clone());
        }
        if let Some(found) = self.all(client).await?.iter().find(is) {
            return Ok(found.clone());
        }
        let more = resources_of(client, group, version).await.unwrap_or_default();
        more.iter().find(is).cloned().ok_or_else(|| {
            Failure::Message(format!("no matches for kind {} in version {}", quote(kind), quote(api_version)))
        })
    }
}

fn search(among: &[Mapping], typed: &str) -> Option<Mapping> {
    // Short names are as they are; the others may be written in any case.
    let (typed_resource, _) = typed.split_once('.').unwrap_or((typed, ""));
    let typed = typed.to_lowercase();
    let (resource, rest) = typed.split_once('.').unwrap_or((&typed, ""));
    let named = |m: &&Mapping| {
        m.plural == resource || m.singular == resource || m.short_names.iter().any(|s| s == typed_resource)
    };
    let placed = |m: &&Mapping| {
        rest.is_empty()
            || m.group == rest
            || rest.split_once('.').is_some_and(|(version, group)| {
                (m.version == version || version.is_empty()) && m.group == group
            })
    };
    among.iter().filter(named).find(placed).cloned()
}
