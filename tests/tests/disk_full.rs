//! A full disk: writes are refused with the reason, nothing dies of it, no exit code is lost, and all goes on once there
//! is room.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::crash::shims;
use sagong_tests::small_disk::SmallDisk;
use sagong_tests::{Cluster, eventually, have, run};
use serde_json::json;
use std::fs::File;
use std::io::Write;

#[test]
fn a_full_disk_refuses_writes_and_nothing_more() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = Cluster::prepare();
    let _disk = SmallDisk::mount(&cluster, 24);
    cluster.load_shell();
    cluster.up(&[]);
    let container = json!({"name": "main", "image": "test/shell:1", "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", "while [ ! -e /marks/end ]; do sleep 0.1; done; exit 7"],
        "volumeMounts": [{"name": "marks", "mountPath": "/marks"}]});
    let marks = tempfile::tempdir().unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ends"},
        "spec": {"containers": [container], "restartPolicy": "Never",
            "volumes": [{"name": "marks", "hostPath": {"path": marks.path()}}]}});
    cluster.kubectl_stdin(&["create"], &pod.to_string());
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/ends", "--timeout=60s"]);
    let filling = cluster.data_dir().join("filling");
    let mut file = File::create(&filling).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);

    let big = "x".repeat(100_000);
    let map = |name: &str| {
        vec!["create".to_owned(), "configmap".into(), name.into(), format!("--from-literal=a={big}")]
    };
    for name in ["one", "two", "three"] {
        let arguments = map(name);
        let said = cluster.kubectl_fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!said.contains("shutting down"), "{said}");
    }
    assert!(cluster.kubectl(&["get", "namespaces"]).contains("default"), "reading goes on");
    let status = run(&mut cluster.sagong(&["status"]));
    let told = String::from_utf8(status.stdout).unwrap();
    assert!(!status.status.success() && told.contains("Problem: nothing can be stored: "), "{told}");
    assert!(cluster.kubectl_fails(&["get", "--raw", "/readyz"]).contains("store failed"));
    // It ends while nobody can write down how.
    File::create(marks.path().join("end")).unwrap();
    eventually("the end of the container", || shims(&cluster).is_empty().then_some(()));

    std::fs::remove_file(&filling).unwrap();
    let ended = eventually("the exit code", || {
        let state = cluster.get(&["pod", "ends"])["status"]["containerStatuses"][0]["state"].clone();
        state["terminated"].is_object().then(|| state["terminated"].clone())
    });
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(7), &json!("Error")), "{ended}");
    eventually("the store to be well", || {
        run(&mut cluster.sagong(&["status"])).status.success().then_some(())
    });
    cluster.kubectl(&["create", "deployment", "after", "--image=none/none"]);
    eventually("a pod made by controllers that are still alive", || {
        cluster.kubectl(&["get", "pods", "-o", "name"]).contains("pod/after-").then_some(())
    });
}
