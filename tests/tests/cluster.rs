//! The life of a cluster: up, crash, up again, side by side, down without a trace.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, eventually, example, have, run, stdout};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn create_deployment(cluster: &Cluster) {
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
}

/// Name, container id and restart count of every pod.
fn containers(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.get(&["pods"]);
    let describe = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        format!("{} {} {}", pod["metadata"]["name"], status["containerID"], status["restartCount"])
    };
    let mut all: Vec<String> = pods["items"].as_array().unwrap().iter().map(describe).collect();
    all.sort();
    all
}

#[test]
fn down_leaves_no_process_mount_namespace_link_table_or_cgroup() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::start();
    let instance = cluster.instance();
    create_deployment(&cluster);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=8080", "--type=NodePort"]);
    let seen = cluster.traces(&instance);
    for kind in ["mount", "link", "route", "nft", "cgroup", "runtime", "process"] {
        assert!(seen.iter().any(|trace| trace.starts_with(kind)), "no {kind} while it runs: {seen:#?}");
    }
    stdout(&mut cluster.sagong(&["down"]));
    let left = cluster.traces(&instance);
    assert!(left.is_empty(), "{left:#?}");
    assert!(cluster.data_dir().exists(), "down keeps the objects");
    stdout(&mut cluster.sagong(&["down", "--purge"]));
    assert!(!cluster.data_dir().exists());
}

#[test]
fn workloads_survive_a_crash_and_are_adopted() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::start();
    create_deployment(&cluster);
    let address = cluster.get(&["pods"])["items"][0]["status"]["podIP"].as_str().unwrap().to_owned();
    let address = format!("http://{address}:8080");
    let before = containers(&cluster);

    let pid = cluster.process().unwrap();
    stdout(Command::new("kill").args(["-9", &pid.to_string()]));
    eventually("the process to be gone", || cluster.process().is_none().then_some(()));
    assert!(cluster.curl(&address, 1)[0].starts_with("This is v1"), "pods answer while nothing manages them");

    cluster.up(&[]);
    assert_eq!(containers(&cluster), before, "the same containers, not restarted");
    assert!(cluster.curl(&address, 1)[0].starts_with("This is v1"));

    // What is adopted is managed: a container that dies is started again, a rollout replaces pods.
    cluster.kubectl(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v2"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
}

#[test]
fn down_and_up_starts_the_same_objects_again() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::start();
    create_deployment(&cluster);
    let uid = cluster.get(&["deployment", "kubia"])["metadata"]["uid"].clone();
    stdout(&mut cluster.sagong(&["down"]));
    cluster.up(&[]);
    assert_eq!(cluster.get(&["deployment", "kubia"])["metadata"]["uid"], uid);
    eventually("three ready pods", || {
        (cluster.get(&["deployment", "kubia"])["status"]["readyReplicas"] == 3).then_some(())
    });
}

#[test]
fn a_second_up_says_that_it_is_running() {
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let said = cluster.up(&[]);
    assert!(said.starts_with("Sagong is running already (process ") && said.lines().count() == 1, "{said}");
    let output = run(override_argument(&mut cluster.up_command(&[]), ["--port", "1"]));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("as it was started: --port {};", cluster.port)), "{said}");
}

#[test]
fn two_clusters_run_side_by_side_and_a_clash_is_one_line() {
    if !have("kubectl") {
        return;
    }
    let (first, second) = (Cluster::start(), Cluster::start());
    create_deployment(&first);
    create_deployment(&second);

    let third = Cluster::prepare();
    for (arguments, remedy) in
        [(["--port", &first.port.to_string()], "--port"), (["--pod-cidr", &pod_cidr(&first)], "--pod-cidr")]
    {
        let mut command = third.up_command(&[]);
        let output = run(override_argument(&mut command, arguments));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("error: ") && error.contains(remedy), "{error}");
        assert!(!third.data_dir().exists(), "refused, and yet a directory was made");
    }
}

fn pod_cidr(cluster: &Cluster) -> String {
    let config: Value =
        serde_json::from_slice(&std::fs::read(cluster.data_dir().join("cluster.json")).unwrap()).unwrap();
    config["pod_cidr"].as_str().unwrap().to_owned()
}

/// The same command with another value of one option.
fn override_argument<'a>(command: &'a mut Command, [option, value]: [&str; 2]) -> &'a mut Command {
    let arguments: Vec<String> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let at = arguments.iter().position(|argument| argument == option).unwrap();
    let mut new = Command::new(command.get_program());
    new.args(&arguments[..=at]).arg(value).args(&arguments[at + 2..]);
    for (name, value) in command.get_envs() {
        new.env(name, value.unwrap_or_default());
    }
    *command = new;
    command
}

#[test]
fn keys_and_kubeconfig_are_for_their_owner_only() {
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let mut secrets = vec![cluster.data_dir().join("kubeconfig"), cluster.data_dir().join("state.redb")];
    for entry in std::fs::read_dir(cluster.data_dir().join("pki")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            secrets.push(path);
        }
    }
    assert!(secrets.len() >= 4, "{secrets:?}");
    for path in secrets {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    // Nobody gets in without credentials.
    let base = format!("https://127.0.0.1:{}", cluster.port);
    let code = |path: &str| {
        let arguments = ["-sk", "-o", "/dev/null", "-w", "%{http_code}"];
        stdout(Command::new("curl").args(arguments).arg(format!("{base}{path}")))
    };
    assert_eq!(code("/api/v1/namespaces"), "401");
    assert_eq!(code("/apis"), "401");
    assert_eq!(code("/openapi/v2"), "401");
    assert_eq!(code("/livez"), "200");
    assert_eq!(code("/version"), "200");
}

#[test]
fn up_adds_a_context_and_purge_takes_it_away() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::prepare();
    let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: https://example.org}\ncontexts:\n- name: work\n  context: {cluster: work, user: work}\nusers:\n- name: work\n  user: {}\n";
    std::fs::write(cluster.user_kubeconfig(), theirs).unwrap();
    let said = cluster.up(&[]);
    assert!(said.contains("current context is now \"sagong\""), "{said}");
    let kubectl = |arguments: &[&str]| {
        stdout(Command::new("kubectl").args(arguments).env("KUBECONFIG", cluster.user_kubeconfig()))
    };
    assert_eq!(kubectl(&["config", "get-contexts", "-o", "name"]), "sagong\nwork\n");
    assert!(kubectl(&["get", "nodes"]).contains(" Ready "));
    stdout(&mut cluster.sagong(&["down", "--purge"]));
    assert_eq!(kubectl(&["config", "get-contexts", "-o", "name"]), "work\n");
}

#[test]
fn without_the_load_balancer_services_stay_pending_until_a_tunnel_runs() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::prepare();
    cluster.load_kubia();
    cluster.up(&["--no-load-balancer"]);
    create_deployment(&cluster);
    let port = sagong_tests::free_port().to_string();
    cluster.kubectl(&[
        "expose",
        "deployment",
        "kubia",
        "--type=LoadBalancer",
        "--port",
        &port,
        "--target-port=8080",
    ]);
    assert!(cluster.kubectl(&["get", "svc", "kubia"]).contains("<pending>"));

    let mut tunnel = cluster.sagong(&["tunnel"]).spawn().unwrap();
    let address = eventually("an address", || {
        let service = cluster.get(&["svc", "kubia"]);
        service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
    });
    assert!(cluster.curl(&format!("http://{address}:{port}"), 1)[0].starts_with("This is v1"));
    stdout(Command::new("kill").arg(tunnel.id().to_string()));
    assert!(tunnel.wait().unwrap().success());
    eventually("the service to be pending again", || {
        cluster.kubectl(&["get", "svc", "kubia"]).contains("<pending>").then_some(())
    });
}

#[test]
fn nobody_has_to_read_what_up_and_the_lists_print() {
    let cluster = Cluster::prepare();
    let unread = |mut command: Command| {
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap()
    };
    assert!(unread(cluster.up_command(&[])).success(), "a reader that goes away does not stop a cluster");
    assert!(cluster.process().is_some());
    let ended = unread(cluster.sagong(&["image", "list"]));
    assert_ne!(ended.code(), Some(101), "a panic");
}
