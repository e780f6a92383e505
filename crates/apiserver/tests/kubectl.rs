//! Real kubectl against a real server over TLS.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Server, deployment, has_kubectl};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_gets_patches_watches_and_deletes_objects() {
    if !has_kubectl() {
        return;
    }
    let server = Server::start().await;
    let ok = async |args: &[&str]| server.ok(args, "").await;

    let created = server.ok(&["create", "-f", "-"], &deployment("kubia")).await;
    assert_eq!(created, "deployment.apps/kubia created\n");
    let table = ok(&["get", "deployments"]).await;
    assert!(table.starts_with("NAME"), "{table}");
    assert!(table.contains("kubia") && table.contains("0/3"), "{table}");
    assert_eq!(ok(&["get", "deploy", "kubia", "-o", "jsonpath={.spec.replicas}"]).await, "3");
    assert!(ok(&["get", "deploy", "kubia", "-o", "yaml"]).await.contains("image: luksa/kubia:v1"));

    let patched = ok(&["patch", "deployment", "kubia", "-p", r#"{"spec": {"minReadySeconds": 10}}"#]).await;
    assert_eq!(patched, "deployment.apps/kubia patched\n");
    let image = ok(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v2"]).await;
    assert_eq!(image, "deployment.apps/kubia image updated\n");
    assert_eq!(ok(&["get", "deploy", "kubia", "-o", "jsonpath={.metadata.generation}"]).await, "3");
    assert_eq!(ok(&["scale", "deployment", "kubia", "--replicas=5"]).await, "deployment.apps/kubia scaled\n");
    assert_eq!(ok(&["get", "deploy", "kubia", "-o", "jsonpath={.spec.replicas}"]).await, "5");
    assert!(ok(&["label", "deploy", "kubia", "tier=web"]).await.contains("labeled"));
    assert!(ok(&["annotate", "deploy", "kubia", "note=x"]).await.contains("annotated"));
    let selected = ok(&["get", "deploy", "-l", "tier=web", "-o", "name"]).await;
    assert_eq!(selected, "deployment.apps/kubia\n");

    // Watch: the object as it is, then its deletion.
    let watching =
        server.kubectl(&["get", "deploy", "-w", "--output-watch-events", "--request-timeout=6s"], "");
    let deleting = async {
        // The deletion waits until a watch has certainly begun: kubectl lists first, so a repeat is harmless.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        server.ok(&["delete", "deploy", "kubia"], "").await
    };
    let (watched, deleted) = tokio::join!(watching, deleting);
    assert_eq!(deleted, "deployment.apps \"kubia\" deleted\n");
    assert!(watched.out.contains("DELETED") && watched.out.contains("ADDED"), "{}", watched.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_explains_and_discovers() {
    if !has_kubectl() {
        return;
    }
    let server = Server::start().await;
    assert_eq!(
        server.ok(&["apply", "-f", "-"], &deployment("kubia")).await,
        "deployment.apps/kubia created\n"
    );
    assert_eq!(
        server.ok(&["apply", "-f", "-"], &deployment("kubia")).await,
        "deployment.apps/kubia unchanged\n"
    );
    let changed = deployment("kubia").replace("replicas: 3", "replicas: 4");
    let diff = server.kubectl(&["diff", "-f", "-"], &changed).await;
    assert!(diff.out.contains("+  replicas: 4"), "{}{}", diff.out, diff.err);
    assert_eq!(server.ok(&["apply", "-f", "-"], &changed).await, "deployment.apps/kubia configured\n");
    let dry = server.ok(&["apply", "--dry-run=server", "-f", "-"], &deployment("other")).await;
    assert_eq!(dry, "deployment.apps/other created (server dry run)\n");
    assert!(server.fails(&["get", "deploy", "other"], "").await.contains("NotFound"));

    let resources = server.ok(&["api-resources"], "").await;
    for expected in ["deployments", "endpointslices", "leases", "replicationcontrollers"] {
        assert!(resources.contains(expected), "{resources}");
    }
    assert!(server.ok(&["api-versions"], "").await.contains("apps/v1"));
    let explained = server.ok(&["explain", "deployment.spec.strategy"], "").await;
    assert!(explained.contains("rollingUpdate"), "{explained}");
    let version = server.ok(&["version"], "").await;
    assert!(version.contains("Server Version: v1.33.0+sagong"), "{version}");
    assert_eq!(server.ok(&["auth", "can-i", "create", "pods"], "").await, "yes\n");
    assert!(server.ok(&["auth", "whoami"], "").await.contains("kubernetes-admin"));
    let all = server.ok(&["get", "all"], "").await;
    assert!(all.contains("service/kubernetes") && all.contains("deployment.apps/kubia"), "{all}");
    assert!(server.ok(&["get", "ns"], "").await.contains("kube-system"));
    assert!(server.ok(&["describe", "svc", "kubernetes"], "").await.contains("10.96.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_makes_objects_from_flags_and_says_what_is_wrong() {
    if !has_kubectl() {
        return;
    }
    let server = Server::start().await;
    let ok = async |args: &[&str]| server.ok(args, "").await;
    assert_eq!(ok(&["create", "deployment", "web", "--image=nginx"]).await, "deployment.apps/web created\n");
    assert_eq!(ok(&["create", "configmap", "c", "--from-literal=a=b"]).await, "configmap/c created\n");
    assert_eq!(ok(&["create", "secret", "generic", "s", "--from-literal=a=b"]).await, "secret/s created\n");
    assert_eq!(ok(&["get", "secret", "s", "-o", "jsonpath={.data.a}"]).await, "Yg==");
    assert_eq!(ok(&["create", "namespace", "n"]).await, "namespace/n created\n");
    assert_eq!(ok(&["create", "serviceaccount", "builder"]).await, "serviceaccount/builder created\n");
    assert_eq!(ok(&["create", "token", "builder"]).await.matches('.').count(), 2);
    assert_eq!(ok(&["run", "p", "--image=nginx"]).await, "pod/p created\n");
    let exposed = ok(&["expose", "deployment", "web", "--port=80", "--type=LoadBalancer"]).await;
    assert_eq!(exposed, "service/web exposed\n");
    assert!(ok(&["rollout", "pause", "deployment", "web"]).await.contains("paused"));
    assert!(ok(&["rollout", "resume", "deployment", "web"]).await.contains("resumed"));
    assert_eq!(ok(&["delete", "pod", "p"]).await, "pod \"p\" deleted\n");
    assert_eq!(ok(&["delete", "rc", "--all"]).await, "No resources found\n");

    let bad = async |text: &str| server.fails(&["create", "-f", "-"], text).await;
    let wrong = bad(&deployment("kubia").replace("replicas", "replicass")).await;
    assert!(wrong.contains("strict decoding error: unknown field \"spec.replicass\""), "{wrong}");
    let wrong = bad(&deployment("kubia").replace("replicas: 3", "replicas: -1")).await;
    assert!(
        wrong.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{wrong}"
    );
    let wrong =
        bad(&deployment("kubia").replace("matchLabels: {app: kubia}", "matchLabels: {app: other}")).await;
    assert!(wrong.contains("`selector` does not match template `labels`"), "{wrong}");
    let wrong = bad(&deployment("Kubia_")).await;
    assert!(wrong.contains("metadata.name: Invalid value: \"Kubia_\""), "{wrong}");
    let both = "spec:\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}";
    let wrong = bad(&deployment("kubia").replacen("spec:", both, 1)).await;
    assert!(wrong.contains("may not be 0 when `maxSurge` is 0"), "{wrong}");
    let wrong = bad("apiVersion: v1\nkind: Widget\nmetadata: {name: w}\n").await;
    assert!(wrong.contains("no matches for kind \"Widget\" in version \"v1\""), "{wrong}");
    let wrong = bad("apiVersion: v1\nkind: Pod\n  metadata: {\n").await;
    assert!(wrong.contains("line 3"), "{wrong}");
    let patch = ["patch", "deployment", "web", "-p", r#"{"spec":{"selector":{"matchLabels":{"a":"b"}}}}"#];
    let wrong = server.fails(&patch, "").await;
    assert!(wrong.contains("field is immutable"), "{wrong}");
    let wrong = server.fails(&["get", "widgets"], "").await;
    assert!(wrong.contains("the server doesn't have a resource type \"widgets\""), "{wrong}");
    let wrong = server.fails(&["get", "deploy", "nosuch"], "").await;
    assert_eq!(wrong, "Error from server (NotFound): deployments.apps \"nosuch\" not found\n");
}
