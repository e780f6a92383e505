//! The image `test/tools:1`: busybox, a program that calls services by name, and one that answers.

use crate::load::{Connections, Protocol, Way};
use crate::{Cluster, stdout};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Puts an image `tools` with busybox, the caller and the server into a cluster's store.
pub fn load(cluster: &Cluster) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.path().join("bin/sh")).unwrap();
    std::fs::copy("/bin/busybox", root.path().join("bin/nslookup")).unwrap();
    for name in ["caller", "server"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("native").join(format!("{name}.rs"));
        let mut rustc = Command::new("rustc");
        rustc.args([
            "--edition=2024",
            "-O",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ]);
        stdout(rustc.arg(source).arg("-o").arg(root.path().join("bin").join(name)));
    }
    let root = root.path().to_str().unwrap();
    stdout(&mut cluster.sagong(&["image", "import", root, "test/tools:1", "--entrypoint", "/bin/caller"]));
}

/// Starts a pod that calls `kubia` by name on a port without end, on a connection of its own each time.
pub fn call_by_name(cluster: &Cluster, name: &str, port: u16) {
    let (protocol, connections) = (Protocol::Http, Connections::Fresh);
    call(cluster, name, &[Way { protocol, connections, host: "kubia".to_owned(), port }]);
}

/// Starts a pod that calls on these ways without end, and waits until it runs. It is not started again if it ends. Its resolver asks five
/// times, a second apart: with the C library's two questions within ten seconds it could meet the one outage and then
/// the next of a test that makes one every few seconds.
pub fn call(cluster: &Cluster, name: &str, ways: &[Way]) {
    let arguments: Vec<String> =
        ["load".to_owned()].into_iter().chain(ways.iter().map(Way::to_string)).collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "dnsConfig": {"options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "5"}]},
        "containers": [{"name": "tools", "image": "test/tools:1", "args": arguments}]}});
    cluster.kubectl_stdin(&["create"], &pod.to_string());
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

/// How many answers such a pod says it has had so far.
pub fn answered(cluster: &Cluster, name: &str) -> usize {
    let printed = cluster.kubectl(&["logs", name, "--tail=100"]);
    let last = printed.lines().rev().find_map(|line| line.strip_prefix("answered ")).unwrap_or_default();
    last.split([' ', ',', '}']).filter_map(|word| word.parse::<usize>().ok()).sum()
}

/// What such a pod says failed so far. It must still be running, and have been answered.
pub fn failures(cluster: &Cluster, name: &str) -> Vec<String> {
    assert_eq!(cluster.get(&["pod", name])["status"]["phase"], "Running", "{name}");
    let printed = cluster.kubectl(&["logs", name]);
    assert!(printed.contains(" {\""), "{name}: {printed}");
    printed.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect()
}
