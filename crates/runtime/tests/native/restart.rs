//! Sagong goes and comes back; shims are killed.

use crate::harness::{Bench, PATIENCE};
use sagong_runtime::{ContainerState, Containers, Sandboxes};
use std::time::Duration;

/// Process id of the container's shim, its parent.
fn parent(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    stat.rsplit_once(") ").expect("name").1.split(' ').nth(1).expect("parent").parse().expect("number")
}

#[tokio::test]
async fn a_running_container_is_adopted_and_its_end_noticed() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["out", "ready\\n", "sleep", "600000"])).await;
    let pid = bench.pid(&container.id).await;
    bench.logged("stdout F ready").await;
    bench.reopen();
    assert_eq!(bench.pid(&container.id).await, pid);
    let sandboxes = bench.runtime.list_sandboxes().await.expect("list");
    assert!(sandboxes.iter().all(|sandbox| sandbox.ready));
    let command = ["actor", "out", "hi"].map(str::to_owned);
    let output = bench.runtime.exec(&container.id, &command, Duration::from_secs(30)).await.expect("exec");
    assert_eq!(output.stdout, b"hi");
    bench.runtime.signal_container(&container.id, 15).await.expect("signal");
    bench.runtime.signal_container(&container.id, 9).await.expect("signal");
    let state = bench.ended(&container.id).await;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137 | 143, .. }), "{state:?}");
}

#[tokio::test]
async fn an_end_while_sagong_was_away_is_known_afterwards() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["exit", "5"])).await;
    let before = bench.ended(&container.id).await;
    bench.reopen();
    assert_eq!(bench.state(&container.id).await, before);
}

#[tokio::test]
async fn a_container_that_was_only_created_can_be_started_after_a_restart() {
    let mut bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let config = bench.container_config(&["exit", "6"]);
    let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
    bench.reopen();
    assert_eq!(bench.state(&container.id).await, ContainerState::Created);
    bench.runtime.start_container(&container.id).await.expect("start");
    let state = bench.ended(&container.id).await;
    assert!(matches!(state, ContainerState::Exited { exit_code: 6, .. }), "{state:?}");
}

#[tokio::test]
async fn annotations_and_configurations_survive_a_restart() {
    let mut bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let annotations = std::collections::BTreeMap::from([("ip".to_owned(), "10.244.0.2".to_owned())]);
    bench.runtime.annotate_sandbox(&sandbox.id, annotations.clone()).await.expect("annotate");
    bench.reopen();
    let sandboxes = bench.runtime.list_sandboxes().await.expect("list");
    assert_eq!(sandboxes.len(), 1);
    assert_eq!(sandboxes[0].config.annotations, annotations);
    assert_eq!(sandboxes[0].network_namespace, sandbox.network_namespace);
}

/// `kill -9` may come between the making of a sandbox's directory and its record; so may power fail before the record
/// is on disk.
#[tokio::test]
async fn a_sandbox_made_half_way_is_gone_after_a_restart() {
    let mut bench = Bench::new();
    let whole = bench.sandbox().await;
    let sandboxes = bench.options.root.join("sandboxes");
    std::fs::create_dir(sandboxes.join("empty")).expect("directory");
    std::fs::create_dir(sandboxes.join("torn")).expect("directory");
    let record =
        std::fs::read_dir(sandboxes.join(&whole.id)).expect("list").next().expect("file").expect("entry");
    std::fs::write(sandboxes.join("torn").join(record.file_name()), "").expect("record");
    std::fs::create_dir(bench.options.run.join("ns/torn")).expect("pins");
    bench.reopen();
    for directory in [&sandboxes, &bench.options.run.join("ns")] {
        let left: Vec<_> = std::fs::read_dir(directory)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(left, [whole.id.as_str()], "{}", directory.display());
    }
}

#[tokio::test]
async fn when_its_shim_is_killed_a_container_ends_and_its_state_is_unknown() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["child", "600000", "sleep", "600000"])).await;
    let pid = bench.pid(&container.id).await;
    let shim = rustix::process::Pid::from_raw(parent(pid)).expect("shim");
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("kill");
    let state = bench.ended(&container.id).await;
    let ContainerState::Exited { exit_code, reason, started, .. } = state else { panic!("{state:?}") };
    assert_eq!((exit_code, reason.as_str()), (137, "ContainerStatusUnknown"));
    assert!(started.is_some());
    let gone = async {
        while std::path::Path::new(&format!("/proc/{pid}/ns/pid")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the container's process ends");
    bench.reopen();
    assert!(matches!(bench.state(&container.id).await, ContainerState::Exited { exit_code: 137, .. }));
}

#[tokio::test]
async fn a_shim_killed_while_sagong_was_away_is_noticed_when_it_is_back() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["sleep", "600000"])).await;
    let shim = rustix::process::Pid::from_raw(parent(bench.pid(&container.id).await)).expect("shim");
    // The first runtime sees the end as well; the record is the same whoever writes it.
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("kill");
    bench.reopen();
    let state = bench.ended(&container.id).await;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, .. }), "{state:?}");
}

#[tokio::test]
async fn a_shim_leads_a_session_of_its_own_and_needs_little_memory() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["sleep", "600000"])).await;
    let shim = parent(bench.pid(&container.id).await);
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(shim)).expect("session");
    assert_eq!(session.as_raw_nonzero().get(), shim);
    let field = |name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{shim}/status")).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("field");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("number")
    };
    assert_eq!(field("Threads:"), 1);
    // It becomes the keeper after it answered, and tells nobody.
    let lean = async {
        while field("RssAnon:") > 256 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lean).await.expect("at most 256 KiB of its own");
}

#[tokio::test]
async fn without_the_keeper_the_shim_stays_itself() {
    let mut bench = Bench::new();
    for entry in std::fs::read_dir(&bench.options.root).expect("list").flatten() {
        if entry.file_name().to_string_lossy().starts_with("keeper-") {
            std::fs::remove_file(entry.path()).expect("remove");
        }
    }
    let container = bench.run(bench.container_config(&["out", "hello\\n", "sleep", "600000"])).await;
    bench.logged("stdout F hello").await;
    let shim = parent(bench.pid(&container.id).await);
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).expect("status");
    assert!(status.contains("Name:\tsagong-shim"), "{status}");
    bench.runtime.signal_container(&container.id, 9).await.expect("signal");
    let state = bench.ended(&container.id).await;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, signal: 9, .. }), "{state:?}");
}
