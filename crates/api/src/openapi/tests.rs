use super::*;
use crate::kinds::registry;
use rstest::rstest;

fn documents() -> Vec<Value> {
    let kinds = registry();
    let versions = ["v1", "apps/v1", "discovery.k8s.io/v1", "coordination.k8s.io/v1"];
    let mut documents: Vec<Value> = versions.iter().filter_map(|version| v3(version, &kinds)).collect();
    assert_eq!(documents.len(), versions.len());
    documents.push(v2(&kinds));
    documents
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
            Value::String(target) if key == "$ref" => found.push(target.clone()),
            other => references(other, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_schema_in_the_same_document() {
    for document in documents() {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }
}

#[test]
fn no_trace_of_json_schema_2020_is_left() {
    for document in documents() {
        let text = document.to_string();
        assert!(!text.contains("$defs") && !text.contains("$schema"));
    }
}

#[test]
fn kubectl_finds_field_validation_on_the_patch_of_each_kind() {
    let kinds = registry();
    for kind in &kinds {
        let identity = kind.identity();
        let document = v3(&identity.api_version(), &kinds).unwrap();
        let wanted = group_version_kind(&identity, identity.kind);
        let patches = document["paths"].as_object().unwrap().values().map(|item| &item["patch"]);
        let mut of_kind = patches.filter(|patch| patch["x-kubernetes-group-version-kind"] == wanted);
        let parameters = of_kind.next().unwrap()["parameters"].as_array().unwrap();
        let named = |name: &str| parameters.iter().any(|p| p["name"] == name && p["in"] == "query");
        for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
            assert!(named(name), "{name} of {}", identity.kind);
        }
    }
}

#[rstest]
#[case("io.k8s.api.core.v1.PodSpec", "containers", "merge", Some("name"))]
#[case("io.k8s.api.core.v1.PodSpec", "volumes", "merge,retainKeys", Some("name"))]
#[case("io.k8s.api.apps.v1.DeploymentSpec", "strategy", "retainKeys", None)]
#[case("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", "merge", None)]
fn apply_finds_how_to_patch(
    #[case] type_: &str,
    #[case] field: &str,
    #[case] strategy: &str,
    #[case] key: Option<&str>,
) {
    let document = v3("apps/v1", &registry()).unwrap();
    let property = &document["components"]["schemas"][type_]["properties"][field];
    assert_eq!(property["x-kubernetes-patch-strategy"], strategy);
    assert_eq!(property.get("x-kubernetes-patch-merge-key").and_then(Value::as_str), key);
}

#[test]
fn explain_finds_the_strategy_of_a_deployment() {
    let document = v3("apps/v1", &registry()).unwrap();
    let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    assert_eq!(document["paths"][path]["get"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let schemas = &document["components"]["schemas"];
    let root = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(root["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy");
    assert!(strategy["description"].as_str().unwrap().contains("strategy"));
    let number = &schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(number["format"], "int-or-string");
}

#[test]
fn the_index_has_a_stable_hash_for_each_group_version() {
    let (first, second) = (v3_index(&registry()), v3_index(&registry()));
    assert_eq!(first, second);
    let url = first["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(first["paths"]["api/v1"].is_object());
}

#[test]
fn an_unknown_group_version_has_no_document() {
    assert!(v3("batch/v1", &registry()).is_none());
}

#[test]
fn operations_have_distinct_names() {
    for document in documents() {
        let items = document["paths"].as_object().unwrap().values().filter_map(Value::as_object);
        let ids: Vec<&Value> =
            items.flat_map(|item| item.values().filter_map(|o| o.get("operationId"))).collect();
        let distinct: std::collections::HashSet<&Value> = ids.iter().copied().collect();
        assert_eq!(ids.len(), distinct.len());
    }
}
