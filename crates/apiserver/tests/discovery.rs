//! Discovery and OpenAPI documents.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::Server;

async fn get(server: &Server, path: &str, accept: &str) -> (u16, http::HeaderMap, Value) {
    let (code, headers, text) = server.request("GET", path, &[("accept", accept)], "").await;
    (code, headers, serde_json::from_str(&text).unwrap_or(Value::Null))
}

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn plain_and_aggregated_discovery_tell_the_same() {
    let server = Server::start().await;
    let (_, headers, all) = get(&server, "/apis", AGGREGATED).await;
    assert_eq!(
        headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let (_, _, plain) = get(&server, "/apis", "application/json").await;
    let names = |list: &Value, of: &dyn Fn(&Value) -> Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(of).collect()
    };
    assert_eq!(
        names(&all["items"], &|item| item["metadata"]["name"].clone()),
        names(&plain["groups"], &|group| group["name"].clone())
    );
    let (_, _, core) = get(&server, "/api", AGGREGATED).await;
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|r| r["resource"] == "pods").unwrap();
    assert_eq!((&pods["scope"], &pods["shortNames"]), (&json!("Namespaced"), &json!(["po"])));
    let subs: Vec<&str> =
        pods["subresources"].as_array().unwrap().iter().map(|s| s["subresource"].as_str().unwrap()).collect();
    let expected = [
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "status",
    ];
    assert_eq!(subs, expected);

    let (_, _, listed) = get(&server, "/apis/apps/v1", "*/*").await;
    let rows = listed["resources"].as_array().unwrap();
    let scale = rows.iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!((&scale["kind"], &scale["group"]), (&json!("Scale"), &json!("autoscaling")));
    assert_eq!(get(&server, "/apis/nope", "*/*").await.0, 404);
    assert_eq!(get(&server, "/apis/apps/v9", "*/*").await.0, 404);
    assert_eq!(get(&server, "/api/v1", "*/*").await.0, 200);
}

#[tokio::test]
async fn documents_are_not_sent_again_to_those_who_have_them() {
    let server = Server::start().await;
    for path in ["/api", "/openapi/v3/apis/apps/v1", "/openapi/v2"] {
        let (code, headers, _) = get(&server, path, AGGREGATED).await;
        assert_eq!(code, 200, "{path}");
        let tag = headers["etag"].to_str().unwrap();
        let again = [("accept", AGGREGATED), ("if-none-match", tag)];
        let (code, _, body) = server.request("GET", path, &again, "").await;
        assert_eq!((code, body.as_str()), (304, ""), "{path}");
    }
}

#[tokio::test]
async fn openapi_tells_where_its_parts_are_and_lets_them_be_cached() {
    let server = Server::start().await;
    let (_, _, index) = get(&server, "/openapi/v3", "*/*").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    let (code, headers, document) = get(&server, url, "*/*").await;
    assert_eq!(code, 200);
    assert!(headers["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let (code, headers, _) = get(&server, "/openapi/v3/apis/apps/v1?hash=OLD", "*/*").await;
    assert_eq!(code, 301, "{headers:?}");
}
