//! Defaults, validation and cells of deployments.

use super::*;
use rstest::rstest;

fn base() -> Value {
    json!({
        "metadata": {"name": "kubia"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "kubia"}},
            "template": {
                "metadata": {"labels": {"app": "kubia"}},
                "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]},
            },
        },
    })
}

fn deployment(patch: Value) -> Deployment {
    let mut tree = base();
    json_patch::merge(&mut tree, &patch);
    let mut deployment = serde_json::from_value(tree).unwrap();
    DeploymentKind.default(&mut deployment);
    deployment
}

fn spec(patch: Value) -> Deployment {
    deployment(json!({"spec": patch}))
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_deployment_gets_upstreams_defaults() {
    let tree = serde_json::to_value(spec(json!({"replicas": null}))).unwrap();
    assert_eq!(
        tree["spec"],
        json!({
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": {"app": "kubia"}},
            "template": {
                "metadata": {"labels": {"app": "kubia"}},
                "spec": {
                    "containers": [{
                        "name": "nodejs", "image": "luksa/kubia:v1", "imagePullPolicy": "IfNotPresent", "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    }],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 30,
                },
            },
        })
    );
}

#[test]
fn recreate_has_no_rolling_update() {
    let deployment = spec(json!({"strategy": {"type": "Recreate"}}));
    let strategy = deployment.spec.unwrap().strategy.unwrap();
    assert_eq!(strategy.rolling_update, None);
}

#[rstest]
#[case::valid(json!({}), &[])]
#[case::negative_replicas(
    json!({"replicas": -1}),
    &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"])]
#[case::no_selector(json!({"selector": null}), &[
    "spec.selector: Required value",
    "spec.template.metadata.labels: Invalid value: {\"app\":\"kubia\"}: `selector` does not match template `labels`",
])]
#[case::empty_selector(
    json!({"selector": {"matchLabels": {"app": null}}}),
    &["spec.selector: Invalid value: {\"matchLabels\":{}}: empty selector is invalid for deployment"])]
#[case::other_labels(
    json!({"selector": {"matchLabels": {"app": "other"}}}),
    &["spec.template.metadata.labels: Invalid value: {\"app\":\"kubia\"}: `selector` does not match template `labels`"])]
#[case::unreadable_selector(
    json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
    &[
        "spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator",
        "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Like\"}],\"matchLabels\":{\"app\":\"kubia\"}}: invalid label selector",
    ])]
#[case::never_restarted(
    json!({"template": {"spec": {"restartPolicy": "Never"}}}),
    &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""])]
#[case::no_containers(
    json!({"template": {"spec": {"containers": []}}}),
    &["spec.template.spec.containers: Required value"])]
#[case::both_zero(
    json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
    &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"])]
#[case::both_zero_percent(
    json!({"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}}),
    &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"])]
#[case::negative_surge(
    json!({"strategy": {"rollingUpdate": {"maxSurge": -1}}}),
    &["spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"])]
#[case::no_percent(
    json!({"strategy": {"rollingUpdate": {"maxSurge": "some"}}}),
    &["spec.strategy.rollingUpdate.maxSurge: Invalid value: \"some\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"])]
#[case::more_than_all_unavailable(
    json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
    &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"])]
#[case::more_than_all_surge(json!({"strategy": {"rollingUpdate": {"maxSurge": "200%"}}}), &[])]
#[case::recreate_with_rolling(
    json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
    &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"])]
#[case::strategy(
    json!({"strategy": {"type": "Canary"}}),
    &["spec.strategy: Unsupported value: {\"type\":\"Canary\"}: supported values: \"Recreate\", \"RollingUpdate\""])]
#[case::negative_ready_seconds(
    json!({"minReadySeconds": -1}),
    &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"])]
#[case::negative_history(
    json!({"revisionHistoryLimit": -1}),
    &["spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"])]
#[case::deadline_before_ready(
    json!({"minReadySeconds": 10, "progressDeadlineSeconds": 10}),
    &["spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds"])]
#[case::bad_label(
    json!({"template": {"metadata": {"labels": {"b": "-"}}}}),
    &["spec.template.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"])]
fn a_deployment_names_every_field_that_is_wrong(#[case] patch: Value, #[case] expected: &[&str]) {
    assert_eq!(texts(&DeploymentKind.validate_create(&spec(patch))), expected);
}

#[test]
fn the_selector_is_immutable() {
    let labels = json!({"app": "kubia", "tier": "web"});
    let new =
        spec(json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}));
    let errors = DeploymentKind.validate_update(&new, &spec(json!({})), Part::Main);
    let expected = "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"kubia\",\"tier\":\"web\"}}: field is immutable";
    assert_eq!(texts(&errors), [expected]);
}

#[test]
fn no_selector_breaks_on_a_deployment_without_spec() {
    let mut empty = Deployment::default();
    DeploymentKind.default(&mut empty);
    assert!(!DeploymentKind.validate_create(&empty).is_empty());
}

#[rstest]
#[case(json!({"metadata": {"labels": {"a": "b"}}}), false)]
#[case(json!({"metadata": {"annotations": {"a": "b"}}}), true)]
#[case(json!({"spec": {"replicas": 4}}), true)]
#[case(json!({"status": {"replicas": 4}}), false)]
fn the_generation_grows_with_spec_and_annotations(#[case] patch: Value, #[case] grows: bool) {
    assert_eq!(DeploymentKind.spec_changed(&deployment(patch), &deployment(json!({}))), grows);
}

#[rstest]
#[case(json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 2}), &[])]
#[case(
    json!({"replicas": 1, "updatedReplicas": 2}),
    &["status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas"])]
#[case(
    json!({"replicas": 1, "availableReplicas": 1}),
    &["status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas"])]
#[case(json!({"collisionCount": 0}), &["status.collisionCount: Invalid value: 0: cannot be decremented"])]
fn the_counts_of_a_status_fit_together(#[case] status: Value, #[case] expected: &[&str]) {
    let old = deployment(json!({"status": {"collisionCount": 1}}));
    let new = deployment(json!({"status": status}));
    assert_eq!(texts(&DeploymentKind.validate_update(&new, &old, Part::Status)), expected);
}

#[test]
fn the_cells_count_pods() {
    let status = json!({"replicas": 4, "readyReplicas": 3, "updatedReplicas": 2, "availableReplicas": 1});
    let deployment = deployment(json!({
        "metadata": {"creationTimestamp": "2023-11-14T22:13:20Z"},
        "status": status,
    }));
    let now = Timestamp::from_second(1_700_000_010).unwrap();
    let cells = json!(["kubia", "3/3", 2, 1, "10s", "nodejs", "luksa/kubia:v1", "app=kubia"]);
    assert_eq!(json!(DeploymentKind.cells(&deployment, now)), cells);
    assert_eq!(DeploymentKind.columns().len(), 8);
}

#[test]
fn scaling_shows_and_changes_the_replicas() {
    let mut deployment = deployment(json!({"status": {"replicas": 2}}));
    DeploymentKind.set_replicas(&mut deployment, 7);
    let scale = Scale { replicas: 7, current: 2, selector: "app=kubia".to_owned() };
    assert_eq!(DeploymentKind.scale(&deployment), Some(scale));
}
