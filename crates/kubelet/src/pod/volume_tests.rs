//! Volumes of running pods, on a node in memory: what they show stays up to date, and they may not grow too large.

use crate::fakes::World;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn spec(volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = json!("v");
    let container =
        json!({"name": "main", "image": "kubia:v1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    json!({"containers": [container], "volumes": [volume], "serviceAccountName": "builder"})
}

fn shown(world: &World, file: &str) -> Option<String> {
    let path: PathBuf = world.dir.path().join("pods/uid-pod/volumes/v").join(file);
    std::fs::read_to_string(path).ok()
}

async fn until_shown(world: &Arc<World>, file: &'static str, text: &'static str) {
    world.until(text, |world| shown(world, file).as_deref() == Some(text)).await;
}

/// Memory is mounted where nothing on a disk may be left.
fn unmount(world: &World) {
    let path = world.dir.path().join("pods/uid-pod/volumes/v");
    let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_changes_changes_in_running_pods() {
    let world = World::new();
    world.write_config_map("cm", json!({"a": "1"}), &[]);
    world.create("pod", spec(json!({"configMap": {"name": "cm"}})));
    let _running = world.start();
    world.until_ready("pod").await;
    assert_eq!(shown(&world, "a").as_deref(), Some("1"));
    world.write_config_map("cm", json!({"a": "2", "b": "3"}), &["pod"]);
    until_shown(&world, "a", "2").await;
    assert_eq!(shown(&world, "b").as_deref(), Some("3"));
    assert_eq!(world.count("start main#0"), 1, "nothing was restarted for it");
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_comes_late_starts_the_pod_at_once() {
    let world = World::new();
    world.create("pod", spec(json!({"configMap": {"name": "cm"}})));
    let _running = world.start();
    let message = "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found";
    world.until("failure told", |world| world.has_event("FailedMount", message)).await;
    // Long enough for the pause between two attempts to have grown.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let began = world.begun_elapsed();
    world.write_config_map("cm", json!({"a": "1"}), &["pod"]);
    world.until_ready("pod").await;
    assert!(world.begun_elapsed() - began < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn labels_that_change_change_in_running_pods() {
    let world = World::new();
    let file = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
    world.create("pod", spec(json!({"downwardAPI": {"items": [file]}})));
    let _running = world.start();
    world.until_ready("pod").await;
    assert_eq!(shown(&world, "labels").as_deref(), Some(""));
    world.change("pod", |pod| {
        pod.metadata.labels = Some([("app".to_owned(), "kubia".to_owned())].into());
    });
    until_shown(&world, "labels", "app=\"kubia\"").await;
    unmount(&world);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires() {
    let world = World::new();
    let source = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 600}});
    world.create("pod", spec(json!({"projected": {"sources": [source]}})));
    let _running = world.start();
    world.until_ready("pod").await;
    let first = shown(&world, "token").unwrap();
    assert!(first.starts_with("builder-"), "{first}");
    tokio::time::sleep(Duration::from_secs(470)).await;
    assert_eq!(shown(&world, "token").as_ref(), Some(&first));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let second = shown(&world, "token").unwrap();
    assert_ne!(second, first);
    unmount(&world);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_was_away_brings_volumes_up_to_date() {
    let world = World::new();
    world.write_config_map("cm", json!({"a": "1"}), &[]);
    world.create("pod", spec(json!({"configMap": {"name": "cm"}})));
    let running = world.start();
    world.until_ready("pod").await;
    running.crash().await;
    world.write_config_map("cm", json!({"a": "2"}), &[]);
    let _running = world.start();
    until_shown(&world, "a", "2").await;
    assert_eq!(world.count("start main#0"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_evicted_fails_and_says_why() {
    let world = World::new();
    world.create("pod", spec(json!({"emptyDir": {"sizeLimit": "1Mi"}})));
    let _running = world.start();
    world.until_ready("pod").await;
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    world.evict("pod", message);
    world.until("failed", |world| world.get("pod", "/status/phase") == "Failed").await;
    assert_eq!(world.get("pod", "/status/reason"), "Evicted");
    assert_eq!(world.get("pod", "/status/message"), message);
    assert!(world.has_event("Evicted", message));
    world.until("stopped", |world| world.count("stop_sandbox") == 1).await;
    let state = world.get("pod", "/status/containerStatuses/0/state/terminated");
    assert!(state.is_object(), "{state}");
    let volume = world.dir.path().join("pods/uid-pod/volumes/v");
    world.until("volumes gone", |_| !volume.exists()).await;
    world.until("file systems gone", |world| world.state.lock().mounts.is_empty()).await;
}
