//! A node that runs short of disk: it says so, ends who uses the most of it, and lets all others go on.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::shell::{TOOLS, create, import, pod, root};
use sagong_tests::small_disk::SmallDisk;
use sagong_tests::{Cluster, eventually, have};

#[test]
fn who_fills_the_disk_is_evicted_and_everybody_else_stays() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = Cluster::prepare();
    let _disk = SmallDisk::mount(&cluster, 200);
    let root = root(&[]);
    import(&cluster, root.path(), TOOLS);
    cluster.up(&[]);
    create(&cluster, &pod("modest", "sleep 600"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/modest", "--timeout=60s"]);
    create(&cluster, &pod("greedy", "dd if=/dev/zero of=/big bs=1M; sleep 600"));
    let status = eventually("the eviction", || {
        let status = cluster.get(&["pod", "greedy"])["status"].clone();
        (status["phase"] == "Failed").then_some(status)
    });
    assert_eq!(status["reason"], "Evicted", "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("The node was low on resource: ephemeral-storage."), "{message}");
    let node = cluster.get(&["nodes"])["items"][0].clone();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let is_short = |it: &&serde_json::Value| it["type"] == "DiskPressure" && it["status"] == "True";
    assert!(conditions.iter().any(|it| is_short(&it)), "{node}");
    eventually("the taint", || {
        let taints = cluster.get(&["nodes"])["items"][0]["spec"]["taints"].clone();
        taints.to_string().contains("node.kubernetes.io/disk-pressure").then_some(())
    });
    let modest = cluster.get(&["pod", "modest"])["status"].clone();
    let restarts = &modest["containerStatuses"][0]["restartCount"];
    assert_eq!((&modest["phase"], restarts), (&"Running".into(), &0.into()), "{modest}");
    // What it wrote is gone, and so is what it wrote to.
    let free = || rustix::fs::statvfs(cluster.data_dir()).unwrap();
    eventually("room", || {
        let free = free();
        (free.f_bavail * 100 > free.f_blocks * 50).then_some(())
    });
}
