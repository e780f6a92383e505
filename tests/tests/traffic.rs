//! No request is lost, whatever is done to the pods behind a service: with an app that dies at once on SIGTERM and one
//! that ignores it, over HTTP and over plain TCP, from outside and from another pod.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::load::{Connections, Load, Protocol, Tally, Way};
use sagong_tests::{Cluster, eventually, example, free_port, have, tools};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A service, once it has an external address.
fn external(cluster: &Cluster, name: &str) -> Value {
    eventually("an external address", || {
        let service = cluster.get(&["svc", name]);
        service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string().then_some(service)
    })
}

/// The service's three addresses: of the balancer, of the cluster, and the node port on loopback.
fn addresses(cluster: &Cluster) -> [SocketAddr; 3] {
    let service = external(cluster, "kubia");
    let port = &service["spec"]["ports"][0];
    let address = |ip: &Value, port: &Value| format!("{}:{port}", ip.as_str().unwrap()).parse().unwrap();
    [
        address(&service["status"]["loadBalancer"]["ingress"][0]["ip"], &port["port"]),
        address(&service["spec"]["clusterIP"], &port["port"]),
        address(&Value::from("127.0.0.1"), &port["nodePort"]),
    ]
}

/// Traffic to all of them, and over connections kept alive to the balancer.
fn start_load(cluster: &Cluster) -> Vec<(&'static str, Load)> {
    let [balancer, cluster_ip, node_port] = addresses(cluster);
    vec![
        ("balancer, fresh connections", Load::start(balancer, Connections::Fresh, 2)),
        ("balancer, kept alive", Load::start(balancer, Connections::KeptAlive, 2)),
        ("cluster IP, fresh connections", Load::start(cluster_ip, Connections::Fresh, 2)),
        ("node port, fresh connections", Load::start(node_port, Connections::Fresh, 2)),
    ]
}

fn stop_load(loads: Vec<(&'static str, Load)>) -> Vec<Tally> {
    let stop = |(way, load): (&str, Load)| {
        let tally = load.stop();
        assert!(
            tally.failures.is_empty(),
            "{way}: {} of {} failed: {:?}",
            tally.failures.len(),
            tally.sent(),
            tally.failures
        );
        assert!(tally.sent() > 50, "{way}: only {} requests were sent", tally.sent());
        tally
    };
    loads.into_iter().map(stop).collect()
}

/// A Deployment of three pods of the test's server that serve HTTP and lines, and a LoadBalancer service in front.
/// Connections may take two of the four seconds a pod has to end.
fn serve(cluster: &Cluster, name: &str, variable: &str) {
    let probe = |port: &str, path: Option<&str>| {
        let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20});
        match path {
            Some(path) => probe["httpGet"] = json!({"port": port, "path": path}),
            None => probe["tcpSocket"] = json!({"port": port}),
        }
        probe
    };
    let container = json!({
        "name": "server", "image": "test/tools:1", "command": ["/bin/server"],
        "env": [{"name": "VERSION", "value": "0"}, {"name": variable, "value": "yes"}],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "raw", "containerPort": 9000}],
        "readinessProbe": probe("raw", None), "livenessProbe": probe("http", Some("/alive")),
    });
    let labels = json!({"app": name});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 4, "containers": [container]}}}});
    let ports = [("http", 8080), ("raw", 9000)]
        .map(|(name, target)| json!({"name": name, "port": free_port(), "targetPort": target}));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": labels, "ports": ports}});
    cluster.kubectl_stdin(&["create"], &deployment.to_string());
    cluster.kubectl_stdin(&["create"], &service.to_string());
}

/// Every way to a service's two ports: those from the host, by the balancer and by the node port, and those from a
/// pod, by ClusterIP and by name.
fn ways(cluster: &Cluster, name: &str) -> [Vec<Way>; 2] {
    let service = external(cluster, name);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let hosts = [
        (text(&service["status"]["loadBalancer"]["ingress"][0]["ip"]), "port"),
        ("127.0.0.1".to_owned(), "nodePort"),
        (text(&service["spec"]["clusterIP"]), "port"),
        (name.to_owned(), "port"),
    ];
    let [http, raw] = [0, 1].map(|index| service["spec"]["ports"][index].clone());
    let to = |(host, port): &(String, &str)| {
        let of = |protocol, connections, ports: &Value| {
            let port = ports[port].as_u64().unwrap().try_into().unwrap();
            Way { protocol, connections, host: host.clone(), port }
        };
        [
            of(Protocol::Http, Connections::Fresh, &http),
            of(Protocol::Http, Connections::KeptAlive, &http),
            of(Protocol::Raw, Connections::Fresh, &raw),
            of(Protocol::Raw, Connections::KeptAlive, &raw),
        ]
    };
    [&hosts[..2], &hosts[2..]].map(|hosts| hosts.iter().flat_map(to).collect())
}

/// Whether not one request may fail on a way. What is kept alive below HTTP, and on ways where nobody reads HTTP, goes
/// to its pod until that is told to stop: docs/termination.md.
fn loses_nothing(way: &Way, is_balanced: bool) -> bool {
    way.connections == Connections::Fresh || (way.protocol == Protocol::Http && is_balanced)
}

/// Does `what` to one pod of each service.
fn to_one_pod_each(cluster: &Cluster, mut what: impl FnMut(&Value)) {
    for name in SERVERS {
        let pods = cluster.get(&["pods", "-l", &format!("app={name}")]);
        let is_ready = |pod: &&Value| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["containerStatuses"][0]["ready"] == true
        };
        what(pods["items"].as_array().unwrap().iter().find(is_ready).unwrap());
    }
}

/// Rolling updates, fewer and more pods, a pod deleted, a pod restarted because it is not alive. Gives how often a
/// pod was stopped at most while a connection to it was open.
fn disturb(cluster: &Cluster, settled: impl Fn()) -> usize {
    let deployments = SERVERS.map(|name| format!("deployment/{name}"));
    let on_both = |verb: &[&str], how: &str| {
        let both = deployments.iter().map(String::as_str);
        cluster.kubectl(&verb.iter().copied().chain(both).chain([how]).collect::<Vec<_>>());
    };
    for version in 1..=10 {
        on_both(&["set", "env"], &format!("VERSION={version}"));
        settled();
    }
    on_both(&["scale"], "--replicas=1");
    for name in SERVERS {
        eventually("one pod", || {
            let pods = cluster.get(&["pods", "-l", &format!("app={name}")]);
            (pods["items"].as_array().unwrap().len() == 1).then_some(())
        });
    }
    on_both(&["scale"], "--replicas=3");
    settled();
    to_one_pod_each(cluster, |pod| {
        cluster.kubectl(&["delete", "pod", "--wait=false", pod["metadata"]["name"].as_str().unwrap()]);
    });
    settled();
    to_one_pod_each(cluster, |pod| {
        let (name, ip) =
            (pod["metadata"]["name"].as_str().unwrap(), pod["status"]["podIP"].as_str().unwrap());
        cluster.curl(&format!("http://{ip}:8080/sicken"), 1);
        eventually("its restart", || {
            let status = cluster.get(&["pod", name])["status"]["containerStatuses"][0].clone();
            (status["restartCount"].as_i64() >= Some(1) && status["ready"] == true).then_some(())
        });
    });
    // Ten rollouts, the scaling down, the deletion, the restart.
    13
}

/// The one dies at once on SIGTERM, the other ignores it.
const SERVERS: [&str; 2] = ["dies", "ignores"];

#[test]
fn whatever_is_done_to_pods_no_request_is_lost_on_any_way() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = Cluster::start();
    tools::load(&cluster);
    for (name, variable) in SERVERS.iter().zip(["DIE", "IGNORE_TERM"]) {
        serve(&cluster, name, variable);
    }
    let settled = || {
        for name in SERVERS {
            cluster.kubectl(&["rollout", "status", "deployment", name, "--timeout=60s"]);
        }
    };
    settled();
    let [outside, inside]: [Vec<Way>; 2] = {
        let of_both = SERVERS.map(|name| ways(&cluster, name));
        [0, 1].map(|place| of_both.iter().flat_map(|ways| ways[place].clone()).collect())
    };
    // Of the ways to each service the first four.
    let balanced: Vec<&Way> = outside.chunks(8).flat_map(|of_service| &of_service[..4]).collect();
    tools::call(&cluster, "caller", &inside);
    let all_answer =
        |printed: &str| inside.iter().all(|way| printed.contains(&format!("answered {way} {{\"")));
    eventually("answers on every way", || all_answer(&cluster.kubectl(&["logs", "caller"])).then_some(()));
    let loads: Vec<(&Way, Load)> =
        outside.iter().map(|way| (way, Load::on(way, 1, Duration::from_millis(30)))).collect();

    let stops = disturb(&cluster, settled);

    let inner = tools::failures(&cluster, "caller");
    let mut failed: BTreeMap<&Way, Vec<String>> = BTreeMap::new();
    for way in &inside {
        let mark = format!("FAILED {way} ");
        let of_way = inner.iter().filter_map(|line| line.strip_prefix(&mark));
        failed.insert(way, of_way.map(str::to_owned).collect());
    }
    for (way, load) in loads {
        let tally = load.stop();
        assert!(tally.versions.len() > 2 && tally.sent() > 200, "{way}: {tally:?}");
        failed.insert(way, tally.failures);
    }
    let mut lost: Vec<String> = Vec::new();
    for (way, failures) in &failed {
        // A connection is cut once at a stop, and nobody is refused a new one.
        let cut =
            failures.iter().all(|failure| failure.contains(": send: ") || failure.contains(": answer: "));
        let allowed = if loses_nothing(way, balanced.contains(way)) { 0 } else { stops };
        if failures.len() > allowed || !cut {
            lost.push(format!("{way}: {failures:#?}"));
        } else if !failures.is_empty() {
            eprintln!("{way}: {} requests were cut off at {stops} stops", failures.len());
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn blue_green_moves_all_traffic_at_once_and_loses_nothing() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::start();
    for (color, version) in [("blue", "v1"), ("green", "v2")] {
        let manifest = std::fs::read_to_string(example("kubia-rc-and-service-v1.yaml")).unwrap();
        let controller = manifest.split("---").next().unwrap();
        let controller = controller
            .replace("name: kubia-v1", &format!("name: kubia-{color}"))
            .replace("app: kubia", &format!("app: kubia\n        color: {color}"))
            .replace("luksa/kubia:v1", &format!("luksa/kubia:{version}"));
        cluster.kubectl_stdin(&["create"], &controller);
        cluster.kubectl(&[
            "wait",
            "--for=jsonpath={.status.readyReplicas}=3",
            &format!("rc/kubia-{color}"),
            "--timeout=60s",
        ]);
    }
    let port = free_port().to_string();
    cluster.kubectl(&["create", "service", "loadbalancer", "kubia", &format!("--tcp={port}:8080")]);
    cluster.kubectl(&["set", "selector", "service", "kubia", "app=kubia,color=blue"]);
    let [balancer, ..] = addresses(&cluster);
    eventually("blue to answer", || {
        cluster.curl(&format!("http://{balancer}"), 1)[0].starts_with("This is v1").then_some(())
    });

    let loads = start_load(&cluster);
    cluster.kubectl(&["set", "selector", "service", "kubia", "app=kubia,color=green"]);
    for (way, load) in &loads {
        eventually(&format!("green to answer: {way}"), || {
            load.so_far().versions.contains_key("v2").then_some(())
        });
    }
    cluster.kubectl(&["delete", "rc", "kubia-blue"]);
    eventually("blue to be gone", || {
        (cluster.get(&["pods"])["items"].as_array().unwrap().len() == 3).then_some(())
    });
    stop_load(loads);
    for body in cluster.curl(&format!("http://{balancer}"), 10) {
        assert!(body.starts_with("This is v2"), "{body}");
    }
}
