//! A cluster with a pod to talk to, and the programs that do.

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use sagong_tests::{Cluster, have, run, stdout};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A busybox.
pub(crate) const IMAGE: &str = "test/busybox:1";

/// A cluster with a pod `shell`, which does nothing, serves echoes on port 7777 and files on port 8080.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) directory: TempDir,
}

impl Bench {
    /// None if something is missing on this machine, which was said.
    pub(crate) fn new() -> Option<Self> {
        if !have("kubectl") || !have("busybox") {
            return None;
        }
        let bench = Self { cluster: Cluster::prepare(), directory: tempfile::tempdir().unwrap() };
        let root = bench.directory.path().join("root");
        busybox_root(&root);
        stdout(&mut bench.cluster.sagong(&[
            "image",
            "import",
            root.to_str().unwrap(),
            IMAGE,
            "--cmd",
            "/bin/sh",
        ]));
        bench.cluster.up(&[]);
        bench.run_pod("shell", "nc -ll -p 7777 -e cat & mkdir /www; echo hello >/www/index.html; httpd -p 8080 -h /www; exec sleep 1000000", "");
        Some(bench)
    }

    /// Makes a pod with one container that runs a script, and waits until it runs.
    pub(crate) fn run_pod(&self, name: &str, script: &str, more: &str) {
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, \
             containers: [{{name: main, image: {IMAGE}, command: [sh, -c, {script:?}]{more}}}]}}}}"
        );
        self.cluster.kubectl_stdin(&["apply"], &manifest);
        self.cluster.kubectl(&["wait", "--for=condition=Ready", "pod", name, "--timeout=60s"]);
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Command {
        self.cluster.kubectl_command(arguments)
    }

    /// Process ids on this machine of what runs with these words on its command line.
    pub(crate) fn processes(&self, words: &str) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let named = entries.filter(|entry| {
            let bytes = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ").trim() == words
        });
        named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    pub(crate) async fn pods(&self) -> Api<Pod> {
        let text = std::fs::read_to_string(self.cluster.data_dir().join("kubeconfig")).unwrap();
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        Api::default_namespaced(kube::Client::try_from(config).unwrap())
    }
}

/// A file system with busybox under all of its names.
fn busybox_root(root: &Path) {
    for directory in ["bin", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = stdout(Command::new("sh").args(["-c", "command -v busybox"]));
    std::fs::copy(busybox.trim(), root.join("bin/busybox")).unwrap();
    for name in stdout(Command::new("busybox").arg("--list")).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Debian's kubectl of 2020, which speaks SPDY; downloaded once. None if it cannot be had, which was said.
pub(crate) fn old_kubectl() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = place.join("kubernetes-client/usr/bin/kubectl");
    if kept.is_file() {
        return Some(kept);
    }
    let own = tempfile::tempdir_in(place).unwrap();
    let download =
        "apt-get download kubernetes-client && dpkg-deb -x kubernetes-client_*.deb . && ls usr/bin/kubectl";
    let output = run(Command::new("sh").args(["-c", download]).current_dir(own.path()));
    if output.status.success() {
        // Another test may have been quicker; then it is the same.
        let _ = std::fs::rename(own.path(), place.join("kubernetes-client"));
        return Some(kept);
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(std::env::var_os("CI").is_none(), "kubernetes-client cannot be downloaded: {error}");
    eprintln!("SKIPPED: kubernetes-client cannot be downloaded: {error}");
    None
}
