//! Defaults, table cells, grace periods and fields of pods.

use super::*;
use rstest::rstest;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn time(second: i64) -> Value {
    json!(at(second).to_string())
}

fn running() -> Value {
    json!({"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}})
}

fn container(state: Value) -> Value {
    json!({"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

#[test]
fn a_pod_gets_upstreams_defaults() {
    let mut pod = pod(json!({
        "metadata": {"name": "kubia"},
        "spec": {"containers": [{
            "name": "nodejs", "image": "luksa/kubia:v1",
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": 8080}},
            "resources": {"limits": {"cpu": "0.5"}},
        }]},
    }));
    PodKind.default(&mut pod);
    PodKind.prepare_create(&mut pod);
    let once = serde_json::to_value(&pod).unwrap();
    assert_eq!(
        once,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kubia"},
            "spec": {
                "containers": [{
                    "name": "nodejs", "image": "luksa/kubia:v1", "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "readinessProbe": {
                        "httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"},
                        "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1,
                    },
                    "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        })
    );
    PodKind.default(&mut pod);
    PodKind.prepare_create(&mut pod);
    assert_eq!(serde_json::to_value(&pod).unwrap(), once);
}

#[test]
fn volumes_get_upstreams_defaults() {
    let mut pod = pod(json!({"spec": {"containers": [], "volumes": [
        {"name": "a"},
        {"name": "b", "hostPath": {"path": "/"}},
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "e", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]}}));
    PodKind.default(&mut pod);
    let volumes = serde_json::to_value(&pod.spec.unwrap().volumes).unwrap();
    assert_eq!(
        volumes,
        json!([
            {"name": "a", "emptyDir": {}},
            {"name": "b", "hostPath": {"path": "/", "type": ""}},
            {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "d", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
            ]}},
            {"name": "e", "downwardAPI": {"defaultMode": 420, "items": [
                {"path": "p", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
            ]}},
        ])
    );
}

#[test]
fn on_the_hosts_network_container_ports_are_host_ports() {
    let mut pod = pod(json!({"spec": {"hostNetwork": true, "containers": [
        {"name": "a", "image": "a", "ports": [{"containerPort": 80}]},
    ]}}));
    PodKind.default(&mut pod);
    assert_eq!(pod.spec.unwrap().containers[0].ports.as_ref().unwrap()[0].host_port, Some(80));
}

#[rstest]
#[case(json!({}), "BestEffort")]
#[case(json!({"requests": {"cpu": "0"}}), "BestEffort")]
#[case(json!({"requests": {"cpu": "1"}}), "Burstable")]
#[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed")]
#[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "1024Mi"}}), "Guaranteed")]
#[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "512Mi"}}), "Burstable")]
#[case(json!({"limits": {"cpu": "1"}}), "Burstable")]
fn the_quality_of_service_follows_from_requests_and_limits(#[case] resources: Value, #[case] class: &str) {
    let mut pod = pod(json!({"spec": {"containers": [{"name": "a", "image": "a", "resources": resources}]}}));
    PodKind.default(&mut pod);
    PodKind.prepare_create(&mut pod);
    assert_eq!(pod.status.unwrap().qos_class.unwrap(), class);
}

#[rstest]
#[case::pending(json!({"phase": "Pending"}), "0/1", "Pending", "0")]
#[case::creating(
    json!({"phase": "Pending", "containerStatuses": [container(json!({"waiting": {"reason": "ContainerCreating"}}))]}),
    "0/1", "ContainerCreating", "0")]
#[case::pull_error(
    json!({"phase": "Pending", "containerStatuses": [container(json!({"waiting": {"reason": "ImagePullBackOff"}}))]}),
    "0/1", "ImagePullBackOff", "0")]
#[case::running(json!({"phase": "Running", "containerStatuses": [running()]}), "1/1", "Running", "0")]
#[case::completed(
    json!({"phase": "Succeeded", "containerStatuses": [container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))]}),
    "0/1", "Completed", "0")]
#[case::error(
    json!({"phase": "Failed", "containerStatuses": [container(json!({"terminated": {"exitCode": 1, "reason": "Error"}}))]}),
    "0/1", "Error", "0")]
#[case::exit_code(
    json!({"phase": "Failed", "containerStatuses": [container(json!({"terminated": {"exitCode": 3}}))]}),
    "0/1", "ExitCode:3", "0")]
#[case::signal(
    json!({"phase": "Failed", "containerStatuses": [container(json!({"terminated": {"exitCode": 137, "signal": 9}}))]}),
    "0/1", "Signal:9", "0")]
#[case::evicted(json!({"phase": "Failed", "reason": "Evicted"}), "0/1", "Evicted", "0")]
#[case::gated(
    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
    "0/1", "SchedulingGated", "0")]
#[case::crashing(
    json!({"phase": "Running", "containerStatuses": [{
        "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": time(-65)}},
    }]}),
    "0/1", "CrashLoopBackOff", "3 (65s ago)")]
fn the_status_cell_sums_up_the_containers(
    #[case] status: Value,
    #[case] ready: &str,
    #[case] text: &str,
    #[case] restarts: &str,
) {
    let pod = pod(json!({"spec": {"containers": [{"name": "a", "image": "a"}]}, "status": status}));
    let cells = PodKind.cells(&pod, at(0));
    assert_eq!(cells[1..4], [json!(ready), json!(text), json!(restarts)]);
}

#[rstest]
#[case::first(json!([container(json!({"running": {}}))]), "Init:0/2")]
#[case::second(json!([container(json!({"terminated": {"exitCode": 0}})), container(json!({"running": {}}))]), "Init:1/2")]
#[case::waiting(json!([container(json!({"waiting": {"reason": "PodInitializing"}}))]), "Init:0/2")]
#[case::image(json!([container(json!({"waiting": {"reason": "ErrImagePull"}}))]), "Init:ErrImagePull")]
#[case::failed(json!([container(json!({"terminated": {"exitCode": 1, "reason": "Error"}}))]), "Init:Error")]
#[case::code(json!([container(json!({"terminated": {"exitCode": 2}}))]), "Init:ExitCode:2")]
#[case::signal(json!([container(json!({"terminated": {"exitCode": 137, "signal": 9}}))]), "Init:Signal:9")]
#[case::done(
    json!([container(json!({"terminated": {"exitCode": 0}})), container(json!({"terminated": {"exitCode": 0}}))]),
    "PodInitializing")]
fn while_init_containers_run_the_status_cell_counts_them(#[case] statuses: Value, #[case] text: &str) {
    let pod = pod(json!({
        "spec": {
            "containers": [{"name": "a", "image": "a"}],
            "initContainers": [{"name": "i", "image": "a"}, {"name": "j", "image": "a"}],
        },
        "status": {
            "phase": "Pending",
            "initContainerStatuses": statuses,
            "containerStatuses": [container(json!({"waiting": {"reason": "PodInitializing"}}))],
        },
    }));
    assert_eq!(PodKind.cells(&pod, at(0))[2], json!(text));
}

#[test]
fn a_sidecar_counts_as_a_container() {
    let pod = pod(json!({
        "spec": {
            "containers": [{"name": "a", "image": "a"}],
            "initContainers": [{"name": "side", "image": "a", "restartPolicy": "Always"}],
        },
        "status": {
            "phase": "Running",
            "initContainerStatuses": [{
                "name": "side", "image": "", "imageID": "", "ready": true, "started": true, "restartCount": 2,
                "state": {"running": {}},
            }],
            "containerStatuses": [running()],
        },
    }));
    let cells = PodKind.cells(&pod, at(0));
    assert_eq!(cells[1..4], [json!("2/2"), json!("Running"), json!("2")]);
}

#[rstest]
#[case(true, "Running")]
#[case(false, "NotReady")]
fn one_container_that_completed_does_not_hide_one_that_runs(#[case] is_ready: bool, #[case] text: &str) {
    let ready = if is_ready { "True" } else { "False" };
    let pod = pod(json!({
        "spec": {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "a"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [
                container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})),
                running(),
            ],
        },
    }));
    assert_eq!(PodKind.cells(&pod, at(0))[1..3], [json!("1/2"), json!(text)]);
}

#[rstest]
#[case(json!({"phase": "Running"}), "Terminating")]
#[case(json!({"phase": "Running", "reason": "NodeLost"}), "Unknown")]
#[case(json!({"phase": "Succeeded"}), "Succeeded")]
fn a_deleted_pod_is_terminating_until_it_is_finished(#[case] status: Value, #[case] text: &str) {
    let pod = pod(json!({"metadata": {"deletionTimestamp": time(0)}, "status": status}));
    assert_eq!(PodKind.cells(&pod, at(0))[2], json!(text));
}

#[test]
fn wide_cells_show_address_node_and_gates() {
    let gated = pod(json!({
        "metadata": {"name": "kubia", "creationTimestamp": time(-90)},
        "spec": {"containers": [], "nodeName": "n1", "readinessGates": [{"conditionType": "x/y"}]},
        "status": {"podIP": "10.244.0.2", "conditions": [{"type": "x/y", "status": "True"}]},
    }));
    let cells = PodKind.cells(&gated, at(0));
    assert_eq!(cells[0], json!("kubia"));
    assert_eq!(cells[4..], [json!("90s"), json!("10.244.0.2"), json!("n1"), json!("<none>"), json!("1/1")]);
    let none = PodKind.cells(&pod(json!({})), at(0));
    let none_cell = json!("<none>");
    assert_eq!(
        none[4..],
        [&json!("<unknown>"), &none_cell, &none_cell, &none_cell, &none_cell].map(Value::clone)
    );
}

#[test]
fn each_column_has_a_cell() {
    assert_eq!(PodKind.columns().len(), PodKind.cells(&pod(json!({})), at(0)).len());
}

#[rstest]
#[case::as_the_pod_says(Some("n"), "Running", None, Some(30), 30)]
#[case::as_asked(Some("n"), "Running", Some(5), Some(30), 5)]
#[case::at_once(Some("n"), "Running", Some(0), Some(30), 0)]
#[case::negative(Some("n"), "Running", Some(-1), Some(30), 1)]
#[case::unscheduled(None, "Pending", None, Some(30), 0)]
#[case::finished(Some("n"), "Failed", Some(5), Some(30), 0)]
#[case::succeeded(Some("n"), "Succeeded", None, Some(30), 0)]
#[case::nothing_said(Some("n"), "Running", None, None, 0)]
fn the_grace_period_is_what_was_asked_unless_nobody_waits(
    #[case] node: Option<&str>,
    #[case] phase: &str,
    #[case] requested: Option<i64>,
    #[case] of_spec: Option<i64>,
    #[case] expected: i64,
) {
    let pod = pod(json!({
        "spec": {"containers": [], "nodeName": node, "terminationGracePeriodSeconds": of_spec},
        "status": {"phase": phase},
    }));
    assert_eq!(PodKind.deletion_grace_period(&pod, requested), Some(expected));
}

#[test]
fn every_selectable_field_is_listed_even_when_unset() {
    let fields = PodKind.selectable_fields(&pod(json!({"status": {"phase": "Running"}})));
    let set: Vec<_> = fields.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
    assert_eq!(fields.len(), 8);
    assert_eq!(set, [("spec.hostNetwork", "false".to_owned()), ("status.phase", "Running".to_owned())]);
}

#[test]
fn a_status_write_changes_neither_spec_nor_owners() {
    let old = pod(json!({
        "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "a", "uid": "1"}]},
        "spec": {"containers": [], "nodeName": "n"},
        "status": {"qosClass": "BestEffort"},
    }));
    let mut new = pod(json!({"spec": {"containers": []}, "status": {"phase": "Running"}}));
    PodKind.prepare_update(&mut new, &old, Part::Status);
    assert_eq!((&new.spec, &new.metadata.owner_references), (&old.spec, &old.metadata.owner_references));
    let status = new.status.unwrap();
    assert_eq!((status.phase.as_deref(), status.qos_class.as_deref()), (Some("Running"), Some("BestEffort")));
}

#[test]
fn a_gated_pod_says_why_it_waits() {
    let mut pod = pod(json!({"spec": {"containers": [], "schedulingGates": [{"name": "g"}]}}));
    PodKind.prepare_create(&mut pod);
    let condition = &pod.status.unwrap().conditions.unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("SchedulingGated"));
}
