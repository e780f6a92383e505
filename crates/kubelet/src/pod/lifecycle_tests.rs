//! Whole lives of pods in a world in memory, on a virtual clock.

use crate::fakes::{Program, Withdrawal, World};
use jiff::SignedDuration;
use rstest::rstest;
use serde_json::{Value, json};
use std::time::Duration;

fn kubia() -> Value {
    json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "nodejs", "image": "kubia:v1"}]})
}

fn with(mut spec: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[key] = value;
    spec
}

fn exec_probe(more: Value) -> Value {
    let mut probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 10});
    probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    probe
}

/// The position of the first entry that begins so.
fn at(journal: &[String], what: &str) -> usize {
    journal
        .iter()
        .position(|done| done.starts_with(what))
        .unwrap_or_else(|| panic!("no {what} in {journal:?}"))
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_as_soon_as_its_container_runs() {
    let world = World::new();
    let running = world.start();
    world.create("p", kubia());
    world.until_ready("p").await;
    assert!(world.when("start nodejs#0") < Duration::from_millis(40));
    assert_eq!(world.state.lock().history, ["Pending/False", "Running/True"]);
    assert_eq!(world.get("p", "/status/podIP"), json!("10.244.0.2"));
    assert_eq!(world.get("p", "/status/hostIP"), json!("192.168.0.1"));
    let status = world.get("p", "/status/containerStatuses/0");
    assert_eq!(status["containerID"], json!("sagong://container-3"));
    assert_eq!(status["imageID"], json!("docker.io/kubia@sha256:kubia:v1"));
    assert_eq!(
        (status["ready"].clone(), status["started"].clone(), status["lastState"].clone()),
        (json!(true), json!(true), json!({}))
    );
    for (reason, message) in [
        ("Pulled", "Container image \"kubia:v1\" already present on machine"),
        ("Created", "Created container: nodejs"),
        ("Started", "Started container nodejs"),
    ] {
        assert!(world.has_event(reason, message), "{reason}");
    }
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nothing_changes() {
    let world = World::new();
    let _running = world.start();
    world.create("p", kubia());
    world.until_ready("p").await;
    let patches = world.count("patch");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.count("patch"), patches);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_leaves_services_and_finishes_its_connections_before_it_is_told_to_stop() {
    let world = World::new();
    let _running = world.start();
    world.state.lock().connections = vec![2, 1, 1, 0, 1, 0, 0];
    let hook = json!({"preStop": {"exec": {"command": ["prestop"]}}});
    world.create("p", with(kubia(), "/containers/0/lifecycle", hook));
    world.until_ready("p").await;
    world.delete("p", 30);
    world.until_gone("p").await;
    let journal = world.journal();
    let order = [
        "DELETE",
        "withdraw",
        "connections 2",
        "prestop nodejs",
        "signal 15 nodejs",
        "stop_sandbox",
        "detach",
        "restore",
        "remove_sandbox",
        "delete_pod",
    ];
    let places: Vec<usize> = order.iter().map(|what| at(&journal, what)).collect();
    assert!(places.is_sorted(), "{journal:?}");
    let last_look = journal.iter().rposition(|done| done == "connections 0").unwrap();
    assert!(last_look < at(&journal, "prestop"), "{journal:?}");
    assert_eq!(world.count("connections 0"), 3, "zero counts only if seen twice in a row");
    assert_eq!(world.count("signal 9 nodejs"), 0);
    assert!(world.has_event("Killing", "Stopping container nodejs"));
    let state = world.state.lock();
    assert!(state.mounts.is_empty() && state.addresses.is_empty() && state.containers.is_empty());
    assert!(
        !world.dir.path().join("pods/uid-p").exists()
            && !world.dir.path().join("logs/default_p_uid-p").exists()
    );
}

#[tokio::test(start_paused = true)]
async fn the_final_status_is_told_before_the_pod_goes() {
    let world = World::new();
    let _running = world.start();
    world.create("p", kubia());
    world.until_ready("p").await;
    let patches = world.count("patch");
    world.delete("p", 30);
    world.until_gone("p").await;
    assert_eq!(world.count("patch"), patches + 1, "in one write");
    assert_eq!(world.state.lock().history, ["Pending/False", "Running/True", "Succeeded/False"]);
}

#[rstest]
#[case::half_of_the_grace_period(30, 15)]
#[case::but_two_seconds_are_the_containers(3, 1)]
#[case::nothing_to_spare(2, 0)]
#[tokio::test(start_paused = true)]
async fn connections_that_never_end_are_waited_for_only_so_long(#[case] grace: i64, #[case] waits: u64) {
    let world = World::new();
    let _running = world.start();
    world.state.lock().connections = vec![1];
    world.create("p", kubia());
    world.until_ready("p").await;
    world.delete("p", grace);
    world.until_gone("p").await;
    let waited = world.when("signal 15 nodejs") - world.when("DELETE");
    assert_eq!(waited.as_secs_f64().round(), waits as f64, "{waited:?}");
}

#[rstest]
#[case::confirmed(Withdrawal::Confirmed, 0, None)]
#[case::fails(Withdrawal::Fails, 5, Some("no such table"))]
#[case::hangs(Withdrawal::Hangs, 5, Some("no answer"))]
#[tokio::test(start_paused = true)]
async fn a_data_plane_that_does_not_confirm_is_waited_for_only_so_long_and_an_event_says_so(
    #[case] withdrawal: Withdrawal,
    #[case] waits: u64,
    #[case] told: Option<&str>,
) {
    let world = World::new();
    let _running = world.start();
    world.create("p", kubia());
    world.until_ready("p").await;
    world.state.lock().withdrawal = withdrawal;
    world.delete("p", 30);
    world.until_gone("p").await;
    let waited = world.when("signal 15 nodejs") - world.when("DELETE");
    assert_eq!(waited.as_secs_f64().round(), waits as f64, "{waited:?}");
    let state = world.state.lock();
    let events = state.events.iter().filter(|(_, reason, _)| reason == "FailedWithdraw");
    let messages: Vec<&String> = events.map(|(_, _, message)| message).collect();
    assert_eq!(messages.len(), usize::from(told.is_some()), "{messages:?}");
    assert!(messages.iter().all(|message| told.is_some_and(|told| message.contains(told))), "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn who_ignores_sigterm_is_killed_at_the_end_of_the_grace_period() {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { ignores_term: true, ..Default::default() });
    world.create("p", kubia());
    world.until_ready("p").await;
    world.delete("p", 10);
    world.until_gone("p").await;
    let asked = world.when("signal 15 nodejs") - world.when("DELETE");
    let killed = world.when("signal 9 nodejs") - world.when("DELETE");
    assert!(asked < Duration::from_millis(100), "{asked:?}");
    assert!((10.0..10.1).contains(&killed.as_secs_f64()), "{killed:?}");
    assert_eq!(world.state.lock().history.last().map(String::as_str), Some("Failed/False"));
}

#[rstest]
#[case::forwards(3600)]
#[case::backwards(-3600)]
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_neither_shortens_nor_prolongs_the_grace_period(#[case] seconds: i64) {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { ignores_term: true, ..Default::default() });
    world.create("p", kubia());
    world.until_ready("p").await;
    world.delete("p", 10);
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.clock.set(SignedDuration::from_secs(seconds));
    // Anything that makes it look.
    world.change("p", |_| {});
    world.until_gone("p").await;
    let killed = world.when("signal 9 nodejs") - world.when("DELETE");
    assert!((10.0..10.1).contains(&killed.as_secs_f64()), "{killed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_holds_up_neither_probes_nor_restarts() {
    let world = World::new();
    let _running = world.start();
    let answers = Program { answers_after: Some(Duration::ZERO), ..Default::default() };
    world.program("nodejs", answers);
    world.create("p", with(kubia(), "/containers/0/livenessProbe", exec_probe(json!({}))));
    world.until_ready("p").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.clock.set(SignedDuration::from_secs(-3600));
    world.program("nodejs", Program { answers_after: None, ..Default::default() });
    world.until("restarted", |world| world.count("start nodejs#1") == 1).await;
    let after = world.when("start nodejs#1") - world.when("start nodejs#0");
    assert!(after < Duration::from_secs(60), "{after:?}");

    world.program("nodejs", Program { ends: Some((Duration::from_millis(1), 1)), ..Default::default() });
    world.create("q", kubia());
    let starts =
        |world: &World| world.journal().iter().filter(|what| what.starts_with("start nodejs#")).count();
    world
        .until("a wait", |world| world.get("q", "/status/containerStatuses/0/restartCount") == json!(1))
        .await;
    let (before, since) = (starts(&world), world.begun_elapsed());
    world.clock.set(SignedDuration::from_secs(-3600));
    world.change("q", |_| {});
    world.until("the next start", |world| starts(world) > before).await;
    let waited = world.begun_elapsed() - since;
    assert!(waited < Duration::from_secs(30), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_shortens_the_grace_period() {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { ignores_term: true, ..Default::default() });
    world.create("p", kubia());
    world.until_ready("p").await;
    world.delete("p", 3600);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.delete("p", 1);
    world.until_gone("p").await;
    let killed = world.when("signal 9 nodejs") - world.when("DELETE");
    assert!((6.0..6.1).contains(&killed.as_secs_f64()), "{killed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_kills_at_once() {
    let world = World::new();
    let _running = world.start();
    world.state.lock().connections = vec![5];
    world.create("p", kubia());
    world.until_ready("p").await;
    let before = world.begun_elapsed();
    world.force_delete("p");
    world.until_gone("p").await;
    assert_eq!(world.count("signal 15 nodejs"), 0);
    assert!(world.when("signal 9 nodejs") - before < Duration::from_millis(10));
    assert!(world.state.lock().mounts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_address_is_not_withdrawn() {
    let world = World::new();
    let _running = world.start();
    world.create("p", with(kubia(), "/hostNetwork", json!(true)));
    world.until_ready("p").await;
    assert_eq!(world.get("p", "/status/podIP"), json!("192.168.0.1"));
    world.delete("p", 30);
    world.until_gone("p").await;
    assert_eq!(world.count("withdraw") + world.count("attach"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_waits_longer_and_longer() {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { ends: Some((Duration::from_millis(1), 1)), ..Default::default() });
    world.create("p", kubia());
    world.until("second start", |world| world.count("start nodejs#1") == 1).await;
    let told = |world: &World| world.told().0.iter().any(|(_, reason, _)| reason == "BackOff");
    assert!(!told(&world), "the first restart waits for nothing");
    world.until("six restarts", |world| world.count("start nodejs#6") == 1).await;
    let starts: Vec<u64> = (0..7).map(|n| world.when(&format!("start nodejs#{n}")).as_secs()).collect();
    assert_eq!(starts, [0, 0, 10, 30, 70, 150, 310]);
    world
        .until("waiting", |world| {
            world.get("p", "/status/containerStatuses/0/state/waiting/message")
                == json!("back-off 5m0s restarting failed container=nodejs pod=p_default(uid-p)")
        })
        .await;
    let status = world.get("p", "/status/containerStatuses/0");
    assert_eq!(status["state"]["waiting"]["reason"], json!("CrashLoopBackOff"));
    assert_eq!(status["lastState"]["terminated"]["exitCode"], json!(1));
    assert_eq!(status["lastState"]["terminated"]["reason"], json!("Error"));
    assert_eq!(status["restartCount"], json!(6));
    assert_eq!(world.get("p", "/status/phase"), json!("Running"));
    assert!(
        world.has_event("BackOff", "Back-off restarting failed container nodejs in pod p_default(uid-p)")
    );
    assert!(world.state.lock().containers.len() <= 2, "old runs are removed");
    assert!(world.state.lock().mounts.len() <= 2);
}

#[rstest]
#[case::always_success("Always", 0, "Running", 3)]
#[case::always_failure("Always", 1, "Running", 3)]
#[case::on_failure_success("OnFailure", 0, "Succeeded", 1)]
#[case::on_failure_failure("OnFailure", 1, "Running", 3)]
#[case::never_success("Never", 0, "Succeeded", 1)]
#[case::never_failure("Never", 1, "Failed", 1)]
#[tokio::test(start_paused = true)]
async fn the_restart_policy_decides_about_exits(
    #[case] policy: &str,
    #[case] code: i32,
    #[case] phase: &str,
    #[case] starts: usize,
) {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { ends: Some((Duration::from_millis(50), code)), ..Default::default() });
    world.create("p", with(kubia(), "/restartPolicy", json!(policy)));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.get("p", "/status/phase"), json!(phase));
    let journal = world.journal();
    assert_eq!(
        journal.iter().filter(|done| done.starts_with("start nodejs#")).count(),
        starts,
        "{journal:?}"
    );
    if starts == 1 {
        assert_eq!(world.count("stop_sandbox"), 1, "a pod that is over gives its address back");
        assert_eq!(world.state.lock().containers.len(), 1, "and keeps its logs");
        world.delete("p", 30);
        world.until_gone("p").await;
    }
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other() {
    let world = World::new();
    let _running = world.start();
    for name in ["one", "two"] {
        world.program(name, Program { ends: Some((Duration::from_secs(1), 0)), ..Default::default() });
    }
    let inits = json!([{"name": "one", "image": "kubia:v1"}, {"name": "two", "image": "kubia:v1"}]);
    world.create("p", with(kubia(), "/initContainers", inits));
    world.until("one runs", |world| world.count("start one#0") == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = world.get("p", "/status/containerStatuses/0/state/waiting/reason");
    assert_eq!(waiting, json!("PodInitializing"));
    let conditions = world.get("p", "/status/conditions");
    let initialized = conditions.as_array().unwrap().iter().find(|it| it["type"] == "Initialized").unwrap();
    assert_eq!(initialized["message"], json!("containers with incomplete status: [one two]"));
    world.until_ready("p").await;
    let journal = world.journal();
    assert!(at(&journal, "start one#0") < at(&journal, "start two#0"));
    assert!(at(&journal, "start two#0") < at(&journal, "start nodejs#0"));
    assert_eq!(world.get("p", "/status/initContainerStatuses/0/state/terminated/exitCode"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_holds_the_pod_back_or_ends_it() {
    let world = World::new();
    let _running = world.start();
    world.program("one", Program { ends: Some((Duration::from_millis(1), 7)), ..Default::default() });
    let inits = json!([{"name": "one", "image": "kubia:v1"}]);
    let spec = with(kubia(), "/initContainers", inits);
    world.create("always", spec.clone());
    world.create("never", with(spec, "/restartPolicy", json!("Never")));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(world.get("always", "/status/phase"), json!("Pending"));
    assert_eq!(
        world.get("always", "/status/initContainerStatuses/0/state/waiting/reason"),
        json!("CrashLoopBackOff")
    );
    assert_eq!(world.get("never", "/status/phase"), json!("Failed"));
    assert_eq!(world.count("start nodejs#0"), 0);
}

#[tokio::test(start_paused = true)]
async fn sidecars_start_before_and_stop_after_the_main_containers() {
    let world = World::new();
    let _running = world.start();
    let hook = json!({"preStop": {"exec": {"command": ["prestop"]}}});
    let sidecar =
        |name: &str| json!({"name": name, "image": "kubia:v1", "restartPolicy": "Always", "lifecycle": hook});
    let inits = json!([sidecar("proxy"), sidecar("agent")]);
    // The main container takes its time to end: until SIGKILL.
    world.program("nodejs", Program { ignores_term: true, ..Default::default() });
    world.create("p", with(kubia(), "/initContainers", inits));
    world.until_ready("p").await;
    world.delete("p", 30);
    world.until("its first signal", |world| world.count("signal 15 nodejs") == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Hooks of sidecars do not wait, their signals do.
    let journal = world.journal();
    assert!(at(&journal, "prestop proxy") > 0 && at(&journal, "prestop agent") > 0);
    assert_eq!((world.count("signal 15 proxy"), world.count("signal 15 agent")), (0, 0));
    let killed: Vec<_> = ["nodejs", "proxy", "agent"].map(|name| format!("Stopping container {name}")).into();
    assert!(killed.iter().all(|message| world.has_event("Killing", message)));
    world.until_gone("p").await;
    let journal = world.journal();
    assert!(at(&journal, "start proxy#0") < at(&journal, "start agent#0"));
    assert!(at(&journal, "start agent#0") < at(&journal, "start nodejs#0"));
}

#[tokio::test(start_paused = true)]
async fn sidecars_end_one_after_the_other_once_the_main_containers_have() {
    let world = World::new();
    let _running = world.start();
    let sidecar = |name: &str| json!({"name": name, "image": "kubia:v1", "restartPolicy": "Always"});
    world.create("p", with(kubia(), "/initContainers", json!([sidecar("proxy"), sidecar("agent")])));
    world.until_ready("p").await;
    world.delete("p", 30);
    world.until_gone("p").await;
    let journal = world.journal();
    assert!(at(&journal, "signal 15 nodejs") < at(&journal, "signal 15 agent"));
    assert!(at(&journal, "signal 15 agent") < at(&journal, "signal 15 proxy"));
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_stopped_starts_again_on_failure_although_it_exited_with_zero() {
    let world = World::new();
    let _running = world.start();
    let probe = exec_probe(json!({"failureThreshold": 1, "initialDelaySeconds": 5}));
    let spec =
        with(with(kubia(), "/restartPolicy", json!("OnFailure")), "/containers/0/livenessProbe", probe);
    world.create("p", spec);
    world.until("another run", |world| world.count("start nodejs#1") == 1).await;
    assert!(!world.state.lock().history.iter().any(|shown| shown.starts_with("Succeeded")));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_node_does_not_take_fails_at_once() {
    let world = World::new();
    let running = world.start();
    let context = json!({"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]});
    world.create("p", with(kubia(), "/securityContext", context));
    world.until("its refusal", |world| world.get("p", "/status/phase") == json!("Failed")).await;
    let why = "forbidden sysctl: \"net.core.somaxconn\" not allowlisted";
    assert_eq!(world.get("p", "/status/reason"), json!("SysctlForbidden"));
    assert_eq!(world.get("p", "/status/message"), json!(format!("Pod was rejected: {why}")));
    assert!(world.has_event("SysctlForbidden", why));
    assert_eq!(world.count("run_sandbox"), 0);
    running.crash().await;
    let told = world.state.lock().events.len();
    let _running = world.start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.state.lock().events.len(), told, "it is told once");
    assert_eq!(world.get("p", "/status/reason"), json!("SysctlForbidden"));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_does_not_exist_is_tried_again_ever_more_rarely() {
    let world = World::new();
    let _running = world.start();
    world.create("p", with(kubia(), "/containers/0/image", json!("luksa/none:v9")));
    let reason = |world: &World| world.get("p", "/status/containerStatuses/0/state/waiting/reason");
    world.until("error", |world| reason(world) == json!("ErrImagePull")).await;
    let message = world.get("p", "/status/containerStatuses/0/state/waiting/message");
    assert_eq!(message, json!("failed to pull image \"luksa/none:v9\": manifest unknown"));
    world.until("back-off", |world| reason(world) == json!("ImagePullBackOff")).await;
    let message = world.get("p", "/status/containerStatuses/0/state/waiting/message");
    assert_eq!(
        message,
        json!(
            "Back-off pulling image \"luksa/none:v9\": ErrImagePull: failed to pull image \"luksa/none:v9\": manifest unknown"
        )
    );
    assert!(world.has_event("Pulling", "Pulling image \"luksa/none:v9\""));
    assert!(world.has_event("Failed", "Error: ErrImagePull"));
    assert!(world.has_event("BackOff", "Back-off pulling image \"luksa/none:v9\""));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(world.count("pull luksa/none:v9"), 3, "at about 0, 11 and 32 s");
    world.state.lock().registry.insert("luksa/none:v9".into());
    world.until_ready("p").await;
    assert!(world.state.lock().events.iter().any(|(_, reason, message)| {
        reason == "Pulled" && message.starts_with("Successfully pulled image \"luksa/none:v9\" in 1.2s (1.2s including waiting). Image size: 1000 bytes.")
    }));
}

#[rstest]
#[case(
    "Never",
    "kubia:v9",
    "ErrImageNeverPull",
    "Container image \"kubia:v9\" is not present with pull policy of Never"
)]
#[case(
    "IfNotPresent",
    "KUBIA",
    "InvalidImageName",
    "Failed to apply default image tag \"KUBIA\": couldn't parse image name \"KUBIA\": invalid reference format"
)]
#[tokio::test(start_paused = true)]
async fn images_that_cannot_be_pulled_say_why(
    #[case] policy: &str,
    #[case] image: &str,
    #[case] reason: &str,
    #[case] message: &str,
) {
    let world = World::new();
    let _running = world.start();
    let spec = with(kubia(), "/containers/0/image", json!(image));
    world.create("p", with(spec, "/containers/0/imagePullPolicy", json!(policy)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = world.get("p", "/status/containerStatuses/0/state/waiting");
    assert_eq!(waiting, json!({"reason": reason, "message": message}));
    assert!(world.has_event("Failed", &format!("Error: {reason}")));
    // Another image helps at once.
    world.change("p", |pod| pod.spec.as_mut().unwrap().containers[0].image = Some("kubia:v1".into()));
    world.until_ready("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_is_waited_for() {
    let world = World::new();
    let _running = world.start();
    let env = json!([{"configMapRef": {"name": "settings"}}]);
    world.create("p", with(kubia(), "/containers/0/envFrom", env));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = world.get("p", "/status/containerStatuses/0/state/waiting");
    assert_eq!(
        waiting,
        json!({"reason": "CreateContainerConfigError", "message": "configmap \"settings\" not found"})
    );
    world.state.lock().config_maps.insert("settings".into(), Default::default());
    world.until_ready("p").await;
    assert_eq!(world.get("p", "/status/containerStatuses/0/restartCount"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_started_backs_off() {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { broken: true, ..Default::default() });
    world.create("p", kubia());
    let reason = |world: &World| world.get("p", "/status/containerStatuses/0/state/waiting/reason");
    world.until("error", |world| reason(world) == json!("RunContainerError")).await;
    world.until("loop", |world| reason(world) == json!("CrashLoopBackOff")).await;
    assert_eq!(
        world.get("p", "/status/containerStatuses/0/lastState/terminated/reason"),
        json!("StartError")
    );
    world.program("nodejs", Program::default());
    world.until_ready("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_sandbox_is_made_anew_soon() {
    let world = World::new();
    let _running = world.start();
    world.state.lock().sandbox_failures = 3;
    world.create("p", kubia());
    world.until_ready("p").await;
    assert_eq!(world.count("run_sandbox"), 4);
    assert!(world.state.lock().events.iter().any(|(_, reason, _)| reason == "FailedCreatePodSandBox"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced_and_its_containers_restarted() {
    let world = World::new();
    let _running = world.start();
    world.create("p", kubia());
    world.until_ready("p").await;
    let id = world.state.lock().sandboxes.keys().next().unwrap().clone();
    world.state.lock().sandboxes.get_mut(&id).unwrap().ready = false;
    world.until("restarted", |world| world.count("start nodejs#1") == 1).await;
    world.until_ready("p").await;
    let state = world.state.lock();
    assert_eq!(state.sandboxes.len(), 1);
    assert_eq!(state.sandboxes.values().next().unwrap().config.attempt, 1);
    assert_eq!(state.addresses.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_image_restarts_the_container() {
    let world = World::new();
    let _running = world.start();
    world.create("p", kubia());
    world.until_ready("p").await;
    world.change("p", |pod| pod.spec.as_mut().unwrap().containers[0].image = Some("kubia:v2".into()));
    world.until("restarted", |world| world.count("start nodejs#1") == 1).await;
    world.until_ready("p").await;
    assert!(world.has_event("Killing", "Container nodejs definition changed, will be restarted"));
    assert_eq!(world.get("p", "/status/containerStatuses/0/image"), json!("kubia:v2"));
    assert_eq!(world.count("run_sandbox"), 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_probe() {
    let world = World::new();
    let _running = world.start();
    world.program(
        "nodejs",
        Program {
            answers_after: Some(Duration::from_millis(100)),
            fails_after: Some(Duration::from_secs(35)),
            ..Default::default()
        },
    );
    world.create("p", with(kubia(), "/containers/0/readinessProbe", exec_probe(json!({}))));
    world.until("running", |world| world.get("p", "/status/phase") == json!("Running")).await;
    let conditions = world.get("p", "/status/conditions");
    let ready = conditions.as_array().unwrap().iter().find(|it| it["type"] == "Ready").unwrap();
    assert_eq!(ready["reason"], json!("ContainersNotReady"));
    assert_eq!(ready["message"], json!("containers with unready status: [nodejs]"));
    let started = world.when("start nodejs#0");
    world.until_ready("p").await;
    assert!(world.begun_elapsed() - started < Duration::from_millis(160), "quick tries make it ready soon");
    assert!(
        !world.state.lock().events.iter().any(|(_, reason, _)| reason == "Unhealthy"),
        "and are not told"
    );
    world.until("unready", |world| world.get("p", "/status/containerStatuses/0/ready") == json!(false)).await;
    assert_eq!((world.begun_elapsed() - started).as_secs(), 60, "the third failure, at 40, 50 and 60 s");
    assert!(world.has_event("Unhealthy", "Readiness probe failed: no answer"));
    assert_eq!(world.get("p", "/status/containerStatuses/0/restartCount"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_alive_is_restarted() {
    let world = World::new();
    let _running = world.start();
    world.program(
        "nodejs",
        Program {
            answers_after: Some(Duration::ZERO),
            fails_after: Some(Duration::from_secs(5)),
            ..Default::default()
        },
    );
    world.create("p", with(kubia(), "/containers/0/livenessProbe", exec_probe(json!({}))));
    world.until("restarted", |world| world.count("start nodejs#1") == 1).await;
    assert_eq!((world.when("start nodejs#1") - world.when("start nodejs#0")).as_secs(), 30);
    assert!(world.has_event("Killing", "Container nodejs failed liveness probe, will be restarted"));
    let journal = world.journal();
    let order = ["withdraw", "connections 0", "signal 15 nodejs", "start nodejs#1"];
    assert!(order.map(|what| at(&journal, what)).is_sorted(), "{journal:?}");
    world.until("readmitted", |world| world.count("readmit") == 1).await;
    assert_eq!(world.count("restore"), 0, "the pod stays");
}

/// Of three replicas one restarts: clients should not notice.
#[rstest]
#[case::connections_finish(vec![1, 0, 0], 0)]
#[case::connections_stay(vec![1], 1)]
#[tokio::test(start_paused = true)]
async fn a_container_that_is_restarted_gets_no_requests_from_before_its_stop_until_it_is_ready_again(
    #[case] connections: Vec<usize>,
    #[case] waits: u64,
) {
    let world = World::new();
    let _running = world.start();
    let ailing = Program {
        answers_after: Some(Duration::ZERO),
        fails_after: Some(Duration::from_secs(5)),
        ..Default::default()
    };
    world.program("nodejs", ailing.clone());
    let spec = with(kubia(), "/containers/0/livenessProbe", exec_probe(json!({"failureThreshold": 1})));
    world.create("p", with(spec, "/containers/0/readinessProbe", exec_probe(json!({"failureThreshold": 9}))));
    world.until_ready("p").await;
    world.state.lock().connections = connections;
    world.until("withdrawn", |world| world.count("withdraw") == 1).await;
    let begun = world.when("withdraw");
    world.program("nodejs", Program { fails_after: None, ..ailing });
    world.until("readmitted", |world| world.count("readmit") == 1).await;
    let journal = world.journal();
    let order = ["withdraw", "connections 1", "signal 15 nodejs", "start nodejs#1", "readmit"];
    assert!(order.map(|what| at(&journal, what)).is_sorted(), "{journal:?}");
    assert_eq!((world.when("signal 15 nodejs") - begun).as_secs_f64().round() as u64, waits);
    assert_eq!(world.count("withdraw"), 1);
}

#[tokio::test(start_paused = true)]
async fn until_the_startup_probe_succeeds_the_others_wait() {
    let world = World::new();
    let _running = world.start();
    world.program("nodejs", Program { answers_after: Some(Duration::from_secs(25)), ..Default::default() });
    let spec = with(kubia(), "/containers/0/startupProbe", exec_probe(json!({"failureThreshold": 5})));
    world.create("p", with(spec, "/containers/0/livenessProbe", exec_probe(json!({"failureThreshold": 1}))));
    world.until("running", |world| world.count("start nodejs#0") == 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.get("p", "/status/containerStatuses/0/started"), json!(false));
    world.until_ready("p").await;
    assert_eq!((world.begun_elapsed() - world.when("start nodejs#0")).as_secs(), 30);
    assert_eq!(world.count("start nodejs#1"), 0);
}

#[tokio::test(start_paused = true)]
async fn running_pods_survive_a_crash_of_the_kubelet() {
    let world = World::new();
    let running = world.start();
    world.program("nodejs", Program { answers_after: Some(Duration::ZERO), ..Default::default() });
    world.create("p", with(kubia(), "/containers/0/readinessProbe", exec_probe(json!({}))));
    world.until_ready("p").await;
    running.crash().await;
    let journal = world.journal();
    let (events, history) = world.told();
    let _running = world.start();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.journal(), journal, "nothing is done, not even a status written");
    assert_eq!(world.told(), (events, history), "no event is repeated and it stays ready all the time");
    assert_eq!(world.state.lock().adopted.len(), 1);
    world.delete("p", 30);
    world.until_gone("p").await;
    assert!(at(&world.journal(), "withdraw") < at(&world.journal(), "signal 15 nodejs"));
}

#[tokio::test(start_paused = true)]
async fn restart_counts_go_on_after_a_crash_of_the_kubelet() {
    let world = World::new();
    let running = world.start();
    world.program("nodejs", Program { ends: Some((Duration::from_secs(100), 1)), ..Default::default() });
    world.create("p", kubia());
    world.until("restarted", |world| world.count("start nodejs#1") == 1).await;
    running.crash().await;
    tokio::time::sleep(Duration::from_secs(150)).await;
    let _running = world.start();
    world.until("restarted", |world| world.count("start nodejs#2") == 1).await;
    world.until("told", |world| world.get("p", "/status/containerStatuses/0/restartCount") == json!(2)).await;
    assert_eq!(world.count("run_sandbox"), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_removed_while_nobody_looked_are_cleaned_up() {
    let world = World::new();
    let running = world.start();
    world.create("p", kubia());
    world.create("stays", kubia());
    world.until_ready("p").await;
    world.until_ready("stays").await;
    running.crash().await;
    world.force_delete("p");
    world.state.lock().mounts.insert("uid-unknown_nodejs_0".into());
    let _running = world.start();
    world.until("one left", |world| world.state.lock().sandboxes.len() == 1).await;
    world.until("unmounted", |world| world.state.lock().mounts.len() == 1).await;
    assert!(world.pod("stays").is_some());
    assert_eq!(world.state.lock().containers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_a_termination_does_not_begin_it_anew() {
    let world = World::new();
    let running = world.start();
    world.program("nodejs", Program { ignores_term: true, ..Default::default() });
    world.create("p", kubia());
    world.until_ready("p").await;
    world.delete("p", 30);
    tokio::time::sleep(Duration::from_secs(20)).await;
    running.crash().await;
    let _running = world.start();
    world.until_gone("p").await;
    let killed = world.when("signal 9 nodejs") - world.when("DELETE");
    assert!((29.0..31.0).contains(&killed.as_secs_f64()), "{killed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_before_it_starts_goes_without_trace() {
    let world = World::new();
    let _running = world.start();
    world.create("p", with(kubia(), "/containers/0/image", json!("luksa/none:v9")));
    world.until("pulling", |world| world.count("pull luksa/none:v9") == 1).await;
    world.delete("p", 30);
    world.until_gone("p").await;
    assert!(world.begun_elapsed() < Duration::from_secs(1), "nobody waits for the pull");
    assert!(world.state.lock().addresses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_past_its_active_deadline_is_ended() {
    let world = World::new();
    let _running = world.start();
    world.create("p", with(kubia(), "/activeDeadlineSeconds", json!(60)));
    world.until("failed", |world| world.get("p", "/status/phase") == json!("Failed")).await;
    assert_eq!(world.get("p", "/status/reason"), json!("DeadlineExceeded"));
    let told = "Pod was active on the node longer than the specified deadline";
    assert!(world.has_event("DeadlineExceeded", told));
    world.until("stopped", |world| world.count("stop_sandbox") == 1).await;
}
