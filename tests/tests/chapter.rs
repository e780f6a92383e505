//! Chapter 9 of "Kubernetes in Action", line by line, with real kubectl.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::load::{Connections, Load};
use sagong_tests::{Cluster, PATIENCE, eventually, example, have, stdout};
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

/// A program that ends with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rows of a kubectl table, without its heading, as words.
fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn heading(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split_whitespace().collect()
}

/// Versions that answer, each with the pods that did: `v1` of `This is v1 running in pod kubia-x`.
fn answers(cluster: &Cluster, address: &str) -> BTreeSet<(String, String)> {
    let read = |body: &String| {
        let words: Vec<&str> = body.split_whitespace().collect();
        assert_eq!((words[0], words[1], words.len()), ("This", "is", 7), "{body}");
        (words[2].to_owned(), words[6].to_owned())
    };
    cluster.curl(address, 30).iter().map(read).collect()
}

#[test]
fn the_chapter_works_line_by_line() {
    if !have("kubectl") || !have("curl") {
        return;
    }
    // As on minikube: no external address until there is a tunnel.
    let cluster = Cluster::prepare();
    cluster.load_kubia();
    cluster.up(&["--no-load-balancer"]);

    // 9.2: a ReplicationController and a Service in one file.
    let manifest = std::fs::read_to_string(example("kubia-rc-and-service-v1.yaml")).unwrap();
    // Port 80 of this machine may be in use.
    let port = sagong_tests::free_port();
    let manifest = manifest.replace("port: 80\n", &format!("port: {port}\n"));
    let created = cluster.kubectl_stdin(&["create"], &manifest);
    assert_eq!(created, "replicationcontroller/kubia-v1 created\nservice/kubia created\n");
    cluster.kubectl(&["wait", "--for=jsonpath={.status.readyReplicas}=3", "rc/kubia-v1", "--timeout=60s"]);

    let table = cluster.kubectl(&["get", "svc", "kubia"]);
    assert_eq!(heading(&table), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    let row = &rows(&table)[0];
    assert_eq!((row[1].as_str(), row[3].as_str()), ("LoadBalancer", "<pending>"), "{table}");
    let _tunnel = Ended(cluster.sagong(&["tunnel"]).stdout(Stdio::null()).spawn().unwrap());
    let table = eventually("an external address", || {
        let table = cluster.kubectl(&["get", "svc", "kubia"]);
        (!table.contains("<pending>")).then_some(table)
    });
    assert_eq!(heading(&table), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    let row = &rows(&table)[0];
    assert_eq!((row[0].as_str(), row[1].as_str()), ("kubia", "LoadBalancer"));
    assert!(row[3].starts_with("127.0.0."), "{row:?}");
    assert!(row[4].starts_with(&format!("{port}:3")) && row[4].ends_with("/TCP"), "{row:?}");
    let address = format!("http://{}:{port}", row[3]);

    let seen = answers(&cluster, &address);
    assert_eq!(seen.len(), 3, "three pods share the traffic: {seen:?}");
    assert!(seen.iter().all(|(version, pod)| version == "v1" && pod.starts_with("kubia-v1-")), "{seen:?}");

    let services = cluster.kubectl(&["get", "svc"]);
    assert!(
        services.lines().any(|line| line.starts_with("kubernetes ")
            && line.contains("<none>")
            && line.contains("443/TCP")),
        "{services}"
    );

    // 9.2.2: the command that is gone from kubectl.
    let error = cluster.kubectl_fails(&["rolling-update", "kubia-v1", "kubia-v2", "--image=luksa/kubia:v2"]);
    assert!(error.contains("unknown command \"rolling-update\" for \"kubectl\""), "{error}");
    let error = cluster.kubectl_fails(&["describe", "rc", "kubia-v2"]);
    assert_eq!(error, "Error from server (NotFound): replicationcontrollers \"kubia-v2\" not found\n");

    // 9.3.1: the Deployment.
    assert_eq!(cluster.kubectl(&["delete", "rc", "--all"]), "replicationcontroller \"kubia-v1\" deleted\n");
    let file = example("kubia-deployment-v1.yaml");
    assert_eq!(cluster.kubectl(&["create", "-f", &file, "--record"]), "deployment.apps/kubia created\n");
    let status = cluster.kubectl(&["rollout", "status", "deployment", "kubia"]);
    assert!(status.ends_with("deployment \"kubia\" successfully rolled out\n"), "{status}");

    // The pods of the ReplicationController go away in their own time.
    let pods = eventually("three pods", || {
        let pods = cluster.kubectl(&["get", "po"]);
        (rows(&pods).len() == 3).then_some(pods)
    });
    assert_eq!(heading(&pods), ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    for row in rows(&pods) {
        assert!(row[0].starts_with("kubia-"), "{row:?}");
        assert_eq!(row[1..4], ["1/1", "Running", "0"], "{row:?}");
    }
    let sets = cluster.kubectl(&["get", "replicasets"]);
    assert_eq!(heading(&sets), ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]);
    assert_eq!(rows(&sets)[0][1..4], ["3", "3", "3"]);
    let first_set = rows(&sets)[0][0].clone();

    // 9.3.2: the update.
    let patched =
        cluster.kubectl(&["patch", "deployment", "kubia", "-p", r#"{"spec": {"minReadySeconds": 10}}"#]);
    assert_eq!(patched, "deployment.apps/kubia patched\n");
    cluster.kubectl(&["patch", "deployment", "kubia", "-p", r#"{"spec": {"minReadySeconds": 1}}"#]);
    assert_eq!(
        rows(&cluster.kubectl(&["get", "rs"])).len(),
        1,
        "a change outside the template rolls nothing"
    );
    let image = cluster.kubectl(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v2"]);
    assert_eq!(image, "deployment.apps/kubia image updated\n");
    let status = cluster.kubectl(&["rollout", "status", "deployment", "kubia"]);
    assert!(status.contains("Waiting for deployment \"kubia\" rollout to finish: "), "{status}");
    assert!(status.ends_with("deployment \"kubia\" successfully rolled out\n"), "{status}");
    let versions: BTreeSet<String> =
        answers(&cluster, &address).into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, BTreeSet::from(["v2".to_owned()]));
    let sets = rows(&cluster.kubectl(&["get", "rs"]));
    assert_eq!(sets.len(), 2, "the old ReplicaSet stays: {sets:?}");
    let counts = |name: &str| {
        sets.iter().find(|row| (row[0] == first_set) == (name == "first")).unwrap()[1..4].join(" ")
    };
    assert_eq!((counts("first"), counts("second")), ("0 0 0".into(), "3 3 3".into()));

    // 9.3.3: a version that fails, its history and the way back.
    let image = cluster.kubectl(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v3"]);
    assert_eq!(image, "deployment.apps/kubia image updated\n");
    let status = cluster.kubectl(&["rollout", "status", "deployment", "kubia"]);
    let told: Vec<&str> = status
        .lines()
        .filter_map(|line| line.strip_prefix("Waiting for deployment \"kubia\" rollout to finish: "))
        .collect();
    let at = |text: &str| told.iter().position(|line| *line == text);
    let steps = [
        at("1 out of 3 new replicas have been updated..."),
        at("2 out of 3 new replicas have been updated..."),
        at("1 old replicas are pending termination..."),
    ];
    assert!(steps.iter().all(Option::is_some) && steps.is_sorted(), "{status}");
    assert!(status.ends_with("deployment \"kubia\" successfully rolled out\n"), "{status}");
    let history = cluster.kubectl(&["rollout", "history", "deployment", "kubia"]);
    assert!(
        history.starts_with("deployment.apps/kubia \nREVISION  CHANGE-CAUSE\n1         kubectl create"),
        "{history}"
    );
    assert_eq!(
        cluster.kubectl(&["rollout", "undo", "deployment", "kubia"]),
        "deployment.apps/kubia rolled back\n"
    );
    cluster.kubectl(&["rollout", "status", "deployment", "kubia"]);
    let versions: BTreeSet<String> =
        answers(&cluster, &address).into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, BTreeSet::from(["v2".to_owned()]));
    assert_eq!(rows(&cluster.kubectl(&["get", "rs"])).len(), 3, "the second ReplicaSet is used again");
    let history = cluster.kubectl(&["rollout", "history", "deployment", "kubia"]);
    let revisions: Vec<String> =
        history.lines().skip(2).filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
    assert_eq!(revisions, ["1", "3", "4"], "{history}");

    // 9.3.5: pause, a canary, resume.
    let image = cluster.kubectl(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v4"]);
    assert_eq!(image, "deployment.apps/kubia image updated\n");
    assert_eq!(
        cluster.kubectl(&["rollout", "pause", "deployment", "kubia"]),
        "deployment.apps/kubia paused\n"
    );
    assert_eq!(
        cluster.kubectl(&["rollout", "resume", "deployment", "kubia"]),
        "deployment.apps/kubia resumed\n"
    );
    cluster.kubectl(&["rollout", "status", "deployment", "kubia"]);
    let versions: BTreeSet<String> =
        answers(&cluster, &address).into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, BTreeSet::from(["v4".to_owned()]));

    // 9.3.6: a bad version is stopped by its readiness probe.
    let file = example("kubia-deployment-v3-with-readinesscheck.yaml");
    let applied = cluster.kubectl(&["apply", "-f", &file, "--record"]);
    assert_eq!(applied, "deployment.apps/kubia configured\n");
    let pods = eventually("the bad pod to be unready", || {
        let pods = cluster.kubectl(&["get", "po"]);
        let unready = rows(&pods).iter().filter(|row| row[1] == "0/1" && row[2] == "Running").count();
        (unready == 1 && cluster.curl(&address, 1)[0].starts_with("This is v4")).then_some(pods)
    });
    // Before its first probe it is as unready as after the first that failed.
    eventually("its readiness probe to fail", || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=Unhealthy"]);
        events.contains("Readiness probe failed: HTTP probe failed with statuscode: 500").then_some(())
    });
    let versions: BTreeSet<String> =
        answers(&cluster, &address).into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, BTreeSet::from(["v4".to_owned()]), "the bad pod gets no traffic");
    let mut command = cluster.kubectl_command(&["rollout", "status", "deployment", "kubia", "--timeout=2s"]);
    let output = sagong_tests::run(&mut command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains(
            "Waiting for deployment \"kubia\" rollout to finish: 1 out of 3 new replicas have been updated..."
        ),
        "{text}"
    );

    // describe, logs.
    let text = cluster.kubectl(&["describe", "deployment", "kubia"]);
    for part in [
        "StrategyType:           RollingUpdate",
        "RollingUpdateStrategy:  0 max unavailable, 1 max surge",
        "ScalingReplicaSet",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let ready = rows(&pods).into_iter().find(|row| row[1] == "1/1").unwrap();
    let log = cluster.kubectl(&["logs", &ready[0]]);
    assert!(log.starts_with("Kubia server starting...\nReceived request from "), "{log}");
    let tail = cluster.kubectl(&["logs", &ready[0], "--tail=1", "--timestamps"]);
    assert_eq!(tail.lines().count(), 1, "{tail}");
    assert!(tail.contains("Z Received request from "), "{tail}");
    let described = cluster.kubectl(&["describe", "pod", &ready[0]]);
    for part in [
        "Successfully assigned default/kubia-",
        "Created container",
        "Started container nodejs",
        "QoS Class:",
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }
    cluster.kubectl(&["rollout", "undo", "deployment", "kubia"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia"]);
}

#[test]
fn a_bad_version_is_held_at_one_of_three_until_its_deadline_fails_it_and_undo_recovers() {
    if !have("kubectl") || !have("curl") {
        return;
    }
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v2"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=8080"]);
    let ip = cluster.get(&["svc", "kubia"])["spec"]["clusterIP"].as_str().unwrap().to_owned();

    // The chapter's manifest, with a deadline a test can wait for: longer than minReadySeconds, as it must be.
    let manifest = std::fs::read_to_string(example("kubia-deployment-v3-with-readinesscheck.yaml")).unwrap();
    let manifest = manifest.replace("  replicas: 3\n", "  replicas: 3\n  progressDeadlineSeconds: 15\n");
    let applied = cluster.kubectl_stdin(&["apply"], &manifest);
    assert_eq!(applied, "deployment.apps/kubia configured\n");
    let unready = eventually("v3 to fail its readiness probe", || {
        let pods = rows(&cluster.kubectl(&["get", "po"]));
        pods.into_iter().find(|row| row[1] == "0/1" && row[2] == "Running" && row[3] == "0")
    });
    eventually("v3 to have answered its first requests", || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=Unhealthy"]);
        events.contains(&unready[0]).then_some(())
    });
    // Nobody sees it fail: from the moment it is unready it gets no request.
    let load = Load::start(format!("{ip}:8080").parse().unwrap(), Connections::Fresh, 2);

    let mut status = cluster.kubectl_command(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    let output = sagong_tests::run(&mut status);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("1 out of 3 new replicas have been updated"), "{said}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(error, "error: deployment \"kubia\" exceeded its progress deadline\n");
    let deployment = cluster.get(&["deployment", "kubia"]);
    assert_eq!(deployment["status"]["updatedReplicas"], 1, "{deployment}");
    assert_eq!(deployment["status"]["availableReplicas"], 3, "{deployment}");
    let conditions = deployment["status"]["conditions"].as_array().unwrap();
    let progress = conditions.iter().find(|condition| condition["type"] == "Progressing").unwrap();
    assert_eq!(
        (&progress["status"], &progress["reason"]),
        (&"False".into(), &"ProgressDeadlineExceeded".into())
    );
    let restarts =
        cluster.get(&["pod", &unready[0]])["status"]["containerStatuses"][0]["restartCount"].clone();
    assert_eq!(restarts, 0, "who is not ready is not restarted");

    cluster.kubectl(&["rollout", "undo", "deployment", "kubia"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    eventually("the bad pod to go", || (rows(&cluster.kubectl(&["get", "po"])).len() == 3).then_some(()));
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent(), tally.failures);
    assert_eq!(tally.versions.keys().collect::<Vec<_>>(), ["v2"]);
}

#[test]
fn the_demo_loses_no_request_and_says_so_in_one_json_line() {
    let output = stdout(Command::new(sagong_tests::sagong()).args(["demo", "-o", "json"]));
    let result: serde_json::Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    assert_eq!(result["failed"], 0, "{result}");
    assert!(result["requests"].as_u64().unwrap() > 2000, "{result}");
    for phase in ["up", "create", "update", "undo", "down"] {
        let seconds = result["seconds"][phase].as_f64().unwrap();
        assert!(seconds > 0.0 && seconds < PATIENCE.as_secs_f64(), "{phase}: {result}");
    }
}
