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
    user: &'static str,
    _directory: tempfile::TempDir,
}

/// `user:s3cret`, hashed by bcrypt as the registry wants it.
const USERS: &str = "user:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

impl Registry {
    fn start() -> Self {
        Self::start_with("", |_| "")
    }

    /// One that lets nobody in but the user. Pushed to with its password.
    fn start_private() -> Self {
        Self::start_with("user:s3cret", |directory| {
            std::fs::write(directory.join("users"), USERS).unwrap();
            "auth: {htpasswd: {realm: private, path: users}}\n"
        })
    }

    fn start_with(user: &'static str, more: impl FnOnce(&Path) -> &'static str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let config = directory.path().join("config.yml");
        let root = directory.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{}",
            root.display(),
            more(directory.path())
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir(directory.path());
        let registry = Self { child: command.spawn().unwrap(), port, user, _directory: directory };
        eventually("the registry", || {
            run(registry.curl().args(["-f", &registry.url("")])).status.success().then_some(())
        });
        registry
    }

    fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "-u", self.user]);
        command
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/v2/{path}", self.port)
    }

    /// Uploads a blob and returns its digest.
    fn push_blob(&self, repository: &str, file: &Path) -> String {
        let sum = stdout(Command::new("sha256sum").arg(file));
        let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap());
        let start = self.url(&format!("{repository}/blobs/uploads/"));
        let headers = stdout(self.curl().args(["-i", "-X", "POST", &start]));
        let location =
            headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
        let put = format!("{location}&digest={digest}");
        let body = format!("@{}", file.display());
        stdout(self.curl().args([
            "-f",
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
        stdout(self.curl().args([
            "-f",
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
fn a_private_image_is_pulled_with_the_secret_of_the_pod_or_of_its_account() {
    if !have("docker-registry") || !have("kubectl") || !have("curl") {
        return;
    }
    let registry = Registry::start_private();
    let name = registry.push_kubia();
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let server = format!("--docker-server=127.0.0.1:{}", registry.port);
    for (secret, password) in [("wrong", "guessed"), ("right", "s3cret")] {
        let password = format!("--docker-password={password}");
        let command =
            ["create", "secret", "docker-registry", secret, &server, "--docker-username=user", &password];
        cluster.kubectl(&command);
    }
    let create = |pod: &str, secret: &str| {
        let secrets: Vec<Value> =
            [secret].iter().filter(|name| !name.is_empty()).map(|name| json!({"name": name})).collect();
        let container = json!({"name": "main", "image": name, "imagePullPolicy": "Always"});
        let spec = json!({"containers": [container], "imagePullSecrets": secrets, "terminationGracePeriodSeconds": 0});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec});
        cluster.kubectl_stdin(&["create"], &pod.to_string());
    };
    let refused = |pod: &str, why: &str| {
        eventually("the registry's refusal", || {
            let state = cluster.get(&["pod", pod])["status"]["containerStatuses"][0]["state"].clone();
            let message = state["waiting"]["message"].as_str().unwrap_or_default().to_owned();
            (message.contains("pull access denied") && message.contains(why)).then_some(())
        });
    };
    create("anonymous", "");
    create("wrong", "wrong");
    refused("anonymous", "no credentials were given");
    refused("wrong", "the credentials given were refused");
    create("right", "right");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/right", "--timeout=60s"]);
    // What the account has, its pods have.
    cluster.kubectl(&[
        "patch",
        "serviceaccount",
        "default",
        "-p",
        r#"{"imagePullSecrets": [{"name": "right"}]}"#,
    ]);
    create("by-account", "");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/by-account", "--timeout=60s"]);
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
