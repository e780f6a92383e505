//! Clients that nobody here wrote: those for Python and JavaScript that the Kubernetes project publishes.
//!
//! They are installed from their registries, at the versions below, into a directory that later runs use again.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, have, run, stdout};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `kubernetes` on PyPI, made from the API of Kubernetes 1.33.
const PYTHON_CLIENT: &str = "kubernetes==33.1.0";
/// `@kubernetes/client-node` on npm, made from the API of Kubernetes 1.33.
const NODE_CLIENT: &str = "@kubernetes/client-node@1.3.0";

/// A directory that `make` fills once: made aside and renamed, so that half an installation is never used.
fn installed(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let done = root.join(name);
    if !done.exists() {
        std::fs::create_dir_all(&root).unwrap();
        let aside = tempfile::Builder::new().prefix(name).tempdir_in(&root).unwrap();
        make(aside.path());
        // A run beside this one may have been quicker.
        if std::fs::rename(aside.path(), &done).is_ok() {
            let _ = aside.keep();
        }
    }
    done
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// A cluster with the app and a shell, and a namespace for the client.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.load_shell();
    cluster.kubectl(&["create", "namespace", "client"]);
    cluster
}

/// Runs a client's script against a cluster; what it says is told when it fails.
fn content(cluster: &Cluster, program: &mut Command) {
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    let command = program.arg(kubeconfig).args(["client", "luksa/kubia:v1", "test/shell:1"]);
    let output = run(command.env_remove("KUBECONFIG").env("NO_PROXY", "127.0.0.1,localhost"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("client is content"), "{said}");
}

#[test]
fn the_python_client_creates_watches_patches_scales_reads_logs_and_runs_commands() {
    if !have("python3") || !have("busybox") {
        return;
    }
    if !run(Command::new("python3").args(["-m", "pip", "--version"])).status.success() {
        assert!(std::env::var_os("CI").is_none(), "python3-pip is missing, and CI installs it");
        eprintln!("SKIPPED: python3-pip is not installed");
        return;
    }
    let packages = installed("python", |directory| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(directory).arg(PYTHON_CLIENT);
        stdout(&mut pip);
    });
    let cluster = cluster();
    content(&cluster, Command::new("python3").env("PYTHONPATH", packages).arg(script("client.py")));
}

#[test]
fn the_javascript_client_creates_watches_patches_scales_reads_logs_and_runs_commands() {
    if !have("node") || !have("npm") || !have("busybox") {
        return;
    }
    let packages = installed("node", |directory| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(directory);
        stdout(npm.arg(NODE_CLIENT));
    });
    // A module is looked for beside the script that wants it.
    let beside = packages.join("client.mjs");
    std::fs::copy(script("client.mjs"), &beside).unwrap();
    let cluster = cluster();
    content(&cluster, Command::new("node").arg(beside));
}
