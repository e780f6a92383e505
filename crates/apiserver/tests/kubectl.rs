//! Real kubectl against a real server over TLS.

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
