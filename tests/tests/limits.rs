//! Pods that take more than they may, and more pods than usual: each is told why it ends, and the node goes on.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, eventually, have, run, stdout};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;

fn pod(name: &str, script: &str, limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "main", "image": "test/shell:1", "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", script], "resources": {"limits": limits},
        }],
    }})
}

fn cluster(options: &[&str]) -> Cluster {
    let cluster = Cluster::prepare();
    cluster.load_shell();
    cluster.up(options);
    cluster
}

fn create(cluster: &Cluster, pods: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    cluster.kubectl_stdin(&["create"], &list.to_string());
}

/// The pod's status once it has failed.
fn failed(cluster: &Cluster, name: &str) -> Value {
    eventually(&format!("{name} to fail"), || {
        let status = cluster.get(&["pod", name])["status"].clone();
        (status["phase"] == "Failed").then_some(status)
    })
}

#[test]
fn who_takes_more_than_allowed_is_ended_with_the_reason_and_the_others_go_on() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster(&[]);
    let fills = "head -c 4000000 /dev/zero > /big; sleep 600";
    create(
        &cluster,
        &[
            pod("beside", "while true; do echo; sleep 0.2; done", json!({})),
            pod("hungry", "x=aaaaaaaa; while true; do x=$x$x; done", json!({"memory": "32Mi"})),
            pod("writer", fills, json!({"ephemeral-storage": "1Mi"})),
            pod(
                "talker",
                "while true; do echo $PATH$PATH$PATH$PATH; done",
                json!({"ephemeral-storage": "2Gi"}),
            ),
        ],
    );
    let hungry = failed(&cluster, "hungry")["containerStatuses"][0]["state"]["terminated"].clone();
    assert_eq!((&hungry["reason"], &hungry["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{hungry}");
    let writer = failed(&cluster, "writer");
    let why = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!((&writer["reason"], &writer["message"]), (&json!("Evicted"), &json!(why)), "{writer}");
    let events = cluster.kubectl(&["get", "events"]);
    assert!(events.contains("Evicted") && events.contains(why.trim()), "{events}");

    // Five files of ten megabytes, as upstream keeps them; one more while they change places.
    let directory = |pod: &Value| {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        cluster.data_dir().join(format!("logs/default_talker_{uid}/main"))
    };
    let logs = directory(&cluster.get(&["pod", "talker"]));
    let sizes = || {
        let entries = std::fs::read_dir(&logs).unwrap().flatten();
        entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect::<Vec<_>>()
    };
    eventually("the log to have been rotated", || (sizes().len() > 1).then_some(()));
    assert!(sizes().iter().all(|size| *size < 12_000_000) && sizes().len() <= 6, "{:?}", sizes());
    let talker = cluster.get(&["pod", "talker"])["status"]["phase"].clone();
    let beside = cluster.get(&["pod", "beside"])["status"]["containerStatuses"][0].clone();
    assert_eq!(
        (&talker, &beside["ready"], &beside["restartCount"]),
        (&json!("Running"), &json!(true), &json!(0))
    );
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]);
    let conditions = cluster.get(&["nodes"])["items"][0]["status"]["conditions"].clone();
    let is = |condition: &Value| (condition["type"] == "Ready") == (condition["status"] == "True");
    assert!(conditions.as_array().unwrap().iter().all(is), "{conditions}");
}

/// More than upstream's kubelet takes by default.
#[test]
fn a_node_takes_as_many_pods_as_it_is_told() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster(&["--max-pods", "130"]);
    assert_eq!(cluster.get(&["nodes"])["items"][0]["status"]["capacity"]["pods"], "130");
    let template = json!({"metadata": {"labels": {"app": "many"}}, "spec": {
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": "test/shell:1", "imagePullPolicy": "Never",
            "command": ["/bin/sleep", "100000"]}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {"replicas": 131, "selector": {"matchLabels": {"app": "many"}}, "template": template}});
    create(&cluster, &[deployment]);
    eventually("130 ready pods", || {
        let status = cluster.get(&["deployment", "many"])["status"].clone();
        (status["readyReplicas"] == 130).then_some(())
    });
    let left = cluster.get(&["pods", "--field-selector=status.phase=Pending"]);
    let why = left["items"][0]["status"]["conditions"][0]["message"].clone();
    assert!(why.as_str().unwrap().contains("Too many pods"), "{left}");
    cluster.kubectl(&["delete", "deployment", "many"]);
    eventually("all to be gone", || {
        (cluster.get(&["pods"])["items"].as_array().unwrap().is_empty()).then_some(())
    });
}

/// Registries that are dead in one way or the other: what pods that need them say.
#[test]
fn a_dead_registry_is_told_and_keeps_nobody_else_from_running() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster(&[]);
    let refusing = sagong_tests::free_port();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let [fails, cuts] = [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 1000\r\n\r\n{",
    ]
    .map(answering);
    let pods = [
        ("refuses", refusing),
        ("silent", silent.local_addr().unwrap().port()),
        ("fails", fails),
        ("cuts", cuts),
    ]
    .map(|(name, port)| {
        let mut pod = pod(name, "true", json!({}));
        pod["spec"]["containers"][0]["image"] = json!(format!("127.0.0.1:{port}/x:v1"));
        pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        pod
    });
    create(&cluster, &pods);
    create(&cluster, &[pod("other", "sleep 600", json!({}))]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/other", "--timeout=60s"]);
    for (name, why) in
        [("refuses", "Connection refused"), ("fails", "500 Internal Server Error"), ("cuts", "")]
    {
        eventually(&format!("{name} to be told"), || {
            let waiting =
                cluster.get(&["pod", name])["status"]["containerStatuses"][0]["state"]["waiting"].clone();
            let reason = waiting["reason"].as_str().unwrap_or_default();
            ["ErrImagePull", "ImagePullBackOff"].contains(&reason).then_some(())
        });
        let of_pod = format!("--field-selector=involvedObject.name={name},reason=Failed");
        let events = cluster.kubectl(&["get", "events", &of_pod]);
        assert!(events.contains("Failed to pull image") && events.contains(why), "{events}");
    }
    // Who waits for an answer can be deleted.
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=10s"]);
}

/// A server that gives each request the same answer and hangs up. It lives as long as the test.
fn answering(answer: &'static str) -> u16 {
    use std::io::{Read, Write};
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// Without the controller of processes a cluster runs, and says what is missing; without one it cannot do without it
/// refuses.
#[test]
fn a_missing_cgroup_controller_is_told() {
    if !have("kubectl") || !have("unshare") {
        return;
    }
    let is_mounted = |controller: &str| std::path::Path::new("/sys/fs/cgroup").join(controller).is_dir();
    if !is_mounted("pids") || !is_mounted("memory") {
        eprintln!("SKIPPED: the controllers of this machine are in one hierarchy");
        return;
    }
    let cluster = Cluster::prepare();
    let up_without = |controller: &str| {
        let up = cluster.up_command(&[]);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", "umount \"/sys/fs/cgroup/$0\" && exec \"$@\"", controller]);
        command.arg(up.get_program()).args(up.get_args());
        command.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(&mut command)
    };
    let refused = up_without("memory");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("the cgroup controller \"memory\" is not available"),
        "{said}"
    );
    let started = up_without("pids");
    let said = String::from_utf8_lossy(&started.stdout).into_owned();
    assert!(started.status.success(), "{said}{}", String::from_utf8_lossy(&started.stderr));
    let lack = "The cgroup controller \"pids\" is missing: a container may start any number of processes";
    assert!(said.contains(lack), "{said}");
    eventually("an event", || cluster.kubectl(&["describe", "node"]).contains(lack).then_some(()));
    stdout(&mut cluster.sagong(&["down"]));
}
