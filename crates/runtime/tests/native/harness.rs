//! A runtime of its own for each test, and a root file system with one program.

use sagong_runtime::native::{NativeRuntime, Options, ShimCommand, destroy_all};
use sagong_runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerState, Containers, Resources, Runtime, Sandbox,
    SandboxConfig, Sandboxes, Security,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

/// Whatever a test waits for takes less, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime whose every trace is removed at the end, also of a failing test.
pub(crate) struct Bench {
    pub(crate) runtime: NativeRuntime,
    pub(crate) events: Receiver<ContainerEvent>,
    pub(crate) options: Options,
    pub(crate) directory: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let root = directory.path().join("rootfs");
        for name in ["bin", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(name)).expect("root");
        }
        std::fs::copy(actor(), root.join("bin/actor")).expect("actor");
        let options = Options {
            instance: format!("{:06x}", rand::random::<u32>() & 0xff_ffff),
            root: directory.path().join("runtime"),
            run: directory.path().join("run"),
            shim: ShimCommand {
                program: env!("CARGO_BIN_EXE_sagong-runtime-shim").into(),
                arguments: Vec::new(),
            },
        };
        let runtime = NativeRuntime::open(options.clone()).expect("open");
        Self { events: runtime.events(), runtime, options, directory }
    }

    /// Forgets the runtime and opens another one on the same records.
    pub(crate) fn reopen(&mut self) {
        self.runtime = NativeRuntime::open(self.options.clone()).expect("open again");
        self.events = self.runtime.events();
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("sagong-{}", self.options.instance)
    }

    pub(crate) fn sandbox_config(&self) -> SandboxConfig {
        SandboxConfig {
            namespace: "default".to_owned(),
            name: "pod".to_owned(),
            uid: format!("{:x}", rand::random::<u64>()),
            attempt: 0,
            hostname: "kubia".to_owned(),
            host_network: false,
            host_ipc: false,
            share_processes: false,
            sysctls: BTreeMap::new(),
            cgroup_parent: "besteffort/pod1".to_owned(),
            log_directory: self.directory.path().join("logs"),
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) fn container_config(&self, verbs: &[&str]) -> ContainerConfig {
        let mut args = vec!["actor".to_owned()];
        args.extend(verbs.iter().map(|verb| (*verb).to_owned()));
        ContainerConfig {
            name: "main".to_owned(),
            attempt: 0,
            image_id: String::new(),
            root: self.root(),
            args,
            env: Vec::new(),
            working_dir: "/".to_owned(),
            image_user: String::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            stdin: false,
            stdin_once: false,
            tty: false,
            log_path: "main/0.log".into(),
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) async fn sandbox(&self) -> Sandbox {
        self.runtime.run_sandbox(self.sandbox_config()).await.expect("sandbox")
    }

    /// A running container in a sandbox of its own.
    pub(crate) async fn run(&self, config: ContainerConfig) -> Container {
        let sandbox = self.sandbox().await;
        let container = self.runtime.create_container(&sandbox.id, config).await.expect("create");
        self.runtime.start_container(&container.id).await.expect("start");
        container
    }

    /// Runs to the end, and gives the state and the log.
    pub(crate) async fn complete(&mut self, config: ContainerConfig) -> (ContainerState, Vec<String>) {
        let container = self.run(config).await;
        let state = self.ended(&container.id).await;
        (state, self.log())
    }

    pub(crate) async fn state(&self, id: &str) -> ContainerState {
        let all = self.runtime.list_containers().await.expect("list");
        all.into_iter().find(|container| container.id == id).expect("container").state
    }

    pub(crate) async fn pid(&self, id: &str) -> u32 {
        match self.state(id).await {
            ContainerState::Running { pid, .. } => pid,
            state => panic!("not running: {state:?}"),
        }
    }

    /// Waits for the event of a container's end.
    pub(crate) async fn ended(&mut self, id: &str) -> ContainerState {
        loop {
            let state = self.state(id).await;
            if matches!(state, ContainerState::Exited { .. }) {
                return state;
            }
            tokio::time::timeout(PATIENCE, self.events.recv())
                .await
                .expect("an event in time")
                .expect("an event");
        }
    }

    /// Lines of the log without their times.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("logs/main/0.log")).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').expect("a time").1.to_owned()).collect()
    }

    /// Waits until a line is in the log. The log is a file: there is no event to wait for in one process.
    pub(crate) async fn logged(&self, line: &str) {
        let found = async {
            while !self.log().iter().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the line in time");
    }

    /// Processes, mounts and cgroups that carry the name of this bench.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let run = self.options.run.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        found.extend(mounts.lines().filter(|line| line.contains(&run)).map(str::to_owned));
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("hierarchies").flatten() {
            found.extend(inside(&hierarchy.path().join(self.cgroup())));
        }
        found.extend(inside(&Path::new("/sys/fs/cgroup").join(self.cgroup())));
        let containers = self.options.root.display().to_string();
        for process in std::fs::read_dir("/proc").expect("processes").flatten() {
            let command = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            let cgroup = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            if stat.contains(") Z ") {
                // It holds nothing any more; whoever adopted it takes it away in its own time.
                continue;
            }
            if command.contains(&containers) || cgroup.contains(&self.cgroup()) {
                found.push(format!("process {} {command:?}", process.path().display()));
            }
        }
        found
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = destroy_all(&self.options.instance, &self.options.root, &self.options.run) {
            eprintln!("cleaning up after the test: {error}");
        }
    }
}

fn inside(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        directory.is_dir().then(|| directory.display().to_string()).into_iter().collect();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(inside(&entry.path()));
        }
    }
    found
}

/// The compiled actor; compiled once for all tests.
fn actor() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/actor.rs");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = target.join("sagong-actor");
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if modified(&program).is_some_and(|time| Some(time) > modified(&source)) {
        return program;
    }
    let own = target.join(format!("sagong-actor-{}-{:x}", std::process::id(), rand::random::<u32>()));
    let status = std::process::Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-O", "-o"])
        .arg(&own)
        .arg(&source)
        .status()
        .expect("rustc");
    assert!(status.success(), "compiling the actor");
    std::fs::rename(&own, &program).expect("rename");
    program
}
