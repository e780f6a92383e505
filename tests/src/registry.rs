//! Debian's docker-registry on loopback, and images pushed to it.

use crate::{eventually, free_port, kubia_root, run, stdout};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A registry on loopback; stopped when dropped.
pub struct Registry {
    child: Child,
    /// On loopback.
    pub port: u16,
    user: &'static str,
    _directory: tempfile::TempDir,
}

/// `user:s3cret`, hashed by bcrypt as the registry wants it.
const USERS: &str = "user:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

impl Registry {
    /// One that lets everybody in.
    pub fn start() -> Self {
        Self::start_with("", |_| "")
    }

    /// One that lets nobody in but `user` with `s3cret`. Pushed to with its password.
    pub fn start_private() -> Self {
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
        let digest = digest(file);
        let start = self.url(&format!("{repository}/blobs/uploads/"));
        let headers = stdout(self.curl().args(["-i", "-X", "POST", &start]));
        let location =
            headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
        let put = format!("{location}&digest={digest}");
        let body = format!("@{}", file.display());
        let kind = "Content-Type: application/octet-stream";
        stdout(self.curl().args(["-f", "-X", "PUT", "--data-binary", &body, "-H", kind, &put]));
        digest
    }

    /// Pushes an image, `name` being `repository:tag`: a layer for each directory, lowest first, and what is to be
    /// known of its process. Gives the name to pull it by.
    pub fn push(&self, name: &str, layers: &[&Path], process: Value) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        let descriptor = |kind: &str, file: &Path| -> Value {
            let size = std::fs::metadata(file).unwrap().len();
            json!({ "mediaType": kind, "digest": self.push_blob(repository, file), "size": size })
        };
        let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
        for directory in layers {
            let layer = path("layer.tar");
            stdout(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&layer).arg("."));
            diff_ids.push(digest(&layer));
            stdout(Command::new("gzip").args(["-1", "-f"]).arg(&layer));
            let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
            descriptors.push(descriptor(kind, &path("layer.tar.gz")));
        }
        let config = json!({
            "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "config": process,
        });
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "layers": descriptors,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &path("config.json")),
        });
        std::fs::write(path("manifest.json"), manifest.to_string()).unwrap();
        let (body, kind) = (format!("@{}", path("manifest.json").display()), format!("Content-Type: {kind}"));
        let url = self.url(&format!("{repository}/manifests/{tag}"));
        stdout(self.curl().args(["-f", "-X", "PUT", "--data-binary", &body, "-H", &kind, &url]));
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Pushes the app's native twin as `kubia:v1`, which says that it is v2.
    pub fn push_kubia(&self) -> String {
        let process = json!({ "Entrypoint": ["/kubia"], "Env": ["KUBIA_VERSION=2"] });
        self.push("kubia:v1", &[&kubia_root()], process)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn digest(file: &Path) -> String {
    let sum = stdout(Command::new("sha256sum").arg(file));
    format!("sha256:{}", sum.split_whitespace().next().unwrap())
}
