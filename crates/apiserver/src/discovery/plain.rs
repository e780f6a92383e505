//! Discovery as `APIVersions`, `APIGroupList`, `APIGroup` and `APIResourceList`.

use super::{Group, Listed, hash};
use serde_json::{Value, json};

/// `/`: every path there is.
pub(super) fn root(groups: &[Group]) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into(), "/apis/".into()];
    for group in groups.iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.push(format!("/apis/{}", group.group_version()));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    json!({ "paths": paths })
}

/// `/api`.
pub(super) fn api_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_value(group: &Group) -> Value {
    let version = json!({"groupVersion": group.group_version(), "version": group.version});
    json!({"name": group.name, "versions": [version], "preferredVersion": version})
}

/// `/apis`.
pub(super) fn group_list(groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups.iter().filter(|group| !group.name.is_empty()).map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(super) fn api_group(group: &Group) -> Value {
    let mut value = group_value(group);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    value
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(super) fn resource_list(group: &Group) -> Value {
    let resources: Vec<Value> = group.resources.iter().flat_map(|listed| rows(group, listed)).collect();
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group.group_version(), "resources": resources
    })
}

fn rows(group: &Group, listed: &Listed) -> Vec<Value> {
    let mut row = json!({
        "name": listed.plural,
        "singularName": listed.singular,
        "namespaced": listed.namespaced,
        "kind": listed.kind,
        "verbs": listed.verbs,
    });
    if !listed.short_names.is_empty() {
        row["shortNames"] = json!(listed.short_names);
    }
    if !listed.categories.is_empty() {
        row["categories"] = json!(listed.categories);
    }
    if listed.verbs.contains(&"get") {
        let stored = format!("{}/{}", group.group_version(), listed.kind);
        row["storageVersionHash"] = json!(hash(stored.as_bytes())[..12]);
    }
    let subs = listed.subresources.iter().map(|sub| {
        let mut row = json!({
            "name": format!("{}/{}", listed.plural, sub.name),
            "singularName": "",
            "namespaced": listed.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if let Some((group, version)) = sub.foreign {
            row["group"] = json!(group);
            row["version"] = json!(version);
        }
        row
    });
    std::iter::once(row).chain(subs).collect()
}
