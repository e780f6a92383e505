//! Parts of volumes in pods: what containers put there leads nowhere else, and they may write to it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, eventually, have, stdout};
use serde_json::{Value, json};
use std::process::Command;

const TOOLS: &str = "tools:v1";

fn cluster() -> Cluster {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let busybox = stdout(Command::new("sh").args(["-c", "command -v busybox"]));
    std::fs::copy(busybox.trim(), bin.join("busybox")).unwrap();
    for applet in ["sh", "ln", "id", "cat", "echo"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let cluster = Cluster::prepare();
    stdout(&mut cluster.sagong(&["image", "import", root.path().to_str().unwrap(), TOOLS]));
    cluster.up(&[]);
    cluster
}

fn container(name: &str, script: &str, sub_path: &str) -> Value {
    json!({
        "name": name, "image": TOOLS, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": sub_path}],
    })
}

fn create(cluster: &Cluster, name: &str, spec: &Value) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    cluster.kubectl_stdin(&["create"], &pod.to_string());
}

#[test]
fn a_link_in_a_volume_leads_nobody_out_and_any_user_writes_to_a_new_directory() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster();
    let outside = tempfile::tempdir().unwrap();
    let link = format!("ln -s {} /v/link", outside.path().display());
    create(
        &cluster,
        "hostile",
        &json!({
            "initContainers": [container("init", &link, "")],
            "containers": [container("main", "id", "link/made")],
            "volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Never",
        }),
    );
    create(
        &cluster,
        "user",
        &json!({
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [container("main", "echo written > /v/file && cat /v/file", "a/b")],
            "volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Never",
        }),
    );
    let message = eventually("the mount refused", || {
        let status = cluster.get(&["pod", "hostile"])["status"].clone();
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        (waiting["reason"] == "CreateContainerConfigError").then(|| waiting["message"].to_string())
    });
    assert!(message.contains("leaves the volume"), "{message}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "made on the host");
    eventually("the end of user", || {
        (cluster.get(&["pod", "user"])["status"]["phase"] == "Succeeded").then_some(())
    });
    assert_eq!(cluster.kubectl(&["logs", "user"]), "written\n");
    // What it held is given back when it is over, and nothing of it is left mounted when it is gone.
    let uid = cluster.get(&["pod", "user"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let directory = cluster.data_dir().join("pods").join(&uid);
    eventually("volumes given back", || (!directory.join("volumes").exists()).then_some(()));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()), "{mounts}");
    cluster.kubectl(&["delete", "pod", "user", "hostile"]);
    eventually("the pod's directory gone", || (!directory.exists()).then_some(()));
}
