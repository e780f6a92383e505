//! Each row is a change of a valid pod (a JSON merge patch) and everything then wrong with it.

use super::*;
use crate::kind::{Kind, Part};
use crate::kinds::pod::PodKind;
use rstest::rstest;
use serde_json::{Value, json};

fn base() -> Value {
    json!({
        "metadata": {"name": "kubia", "namespace": "default"},
        "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]},
    })
}

fn pod(patch: &Value) -> Pod {
    let mut tree = base();
    json_patch::merge(&mut tree, patch);
    let mut pod = serde_json::from_value(tree).unwrap();
    PodKind.default(&mut pod);
    pod
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn with_container(fields: Value) -> Value {
    let mut container = json!({"name": "nodejs", "image": "luksa/kubia:v1"});
    json_patch::merge(&mut container, &fields);
    json!({"spec": {"containers": [container]}})
}

#[test]
fn a_plain_pod_is_valid() {
    let mut pod = pod(&json!({}));
    PodKind.prepare_create(&mut pod);
    assert_eq!(texts(&PodKind.validate_create(&pod)), [""; 0]);
}

#[rstest]
#[case::no_containers(json!({"spec": {"containers": []}}), &["spec.containers: Required value"])]
#[case::no_spec(json!({"spec": null}), &[
    "spec.containers: Required value",
    "spec.restartPolicy: Required value",
    "spec.dnsPolicy: Required value",
])]
#[case::no_name(json!({"spec": {"containers": [{"image": "a"}]}}), &["spec.containers[0].name: Required value"])]
#[case::no_image(json!({"spec": {"containers": [{"name": "a"}]}}), &["spec.containers[0].image: Required value"])]
#[case::duplicate_names(
    json!({"spec": {"containers": [{"name": "a", "image": "a"}, {"name": "a", "image": "a"}]}}),
    &["spec.containers[1].name: Duplicate value: \"a\""])]
#[case::restart_policy(
    json!({"spec": {"restartPolicy": "Sometimes"}}),
    &["spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""])]
#[case::deadline(
    json!({"spec": {"activeDeadlineSeconds": 0}}),
    &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"])]
#[case::ephemeral(
    json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}}),
    &["spec.ephemeralContainers: Forbidden: cannot be set on create"])]
#[case::gated_and_bound(
    json!({"spec": {"nodeName": "n", "schedulingGates": [{"name": "g"}]}}),
    &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"])]
#[case::own_dns(
    json!({"spec": {"dnsPolicy": "None"}}),
    &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"])]
#[case::os(
    json!({"spec": {"os": {"name": "plan9"}}}),
    &["spec.os.name: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""])]
#[case::user(
    json!({"spec": {"securityContext": {"runAsUser": -1}}}),
    &["spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"])]
fn a_pod_names_every_field_that_is_wrong(#[case] patch: Value, #[case] expected: &[&str]) {
    assert_eq!(texts(&PodKind.validate_create(&pod(&patch))), expected);
}

#[rstest]
#[case::image_with_space(
    json!({"image": " a"}),
    &["image: Invalid value: \" a\": must not have leading or trailing whitespace"])]
#[case::pull_policy(
    json!({"imagePullPolicy": "Often"}),
    &["imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\""])]
#[case::port_range(
    json!({"ports": [{"containerPort": 70000}]}),
    &["ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"])]
#[case::port_missing(json!({"ports": [{"name": "http"}]}), &["ports[0].containerPort: Required value"])]
#[case::port_name(
    json!({"ports": [{"name": "HTTP", "containerPort": 80}]}),
    &[
        "ports[0].name: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        "ports[0].name: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
    ])]
#[case::port_names_twice(
    json!({"ports": [{"name": "http", "containerPort": 80}, {"name": "http", "containerPort": 81}]}),
    &["ports[1].name: Duplicate value: \"http\""])]
#[case::protocol(
    json!({"ports": [{"containerPort": 80, "protocol": "QUIC"}]}),
    &["ports[0].protocol: Unsupported value: \"QUIC\": supported values: \"SCTP\", \"TCP\", \"UDP\""])]
#[case::host_ports_twice(
    json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
    &["ports[1].hostPort: Duplicate value: \"TCP//80\""])]
#[case::variable_without_name(json!({"env": [{"value": "x"}]}), &["env[0].name: Required value"])]
#[case::variable_name(
    json!({"env": [{"name": "A=B"}]}),
    &["env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='"])]
#[case::variable_source(
    json!({"env": [{"name": "A", "valueFrom": {}}]}),
    &["env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"])]
#[case::variable_both(
    json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
    &["env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"])]
#[case::variable_field(
    json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nope"}}}]}),
    &["env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.nope\": error converting fieldPath: field label not supported: metadata.nope"])]
#[case::variable_field_not_for_env(
    json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]}),
    &["env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\""])]
#[case::env_from(
    json!({"envFrom": [{}]}),
    &["envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"])]
#[case::mount_of_nothing(
    json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
    &["volumeMounts[0].name: Not found: \"data\""])]
#[case::liveness_successes(
    json!({"livenessProbe": {"httpGet": {"port": 80}, "successThreshold": 2}}),
    &["livenessProbe.successThreshold: Invalid value: 2: must be 1"])]
#[case::probe_without_handler(
    json!({"readinessProbe": {}}),
    &["readinessProbe: Required value: must specify a handler type"])]
#[case::probe_with_two_handlers(
    json!({"readinessProbe": {"exec": {"command": ["ls"]}, "tcpSocket": {"port": 80}}}),
    &["readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"])]
#[case::probe_numbers(
    json!({"readinessProbe": {"httpGet": {"port": 0}, "periodSeconds": -1}}),
    &[
        "readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        "readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
    ])]
#[case::probe_scheme(
    json!({"readinessProbe": {"httpGet": {"port": 80, "scheme": "FTP"}}}),
    &["readinessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\""])]
#[case::probe_exec(
    json!({"startupProbe": {"exec": {}}}),
    &["startupProbe.exec.command: Required value"])]
#[case::readiness_grace(
    json!({"readinessProbe": {"grpc": {"port": 80}, "terminationGracePeriodSeconds": 5}}),
    &["readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes"])]
#[case::long_sleep(
    json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
    &["lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"])]
#[case::hook_without_handler(
    json!({"lifecycle": {"postStart": {}}}),
    &["lifecycle.postStart: Required value: must specify a handler type"])]
#[case::request_above_limit(
    json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
    &["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"])]
#[case::negative_request(
    json!({"resources": {"requests": {"memory": "-1Mi"}}}),
    &["resources.requests[memory]: Invalid value: \"-1Mi\": must be greater than or equal to 0"])]
#[case::unknown_resource(
    json!({"resources": {"limits": {"cpus": "1"}}}),
    &[
        "resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
        "resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
        "resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
        "resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
    ])]
#[case::no_quantity(
    json!({"resources": {"requests": {"cpu": "lots"}}}),
    &["resources.requests[cpu]: Invalid value: \"lots\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"])]
#[case::restart_policy(
    json!({"restartPolicy": "Always"}),
    &["restartPolicy: Forbidden: may not be set for non-init containers"])]
#[case::privileged_without_escalation(
    json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
    &["securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"])]
fn a_container_names_every_field_that_is_wrong(#[case] fields: Value, #[case] expected: &[&str]) {
    let errors = PodKind.validate_create(&pod(&with_container(fields)));
    let expected: Vec<String> = expected.iter().map(|text| format!("spec.containers[0].{text}")).collect();
    assert_eq!(texts(&errors), expected);
}

#[rstest]
#[case::no_name(json!([{"emptyDir": {}}]), &["[0].name: Required value"])]
#[case::twice(
    json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
    &["[1].name: Duplicate value: \"a\""])]
#[case::two_sources(
    json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]),
    &["[0].hostPath: Forbidden: may not specify more than 1 volume type"])]
#[case::without_source_it_is_an_empty_dir(json!([{"name": "a"}]), &[])]
#[case::host_path(
    json!([{"name": "a", "hostPath": {"path": "/a/../b", "type": "Pipe"}}]),
    &[
        "[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        "[0].hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
    ])]
#[case::secret(json!([{"name": "a", "secret": {}}]), &["[0].secret.secretName: Required value"])]
#[case::mode(
    json!([{"name": "a", "configMap": {"name": "c", "defaultMode": 512}}]),
    &["[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"])]
#[case::items(
    json!([{"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "/etc"}]}}]),
    &["[0].configMap.items[0].path: Invalid value: \"/etc\": must be a relative path"])]
#[case::short_token(
    json!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}]),
    &["[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"])]
#[case::projected_twice(
    json!([{"name": "a", "projected": {"sources": [
        {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}},
    ]}}]),
    &["[0].projected: Invalid value: \"c\": conflicting duplicate paths"])]
#[case::nfs(
    json!([{"name": "a", "nfs": {"server": "s", "path": "p"}}]),
    &["[0].nfs.path: Invalid value: \"p\": must be an absolute path"])]
fn a_volume_names_every_field_that_is_wrong(#[case] volumes: Value, #[case] expected: &[&str]) {
    let mut pod = pod(&json!({"spec": {"volumes": volumes}}));
    PodKind.prepare_create(&mut pod);
    let expected: Vec<String> = expected.iter().map(|text| format!("spec.volumes{text}")).collect();
    assert_eq!(texts(&PodKind.validate_create(&pod)), expected);
}

#[rstest]
#[case::sidecar(json!({"restartPolicy": "Always", "readinessProbe": {"httpGet": {"port": 80}}}), &[])]
#[case::probe_of_what_ends(
    json!({"readinessProbe": {"httpGet": {"port": 80}}}),
    &["readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"])]
#[case::restart_policy(
    json!({"restartPolicy": "Never"}),
    &["restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""])]
#[case::name_of_a_container(json!({"name": "nodejs"}), &["name: Duplicate value: \"nodejs\""])]
fn an_init_container_is_a_sidecar_or_ends(#[case] fields: Value, #[case] expected: &[&str]) {
    let mut container = json!({"name": "init", "image": "busybox:1"});
    json_patch::merge(&mut container, &fields);
    let errors = PodKind.validate_create(&pod(&json!({"spec": {"initContainers": [container]}})));
    let expected: Vec<String> =
        expected.iter().map(|text| format!("spec.initContainers[0].{text}")).collect();
    assert_eq!(texts(&errors), expected);
}

#[rstest]
#[case(json!({"tolerations": [{"key": "a", "operator": "Equal", "value": "b"}]}), &[])]
#[case(
    json!({"tolerations": [{"value": "b"}]}),
    &["tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\""])]
#[case(
    json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
    &["tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set"])]
#[case(
    json!({"nodeSelector": {"disk": "very fast"}}),
    &["nodeSelector: Invalid value: \"very fast\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"])]
#[case(
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
    &["affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"])]
#[case(
    json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 0, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}},
    ]}}}),
    &["affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100"])]
#[case(
    json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Wait"}]}),
    &[
        "topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        "topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Wait\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
    ])]
fn scheduling_constraints_are_checked(#[case] spec: Value, #[case] expected: &[&str]) {
    let errors = PodKind.validate_create(&pod(&json!({"spec": spec})));
    let expected: Vec<String> = expected.iter().map(|text| format!("spec.{text}")).collect();
    assert_eq!(texts(&errors), expected);
}

#[rstest]
#[case::image(json!({"spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v2", "imagePullPolicy": "IfNotPresent"}]}}))]
#[case::deadline(json!({"spec": {"activeDeadlineSeconds": 60}}))]
#[case::toleration(json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}))]
#[case::labels(json!({"metadata": {"labels": {"app": "kubia"}}}))]
fn a_pod_may_change_what_upstream_lets_change(#[case] patch: Value) {
    assert_eq!(texts(&PodKind.validate_update(&pod(&patch), &pod(&json!({})), Part::Main)), [""; 0]);
}

#[test]
fn other_changes_of_a_pod_are_forbidden_and_shown() {
    let new = pod(&json!({"spec": {"nodeName": "elsewhere"}}));
    let errors = PodKind.validate_update(&new, &pod(&json!({})), Part::Main);
    assert_eq!(
        texts(&errors),
        ["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
          `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
          `spec.tolerations` (only additions to existing tolerations),\
          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n\
          + spec.nodeName: \"elsewhere\"\n"]
    );
}

#[test]
fn containers_are_not_added_to_a_pod() {
    let containers = json!([{"name": "nodejs", "image": "luksa/kubia:v1"}, {"name": "b", "image": "b"}]);
    let new = pod(&json!({"spec": {"containers": containers}}));
    let errors = PodKind.validate_update(&new, &pod(&json!({})), Part::Main);
    assert_eq!(texts(&errors), ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
}

#[test]
fn a_toleration_stays() {
    let old = pod(&json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}));
    let errors = PodKind.validate_update(&pod(&json!({})), &old, Part::Main);
    let detail = "existing toleration can not be modified except its tolerationSeconds";
    assert_eq!(texts(&errors), [format!("spec.tolerations: Forbidden: {detail}")]);
}

#[test]
fn a_deadline_does_not_move_away() {
    let (old, new) =
        (json!({"spec": {"activeDeadlineSeconds": 5}}), json!({"spec": {"activeDeadlineSeconds": 6}}));
    let errors = PodKind.validate_update(&pod(&new), &pod(&old), Part::Main);
    let expected =
        "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value";
    assert_eq!(texts(&errors), [expected]);
}

#[rstest]
#[case("Never", 0, false)]
#[case("OnFailure", 0, false)]
#[case("OnFailure", 1, true)]
#[case("Always", 0, true)]
fn a_container_that_ended_runs_again_only_if_it_may(
    #[case] policy: &str,
    #[case] exit_code: i32,
    #[case] is_valid: bool,
) {
    let with_state = |state: Value| {
        let status = json!({"name": "nodejs", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        pod(&json!({"spec": {"restartPolicy": policy}, "status": {"containerStatuses": [status]}}))
    };
    let old = with_state(json!({"terminated": {"exitCode": exit_code}}));
    let new = with_state(json!({"running": {}}));
    let errors = PodKind.validate_update(&new, &old, Part::Status);
    let forbidden =
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
    let expected: &[&str] = if is_valid { &[] } else { &[forbidden] };
    assert_eq!(texts(&errors), expected);
}

#[rstest]
#[case(json!({"spec": {"containers": [{"name": "a", "image": "a", "env": [{"name": "A"}, {"name": "A"}]}]}}),
    &["spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"])]
#[case(json!({"spec": {"terminationGracePeriodSeconds": -1}}),
    &["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"])]
#[case(json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
    &["spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"])]
#[case(json!({"metadata": {"name": "a.b"}}),
    &["metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"])]
#[case(json!({"spec": {"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 80}, {"containerPort": 80}]}]}}),
    &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"])]
#[case(json!({}), &[])]
fn what_is_valid_yet_dubious_gets_a_warning(#[case] patch: Value, #[case] expected: &[&str]) {
    assert_eq!(PodKind.warnings(&pod(&patch)), expected);
}
