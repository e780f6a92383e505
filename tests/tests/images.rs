//! Images from a registry (Debian's docker-registry, on loopback), and images that are not there.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, eventually, example, free_port, have, kubia_root, run, stdout};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A registry on loopback with one image; stopped when dropped.
struct Registry {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let config = directory.path().join("config.yml");
        let root = directory.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            root.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().unwrap(), port, _directory: directory };
        eventually("the registry", || {
            run(Command::new("curl").args(["-sf", &format!("http://127.0.0.1:{port}/v2/")]))
                .status
                .success()
                .then_some(())
        });
        registry
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/v2/{path}", self.port)
    }

    /// Uploads a blob and returns its digest.
    fn push_blob(&self, repository: &str, file: &Path) -> String {
        let sum = stdout(Command::new("sha256sum").arg(file));
        let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap());
        let start = self.url(&format!("{repository}/blobs/uploads/"));
        let headers = stdout(Command::new("curl").args(["-sS", "-i", "-X", "POST", &start]));
        let location =
            headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
        let put = format!("{location}&digest={digest}");
        let body = format!("@{}", file.display());
        stdout(Command::new("curl").args([
            "-sSf",
            "-X",
            "PUT",
            "--data-binary",
            &body,
            "-H",
            "Content-Type: application/octet-stream",
            &put,
        ]));
        digest
    }

    /// Pushes the app as `kubia:v1`, its one layer compressed with gzip.
    fn push_kubia(&self) -> String {
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        stdout(
            Command::new("tar")
                .args(["-C", kubia_root().to_str().unwrap(), "-cf"])
                .arg(path("layer.tar"))
                .arg("kubia"),
        );
        let sum = stdout(Command::new("sha256sum").arg(path("layer.tar")));
        let diff_id = format!("sha256:{}", sum.split_whitespace().next().unwrap());
        stdout(Command::new("gzip").arg(path("layer.tar")));
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "config": { "Entrypoint": ["/kubia"], "Env": ["KUBIA_VERSION=2"] },
        });
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        let descriptor = |kind: &str, file: &str| -> Value {
            let size = std::fs::metadata(path(file)).unwrap().len();
            json!({ "mediaType": kind, "digest": self.push_blob("kubia", &path(file)), "size": size })
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": descriptor("application/vnd.oci.image.config.v1+json", "config.json"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "layer.tar.gz")],
        });
        std::fs::write(path("manifest.json"), manifest.to_string()).unwrap();
        let body = format!("@{}", path("manifest.json").display());
        let header = format!("Content-Type: {kind}");
        stdout(Command::new("curl").args([
            "-sSf",
            "-X",
            "PUT",
            "--data-binary",
            &body,
            "-H",
            &header,
            &self.url("kubia/manifests/v1"),
        ]));
        format!("127.0.0.1:{}/kubia:v1", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_is_pulled_from_a_registry_by_name() {
    if !have("docker-registry") || !have("kubectl") || !have("curl") {
        return;
    }
    let registry = Registry::start();
    let name = registry.push_kubia();
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    cluster.kubectl(&["create", "deployment", "kubia", "--image", &name]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    let pod = cluster.get(&["pods"])["items"][0].clone();
    let address = format!("http://{}:8080", pod["status"]["podIP"].as_str().unwrap());
    assert!(cluster.curl(&address, 1)[0].starts_with("This is v2"));
    let events = cluster.kubectl(&["get", "events"]);
    assert!(events.contains(&format!("Pulling image \"{name}\"")), "{events}");
    assert!(events.contains(&format!("Successfully pulled image \"{name}\" in ")), "{events}");

    // By hand, too, into a store that nobody runs.
    let other = Cluster::prepare();
    let said = stdout(&mut other.sagong(&["image", "pull", &name]));
    assert!(said.starts_with(&format!("Loaded {name}")), "{said}");
    assert!(stdout(&mut other.sagong(&["image", "list"])).contains(&name));
    stdout(&mut other.sagong(&["image", "rm", &name]));
    assert!(!stdout(&mut other.sagong(&["image", "list"])).contains(&name));
}

#[test]
fn an_image_that_does_not_exist_holds_the_rollout_and_the_old_version_serves_on() {
    if !have("kubectl") || !have("docker-registry") {
        return;
    }
    let registry = Registry::start();
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=8080"]);
    let missing = format!("nodejs=127.0.0.1:{}/nosuch:v9", registry.port);
    cluster.kubectl(&["set", "image", "deployment", "kubia", &missing]);

    let waiting = |reason: &str| {
        let pods = cluster.get(&["pods"]);
        let pods = pods["items"].as_array().unwrap().clone();
        pods.iter()
            .any(|pod| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason)
            .then_some(())
    };
    eventually("ErrImagePull", || waiting("ErrImagePull").or_else(|| waiting("ImagePullBackOff")));
    eventually("ImagePullBackOff", || waiting("ImagePullBackOff"));
    let table = cluster.kubectl(&["get", "po"]);
    assert!(table.contains("ImagePullBackOff") || table.contains("ErrImagePull"), "{table}");
    let deployment = cluster.get(&["deployment", "kubia"]);
    assert_eq!(deployment["status"]["availableReplicas"], 3, "{deployment}");
    let address = cluster.get(&["svc", "kubia"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    for body in cluster.curl(&format!("http://{address}:8080"), 10) {
        assert!(body.starts_with("This is v1"), "{body}");
    }
    cluster.kubectl(&["rollout", "undo", "deployment", "kubia"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
}
