//! The verbs, through the in-process client.

#![allow(clippy::unwrap_used)]

mod support;

use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use support::{Server, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn message(value: &Value) -> &str {
    value["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let made: ConfigMap = serde_json::from_value(config_map("a")).unwrap();
    let made = maps.create(&PostParams::default(), &made).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let read = maps.get("a").await.unwrap();
    assert_eq!(read, made);

    let patch = json!({"data": {"c": "d"}});
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched.data.as_ref().map(|d| d.len()), Some(2));
    assert_ne!(patched.metadata.resource_version, made.metadata.resource_version);
    let again = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(again, patched, "a change of nothing writes nothing");

    let stale = maps.replace("a", &PostParams::default(), &made).await.unwrap_err();
    let expected = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply \
                    your changes to the latest version and try again";
    assert!(stale.to_string().contains(expected), "{stale}");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn failures_have_upstreams_codes_reasons_and_words() {
    let server = Server::start().await;
    let (code, _) = server.json("POST", MAPS, &config_map("a")).await;
    assert_eq!(code, 201);
    let cases: Vec<(&str, String, Value, u16, &str, &str)> = vec![
        ("GET", format!("{MAPS}/x"), json!(null), 404, "NotFound", "configmaps \"x\" not found"),
        ("POST", MAPS.into(), config_map("a"), 409, "AlreadyExists", "configmaps \"a\" already exists"),
        (
            "GET",
            "/api/v1/widgets".into(),
            json!(null),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            "GET",
            "/apis/apps/v2/deployments".into(),
            json!(null),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        ("PUT", format!("{MAPS}/new"), config_map("new"), 404, "NotFound", "configmaps \"new\" not found"),
        (
            "POST",
            "/api/v1/namespaces/nowhere/configmaps".into(),
            config_map("a"),
            404,
            "NotFound",
            "namespaces \"nowhere\" not found",
        ),
        (
            "POST",
            MAPS.into(),
            json!({"metadata": {"name": "b", "namespace": "other"}}),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "PUT",
            format!("{MAPS}/a"),
            config_map("b"),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            "POST",
            MAPS.into(),
            json!({"metadata": {"name": "b", "resourceVersion": "3"}}),
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        (
            "POST",
            MAPS.into(),
            json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "b"}}),
            400,
            "BadRequest",
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            "PUT",
            format!("{MAPS}/a"),
            json!({"metadata": {"name": "a", "resourceVersion": "1"}}),
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        ("POST", format!("{MAPS}?dryRun=Some"), config_map("b"), 422, "Invalid", "dryRun"),
        ("GET", format!("{MAPS}?labelSelector=a%20b%20c"), json!(null), 400, "BadRequest", "unable to parse"),
        (
            "GET",
            format!("{MAPS}?fieldSelector=spec.x%3Dy"),
            json!(null),
            400,
            "BadRequest",
            "is not a known field selector",
        ),
        (
            "GET",
            format!("{MAPS}?timeout=soon"),
            json!(null),
            400,
            "BadRequest",
            "invalid timeout specified in the request URL - time: invalid duration \"soon\"",
        ),
        (
            "GET",
            format!("{MAPS}?resourceVersion=999999"),
            json!(null),
            504,
            "Timeout",
            "Too large resource version: 999999",
        ),
        (
            "PUT",
            MAPS.into(),
            config_map("a"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method",
        ),
        (
            "POST",
            "/api/v1/configmaps".into(),
            config_map("a"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default".into(),
            json!(null),
            403,
            "Forbidden",
            "this namespace may not be deleted",
        ),
    ];
    for (method, path, body, code, reason, words) in cases {
        let (got, status) = server.json(method, &path, &body).await;
        assert_eq!((got, status["reason"].as_str()), (code, Some(reason)), "{method} {path}: {status}");
        assert!(message(&status).contains(words), "{method} {path}: {status}");
        assert_eq!(status["kind"], "Status");
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored_as_asked() {
    let server = Server::start().await;
    let body = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicass": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        }
    });
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (code, status) = server.json("POST", &format!("{path}?fieldValidation=Strict"), &body).await;
    assert_eq!(code, 400);
    assert_eq!(
        message(&status),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.replicass\""
    );
    let json = [("content-type", "application/json")];
    let (code, headers, _) =
        server.request("POST", &format!("{path}?dryRun=All"), &json, body.to_string()).await;
    assert_eq!(code, 201);
    assert_eq!(headers["warning"], "299 - \"unknown field \\\"spec.replicass\\\"\"");
    let path = format!("{path}?dryRun=All&fieldValidation=Ignore");
    let (code, headers, _) = server.request("POST", &path, &json, body.to_string()).await;
    assert_eq!((code, headers.contains_key("warning")), (201, false));
}

#[tokio::test]
async fn bodies_may_be_yaml_must_be_readable_and_not_too_large() {
    let server = Server::start().await;
    let yaml = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let (code, _, text) = server.request("POST", MAPS, &yaml, "metadata:\n  name: yam\ndata: {a: b}\n").await;
    assert_eq!(code, 201, "{text}");
    assert!(text.contains("name: yam"), "{text}");
    let (code, _, text) = server.request("POST", MAPS, &yaml, "metadata:\n  name: [y\ndata: {a: b\n").await;
    assert_eq!(code, 400, "{text}");
    assert!(text.contains("line"), "the line is named: {text}");
    let json = [("content-type", "application/json")];
    let (code, _, text) = server.request("POST", MAPS, &json, "{\"metadata\": ").await;
    assert_eq!(code, 400, "{text}");
    let (code, _, text) = server.request("POST", MAPS, &json, vec![b' '; 3 * 1024 * 1024 + 1]).await;
    assert_eq!(code, 413, "{text}");
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.request("POST", MAPS, &protobuf, "k8s").await.0, 400);
    assert_eq!(server.request("POST", MAPS, &[("content-type", "text/csv")], "a,b").await.0, 415);
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.request("GET", MAPS, &accept, "").await.0, 406);
    let patch = [("content-type", "application/json")];
    assert_eq!(server.request("PATCH", &format!("{MAPS}/yam"), &patch, "{}").await.0, 415);
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let server = Server::start().await;
    for index in 0..5 {
        let mut map = config_map(&format!("m{index}"));
        map["metadata"]["labels"] = json!({"parity": if index % 2 == 0 { "even" } else { "odd" }});
        assert_eq!(server.json("POST", MAPS, &map).await.0, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, even) = server.json("GET", &format!("{MAPS}?labelSelector=parity%3Deven"), &json!(null)).await;
    assert_eq!(names(&even), ["m0", "m2", "m4"]);
    let (_, one) =
        server.json("GET", &format!("{MAPS}?fieldSelector=metadata.name%3Dm3"), &json!(null)).await;
    assert_eq!(names(&one), ["m3"]);

    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    for selector in [None, Some("parity=even")] {
        let mut params =
            ListParams { limit: Some(2), label_selector: selector.map(Into::into), ..Default::default() };
        let (mut seen, mut versions) = (Vec::new(), Vec::new());
        loop {
            let page = maps.list(&params).await.unwrap();
            assert!(page.items.len() <= 2);
            seen.extend(page.items.into_iter().map(|m| m.metadata.name.unwrap()));
            versions.push(page.metadata.resource_version.unwrap());
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        let expected: &[&str] =
            if selector.is_some() { &["m0", "m2", "m4"] } else { &["m0", "m1", "m2", "m3", "m4"] };
        assert_eq!(seen, expected);
        versions.dedup();
        assert_eq!(versions.len(), 1, "every page tells the version of the first");
    }
}

#[tokio::test]
async fn a_watch_shows_objects_entering_changing_and_leaving_the_selector() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("on=yes");
    let mut events = maps.watch(&params, &start).await.unwrap().boxed();
    let label = async |value: &str| {
        let patch = json!({"metadata": {"labels": {"on": value}}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    };
    maps.create(&PostParams::default(), &serde_json::from_value(config_map("a")).unwrap()).await.unwrap();
    label("yes").await;
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "y"}}))).await.unwrap();
    let left = label("no").await;
    label("yes").await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = events.try_next().await.unwrap().unwrap();
        seen.push(match event {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            WatchEvent::Deleted(object) => {
                if seen.len() == 2 {
                    assert_eq!(
                        object.metadata.labels.unwrap()["on"],
                        "yes",
                        "the last state that was selected"
                    );
                    assert_eq!(object.metadata.resource_version, left.metadata.resource_version);
                }
                "DELETED"
            }
            _ => "other",
        });
    }
    assert_eq!(seen, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
}

#[tokio::test]
async fn a_streaming_list_ends_its_initial_events_with_a_bookmark() {
    let server = Server::start().await;
    server.json("POST", MAPS, &config_map("a")).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let (code, _, text) = server.request("GET", &format!("{MAPS}?{query}"), &[], "").await;
    assert_eq!(code, 200);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let asked = async |accept: &str| {
        let (code, _, text) =
            server.request("GET", &format!("{MAPS}?{query}"), &[("accept", accept)], "").await;
        (code, text.contains("ConfigMap"))
    };
    assert_eq!(asked(table).await, (406, false));
    assert_eq!(asked(&format!("{table},application/json")).await, (200, true));
}

#[tokio::test]
async fn a_watch_of_a_table_has_one_row_an_event_and_columns_once() {
    let server = Server::start().await;
    server.json("POST", MAPS, &config_map("a")).await;
    server.json("POST", MAPS, &config_map("b")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, _, text) = server.request("GET", &format!("{MAPS}?watch=1&timeoutSeconds=1"), &accept, "").await;
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{text}");
    assert_eq!(events[0]["object"]["kind"], "Table");
    assert_eq!(events[0]["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(events[1]["object"]["columnDefinitions"], json!(null));
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "b");
    assert_eq!(events[1]["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn deleting_a_pod_waits_for_its_grace_period_and_may_be_hurried() {
    let server = Server::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    assert_eq!(server.json("POST", PODS, &pod("p")).await.0, 201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let (code, status) = server.json("POST", &format!("{PODS}/p/binding"), &binding).await;
    assert_eq!(code, 201, "{status}");
    let (code, status) = server.json("POST", &format!("{PODS}/p/binding"), &binding).await;
    assert_eq!((code, message(&status).contains("already assigned to node \"n1\"")), (409, true), "{status}");

    let deleted = pods.delete("p", &DeleteParams::default()).await.unwrap().left().expect("still there");
    assert_eq!(deleted.metadata.deletion_grace_period_seconds, Some(30));
    let hurried = pods.delete("p", &DeleteParams::default().grace_period(5)).await.unwrap().left().unwrap();
    assert_eq!(hurried.metadata.deletion_grace_period_seconds, Some(5));
    let slower = pods.delete("p", &DeleteParams::default().grace_period(60)).await.unwrap().left().unwrap();
    assert_eq!(slower.metadata.deletion_timestamp, hurried.metadata.deletion_timestamp);
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
}

#[tokio::test]
async fn finalizers_and_propagation_policies_hold_an_object_until_they_are_removed() {
    let server = Server::start().await;
    let mut map = config_map("a");
    map["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.json("POST", MAPS, &map).await;
    let (code, held) =
        server.json("DELETE", &format!("{MAPS}/a"), &json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(code, 200);
    assert_eq!(held["metadata"]["finalizers"], json!(["example.com/hold", "foregroundDeletion"]));
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let (code, status) = server
        .json("PATCH", &format!("{MAPS}/a"), &json!({"metadata": {"finalizers": ["example.com/new"]}}))
        .await;
    assert_eq!(code, 422, "no new finalizers: {status}");
    server.json("PATCH", &format!("{MAPS}/a"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(server.json("GET", &format!("{MAPS}/a"), &json!(null)).await.0, 404);
}

#[tokio::test]
async fn preconditions_and_dry_runs_leave_objects_alone() {
    let server = Server::start().await;
    server.json("POST", MAPS, &config_map("a")).await;
    let (code, status) =
        server.json("DELETE", &format!("{MAPS}/a"), &json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(code, 409);
    assert!(message(&status).contains("Precondition failed: UID in precondition: other"), "{status}");
    assert_eq!(server.json("DELETE", &format!("{MAPS}/a?dryRun=All"), &json!(null)).await.0, 200);
    assert_eq!(server.json("GET", &format!("{MAPS}/a"), &json!(null)).await.0, 200);
    assert_eq!(server.json("POST", &format!("{MAPS}?dryRun=All"), &config_map("b")).await.0, 201);
    assert_eq!(server.json("GET", &format!("{MAPS}/b"), &json!(null)).await.0, 404);
}

#[tokio::test]
async fn names_are_generated_and_collections_deleted() {
    let server = Server::start().await;
    for _ in 0..3 {
        let (code, made) = server.json("POST", MAPS, &json!({"metadata": {"generateName": "gen-"}})).await;
        assert_eq!(code, 201, "{made}");
        let name = made["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    }
    let (code, list) = server.json("DELETE", MAPS, &json!(null)).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(3)));
    let (_, list) = server.json("GET", MAPS, &json!(null)).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_namespace_on_its_way_out_takes_nothing_in_and_goes_when_finalized() {
    let server = Server::start().await;
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    let (_, made) = server.json("POST", "/api/v1/namespaces", &space).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "x");
    let (code, going) = server.json("DELETE", "/api/v1/namespaces/x", &json!(null)).await;
    assert_eq!((code, &going["status"]["phase"]), (200, &json!("Terminating")), "{going}");
    let (code, status) = server.json("POST", "/api/v1/namespaces/x/configmaps", &config_map("a")).await;
    assert_eq!(code, 403);
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut done = going.clone();
    done["spec"]["finalizers"] = json!([]);
    assert_eq!(server.json("PUT", "/api/v1/namespaces/x/finalize", &done).await.0, 200);
    assert_eq!(server.json("GET", "/api/v1/namespaces/x", &json!(null)).await.0, 404);
}

#[tokio::test]
async fn services_get_addresses_and_ports_and_give_them_back() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let (code, one) = server
        .json(
            "POST",
            path,
            &service("one", json!({"type": "LoadBalancer", "selector": {"a": "b"}, "ports": ports})),
        )
        .await;
    assert_eq!(code, 201, "{one}");
    let ip = one["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let port = one["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!(ip.starts_with("10.") && (30000..=32767).contains(&port), "{one}");
    assert_eq!(one["spec"]["clusterIPs"], json!([ip]));

    let (code, status) =
        server.json("POST", path, &service("two", json!({"clusterIP": ip, "ports": ports}))).await;
    assert_eq!(code, 422);
    let expected = format!(
        "Service \"two\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
    );
    assert_eq!(message(&status), expected);
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let (_, status) = server.json("POST", path, &service("two", taken)).await;
    assert!(message(&status).contains("provided port is already allocated"), "{status}");

    let (code, changed) =
        server.json("PATCH", &format!("{path}/one"), &json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(code, 200, "{changed}");
    assert_eq!(changed["spec"]["ports"][0]["nodePort"], json!(null));
    assert_eq!(changed["spec"]["clusterIP"], json!(ip));
    server.json("DELETE", &format!("{path}/one"), &json!(null)).await;
    let (code, again) = server
        .json(
            "POST",
            path,
            &service(
                "two",
                json!({"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": port}]}),
            ),
        )
        .await;
    assert_eq!(code, 201, "what was given back can be had again: {again}");
    let (_, headless) =
        server.json("POST", path, &service("three", json!({"clusterIP": "None", "ports": ports}))).await;
    assert_eq!(headless["spec"]["clusterIP"], "None");
    let (_, system) = server.json("GET", &format!("{path}/kubernetes"), &json!(null)).await;
    assert_eq!(system["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn statuses_and_specs_are_changed_apart() {
    let server = Server::start().await;
    server.json("POST", PODS, &pod("p")).await;
    let (code, changed) = server
        .json(
            "PATCH",
            &format!("{PODS}/p/status"),
            &json!({"status": {"phase": "Running"}, "spec": {"nodeName": "x"}}),
        )
        .await;
    assert_eq!(code, 200, "{changed}");
    assert_eq!(
        (&changed["status"]["phase"], &changed["spec"]["nodeName"]),
        (&json!("Running"), &json!(null))
    );
    let (_, same) = server.json("PATCH", &format!("{PODS}/p"), &json!({"status": {"phase": "Failed"}})).await;
    assert_eq!(same["status"]["phase"], "Running");
}

#[tokio::test]
async fn service_accounts_get_tokens_that_name_them() {
    let server = Server::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.json("POST", accounts, &json!({"metadata": {"name": "builder"}})).await;
    let (code, made) =
        server.json("POST", &format!("{accounts}/builder/token"), &json!({"spec": {"audiences": []}})).await;
    assert_eq!(code, 201, "{made}");
    let review = json!({"spec": {"token": made["status"]["token"]}});
    let (_, reviewed) = server.json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    assert_eq!(reviewed["status"]["user"]["username"], "system:serviceaccount:default:builder");
    let path = format!("{accounts}/builder/token");
    let (code, _) =
        server.json("POST", &path, &json!({"spec": {"audiences": [], "expirationSeconds": 1}})).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn a_watch_of_one_object_shows_that_one() {
    let server = Server::start().await;
    for name in ["a", "ab"] {
        server.json("POST", MAPS, &config_map(name)).await;
    }
    let path = format!("{MAPS}/a?watch=1&timeoutSeconds=1");
    let (_, _, text) = server.request("GET", &path, &[], "").await;
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 1, "{text}");
    assert_eq!(events[0]["object"]["metadata"]["name"], "a");
}

#[tokio::test]
async fn what_is_stored_survives_a_restart_and_so_do_allocations() {
    let dir = tempfile::TempDir::new().unwrap();
    let pki = sagong_apiserver::pki::Pki::open(dir.path(), &[], &[]).unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let services = |api: &sagong_apiserver::ApiServer| -> Api<k8s_openapi::api::core::v1::Service> {
        Api::default_namespaced(api.client(sagong_apiserver::authn::User::admin("test")))
    };
    let address = "192.0.2.1".parse().unwrap();
    let ip = {
        let api = support::api(dir.path(), &pki, Default::default()).await;
        api.bootstrap(address, 6443).await.unwrap();
        let made = services(&api)
            .create(&PostParams::default(), &serde_json::from_value(service.clone()).unwrap())
            .await
            .unwrap();
        api.stop();
        made.spec.unwrap().cluster_ip.unwrap()
    };
    // The store's file is free again once everything that held it has gone.
    let api = loop {
        match std::panic::AssertUnwindSafe(support::api(dir.path(), &pki, Default::default()))
            .catch_unwind()
            .await
        {
            Ok(api) => break api,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    api.bootstrap(address, 6443).await.unwrap();
    assert_eq!(services(&api).get("s").await.unwrap().spec.unwrap().cluster_ip, Some(ip.clone()));
    let mut second = service;
    second["metadata"]["name"] = json!("t");
    second["spec"]["clusterIP"] = json!(ip);
    let taken = services(&api).create(&PostParams::default(), &serde_json::from_value(second).unwrap()).await;
    assert!(taken.unwrap_err().to_string().contains("provided IP is already allocated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_given_twice_when_many_write_at_once() {
    let server = std::sync::Arc::new(Server::start().await);
    server.json("POST", MAPS, &config_map("shared")).await;
    let work = (0..60).map(|index| {
        let server = server.clone();
        tokio::spawn(async move {
            let patch = json!({"data": {format!("k{index}"): "v"}});
            let (code, status) = server.json("PATCH", &format!("{MAPS}/shared"), &patch).await;
            assert_eq!(code, 200, "{status}");
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{index}")},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            let (code, made) = server.json("POST", "/api/v1/namespaces/default/services", &service).await;
            assert_eq!(code, 201, "{made}");
            (made["spec"]["clusterIP"].to_string(), made["spec"]["ports"][0]["nodePort"].to_string())
        })
    });
    let made = futures::future::join_all(work).await;
    let (ips, ports): (std::collections::HashSet<_>, std::collections::HashSet<_>) =
        made.into_iter().map(Result::unwrap).unzip();
    assert_eq!((ips.len(), ports.len()), (60, 60));
    let (_, shared) = server.json("GET", &format!("{MAPS}/shared"), &json!(null)).await;
    assert_eq!(shared["data"].as_object().map(|data| data.len()), Some(61));
}

#[tokio::test]
async fn warnings_are_about_the_object_with_its_defaults() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/services?dryRun=All";
    let json = [("content-type", "application/json")];
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]}
    });
    let (code, headers, _) = server.request("POST", path, &json, service.to_string()).await;
    assert_eq!((code, headers.get("warning")), (201, None));
    service["spec"]["sessionAffinity"] = json!("ClientIP");
    let (code, headers, _) = server.request("POST", path, &json, service.to_string()).await;
    assert_eq!(code, 201);
    assert_eq!(headers["warning"], "299 - \"spec.SessionAffinity is ignored for headless services\"");
}

/// Schedulers and controllers of others wait until they have listed and watched these.
#[tokio::test]
async fn kinds_of_which_there_are_none_are_listed_and_watched_and_never_created() {
    let server = Server::start().await;
    let sets = "/apis/apps/v1/statefulsets";
    let (code, list) = server.json("GET", sets, &json!(null)).await;
    assert_eq!((code, &list["kind"], &list["items"]), (200, &json!("StatefulSetList"), &json!([])));
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    assert_eq!(
        server.json("GET", attachments, &json!(null)).await.0,
        200,
        "kube-scheduler 1.33 waits for it"
    );
    assert!(list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);

    let budgets = Api::<PodDisruptionBudget>::all(server.client());
    let watched: Vec<_> =
        budgets.watch(&WatchParams::default().timeout(1), "0").await.unwrap().try_collect().await.unwrap();
    assert!(watched.is_empty(), "{watched:?}");
    let streaming = WatchParams { send_initial_events: true, ..WatchParams::default().timeout(1) };
    let watched: Vec<_> = budgets.watch(&streaming, "0").await.unwrap().try_collect().await.unwrap();
    assert!(matches!(watched.as_slice(), [WatchEvent::Bookmark(_)]), "{watched:?}");

    let own = "/apis/apps/v1/namespaces/default/statefulsets";
    let (code, refused) = server.json("POST", own, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code, &refused["reason"]), (405, &json!("MethodNotAllowed")));
    let (code, missing) = server.json("GET", &format!("{own}/a"), &json!(null)).await;
    assert_eq!((code, message(&missing)), (404, "statefulsets.apps \"a\" not found"));
    let (_, discovery) = server.json("GET", "/apis/apps/v1", &json!(null)).await;
    assert!(!discovery.to_string().contains("statefulsets"), "{discovery}");
}

#[tokio::test]
async fn a_question_about_rights_is_no_table() {
    let server = Server::start().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let question = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}}).to_string();
    let json = ("content-type", "application/json");
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    assert_eq!(server.request("POST", path, &[json], question.as_str()).await.0, 201);
    let (code, _, refused) = server.request("POST", path, &[json, table], question.as_str()).await;
    assert_eq!((code, refused.contains("NotAcceptable")), (406, true), "{refused}");
}
