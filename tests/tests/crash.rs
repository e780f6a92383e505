//! Sagong killed without warning, again and again, under load and in the middle of whatever it does: containers serve
//! on, nothing is started twice, nothing is lost and nothing is left.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::crash::{holdings, kill, kill_while_it_starts, kills, process, shims};
use sagong_tests::load::{Connections, Load};
use sagong_tests::registry::Registry;
use sagong_tests::{Cluster, eventually, example, have, stdout, tools};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// The image `shell:v1`: busybox and nothing else.
fn load_shell(cluster: &Cluster) {
    let shell = tempfile::tempdir().unwrap();
    let busybox = stdout(Command::new("sh").args(["-c", "command -v busybox"]));
    std::fs::copy(busybox.trim(), shell.path().join("busybox")).unwrap();
    stdout(&mut cluster.sagong(&["image", "import", shell.path().to_str().unwrap(), "shell:v1"]));
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
    load_shell(&cluster);
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=8080"]);
    settled(&cluster);
    // Calls by name: a name that does not resolve while nobody answers is asked again by the C library.
    tools::load(&cluster);
    tools::call_by_name(&cluster, "caller", 8080);
    let ip = cluster.get(&["svc", "kubia"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let instance = cluster.instance();
    let before = holdings(&cluster, &instance);
    assert!(
        before.iter().all(|(kind, count)| (*count > 0) == (*kind != "halves")),
        "what is counted is there: {before:?}"
    );
    let load = Load::start(format!("{ip}:8080").parse().unwrap(), Connections::Fresh, 2);

    for round in 0..kills(10) {
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
        ["namespaces", "links", "cgroups", "shims", "records", "directories", "snapshots", "logs", "halves"]
            .iter()
            .all(|kind| left[kind] == 0)
            .then_some(())
    });
}

/// A cluster that is killed while it works; each of its pods notes on the host how often it was started.
struct Interrupted {
    cluster: Cluster,
    marks: tempfile::TempDir,
    /// An image that has to be pulled.
    image: String,
}

/// What it is doing when it is killed, in turn.
const WORK: [fn(&Interrupted, u64); 6] = [
    Interrupted::creates,
    Interrupted::deletes,
    Interrupted::updates,
    Interrupted::pulls,
    Interrupted::is_taken_down,
    Interrupted::loses_a_shim,
];

impl Interrupted {
    fn pod(&self, name: &str, image: &str) -> Value {
        let script = format!("echo started >> /marks/{name}; exec /busybox sleep 100000");
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["/busybox", "sh", "-c", script],
                "volumeMounts": [{"name": "marks", "mountPath": "/marks"}, {"name": "map", "mountPath": "/map"}],
            }],
            "volumes": [
                {"name": "marks", "hostPath": {"path": self.marks.path()}},
                {"name": "map", "configMap": {"name": "map"}},
            ],
        }})
    }

    fn create(&self, names: &[String], image: &str) {
        let items: Vec<Value> = names.iter().map(|name| self.pod(name, image)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.cluster.kubectl_stdin(&["create"], &list.to_string());
    }

    fn started(&self, name: &str) -> usize {
        std::fs::read_to_string(self.marks.path().join(name)).unwrap_or_default().lines().count()
    }

    /// Kills it at another moment each time, and starts it again.
    fn interrupt(&self, round: u64) {
        std::thread::sleep(Duration::from_millis(round * 137 % 700));
        kill(process(&self.cluster).unwrap());
        self.cluster.up(&[]);
    }

    /// Waits until pods run, and checks that each was started once.
    fn run_once(&self, names: &[String]) {
        for name in names {
            self.cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
        }
        for name in names {
            let status = self.cluster.get(&["pod", name])["status"]["containerStatuses"][0].clone();
            assert_eq!((self.started(name), &status["restartCount"]), (1, &json!(0)), "{name}: {status}");
        }
    }

    fn delete(&self, names: &[String]) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.cluster.kubectl(&[&["delete", "pod", "--wait=false"], &names[..]].concat());
    }

    fn creates(&self, round: u64) {
        let names: Vec<String> = (0..5).map(|number| format!("created-{round}-{number}")).collect();
        self.create(&names, "shell:v1");
        self.interrupt(round);
        self.run_once(&names);
        self.delete(&names);
    }

    fn deletes(&self, round: u64) {
        let names: Vec<String> = (0..5).map(|number| format!("deleted-{round}-{number}")).collect();
        self.create(&names, "shell:v1");
        self.run_once(&names);
        self.delete(&names);
        self.interrupt(round);
        eventually("the pods to be gone", || {
            let pods = self.cluster.kubectl(&["get", "pods", "-o", "name"]);
            names.iter().all(|name| !pods.contains(name.as_str())).then_some(())
        });
        assert!(names.iter().all(|name| self.started(name) == 1), "started again on its way out");
    }

    fn updates(&self, round: u64) {
        let patch = json!({"data": {"round": round.to_string()}}).to_string();
        self.cluster.kubectl(&["patch", "configmap", "map", "-p", &patch]);
        self.interrupt(round);
        let uid = self.cluster.get(&["pod", "base"])["metadata"]["uid"].as_str().unwrap().to_owned();
        let file = self.cluster.data_dir().join("pods").join(uid).join("volumes/map/round");
        eventually("the new value", || {
            (std::fs::read_to_string(&file).ok()? == round.to_string()).then_some(())
        });
    }

    fn pulls(&self, round: u64) {
        let name = [format!("pulled-{round}")];
        self.create(&name, &self.image);
        self.interrupt(round);
        self.run_once(&name);
        self.cluster.kubectl(&["delete", "pod", &name[0]]);
        stdout(&mut self.cluster.sagong(&["image", "rm", &self.image]));
    }

    /// `down` is what is killed; the next one does the rest.
    fn is_taken_down(&self, round: u64) {
        let mut down = self.cluster.sagong(&["down"]);
        let mut down = down.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 137 % 400));
        let _ = down.kill();
        down.wait().unwrap();
        let instance = self.cluster.instance();
        stdout(&mut self.cluster.sagong(&["down"]));
        assert_eq!(self.cluster.traces(&instance), [].into());
        self.cluster.up(&[]);
    }

    /// The process beside a container is killed, and on every other turn Sagong before it.
    fn loses_a_shim(&self, round: u64) {
        let name = [format!("lost-{round}")];
        self.create(&name, "shell:v1");
        self.run_once(&name);
        let status = || self.cluster.get(&["pod", &name[0]])["status"]["containerStatuses"][0].clone();
        let id = status()["containerID"].as_str().unwrap().trim_start_matches("sagong://").to_owned();
        let is_alone = round / WORK.len() as u64 % 2 == 1;
        if is_alone {
            kill(process(&self.cluster).unwrap());
        }
        kill(shims(&self.cluster)[&id]);
        if is_alone {
            self.cluster.up(&[]);
        }
        let now = eventually("its container to be started again", || {
            let now = status();
            (now["restartCount"] == 1 && now["ready"] == true).then_some(now)
        });
        assert_eq!(self.started(&name[0]), 2, "one start more for the one that was lost");
        assert_eq!(now["lastState"]["terminated"]["exitCode"], 137, "{now}");
        self.delete(&name);
    }
}

#[test]
fn what_is_cut_short_is_finished_by_the_next_one() {
    if !have("kubectl") || !have("busybox") || !have("docker-registry") {
        return;
    }
    let (cluster, registry) = (Cluster::prepare(), Registry::start());
    load_shell(&cluster);
    let layer = tempfile::tempdir().unwrap();
    let busybox = stdout(Command::new("sh").args(["-c", "command -v busybox"]));
    std::fs::copy(Path::new(busybox.trim()), layer.path().join("busybox")).unwrap();
    // Long enough on its way, and not to be made smaller.
    let random = layer.path().join("random");
    stdout(
        Command::new("head")
            .args(["-c", "20M", "/dev/urandom"])
            .stdout(std::fs::File::create(random).unwrap()),
    );
    let image = registry.push("random:v1", &[layer.path()], json!({}));
    cluster.up(&[]);
    cluster.kubectl(&["create", "configmap", "map", "--from-literal=round=none"]);
    let test = Interrupted { cluster, marks: tempfile::tempdir().unwrap(), image };
    let base = ["base".to_owned()];
    test.create(&base, "shell:v1");
    test.run_once(&base);
    let instance = test.cluster.instance();
    let before = holdings(&test.cluster, &instance);
    for round in 0..kills(WORK.len() as u64) {
        WORK[(round % WORK.len() as u64) as usize](&test, round);
        test.cluster.kubectl(&["wait", "--for=condition=Ready", "pod/base", "--timeout=60s"]);
        eventually(&format!("round {round}: as much as before"), || {
            let after = holdings(&test.cluster, &instance);
            if after != before {
                eprintln!("round {round}: {after:?}, before {before:?}");
                std::thread::sleep(Duration::from_millis(500));
            }
            (after == before).then_some(())
        });
    }
}
