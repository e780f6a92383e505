use super::{PatchError, json, merge, strategic};
use crate::kinds;
use proptest::prelude::{Just, any, prop, prop_assert_eq, prop_assume, prop_oneof, proptest};
use proptest::strategy::Strategy;
use rstest::rstest;
use serde_json::Value;
use serde_json::json as value;

fn smp(kind: &str, original: Value, patch: Value) -> Result<Value, PatchError> {
    let identity = kinds::registry().iter().map(|k| k.identity()).find(|i| i.kind == kind).unwrap();
    strategic(&identity, original, patch.to_string().as_bytes())
}

fn template(containers: Value) -> Value {
    value!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn kubectl_set_image_changes_one_container_and_leaves_the_order() {
    let before =
        template(value!([{"name": "a", "image": "a:1"}, {"name": "nodejs", "image": "luksa/kubia:v1"}]));
    let patch = value!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "nodejs"}],
        "containers": [{"image": "luksa/kubia:v2", "name": "nodejs"}],
    }}}});
    let after =
        template(value!([{"name": "a", "image": "a:1"}, {"name": "nodejs", "image": "luksa/kubia:v2"}]));
    assert_eq!(smp("Deployment", before, patch).unwrap(), after);
}

#[rstest]
#[case::a_new_item_goes_first_without_an_order(
    value!([{"name": "a"}]), value!({"containers": [{"name": "b"}]}), value!([{"name": "b"}, {"name": "a"}])
)]
#[case::an_order_puts_a_new_item_last(
    value!([{"name": "a"}]),
    value!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b"}]}),
    value!([{"name": "a"}, {"name": "b"}])
)]
#[case::an_order_alone_reorders(
    value!([{"name": "a"}, {"name": "b"}]),
    value!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
    value!([{"name": "b"}, {"name": "a"}])
)]
#[case::an_item_only_the_server_has_keeps_its_place(
    value!([{"name": "a"}, {"name": "injected"}, {"name": "b"}]),
    value!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b", "image": "x"}]}),
    value!([{"name": "a"}, {"name": "injected"}, {"name": "b", "image": "x"}])
)]
#[case::delete_removes_one(
    value!([{"name": "a"}, {"name": "b"}]),
    value!({"containers": [{"name": "a", "$patch": "delete"}]}),
    value!([{"name": "b"}])
)]
#[case::apply_deletes_and_orders(
    value!([{"name": "a"}, {"name": "b"}]),
    value!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"$patch": "delete", "name": "a"}]}),
    value!([{"name": "b"}])
)]
#[case::replace_leaves_only_what_the_patch_has(
    value!([{"name": "a"}, {"name": "b"}]),
    value!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
    value!([{"name": "c"}])
)]
#[case::null_removes_a_field_of_an_item(
    value!([{"name": "a", "image": "x", "command": ["y"]}]),
    value!({"containers": [{"name": "a", "command": null}]}),
    value!([{"name": "a", "image": "x"}])
)]
#[case::a_list_without_strategy_is_replaced(
    value!([{"name": "a", "args": ["1", "2"]}]),
    value!({"containers": [{"name": "a", "args": ["3"]}]}),
    value!([{"name": "a", "args": ["3"]}])
)]
#[case::environment_merges_by_name(
    value!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]),
    value!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "3"}]}]}),
    value!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]}])
)]
#[case::a_new_item_keeps_no_directives(
    value!([]),
    value!({"containers": [{"name": "a", "$setElementOrder/env": [{"name": "X"}], "env": [{"name": "X", "value": null}]}]}),
    value!([{"name": "a", "env": [{"name": "X"}]}])
)]
fn containers_merge_by_name(#[case] before: Value, #[case] patch: Value, #[case] after: Value) {
    let patch = value!({"spec": {"template": {"spec": patch}}});
    assert_eq!(smp("Deployment", template(before), patch).unwrap(), template(after));
}

#[rstest]
#[case::changing_the_strategy_clears_the_other_member(
    "Deployment",
    value!({"spec": {"replicas": 3, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
    value!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    value!({"spec": {"replicas": 3, "strategy": {"type": "Recreate"}}})
)]
#[case::patch_replace_keeps_only_what_is_given(
    "Deployment",
    value!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
    value!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
    value!({"spec": {"strategy": {"type": "Recreate"}}})
)]
#[case::min_ready_seconds(
    "Deployment",
    value!({"spec": {"replicas": 3}}), value!({"spec": {"minReadySeconds": 10}}),
    value!({"spec": {"minReadySeconds": 10, "replicas": 3}})
)]
#[case::labels_merge_and_null_deletes(
    "Pod",
    value!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
    value!({"metadata": {"labels": {"a": null, "c": "3", "none": null}}}),
    value!({"metadata": {"labels": {"b": "2", "c": "3"}}})
)]
#[case::finalizers_merge(
    "Pod",
    value!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
    value!({"metadata": {"finalizers": ["c/c"]}}),
    value!({"metadata": {"finalizers": ["c/c", "a/a", "b/b"]}})
)]
#[case::finalizers_are_deleted_by_value(
    "Pod",
    value!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
    value!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"], "$setElementOrder/finalizers": ["b/b"]}}),
    value!({"metadata": {"finalizers": ["b/b"]}})
)]
#[case::owners_merge_by_uid(
    "Pod",
    value!({"metadata": {"ownerReferences": [{"uid": "1", "controller": true}]}}),
    value!({"metadata": {"ownerReferences": [{"uid": "1", "controller": null}]}}),
    value!({"metadata": {"ownerReferences": [{"uid": "1"}]}})
)]
#[case::owners_are_deleted_by_uid(
    "ReplicaSet",
    value!({"metadata": {"ownerReferences": [{"uid": "1"}, {"uid": "2"}]}}),
    value!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "1"}]}}),
    value!({"metadata": {"ownerReferences": [{"uid": "2"}]}})
)]
#[case::service_ports_merge_by_port_number(
    "Service",
    value!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}),
    value!({"spec": {"ports": [{"port": 80, "nodePort": 30123}]}}),
    value!({"spec": {"ports": [{"port": 80, "targetPort": 8080, "nodePort": 30123}]}})
)]
#[case::conditions_merge_by_type(
    "Node",
    value!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk", "status": "False"}]}}),
    value!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    value!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}]}})
)]
#[case::a_volume_changes_its_source(
    "Pod",
    value!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
    value!({"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}}),
    value!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}})
)]
#[case::deleting_what_is_not_there_adds_nothing(
    "Deployment", value!({"spec": {}}), value!({"spec": {"strategy": {"$patch": "delete"}}}), value!({"spec": {}})
)]
#[case::a_replaced_list_has_no_directives(
    "Pod",
    value!({"spec": {"tolerations": [{"key": "a"}]}}),
    value!({"spec": {"tolerations": [{"$patch": "replace"}, {"key": "b"}]}}),
    value!({"spec": {"tolerations": [{"key": "b"}]}})
)]
#[case::a_value_of_another_shape_is_replaced(
    "ConfigMap", value!({"data": {"a": "1"}}), value!({"data": "x"}), value!({"data": "x"})
)]
fn a_strategic_patch_gives(
    #[case] kind: &str,
    #[case] before: Value,
    #[case] patch: Value,
    #[case] after: Value,
) {
    assert_eq!(smp(kind, before, patch).unwrap(), after);
}

#[rstest]
#[case(
    value!({"spec": {"containers": [{"image": "x"}]}}),
    PatchError::Unprocessable("map: {\"image\":\"x\"} does not contain declared merge key: name".into())
)]
#[case(
    value!({"spec": {"$patch": "merge"}}),
    PatchError::Malformed("unknown patch type: merge in map: {}".into())
)]
#[case(
    value!({"spec": {"$retainKeys": ["a"], "b": 1}}),
    PatchError::Malformed("invalid patch format of retainKeys".into())
)]
#[case(
    value!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}),
    PatchError::Malformed("invalid patch format of primitive list".into())
)]
#[case(
    value!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
    PatchError::Malformed(
        "The order in patch list:\n[{\"name\":\"b\"}]\n doesn't match $setElementOrder/ list:\n[{\"name\":\"a\"}]\n"
            .into()
    )
)]
fn a_wrong_strategic_patch_is_refused(#[case] patch: Value, #[case] error: PatchError) {
    let pod = value!({"metadata": {"finalizers": []}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(smp("Pod", pod, patch).unwrap_err(), error);
}

#[test]
fn a_merge_patch_replaces_lists_and_deletes_nulls() {
    let after =
        merge(&value!({"a": [1, 2], "b": {"c": 1, "d": 2}}), br#"{"a": [3], "b": {"c": null}}"#).unwrap();
    assert_eq!(after, value!({"a": [3], "b": {"d": 2}}));
}

#[rstest]
#[case(r#"[{"op": "replace", "path": "/a", "value": 2}]"#, value!({"a": 2, "l": [1]}))]
#[case(r#"[{"op": "add", "path": "/l/-", "value": 2}, {"op": "remove", "path": "/a"}]"#, value!({"l": [1, 2]}))]
#[case(r#"[{"op": "test", "path": "/a", "value": 1}, {"op": "move", "from": "/a", "path": "/b"}]"#, value!({"b": 1, "l": [1]}))]
fn a_json_patch_gives(#[case] patch: &str, #[case] after: Value) {
    assert_eq!(json(&value!({"a": 1, "l": [1]}), patch.as_bytes()).unwrap(), after);
}

#[rstest]
#[case(r#"[{"op": "replace", "path": "/nowhere", "value": 2}]"#)]
#[case(r#"[{"op": "test", "path": "/a", "value": 2}]"#)]
fn a_json_patch_that_does_not_apply_is_unprocessable(#[case] patch: &str) {
    let refusal = json(&value!({"a": 1}), patch.as_bytes()).unwrap_err();
    assert!(matches!(refusal, PatchError::Unprocessable(_)), "{refusal}");
    assert!(refusal.to_string().starts_with("operation 0 at path \"/"), "{refusal}");
}

#[rstest]
#[case("{}")]
#[case("[{\"op\": \"fly\"}]")]
#[case("nonsense")]
fn a_body_that_is_no_json_patch_is_malformed(#[case] patch: &str) {
    assert!(matches!(json(&value!({}), patch.as_bytes()), Err(PatchError::Malformed(_))));
}

#[test]
fn copies_of_copies_are_stopped_before_they_fill_the_memory() {
    let doubling = r#"{"op": "copy", "from": "/a", "path": "/a/-"}"#;
    let patch = format!("[{}]", vec![doubling; 40].join(","));
    let refusal = json(&value!({"a": ["0123456789"]}), patch.as_bytes()).unwrap_err();
    assert!(matches!(refusal, PatchError::Unprocessable(_)));
}

#[test]
fn a_patch_cannot_nest_deeper_than_a_body_could() {
    let steps: Vec<String> = (1..400)
        .map(|depth| format!(r#"{{"op": "add", "path": "{}", "value": {{}}}}"#, "/a".repeat(depth)))
        .collect();
    let refusal = json(&value!({}), format!("[{}]", steps.join(",")).as_bytes()).unwrap_err();
    assert!(refusal.to_string().contains("128 deep"));
}

/// Trees with the field names and directives that matter, nested at random.
fn tree() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "metadata",
        "spec",
        "template",
        "containers",
        "env",
        "name",
        "strategy",
        "finalizers",
        "labels",
        "volumes",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        prop::sample::select(vec!["a", "b", "delete", "replace", "merge"]).prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(original in tree(), patch in tree(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = smp("Deployment", original.clone(), patch.clone());
        let _ = smp("Pod", original.clone(), patch.clone());
        let _ = merge(&original, patch.to_string().as_bytes());
        let _ = json(&original, patch.to_string().as_bytes());
        let _ = json(&original, &bytes);
        let _ = merge(&original, &bytes);
    }

    #[test]
    fn an_empty_strategic_patch_changes_nothing(original in tree()) {
        prop_assume!(original.is_object());
        prop_assert_eq!(smp("Deployment", original.clone(), value!({})).unwrap(), original);
    }
}
