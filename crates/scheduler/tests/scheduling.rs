//! Picking a node.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use k8s_openapi::api::core::v1::{Node, Pod};
use rstest::rstest;
use sagong_scheduler::cluster::{Cluster, Wanted};
use sagong_scheduler::schedule;
use serde_json::{Value, json};

fn node(name: &str, spec: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "cpus": "2" } },
        "spec": spec,
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "3" } },
    }))
    .unwrap()
}

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c" }]);
    }
    serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "p" }, "spec": spec })).unwrap()
}

fn requesting(cpu: &str) -> Pod {
    pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] }))
}

fn cluster(nodes: Vec<Node>) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.into_iter().for_each(|node| cluster.set_node(node));
    cluster
}

const NO_HELP: &str = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

#[rstest]
#[case::cordoned(json!({ "unschedulable": true }), json!({}), "1 node(s) were unschedulable")]
#[case::tainted(
    json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }), json!({}),
    "1 node(s) had untolerated taint {k: v}"
)]
#[case::other_label(json!({}), json!({ "nodeSelector": { "disk": "ssd" } }), "1 node(s) didn't match Pod's node affinity/selector")]
#[case::too_big(
    json!({}), json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "2001m", "memory": "5Gi" } } }] }),
    "1 Insufficient cpu, 1 Insufficient memory"
)]
fn a_pod_that_no_node_can_take_is_told_why(#[case] spec: Value, #[case] wants: Value, #[case] reason: &str) {
    let error = schedule(&pod(wants), &cluster(vec![node("a", spec)])).unwrap_err();
    assert_eq!(error, format!("0/1 nodes are available: {reason}. {NO_HELP}"));
}

#[test]
fn without_nodes_the_message_says_so() {
    assert_eq!(
        schedule(&requesting("1"), &Cluster::default()).unwrap_err(),
        "no nodes available to schedule pods"
    );
}

#[rstest]
#[case(json!([{ "key": "k", "operator": "Exists" }]), true)]
#[case(json!([{ "operator": "Exists" }]), true)]
#[case(json!([{ "key": "k", "value": "v", "effect": "NoSchedule" }]), true)]
#[case(json!([{ "key": "k", "value": "other" }]), false)]
#[case(json!([{ "key": "k", "operator": "Exists", "effect": "NoExecute" }]), false)]
fn tolerations_open_tainted_nodes(#[case] tolerations: Value, #[case] fits: bool) {
    let tainted = node("a", json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }));
    assert_eq!(schedule(&pod(json!({ "tolerations": tolerations })), &cluster(vec![tainted])).is_ok(), fits);
}

#[rstest]
#[case("In", json!(["a"]), true)]
#[case("NotIn", json!(["a"]), false)]
#[case("Exists", json!([]), true)]
#[case("DoesNotExist", json!([]), false)]
fn required_affinity_is_obeyed(#[case] operator: &str, #[case] values: Value, #[case] fits: bool) {
    let expression = json!({ "key": "kubernetes.io/hostname", "operator": operator, "values": values });
    let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": [expression] }] });
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": terms } });
    assert_eq!(
        schedule(&pod(json!({ "affinity": affinity })), &cluster(vec![node("a", json!({}))])).is_ok(),
        fits
    );
}

#[test]
fn what_is_taken_is_taken_until_it_is_released() {
    let mut cluster = cluster(vec![node("a", json!({}))]);
    let big = requesting("1500m");
    cluster.assign("one", "a", Wanted::of(&big));
    assert!(schedule(&big, &cluster).is_err());
    cluster.assign("one", "a", Wanted::of(&big)); // seen again through the watch: not counted twice
    cluster.release("one");
    assert_eq!(schedule(&big, &cluster).unwrap(), "a");
}

#[test]
fn the_number_of_pods_is_a_limit() {
    let mut cluster = cluster(vec![node("a", json!({}))]);
    for uid in ["one", "two", "three"] {
        cluster.assign(uid, "a", Wanted::of(&pod(json!({}))));
    }
    let error = schedule(&pod(json!({})), &cluster).unwrap_err();
    assert!(error.contains("1 Too many pods"), "{error}");
}

#[test]
fn a_node_that_changes_keeps_what_its_pods_take() {
    let mut cluster = cluster(vec![node("a", json!({}))]);
    cluster.assign("one", "a", Wanted::of(&requesting("1500m")));
    cluster.set_node(node("a", json!({})));
    assert!(schedule(&requesting("1"), &cluster).is_err());
}

#[test]
fn host_ports_are_taken_once() {
    let with_port =
        pod(json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] }));
    let mut cluster = cluster(vec![node("a", json!({}))]);
    cluster.assign("one", "a", Wanted::of(&with_port));
    let error = schedule(&with_port, &cluster).unwrap_err();
    assert!(error.contains("node(s) didn't have free ports for the requested pod ports"), "{error}");
}

#[test]
fn equal_pods_are_spread() {
    let owned = |uid: &str| -> Pod {
        let mut pod = pod(json!({}));
        pod.metadata.uid = Some(uid.into());
        pod.metadata.owner_references =
            Some(vec![serde_json::from_value(json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true })).unwrap()]);
        pod
    };
    let mut cluster = cluster(vec![node("a", json!({})), node("b", json!({}))]);
    let first = schedule(&owned("1"), &cluster).unwrap();
    cluster.assign("1", &first, Wanted::of(&owned("1")));
    let second = schedule(&owned("2"), &cluster).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_large_init_container_counts_alone_and_a_sidecar_beside() {
    let with = |init: Value| {
        pod(json!({
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }], "initContainers": init,
        }))
    };
    let cpu = |pod: &Pod| Wanted::of(pod).resources["cpu"];
    let request = |cpu: &str| json!({ "requests": { "cpu": cpu } });
    assert_eq!(cpu(&with(json!([{ "name": "i", "resources": request("1") }]))), 1000);
    assert_eq!(cpu(&with(json!([{ "name": "i", "resources": request("100m") }]))), 500);
    assert_eq!(
        cpu(&with(json!([{ "name": "i", "restartPolicy": "Always", "resources": request("100m") }]))),
        600
    );
}
