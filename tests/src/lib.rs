//! What the end-to-end tests stand on: whole clusters, real kubectl, and what is left of them on the machine.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // a panic is how a test fails

pub mod crash;
pub mod debian;
pub mod load;
pub mod registry;
pub mod shell;
pub mod small_disk;
pub mod tools;

use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for something that should take seconds at most.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: `$SAGONG`, or the one `make test` builds, with overflow checks and assertions.
pub fn sagong() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/sagong");
    let path = std::env::var_os("SAGONG").map_or(built, PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo build -p sagong` first", path.display());
    path.canonicalize().unwrap()
}

/// Whether a program is there. If not, says so loudly; with `CI` set, that is a failure.
pub fn have(program: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin command -v {program}")]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{program} is missing, and CI installs it");
    eprintln!("SKIPPED: {program} is not installed");
    false
}

/// Runs a command to its end and returns what it printed.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output of a command that must succeed.
pub fn stdout(command: &mut Command) -> String {
    let output = run(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed: {error}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Polls until `done` gives something. For what happens outside of any API that could be watched.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "still waiting for {what} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A cluster of its own; taken down and deleted when dropped.
pub struct Cluster {
    directory: tempfile::TempDir,
    /// Port of the API server.
    pub port: u16,
    /// Of pods and of services.
    networks: [String; 2],
}

impl Cluster {
    /// A place for a cluster, with a port and networks nobody else uses. Nothing runs yet.
    pub fn prepare() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Networks by process and count, so that test processes do not meet: 90 × 8 of them, each a /19.
        let network = (std::process::id() * 2 + NEXT.fetch_add(1, Ordering::Relaxed)) % 720;
        let (second, third) = (100 + network / 8, network % 8 * 32);
        let directory = tempfile::Builder::new().prefix("sagong-test-").tempdir().unwrap();
        Self {
            directory,
            port: free_port(),
            networks: [third, third + 16].map(|third| format!("10.{second}.{third}.0/20")),
        }
    }

    /// A running cluster with the images kubia v1 to v4.
    pub fn start() -> Self {
        let cluster = Self::prepare();
        cluster.load_kubia();
        cluster.up(&[]);
        cluster
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// `sagong COMMAND ARGUMENTS --data-dir DIR`, away from the user's kubeconfig.
    pub fn sagong(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(sagong());
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data_dir())
            .env("KUBECONFIG", self.user_kubeconfig());
        command
    }

    /// The file that stands for `~/.kube/config`.
    pub fn user_kubeconfig(&self) -> PathBuf {
        self.directory.path().join("user-kubeconfig")
    }

    /// The arguments of `up` that keep this cluster away from others.
    pub fn up_command(&self, more: &[&str]) -> Command {
        let [pods, services] = &self.networks;
        let mut command = self.sagong(&["up", "-d", "--port", &self.port.to_string()]);
        command.args(["--pod-cidr", pods, "--service-cidr", services]);
        command.args(more);
        command
    }

    /// Starts it and waits until its node is Ready.
    pub fn up(&self, more: &[&str]) -> String {
        stdout(&mut self.up_command(more))
    }

    /// The process that runs it.
    pub fn process(&self) -> Option<u32> {
        let output = run(&mut self.sagong(&["status", "-o", "json"]));
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["process"].as_u64().map(|pid| pid as u32)
    }

    /// Puts the app's images v1 to v4 into its store.
    pub fn load_kubia(&self) {
        for version in 1..=4 {
            let name = format!("luksa/kubia:v{version}");
            let variable = format!("KUBIA_VERSION={version}");
            let root = kubia_root();
            let root = root.to_str().unwrap();
            stdout(&mut self.sagong(&[
                "image",
                "import",
                root,
                &name,
                "--entrypoint",
                "/kubia",
                "--env",
                &variable,
            ]));
        }
    }

    /// Puts an image with a shell and its tools into its store, `test/shell:1`. Needs busybox.
    pub fn load_shell(&self) {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(root.path().join("tmp")).unwrap();
        stdout(Command::new("sh").args(["-c", "cp -L \"$(command -v busybox)\" \"$0/busybox\""]).arg(&bin));
        for name in ["sh", "sleep", "cat", "tar", "test", "stty", "nc", "head", "mkdir"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let root = root.path().to_str().unwrap();
        stdout(&mut self.sagong(&["image", "import", root, "test/shell:1", "--entrypoint", "/bin/sh"]));
    }

    /// Real kubectl, as the cluster's administrator.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.data_dir().join("kubeconfig"))
            .env("HOME", self.directory.path());
        command
    }

    /// What kubectl printed; it must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        stdout(&mut self.kubectl_command(arguments))
    }

    /// What a kubectl that must fail printed to standard error.
    pub fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.kubectl_command(arguments));
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// `kubectl … -f -` with this manifest; it must succeed.
    pub fn kubectl_stdin(&self, arguments: &[&str], manifest: &str) -> String {
        let output = self.kubectl_with(arguments, manifest);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `kubectl … -f -` with this manifest, whatever comes of it.
    pub fn kubectl_with(&self, arguments: &[&str], manifest: &str) -> Output {
        use std::io::Write;
        let mut command = self.kubectl_command(arguments);
        let command =
            command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// An object, or a list, as JSON.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.kubectl(&all)).unwrap()
    }

    /// Bodies of `count` requests, each on a connection of its own.
    pub fn curl(&self, address: &str, count: usize) -> Vec<String> {
        (0..count).map(|_| stdout(Command::new("curl").args(["-sS", "--max-time", "10", address]))).collect()
    }

    /// Six hex digits in the names of all it makes on the host.
    pub fn instance(&self) -> String {
        let status = run(&mut self.sagong(&["status", "-o", "json"])).stdout;
        let status: Value = serde_json::from_slice(&status).unwrap();
        status["instance"].as_str().expect("no data directory").to_owned()
    }

    /// What can be seen of this cluster on the machine, others aside: mounts, links, routes, nft tables, cgroups,
    /// and processes in these cgroups or with its data directory on their command lines.
    pub fn traces(&self, instance: &str) -> BTreeSet<String> {
        let data = self.data_dir().display().to_string();
        let is_ours = |text: &str| text.contains(&data) || text.contains(&format!("sagong-{instance}"));
        let mut traces = BTreeSet::new();
        let mut note = |kind: &str, items: Vec<String>| {
            traces.extend(items.into_iter().map(|item| format!("{kind} {item}")));
        };
        let ours = |text: String| text.lines().filter(|line| is_ours(line)).map(str::to_owned).collect();
        note("mount", ours(std::fs::read_to_string("/proc/self/mounts").unwrap()));
        let links = std::fs::read_dir("/sys/class/net").unwrap();
        let links = links.map(|link| link.unwrap().file_name().to_string_lossy().into_owned());
        let prefixes = [format!("sg{instance}"), format!("sg-{instance}")];
        note("link", links.filter(|link| prefixes.iter().any(|prefix| link.starts_with(prefix))).collect());
        let networks = self.networks.iter().map(|network| network.split('/').next().unwrap());
        // As the kernel prints them: `0A640000` backwards.
        let networks: Vec<String> = networks
            .map(|base| u32::from_le_bytes(base.parse::<std::net::Ipv4Addr>().unwrap().octets()))
            .map(|base| format!("\t{base:08X}\t"))
            .collect();
        let routes = std::fs::read_to_string("/proc/net/route").unwrap();
        let is_here = |route: &&str| networks.iter().any(|network| route.contains(network));
        note("route", routes.lines().filter(is_here).map(str::to_owned).collect());
        let shell = |script: &str| ours(stdout(Command::new("sh").args(["-c", script])));
        note("nft", shell("PATH=$PATH:/usr/sbin nft list tables"));
        note("cgroup", shell("find /sys/fs/cgroup -type d 2>/dev/null; true"));
        note("runtime", shell("find /run -maxdepth 1 2>/dev/null; true"));
        note("process", processes().into_iter().filter(|process| is_ours(process)).collect());
        traces
    }
}

/// Command line and cgroups of every process. (Those that have ended and wait for init have no command line.)
fn processes() -> Vec<String> {
    let read = |entry: &std::path::Path, file: &str| {
        let bytes = std::fs::read(entry.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace(['\0', '\n'], " ")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let alive = entries.filter(|entry| !read(entry, "cmdline").is_empty());
    alive.map(|entry| read(&entry, "cmdline") + &read(&entry, "cgroup")).collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.data_dir().exists() {
            return;
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data_dir().join("sagong.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the cluster's log ends:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let output = run(&mut self.sagong(&["down", "--purge"]));
        if !output.status.success() && !std::thread::panicking() {
            panic!("down --purge: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A file of examples/kubia.
pub fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubia").join(name).display().to_string()
}

/// A port nobody listens on, on loopback.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A directory with nothing but the app's native twin, built once per test process.
pub fn kubia_root() -> PathBuf {
    static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args([
            "--edition=2024",
            "-O",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ]);
        stdout(rustc.arg(example("native/kubia.rs")).arg("-o").arg(root.path().join("kubia")));
        root
    });
    root.path().to_path_buf()
}
