//! Validation and cells of replica sets.

use super::*;
use rstest::rstest;

fn set(patch: Value) -> ReplicaSet {
    let mut tree = json!({
        "metadata": {"name": "kubia"},
        "spec": {
            "selector": {"matchLabels": {"app": "kubia"}},
            "template": {
                "metadata": {"labels": {"app": "kubia"}},
                "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]},
            },
        },
    });
    json_patch::merge(&mut tree, &patch);
    let mut set = serde_json::from_value(tree).unwrap();
    ReplicaSetKind.default(&mut set);
    set
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case::valid(json!({}), &[])]
#[case::negative(
    json!({"spec": {"replicas": -1, "minReadySeconds": -2}}),
    &[
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        "spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0",
    ])]
#[case::no_template(json!({"spec": {"template": null}}), &["spec.template: Required value"])]
#[case::deadline(
    json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
    &["spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"])]
fn a_replica_set_names_every_field_that_is_wrong(#[case] patch: Value, #[case] expected: &[&str]) {
    assert_eq!(texts(&ReplicaSetKind.validate_create(&set(patch))), expected);
}

#[test]
fn the_status_labels_no_more_pods_than_there_are() {
    let errors = ReplicaSetKind.validate_update(
        &set(json!({"status": {"replicas": 1, "fullyLabeledReplicas": 2}})),
        &set(json!({})),
        Part::Status,
    );
    let expected = "status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas";
    assert_eq!(texts(&errors), [expected]);
}

#[test]
fn the_cells_count_pods() {
    let set = set(json!({"status": {"replicas": 2, "readyReplicas": 1}}));
    let cells = json!(["kubia", 1, 2, 1, "<unknown>", "nodejs", "luksa/kubia:v1", "app=kubia"]);
    assert_eq!(json!(ReplicaSetKind.cells(&set, Timestamp::UNIX_EPOCH)), cells);
    assert_eq!(ReplicaSetKind.columns().len(), 8);
    assert_eq!(ReplicaSetKind.selectable_fields(&set), [("status.replicas", "2".to_owned())]);
}
