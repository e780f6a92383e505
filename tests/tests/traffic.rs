//! No request is lost, whatever is done to the pods behind a service, with an app that dies at once on SIGTERM.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::load::{Connections, Load, Tally};
use sagong_tests::{Cluster, eventually, example, free_port, have};
use serde_json::Value;
use std::net::SocketAddr;

/// A Deployment `kubia` of three pods behind a LoadBalancer service.
fn stage() -> Cluster {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    let port = free_port().to_string();
    cluster.kubectl(&[
        "expose",
        "deployment",
        "kubia",
        "--type=LoadBalancer",
        "--port",
        &port,
        "--target-port=8080",
    ]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster
}

/// The service's three addresses: of the balancer, of the cluster, and the node port on loopback.
fn addresses(cluster: &Cluster) -> [SocketAddr; 3] {
    let service = eventually("an external address", || {
        let service = cluster.get(&["svc", "kubia"]);
        service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string().then_some(service)
    });
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

#[test]
fn a_rolling_update_loses_nothing_through_any_address() {
    if !have("kubectl") {
        return;
    }
    let cluster = stage();
    let loads = start_load(&cluster);
    for image in ["nodejs=luksa/kubia:v2", "nodejs=luksa/kubia:v4"] {
        cluster.kubectl(&["set", "image", "deployment", "kubia", image]);
        cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    }
    for tally in stop_load(loads) {
        assert!(tally.versions.contains_key("v1") && tally.versions.contains_key("v4"), "{tally:?}");
    }
}

#[test]
fn scaling_down_and_deleting_pods_loses_nothing() {
    if !have("kubectl") {
        return;
    }
    let cluster = stage();
    let loads = start_load(&cluster);
    cluster.kubectl(&["scale", "deployment", "kubia", "--replicas=1"]);
    eventually("one pod", || (cluster.get(&["pods"])["items"].as_array().unwrap().len() == 1).then_some(()));
    cluster.kubectl(&["scale", "deployment", "kubia", "--replicas=3"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    let pod = cluster.get(&["pods"])["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.kubectl(&["delete", "pod", &pod]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    stop_load(loads);
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
