//! HTTP to pods and services through the API server, as `kubectl proxy` and dashboards use it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, example, have};

#[test]
fn pods_and_services_are_reached_through_the_api_server() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=80", "--target-port=8080"]);
    let pods = cluster.get(&["pods"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap();

    let raw = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/{path}")]);
    let answer = raw(&format!("pods/{pod}:8080/proxy/"));
    assert!(answer.starts_with("This is v1") && answer.contains(pod), "{answer}");
    for service in
        ["services/kubia/proxy/", "services/kubia:80/proxy/", "services/http:kubia:80/proxy/any?thing=1"]
    {
        assert!(raw(service).starts_with("This is v1"), "{service}");
    }

    let refused =
        |path: &str| cluster.kubectl_fails(&["get", "--raw", &format!("/api/v1/namespaces/default/{path}")]);
    assert!(refused(&format!("pods/{pod}:1/proxy/")).contains("error trying to reach service: dial tcp"));
    assert!(refused("services/kubia:81/proxy/").contains(r#"no service port 81 found for service "kubia""#));
    assert!(refused("pods/nobody/proxy/").contains(r#"pods "nobody" not found"#));
}
