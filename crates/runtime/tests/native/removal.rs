//! Nothing is left behind.

use crate::harness::Bench;
use sagong_runtime::native::{check_cgroups, destroy_all};
use sagong_runtime::{ContainerState, Containers, RuntimeError, Sandboxes};

#[test]
fn containers_can_be_put_into_cgroups_here() {
    assert_eq!(check_cgroups(), Ok(()));
}

#[tokio::test]
async fn stopping_a_sandbox_ends_its_containers_and_removing_it_leaves_nothing() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["child", "600000", "sleep", "600000"])).await;
    bench.runtime.stop_sandbox(&container.sandbox_id).await.expect("stop");
    let state = bench.ended(&container.id).await;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, .. }), "{state:?}");
    let sandboxes = bench.runtime.list_sandboxes().await.expect("list");
    assert!(!sandboxes[0].ready);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&bench.options.run.join("ns").display().to_string()));
    bench.runtime.stop_sandbox(&container.sandbox_id).await.expect("stop again");
    bench.runtime.remove_sandbox(&container.sandbox_id).await.expect("remove");
    bench.runtime.remove_sandbox(&container.sandbox_id).await.expect("remove again");
    assert!(bench.runtime.list_sandboxes().await.expect("list").is_empty());
    assert!(bench.runtime.list_containers().await.expect("list").is_empty());
    let traces: Vec<String> = bench.traces().into_iter().filter(|trace| trace.contains("pod1")).collect();
    assert_eq!(traces, [""; 0]);
}

#[tokio::test]
async fn removing_a_container_kills_it_and_keeps_its_log() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["out", "hello\\n", "sleep", "600000"])).await;
    bench.logged("stdout F hello").await;
    let pid = bench.pid(&container.id).await;
    bench.runtime.remove_container(&container.id).await.expect("remove");
    assert!(bench.runtime.list_containers().await.expect("list").is_empty());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!bench.traces().iter().any(|trace| trace.contains(&container.id)));
    assert_eq!(bench.log(), ["stdout F hello"]);
    bench.runtime.remove_container(&container.id).await.expect("remove again");
    let error = bench.runtime.start_container(&container.id).await.expect_err("gone");
    assert!(matches!(error, RuntimeError::NotFound(_)));
}

#[tokio::test]
async fn a_purge_leaves_no_process_mount_cgroup_or_record() {
    let bench = Bench::new();
    for uid in ["one", "two"] {
        let mut config = bench.sandbox_config();
        config.uid = uid.to_owned();
        let sandbox = bench.runtime.run_sandbox(config).await.expect("sandbox");
        let config = bench.container_config(&["child", "600000", "sleep", "600000"]);
        let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
        bench.runtime.start_container(&container.id).await.expect("start");
    }
    bench.runtime.purge().await.expect("purge");
    assert_eq!(bench.traces(), [""; 0]);
    assert!(!bench.options.root.exists());
    assert!(!bench.options.run.exists());
}

#[tokio::test]
async fn an_instance_whose_records_are_broken_is_destroyed_all_the_same() {
    let bench = Bench::new();
    bench.run(bench.container_config(&["sleep", "600000"])).await;
    for entry in std::fs::read_dir(bench.options.root.join("containers")).expect("list").flatten() {
        std::fs::write(entry.path().join("shim.json"), "{").expect("break");
        std::fs::remove_file(entry.path().join("launch.json")).expect("break");
        std::fs::write(entry.path().join("container.json"), "").expect("break");
    }
    destroy_all(&bench.options.instance, &bench.options.root, &bench.options.run).expect("destroy");
    assert_eq!(bench.traces(), [""; 0]);
    destroy_all(&bench.options.instance, &bench.options.root, &bench.options.run).expect("destroy again");
}
