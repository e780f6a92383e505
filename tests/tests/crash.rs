//! Sagong killed without warning, again and again, under load: containers serve on, nothing is started twice, nothing
//! is lost and nothing is left.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::load::{Connections, Load};
use sagong_tests::{Cluster, eventually, example, have, run, stdout, tools};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often it is killed; `SAGONG_KILLS` for more.
fn kills() -> u64 {
    std::env::var("SAGONG_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// The process that runs the cluster, ready or not.
fn process(cluster: &Cluster) -> Option<u32> {
    let data = cluster.data_dir().display().to_string();
    let is_it = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains(&data) && command.contains("\0--background\0")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
}

/// Kills a process as a crash does, and waits until it is gone, with every thread: the last one gives back the lock
/// and the ports. When init takes note of that is another matter: in a container it may take seconds, in which names
/// would not resolve.
fn kill(pid: u32) {
    stdout(Command::new("kill").args(["-9", &pid.to_string()]));
    eventually("its end", || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        (threads == 0 || threads == 1 && state.contains("\nState:\tZ")).then_some(())
    });
}

/// Starts it and kills it so much later, wherever it has got by then.
fn kill_while_it_starts(cluster: &Cluster, later: Duration) {
    let mut up = cluster.up_command(&[]);
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = eventually("a process", || process(cluster));
    // Another moment each time; that it is not waited for anything is the point.
    std::thread::sleep(later);
    kill(pid);
    up.wait().unwrap();
}

/// Rules, chains and elements of maps in the cluster's table. (The sets still have what was in use one change ago.)
fn rules(instance: &str) -> usize {
    let list = format!("PATH=$PATH:/usr/sbin nft -j list table ip sagong-{instance}");
    let output = run(Command::new("sh").args(["-c", &list])).stdout;
    let listed: Value = serde_json::from_slice(&output).unwrap_or_default();
    let objects =
        listed["nftables"].as_array().into_iter().flatten().flat_map(|one| one.as_object().unwrap());
    let elements = |object: &Value| object["elem"].as_array().map_or(0, Vec::len);
    objects.map(|(kind, object)| 1 + if kind == "map" { elements(object) } else { 0 }).sum()
}

/// How much of each kind the cluster has on the machine.
fn holdings(cluster: &Cluster, instance: &str) -> BTreeMap<&'static str, usize> {
    let shell = |command: String| {
        let output = run(Command::new("sh").args(["-c", &command]));
        String::from_utf8_lossy(&output.stdout).trim().parse::<usize>().unwrap_or_default()
    };
    let data = cluster.data_dir();
    let data = data.display();
    BTreeMap::from([
        ("mounts", shell(format!("grep -c -e {data} -e sagong-{instance} /proc/self/mounts"))),
        ("namespaces", shell(format!("ls /run/sagong-{instance}/ns | wc -l"))),
        ("rules", rules(instance)),
        ("links", shell(format!("ls /sys/class/net | grep -c ^sg{instance}"))),
        ("cgroups", shell(format!("find /sys/fs/cgroup -type d -path '*sagong-{instance}*/pod*' | wc -l"))),
        (
            "shims",
            shell(format!(
                "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '{data}/runtime/containers/[0-9a-f]* ' | sort | wc -l"
            )),
        ),
        (
            "records",
            shell(format!("ls {data}/runtime/containers {data}/runtime/sandboxes | grep -c '^[0-9a-f]'")),
        ),
        ("directories", shell(format!("ls {data}/pods | wc -l"))),
    ])
}

/// The running containers: id and restart count by pod.
fn containers(cluster: &Cluster) -> BTreeMap<String, (String, i64)> {
    let pods = cluster.get(&["pods", "-l", "app=kubia"]);
    let running =
        pods["items"].as_array().unwrap().iter().filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
        });
    let describe = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"].as_str().unwrap_or_default().to_owned();
        let restarts = status["restartCount"].as_i64().unwrap_or(-1);
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), (id, restarts))
    };
    running.map(describe).collect()
}

fn settled(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    eventually("three pods and no more", || {
        let pods = cluster.get(&["pods", "-l", "app=kubia"]);
        (pods["items"].as_array().unwrap().len() == 3).then_some(())
    });
}

/// A container that ends on its own while nobody looks.
fn mortal(name: &str, code: i32) -> String {
    let container = json!({
        "name": "main", "image": "shell:v1", "imagePullPolicy": "Never",
        "command": ["/busybox", "sh", "-c", format!("sleep 0.4; exit {code}")],
    });
    let spec =
        json!({"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

#[test]
fn killed_again_and_again_it_loses_nothing_and_starts_nothing_twice() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = Cluster::start();
    let shell = tempfile::tempdir().unwrap();
    let busybox = stdout(Command::new("sh").args(["-c", "command -v busybox"]));
    std::fs::copy(busybox.trim(), shell.path().join("busybox")).unwrap();
    stdout(&mut cluster.sagong(&["image", "import", shell.path().to_str().unwrap(), "shell:v1"]));
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=8080"]);
    settled(&cluster);
    // Calls by name: a name that does not resolve while nobody answers is asked again by the C library.
    tools::load(&cluster);
    tools::call_by_name(&cluster, "caller", 8080);
    let ip = cluster.get(&["svc", "kubia"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let instance = cluster.instance();
    let before = holdings(&cluster, &instance);
    assert!(before.values().all(|count| *count > 0), "what is counted is there: {before:?}");
    let load = Load::start(format!("{ip}:8080").parse().unwrap(), Connections::Fresh, 2);

    for round in 0..kills() {
        let known = containers(&cluster);
        let is_rolling = round % 2 == 1;
        if is_rolling {
            let image = format!("nodejs=luksa/kubia:v{}", 1 + (round / 2 + 1) % 2);
            cluster.kubectl(&["set", "image", "deployment", "kubia", &image]);
            // Another moment each time; that it is not waited for anything is the point.
            std::thread::sleep(Duration::from_millis(round * 137 % 900));
        }
        kill(process(&cluster).unwrap());
        // More than the two requests that were under way.
        let sent = load.so_far().sent();
        eventually("answers while nothing runs", || (load.so_far().sent() > sent + 2).then_some(()));
        if round % 3 == 2 {
            kill_while_it_starts(&cluster, Duration::from_millis(round * 13 % 100));
        }
        cluster.up(&[]);
        settled(&cluster);
        // Each crash is one outage: a look-up must not meet the next one, and the next, until its attempts are used up.
        let so_far = tools::answered(&cluster, "caller");
        eventually("the caller to go on", || (tools::answered(&cluster, "caller") > so_far).then_some(()));
        let now = containers(&cluster);
        if is_rolling {
            assert!(now.values().all(|(_, restarts)| *restarts == 0), "round {round}: {now:?}");
        } else {
            assert_eq!(now, known, "round {round}: the same containers run on");
        }
        // What is being taken down goes in its own time.
        eventually(&format!("round {round}: as much as before"), || {
            let after = holdings(&cluster, &instance);
            if after != before {
                eprintln!("round {round}: {after:?}, before {before:?}");
                std::thread::sleep(Duration::from_millis(500));
            }
            (after == before).then_some(())
        });
    }
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent(), tally.failures);
    assert_eq!(tools::failures(&cluster, "caller"), [] as [String; 0]);

    // Who ends while nobody looks is not forgotten, nor is how.
    cluster.kubectl_stdin(&["create"], &mortal("mortal", 7));
    eventually("its start", || {
        let state = cluster.get(&["pod", "mortal"])["status"]["containerStatuses"][0]["state"].clone();
        (state["running"].is_object() || state["terminated"].is_object()).then_some(())
    });
    kill(process(&cluster).unwrap());
    std::thread::sleep(Duration::from_millis(600));
    cluster.up(&[]);
    let ended = eventually("its end", || {
        let state = cluster.get(&["pod", "mortal"])["status"]["containerStatuses"][0]["state"].clone();
        let ended = state["terminated"].clone();
        ended.is_object().then_some(ended)
    });
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(7), &json!("Error")), "{ended}");
    cluster.kubectl(&["delete", "deployment,pod", "--all", "--timeout=60s"]);
    eventually("nothing to be left", || {
        let left = holdings(&cluster, &instance);
        ["namespaces", "links", "cgroups", "shims", "records", "directories"]
            .iter()
            .all(|kind| left[kind] == 0)
            .then_some(())
    });
}
