use super::field_set::FieldSet;
use super::shape::Node;
use super::tree;
use serde_json::{Value, json};

const POD_SPEC: Node = Node::Struct("io.k8s.api.core.v1.PodSpec");

fn containers(list: Value) -> Value {
    json!({ "containers": list })
}

#[test]
fn the_fields_of_an_object_are_listed_as_upstream_lists_them() {
    let spec = json!({
        "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}], "args": ["x", "y"]}],
        "nodeSelector": {"disk": "ssd"}, "hostNetwork": true, "restartPolicy": null,
    });
    let expected = json!({
        "f:containers": {
            "k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
            }
        },
        "f:nodeSelector": {}, "f:hostNetwork": {},
    });
    let fields = tree::fields(POD_SPEC, &spec);
    assert_eq!(fields.to_value(), expected);
    assert_eq!(FieldSet::from_value(&expected), fields);
    assert!(fields.paths().contains(&".containers[name=\"a\"].image".to_owned()));
}

#[test]
fn lists_with_keys_are_merged_item_by_item_and_others_replaced() {
    let live =
        containers(json!([{"name": "side", "image": "s"}, {"name": "a", "image": "1", "args": ["x"]}]));
    let applied =
        containers(json!([{"name": "a", "image": "2", "args": ["y"]}, {"name": "b", "image": "3"}]));
    let expected = containers(json!([
        {"name": "side", "image": "s"}, {"name": "a", "image": "2", "args": ["y"]}, {"name": "b", "image": "3"}
    ]));
    let merged = tree::merge(POD_SPEC, &live, &applied);
    assert_eq!(merged, expected);
    let (changed, gone) = tree::compare(POD_SPEC, &live, &merged);
    assert_eq!(
        changed.to_value(),
        json!({"f:containers": {
            "k:{\"name\":\"a\"}": {"f:image": {}, "f:args": {}},
            "k:{\"name\":\"b\"}": {".": {}, "f:name": {}, "f:image": {}},
        }})
    );
    assert!(gone.is_empty());
    let (_, gone) = tree::compare(POD_SPEC, &merged, &live);
    assert_eq!(gone.paths().len(), 3);
}

#[test]
fn removed_fields_take_what_they_leave_empty_with_them() {
    let mut value = json!({"containers": [{"name": "a", "image": "i"}], "securityContext": {"fsGroup": 1}});
    let set = FieldSet::from_value(&json!({
        "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}, "f:securityContext": {"f:fsGroup": {}},
    }));
    tree::remove(POD_SPEC, &mut value, &set);
    assert_eq!(value, json!({}));
}

#[test]
fn sets_are_added_intersected_and_subtracted() {
    let set = |value: Value| FieldSet::from_value(&value);
    let a = set(json!({"f:x": {".": {}, "f:y": {}}, "f:z": {}}));
    let b = set(json!({"f:x": {"f:y": {}}}));
    assert_eq!(a.intersection(&b), b);
    assert_eq!(a.difference(&b), set(json!({"f:x": {}, "f:z": {}})));
    assert_eq!(a.difference_below(&b), set(json!({"f:z": {}})), "x has something of b below it");
    assert_eq!(b.clone().union(&a), a);
}
