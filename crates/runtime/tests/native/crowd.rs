//! Many at once, and calls that get into each other's way.

use crate::harness::Bench;
use futures::future::join_all;
use sagong_runtime::{ContainerState, Containers, Sandboxes};

#[tokio::test(flavor = "multi_thread")]
async fn forty_containers_start_and_go_at_once() {
    let bench = Bench::new();
    let one = async |number: usize| {
        let mut config = bench.sandbox_config();
        config.cgroup_parent = format!("burstable/pod{}", number / 2);
        let sandbox = bench.runtime.run_sandbox(config).await.expect("sandbox");
        let mut config = bench.container_config(&["sleep", "600000"]);
        config.log_path = format!("{number}/0.log").into();
        let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
        bench.runtime.start_container(&container.id).await.expect("start");
        assert!(matches!(bench.state(&container.id).await, ContainerState::Running { .. }));
        bench.runtime.remove_sandbox(&sandbox.id).await.expect("remove");
    };
    join_all((0..40).map(one)).await;
    assert!(bench.runtime.list_containers().await.expect("list").is_empty());
    let traces: Vec<String> = bench.traces().into_iter().filter(|trace| trace.contains("pod")).collect();
    assert_eq!(traces, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_and_removing_at_once_ends_without_the_container() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    for attempt in 0..10 {
        let mut config = bench.container_config(&["sleep", "600000"]);
        config.attempt = attempt;
        let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
        let (id, id_) = (container.id.clone(), container.id.clone());
        let (runtime, runtime_) = (bench.runtime.clone(), bench.runtime.clone());
        let started = tokio::spawn(async move { runtime.start_container(&id).await });
        let removed = tokio::spawn(async move { runtime_.remove_container(&id_).await });
        removed.await.expect("no panic").expect("remove");
        // Whichever came first; if the start did it may have found the container gone.
        let _ = started.await.expect("no panic");
        bench.runtime.remove_container(&container.id).await.expect("remove again");
        assert!(!bench.traces().iter().any(|trace| trace.contains(&container.id)), "{:?}", bench.traces());
    }
    assert!(bench.runtime.list_containers().await.expect("list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_sagong_did_not_see_the_end_of_is_found_out() {
    let mut bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let config = bench.container_config(&["sleep", "600000"]);
    let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
    let (runtime, id) = (bench.runtime.clone(), container.id.clone());
    let started = tokio::spawn(async move { runtime.start_container(&id).await });
    // Another Sagong, while the shim of the first one is at work or before.
    bench.reopen();
    let again = bench.runtime.start_container(&container.id).await;
    let first = started.await.expect("no panic");
    assert!(first.is_ok() || again.is_ok(), "{first:?} {again:?}");
    bench.reopen();
    assert!(matches!(bench.state(&container.id).await, ContainerState::Running { .. }));
}
