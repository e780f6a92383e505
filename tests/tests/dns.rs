//! Names as real pods see them: what resolves, and that no request made by name is lost.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, eventually, example, have, tools};
use serde_json::{Value, json};

/// Runs a command in a pod and gives what it printed.
fn in_a_pod(cluster: &Cluster, name: &str, spec: Value, command: &[&str]) -> String {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "containers": [{"name": "tools", "image": "test/tools:1", "command": command}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    cluster.kubectl_stdin(&["create"], &pod.to_string());
    eventually("the pod to end", || {
        let phase = cluster.get(&["pod", name])["status"]["phase"].clone();
        (phase == "Succeeded" || phase == "Failed").then_some(())
    });
    cluster.kubectl(&["logs", name])
}

/// `kubia` v1: three pods, a service with a named port, a headless one, and one that is another name for it.
fn stage() -> Option<Cluster> {
    if !have("kubectl") || !have("busybox") {
        return None;
    }
    let cluster = Cluster::start();
    tools::load(&cluster);
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    let port = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let services = [
        json!({"selector": {"app": "kubia"}, "ports": port}),
        json!({"selector": {"app": "kubia"}, "clusterIP": "None", "ports": port}),
        json!({"type": "ExternalName", "externalName": "kubia.default.svc.cluster.local"}),
    ];
    for (name, spec) in ["kubia", "kubia-headless", "kubia-alias"].iter().zip(services) {
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        cluster.kubectl_stdin(&["create"], &service.to_string());
    }
    // A pod with a name of its own.
    let named = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "named", "labels": {"app": "kubia"}},
        "spec": {"hostname": "db-0", "subdomain": "kubia-headless",
            "containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]}});
    cluster.kubectl_stdin(&["create"], &named.to_string());
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/named", "--timeout=60s"]);
    Some(cluster)
}

/// The lines of `text` after the one with `title`, up to the next title.
fn section<'a>(text: &'a str, title: &str) -> Vec<&'a str> {
    let mark = format!("== {title}");
    let behind = text.lines().skip_while(|line| *line != mark).skip(1);
    behind.take_while(|line| !line.starts_with("== ")).filter(|line| !line.is_empty()).collect()
}

#[test]
fn pods_resolve_services_headless_ones_ports_addresses_and_aliases() {
    let Some(cluster) = stage() else { return };
    let dns = cluster.get(&["svc", "-n", "kube-system", "kube-dns"]);
    let ip = |name: &str| cluster.get(&["svc", name])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let pods = cluster.get(&["pods", "-l", "app=kubia"]);
    let mut addresses: Vec<std::net::Ipv4Addr> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap().parse().unwrap())
        .collect();
    addresses.sort();
    let kubia = ip("kubia");
    let named = cluster.get(&["pod", "named"])["status"]["podIP"].as_str().unwrap().to_owned();

    // Short and long names, by the C library and the resolv.conf the kubelet wrote.
    let names = ["kubia", "kubia.default", "kubia.default.svc.cluster.local", "kubia-alias", "kubernetes"];
    let all: Vec<&str> = ["/bin/caller"]
        .into_iter()
        .chain(names)
        .chain(["kubia-headless", "db-0.kubia-headless", "nobody.default"])
        .collect();
    let printed = in_a_pod(&cluster, "resolver", json!({}), &all);
    for name in &names[..4] {
        assert!(printed.contains(&format!("{name}: {kubia}\n")), "{printed}");
    }
    assert!(printed.contains(&format!("kubernetes: {}\n", ip("kubernetes"))), "{printed}");
    let joined = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert!(printed.contains(&format!("kubia-headless: {joined}\n")), "{printed}");
    assert!(printed.contains(&format!("db-0.kubia-headless: {named}\n")), "{printed}");
    assert!(printed.contains("nobody.default: failed to lookup"), "{printed}");

    // Record by record, by a client of its own.
    let reverse = |ip: &str| ip.split('.').rev().collect::<Vec<_>>().join(".") + ".in-addr.arpa";
    let script = format!(
        "ask() {{ echo \"== $1\"; nslookup -type=$2 $3; }}\n\
         ask srv srv _http._tcp.kubia.default.svc.cluster.local\n\
         ask headless-srv srv _http._tcp.kubia-headless.default.svc.cluster.local\n\
         ask ptr ptr {}\n\
         ask pod-ptr ptr {}\n\
         ask alias cname kubia-alias.default.svc.cluster.local\n\
         ask pod a {}.default.pod.cluster.local\n\
         ask missing a nobody.default.svc.cluster.local\n\
         ask no-ipv6 aaaa kubia.default.svc.cluster.local\n\
         echo == resolv.conf; while read line; do echo \"$line\"; done < /etc/resolv.conf\n",
        reverse(&kubia),
        reverse(&named),
        named.replace('.', "-"),
    );
    let printed = in_a_pod(&cluster, "asker", json!({}), &["/bin/sh", "-c", &script]);
    let has = |title: &str, text: &str| {
        let lines = section(&printed, title);
        assert!(
            lines.iter().any(|line| line.replace('\t', " ").contains(text)),
            "{title}: {text}\n{printed}"
        );
    };
    has("srv", "service = 0 100 80 kubia.default.svc.cluster.local");
    has("headless-srv", "8080 db-0.kubia-headless.default.svc.cluster.local");
    has("ptr", "name = kubia.default.svc.cluster.local");
    has("pod-ptr", "name = db-0.kubia-headless.default.svc.cluster.local");
    has("alias", "canonical name = kubia.default.svc.cluster.local");
    has("pod", &named);
    has("missing", "NXDOMAIN");
    assert!(!section(&printed, "no-ipv6").iter().any(|line| line.contains("NXDOMAIN")), "{printed}");
    let server = dns["spec"]["clusterIP"].as_str().unwrap();
    has("resolv.conf", &format!("nameserver {server}"));
    has("resolv.conf", "search default.svc.cluster.local svc.cluster.local cluster.local");
    has("resolv.conf", "options ndots:5");
    assert_eq!(dns["spec"]["ports"][0]["port"], 53);
    assert!(server.ends_with(".10"), "{server}");
}

#[test]
fn a_rolling_update_loses_nothing_for_pods_that_call_by_name() {
    let Some(cluster) = stage() else { return };
    cluster.kubectl(&["delete", "pod", "named"]);
    let callers = ["caller-1", "caller-2"];
    callers.iter().for_each(|name| tools::call_by_name(&cluster, name, 80));
    let answered = |name: &str, version: &str| {
        eventually(&format!("{name} to be answered by {version}"), || {
            cluster.kubectl(&["logs", name]).contains(&format!("\"{version}\": ")).then_some(())
        });
    };
    for (old, image, version) in [("v1", "luksa/kubia:v2", "v2"), ("v2", "luksa/kubia:v4", "v4")] {
        callers.iter().for_each(|name| answered(name, old));
        cluster.kubectl(&["set", "image", "deployment", "kubia", &format!("nodejs={image}")]);
        cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
        callers.iter().for_each(|name| answered(name, version));
    }
    for name in callers {
        assert_eq!(tools::failures(&cluster, name), [] as [String; 0], "{name}");
    }
}
