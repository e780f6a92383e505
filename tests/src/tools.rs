//! The image `test/tools:1`: busybox, and a program that calls a service by name.

use crate::{Cluster, stdout};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Puts an image `tools` with busybox and the caller into a cluster's store.
pub fn load(cluster: &Cluster) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.path().join("bin/sh")).unwrap();
    std::fs::copy("/bin/busybox", root.path().join("bin/nslookup")).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("native/caller.rs");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"]);
    stdout(rustc.arg(source).arg("-o").arg(root.path().join("bin/caller")));
    let root = root.path().to_str().unwrap();
    stdout(&mut cluster.sagong(&["image", "import", root, "test/tools:1", "--entrypoint", "/bin/caller"]));
}

/// Starts a pod that calls `kubia` by name on a port without end. It is not started again if it ends. Its resolver
/// asks five times, a second apart: with the C library's two questions within ten seconds it could meet the one
/// outage and then the next of a test that makes one every few seconds. Who is refused gives up at once in any case.
pub fn call_by_name(cluster: &Cluster, name: &str, port: u16) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "dnsConfig": {"options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "5"}]},
        "containers": [{"name": "tools", "image": "test/tools:1", "args": ["load", "kubia", port.to_string()]}]}});
    cluster.kubectl_stdin(&["create"], &pod.to_string());
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
    assert!(printed.contains("answered {\""), "{name}: {printed}");
    printed.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect()
}
