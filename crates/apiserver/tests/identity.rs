//! Who asks: tokens and what they are for, and asking as somebody else.

#![allow(clippy::unwrap_used)]

mod support;

use rstest::rstest;
use serde_json::{Value, json};
use support::{Server, has_kubectl, pod};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const PODS: &str = "/api/v1/namespaces/default/pods";
const OWN: &str = "https://kubernetes.default.svc.cluster.local";

/// A token for the account `builder`.
async fn token(server: &Server, spec: Value) -> String {
    server.json("POST", ACCOUNTS, &json!({"metadata": {"name": "builder"}})).await;
    let (code, made) =
        server.json("POST", &format!("{ACCOUNTS}/builder/token"), &json!({"spec": spec})).await;
    assert_eq!(code, 201, "{made}");
    made["status"]["token"].as_str().unwrap().to_owned()
}

async fn review(server: &Server, token: &str, audiences: &[&str]) -> Value {
    let question = json!({"spec": {"token": token, "audiences": audiences}});
    let (code, reviewed) = server.json("POST", REVIEWS, &question).await;
    assert_eq!(code, 201, "{reviewed}");
    reviewed["status"].clone()
}

#[rstest]
#[case::for_the_server(&[], &[], Some(&[OWN][..]))]
#[case::for_the_server_and_asked_by_it(&[], &[OWN], Some(&[OWN][..]))]
#[case::for_the_server_and_asked_by_another(&[], &["vault"], None)]
#[case::for_another(&["vault"], &[], None)]
#[case::for_another_and_asked_by_it(&["vault"], &["vault"], Some(&["vault"][..]))]
#[case::for_two_of_three(&["a", "b", "c"], &["c", "x", "a"], Some(&["c", "a"][..]))]
#[tokio::test]
async fn a_token_is_valid_for_whom_it_is_meant(
    #[case] meant: &[&str],
    #[case] asked: &[&str],
    #[case] expected: Option<&[&str]>,
) {
    let server = Server::start().await;
    let token = token(&server, json!({"audiences": meant})).await;
    let status = review(&server, &token, asked).await;
    match expected {
        Some(both) => {
            assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(both)));
        }
        None => {
            assert_ne!(status["authenticated"], json!(true), "{status}");
            assert_eq!((&status["user"]["username"], &status["audiences"]), (&Value::Null, &Value::Null));
            let error = status["error"].as_str().unwrap();
            assert!(error.contains("is invalid for the target audiences"), "{error}");
        }
    }
}

#[tokio::test]
async fn tokens_from_a_file_are_for_the_server_only() {
    let server = Server::start().await;
    assert_eq!(review(&server, "jane", &[]).await["audiences"], json!([OWN]));
    assert_eq!(review(&server, "jane", &["vault"]).await["authenticated"], Value::Null);
}

#[rstest]
#[case::a_secret("Secret", "/api/v1/namespaces/default/secrets")]
#[case::a_node("Node", "/api/v1/nodes")]
#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to(#[case] kind: &str, #[case] path: &str) {
    let server = Server::start().await;
    let object = json!({"metadata": {"name": "thing"}});
    assert_eq!(server.json("POST", path, &object).await.0, 201);
    let bound = json!({"apiVersion": "v1", "kind": kind, "name": "thing"});
    let token = token(&server, json!({"audiences": [], "boundObjectRef": bound})).await;
    assert_eq!(review(&server, &token, &[]).await["authenticated"], json!(true));
    assert_eq!(server.json("DELETE", &format!("{path}/thing"), &Value::Null).await.0, 200);
    assert_eq!(review(&server, &token, &[]).await["authenticated"], Value::Null);
    // Another of that name is another.
    assert_eq!(server.json("POST", path, &object).await.0, 201);
    assert_eq!(review(&server, &token, &[]).await["authenticated"], Value::Null);
}

#[tokio::test]
async fn a_token_cannot_be_bound_to_anything_else() {
    let server = Server::start().await;
    server.json("POST", ACCOUNTS, &json!({"metadata": {"name": "builder"}})).await;
    let bound = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "thing"});
    let spec = json!({"spec": {"audiences": [], "boundObjectRef": bound}});
    let (code, status) = server.json("POST", &format!("{ACCOUNTS}/builder/token"), &spec).await;
    assert_eq!(
        (code, &status["message"]),
        (400, &json!("cannot bind token to object of type /v1, Kind=ConfigMap"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_as_somebody_else() {
    if !has_kubectl() {
        return;
    }
    let server = Server::start().await;
    let ok = async |args: &[&str]| server.ok(args, "").await;
    let jane = ok(&["auth", "whoami", "--as=jane", "--as-group=dev", "--as-uid=7"]).await;
    for expected in ["jane", "[dev system:authenticated]", "7"] {
        assert!(jane.contains(expected), "{jane}");
    }
    assert!(!jane.contains("kubernetes-admin"), "{jane}");
    assert_eq!(ok(&["auth", "can-i", "list", "pods"]).await, "yes\n");
    assert_eq!(server.kubectl(&["auth", "can-i", "list", "pods", "--as=jane"], "").await.out, "no\n");
    let refused = server.fails(&["get", "pods", "--as=jane"], "").await;
    let expected = r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert!(refused.contains(expected), "{refused}");
    let account = ok(&["auth", "whoami", "--as=system:serviceaccount:web:builder"]).await;
    let groups = "[system:serviceaccounts system:serviceaccounts:web system:authenticated]";
    assert!(account.contains(groups), "{account}");
    // Who is not trusted may not ask as one who is.
    let masters = ["get", "pods", "--as=root", "--as-group=system:masters"];
    let kubeconfig = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&kubeconfig).unwrap();
    kubeconfig["users"][0]["user"] = json!({"token": "jane"});
    std::fs::write(server.kubeconfig(), kubeconfig.to_string()).unwrap();
    let refused = server.fails(&masters, "").await;
    let expected = r#"users "root" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#;
    assert!(refused.contains(expected), "{refused}");
}

#[tokio::test]
async fn a_pod_waits_for_the_default_account_of_its_namespace_but_not_for_ever() {
    let server = Server::start().await;
    let namespace = json!({"metadata": {"name": "fresh"}});
    assert_eq!(server.json("POST", "/api/v1/namespaces", &namespace).await.0, 201);
    let pods = "/api/v1/namespaces/fresh/pods";
    let (code, status) = server.json("POST", pods, &pod("p")).await;
    let expected = "pods \"p\" is forbidden: error looking up service account fresh/default: serviceaccount \
                    \"default\" not found";
    assert_eq!((code, &status["message"]), (403, &json!(expected)));
    let asked = pod("p");
    let mut creating = std::pin::pin!(server.json("POST", pods, &asked));
    assert!(futures::poll!(&mut creating).is_pending());
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/fresh/serviceaccounts";
    assert_eq!(server.json("POST", accounts, &account).await.0, 201);
    assert_eq!(creating.await.0, 201);
}

#[tokio::test]
async fn a_debugger_is_added_to_the_pod_that_is_meant_and_owned_by_who_added_it() {
    let server = Server::start().await;
    let applied = [("content-type", "application/apply-patch+yaml")];
    let (code, _, text) =
        server.request("PATCH", &format!("{PODS}/p?fieldManager=me"), &applied, pod("p").to_string()).await;
    assert_eq!(code, 201, "{text}");
    let (_, mut given) = server.json("GET", &format!("{PODS}/p"), &Value::Null).await;
    given["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "image": "busybox"}]);
    let path = format!("{PODS}/p/ephemeralcontainers");
    let mut other = given.clone();
    other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let (code, status) = server.json("PUT", &path, &other).await;
    let message = status["message"].as_str().unwrap_or_default();
    assert_eq!((code, message.contains("Precondition failed: UID in precondition")), (409, true), "{status}");
    let (code, changed) = server.json("PUT", &format!("{path}?fieldManager=debug"), &given).await;
    assert_eq!(code, 200, "{changed}");
    let entries = changed["metadata"]["managedFields"].as_array().unwrap();
    let added = entries.iter().find(|entry| entry["manager"] == "debug").unwrap();
    assert_eq!(added["subresource"], "ephemeralcontainers");
    assert!(added["fieldsV1"]["f:spec"]["f:ephemeralContainers"].is_object(), "{added}");
}
