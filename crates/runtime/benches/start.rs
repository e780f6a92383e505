//! How long a sandbox takes, a container from `create_container` until its program runs, and a command in it; and what
//! a shim needs. Needs root. `cargo bench -p sagong-runtime --bench start [-- ROUNDS]`; with `SHIM="sagong shim"` in the
//! environment that command is the shim.

use sagong_runtime::native::{NativeRuntime, Options, ShimCommand, destroy_all};
use sagong_runtime::{
    ContainerConfig, ContainerState, Containers, Resources, SandboxConfig, Sandboxes, Security,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(30);
    let directory = tempfile::tempdir().expect("directory");
    let options = Options {
        instance: format!("{:06x}", rand::random::<u32>() & 0xff_ffff),
        root: directory.path().join("runtime"),
        run: directory.path().join("run"),
        shim: shim(),
    };
    prepare(&directory.path().join("rootfs"));
    let tokio = tokio::runtime::Runtime::new().expect("tokio");
    tokio.block_on(measure(&options, directory.path(), rounds));
    destroy_all(&options.instance, &options.root, &options.run).expect("destroy");
}

fn shim() -> ShimCommand {
    let command =
        std::env::var("SHIM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sagong-runtime-shim").to_owned());
    let mut words = command.split_whitespace().map(str::to_owned);
    ShimCommand { program: words.next().expect("a program").into(), arguments: words.collect() }
}

/// A root with a program that sleeps; any static one does.
fn prepare(root: &Path) {
    std::fs::create_dir_all(root.join("bin")).expect("root");
    let source = root.join("sleep.rs");
    std::fs::write(&source, "fn main() { loop { std::thread::park() } }").expect("source");
    let status = std::process::Command::new("rustc")
        .args(["-C", "target-feature=+crt-static", "-O", "-o"])
        .arg(root.join("bin/sleep"))
        .arg(&source)
        .status();
    assert!(status.expect("rustc").success());
}

async fn measure(options: &Options, directory: &Path, rounds: u32) {
    let runtime = NativeRuntime::open(options.clone()).expect("open");
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut memory = Vec::new();
    for round in 0..rounds {
        let mut clock = Instant::now();
        let mut lap = |what| {
            times.entry(what).or_default().push(clock.elapsed());
            clock = Instant::now();
        };
        let sandbox = runtime.run_sandbox(sandbox(directory, round)).await.expect("sandbox");
        lap("1 sandbox made");
        let container = runtime.create_container(&sandbox.id, container(directory)).await.expect("create");
        lap("2 container created");
        runtime.start_container(&container.id).await.expect("start");
        lap("3 container started");
        let command = ["sleep".to_owned()];
        let _ = runtime.exec(&container.id, &command, Duration::from_millis(1)).await;
        lap("4 command executed and killed");
        memory.push(shim_memory(&runtime, &container.id).await);
        lap("(reading memory)");
        runtime.stop_sandbox(&sandbox.id).await.expect("stop");
        lap("5 sandbox stopped");
        runtime.remove_sandbox(&sandbox.id).await.expect("remove");
        lap("6 sandbox removed");
    }
    for (what, mut times) in times {
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!("{what:<32} p50 {:>10.2?}  p90 {:>10.2?}  max {:>10.2?}", at(0.5), at(0.9), at(1.0));
    }
    println!("memory of a shim: {}", memory.last().cloned().unwrap_or_default());
}

async fn shim_memory(runtime: &NativeRuntime, id: &str) -> String {
    let all = runtime.list_containers().await.expect("list");
    let state = all.into_iter().find(|container| container.id == id).expect("container").state;
    let ContainerState::Running { pid, .. } = state else { panic!("{state:?}") };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let shim = stat.rsplit_once(") ").expect("name").1.split(' ').nth(1).expect("parent").to_owned();
    // What is its own, and what all shims share.
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).expect("memory");
    let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssFile:"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn sandbox(directory: &Path, round: u32) -> SandboxConfig {
    SandboxConfig {
        namespace: "default".to_owned(),
        name: "pod".to_owned(),
        uid: round.to_string(),
        attempt: 0,
        hostname: "pod".to_owned(),
        host_network: false,
        host_ipc: false,
        share_processes: false,
        sysctls: BTreeMap::new(),
        cgroup_parent: format!("besteffort/pod{round}"),
        log_directory: directory.join("logs"),
        annotations: BTreeMap::new(),
    }
}

fn container(directory: &Path) -> ContainerConfig {
    ContainerConfig {
        name: "main".to_owned(),
        attempt: 0,
        image_id: String::new(),
        root: directory.join("rootfs"),
        args: vec!["sleep".to_owned()],
        env: Vec::new(),
        working_dir: "/".to_owned(),
        image_user: String::new(),
        mounts: Vec::new(),
        resources: Resources {
            memory_limit: Some(256 << 20),
            cpu_shares: Some(102),
            oom_score_adj: Some(1000),
            ..Resources::default()
        },
        security: Security::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        log_path: "0.log".into(),
        annotations: BTreeMap::new(),
    }
}
