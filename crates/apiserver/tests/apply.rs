//! Server-side apply.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Server, deployment, has_kubectl};

const PATH: &str = "/apis/apps/v1/namespaces/default/deployments/d";

async fn apply(server: &Server, manager: &str, query: &str, body: &Value) -> (u16, Value) {
    let path = format!("{PATH}?fieldManager={manager}{query}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let (code, _, text) = server.request("PATCH", &path, &headers, body.to_string()).await;
    (code, serde_json::from_str(&text).unwrap())
}

fn spec(replicas: Option<i32>, image: &str) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    });
    if let Some(replicas) = replicas {
        spec["replicas"] = json!(replicas);
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"x": "y"}}, "spec": spec})
}

fn managers(object: &Value) -> Vec<(&str, &str)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().map(|e| (e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn what_is_applied_is_owned_and_others_changing_it_conflict() {
    let server = Server::start().await;
    let (code, made) = apply(&server, "one", "", &spec(Some(2), "i:1")).await;
    assert_eq!((code, managers(&made)), (201, vec![("one", "Apply")]), "{made}");
    let (code, again) = apply(&server, "one", "", &spec(Some(2), "i:1")).await;
    assert_eq!(code, 200);
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "nothing to write");

    let (code, status) = apply(&server, "two", "", &spec(Some(3), "i:1")).await;
    assert_eq!(code, 409);
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let cause = &status["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&json!("FieldManagerConflict"), &json!(".spec.replicas"))
    );
    let (code, forced) = apply(&server, "two", "&force=true", &spec(Some(3), "i:1")).await;
    assert_eq!((code, &forced["spec"]["replicas"]), (200, &json!(3)));

    // The first one no longer states the image: the second still does, so it stays.
    let mut less = spec(None, "i:1");
    less["metadata"]["labels"] = json!({});
    let (code, kept) = apply(&server, "one", "", &less).await;
    assert_eq!(
        (code, &kept["spec"]["replicas"], &kept["metadata"]["labels"]["x"]),
        (200, &json!(3), &json!("y"))
    );
    // The second no longer states the label either: nobody does, so it goes.
    let mut less = spec(Some(3), "i:1");
    less["metadata"]["labels"] = json!({});
    let (_, gone) = apply(&server, "two", "", &less).await;
    assert_eq!(gone["metadata"]["labels"], Value::Null, "{gone}");
}

#[tokio::test]
async fn an_ordinary_update_takes_ownership_and_what_was_before_belongs_to_nobody_known() {
    let server = Server::start().await;
    let collection = "/apis/apps/v1/namespaces/default/deployments";
    let (code, made) = server.json("POST", collection, &spec(Some(1), "i:1")).await;
    assert_eq!((code, &made["metadata"]["managedFields"]), (201, &Value::Null));
    let (code, status) = apply(&server, "one", "", &spec(Some(2), "i:1")).await;
    assert_eq!(code, 409);
    assert!(
        status["message"].as_str().unwrap().contains("conflict with \"before-first-apply\" using apps/v1"),
        "{status}"
    );
    let (code, _) = apply(&server, "one", "&force=true", &spec(Some(2), "i:1")).await;
    assert_eq!(code, 200);
    let (_, scaled) = server
        .json("PATCH", &format!("{PATH}/scale?fieldManager=hpa"), &json!({"spec": {"replicas": 9}}))
        .await;
    assert_eq!(scaled["spec"]["replicas"], 9);
    let (code, status) = apply(&server, "one", "", &spec(Some(2), "i:1")).await;
    assert_eq!(code, 409);
    assert!(status["message"].as_str().unwrap().contains("\"hpa\" with subresource \"scale\""), "{status}");
    let (code, left) = apply(&server, "one", "", &spec(None, "i:1")).await;
    assert_eq!((code, &left["spec"]["replicas"]), (200, &json!(9)), "left to the one who scales: {left}");
}

#[tokio::test]
async fn an_application_must_name_its_manager_and_be_sound() {
    let server = Server::start().await;
    let headers = [("content-type", "application/apply-patch+yaml")];
    let (code, _, text) = server.request("PATCH", PATH, &headers, spec(None, "i").to_string()).await;
    assert_eq!(
        (code, text.contains("fieldManager: Required value: is required for apply patch")),
        (422, true)
    );
    let mut wrong = spec(None, "i");
    wrong["spec"]["replicass"] = json!(1);
    let (code, status) = apply(&server, "one", "&fieldValidation=Strict", &wrong).await;
    assert_eq!(
        (code, status["message"].as_str().unwrap().contains("unknown field \"spec.replicass\"")),
        (400, true)
    );
    let mut wrong = spec(None, "i");
    wrong["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(&server, "one", "", &wrong).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_on_the_server_side() {
    if !has_kubectl() {
        return;
    }
    let server = Server::start().await;
    let args = ["apply", "--server-side", "-f", "-"];
    assert_eq!(server.ok(&args, &deployment("kubia")).await, "deployment.apps/kubia serverside-applied\n");
    let changed = deployment("kubia").replace("kubia:v1", "kubia:v2");
    assert_eq!(server.ok(&args, &changed).await, "deployment.apps/kubia serverside-applied\n");
    server.ok(&["scale", "deployment", "kubia", "--replicas=7"], "").await;
    let conflict = server.fails(&args, &changed).await;
    assert!(
        conflict
            .contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\""),
        "{conflict}"
    );
    assert!(conflict.contains("--force-conflicts"), "{conflict}");
    server.ok(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &changed).await;
    assert_eq!(server.ok(&["get", "deploy", "kubia", "-o", "jsonpath={.spec.replicas}"], "").await, "3");
    let shown = server.ok(&["get", "deploy", "kubia", "-o", "yaml", "--show-managed-fields"], "").await;
    assert!(shown.contains("f:template"), "{shown}");
}
