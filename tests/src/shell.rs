//! The image `tools:v1`: a small system with a shell and busybox's tools, and pods that run scripts in it.

use crate::{Cluster, eventually, stdout};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Name of the image.
pub const TOOLS: &str = "tools:v1";

/// A file system with busybox, statically linked, and with `more` programs of this machine.
pub fn root(more: &[&Path]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "etc", "tmp", "usr"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    let bin = root.path().join("bin");
    let busybox = stdout(Command::new("sh").args(["-c", "command -v busybox"]));
    std::fs::copy(busybox.trim(), bin.join("busybox")).unwrap();
    for applet in stdout(Command::new("busybox").arg("--list")).lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    for program in more {
        std::fs::copy(program, bin.join(program.file_name().unwrap())).unwrap();
    }
    std::fs::write(
        root.path().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n",
    )
    .unwrap();
    root
}

/// A cluster with the image of tools.
pub fn cluster_with(more: &[&Path]) -> Cluster {
    let cluster = Cluster::prepare();
    let root = root(more);
    import(&cluster, root.path(), TOOLS);
    cluster.up(&[]);
    cluster
}

/// Makes an image of a directory.
pub fn import(cluster: &Cluster, root: &Path, name: &str) {
    stdout(&mut cluster.sagong(&["image", "import", root.to_str().unwrap(), name]));
}

/// A pod of one container that runs a script.
pub fn pod(name: &str, script: &str) -> Value {
    let container = json!({
        "name": "main", "image": TOOLS, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script],
    });
    let spec =
        json!({"containers": [container], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// Creates an object.
pub fn create(cluster: &Cluster, object: &Value) {
    cluster.kubectl_stdin(&["create"], &object.to_string());
}

/// What a pod that runs to its end printed.
pub fn output(cluster: &Cluster, pod: &Value) -> String {
    create(cluster, pod);
    let name = pod["metadata"]["name"].as_str().unwrap();
    eventually(&format!("the end of {name}"), || {
        let phase = cluster.get(&["pod", name])["status"]["phase"].clone();
        (phase == "Succeeded" || phase == "Failed").then_some(())
    });
    cluster.kubectl(&["logs", name])
}

/// The events about a pod: reason and message.
pub fn events(cluster: &Cluster, pod: &str) -> Vec<(String, String)> {
    let list = cluster.get(&["events", "--field-selector", &format!("involvedObject.name={pod}")]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = list["items"].as_array().cloned().unwrap_or_default();
    all.iter().map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
}

/// Waits until something is told of a pod.
pub fn told(cluster: &Cluster, pod: &str, reason: &str, message: &str) {
    eventually(&format!("{reason} {message:?} of {pod}"), || {
        let all = events(cluster, pod);
        all.iter().any(|(r, m)| r == reason && m.contains(message)).then_some(())
    });
}
