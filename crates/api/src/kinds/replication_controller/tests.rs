//! Defaults, validation and cells of replication controllers.

use super::*;
use rstest::rstest;

fn controller(patch: Value) -> ReplicationController {
    let mut tree = json!({
        "metadata": {"name": "kubia"},
        "spec": {"replicas": 3, "template": {
            "metadata": {"labels": {"app": "kubia"}},
            "spec": {"containers": [{"name": "nodejs", "image": "luksa/kubia:v1"}]},
        }},
    });
    json_patch::merge(&mut tree, &patch);
    let mut controller = serde_json::from_value(tree).unwrap();
    ReplicationControllerKind.default(&mut controller);
    controller
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn labels_and_selector_come_from_the_template() {
    let controller = controller(json!({}));
    let labels = Some(BTreeMap::from([("app".to_owned(), "kubia".to_owned())]));
    assert_eq!(controller.metadata.labels, labels);
    assert_eq!(controller.spec.unwrap().selector, labels);
}

#[rstest]
#[case::valid(json!({}), &[])]
#[case::no_template(
    json!({"spec": {"template": null, "selector": {"app": "kubia"}}}),
    &["spec.template: Required value"])]
#[case::nothing_selected(json!({"spec": {"template": {"metadata": null}}}), &["spec.selector: Required value"])]
#[case::other_labels(
    json!({"spec": {"selector": {"app": "other"}}}),
    &["spec.template.metadata.labels: Invalid value: {\"app\":\"kubia\"}: `selector` does not match template `labels`"])]
#[case::negative(
    json!({"spec": {"replicas": -1}}),
    &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"])]
#[case::restart_policy(
    json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}),
    &["spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\""])]
fn a_replication_controller_names_every_field_that_is_wrong(#[case] patch: Value, #[case] expected: &[&str]) {
    assert_eq!(texts(&ReplicationControllerKind.validate_create(&controller(patch))), expected);
}

#[test]
fn the_selector_may_change() {
    let labels = json!({"app": "kubia", "tier": "web"});
    let new = controller(json!({"spec": {"selector": labels, "template": {"metadata": {"labels": labels}}}}));
    let errors = ReplicationControllerKind.validate_update(&new, &controller(json!({})), Part::Main);
    assert_eq!(texts(&errors), [""; 0]);
}

#[test]
fn the_cells_count_pods() {
    let controller = controller(json!({"status": {"replicas": 2, "readyReplicas": 1}}));
    let cells = json!(["kubia", 3, 2, 1, "<unknown>", "nodejs", "luksa/kubia:v1", "app=kubia"]);
    assert_eq!(json!(ReplicationControllerKind.cells(&controller, Timestamp::UNIX_EPOCH)), cells);
    assert_eq!(ReplicationControllerKind.columns().len(), 8);
    let scale = ReplicationControllerKind.scale(&controller).unwrap();
    assert_eq!(scale, Scale { replicas: 3, current: 2, selector: "app=kubia".to_owned() });
}
