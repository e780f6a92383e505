use super::*;
use crate::kinds;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use proptest::prelude::{any, prop, proptest};
use rstest::rstest;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn issues(json: &str) -> Vec<String> {
    let (_, issues) = decode::<Deployment>(json.as_bytes()).unwrap();
    issues.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case(r#"{"spec": {"replicas": 3}}"#, &[])]
#[case(r#"{"spec": {"replicass": 3}}"#, &[r#"unknown field "spec.replicass""#])]
#[case(r#"{"foo": 1}"#, &[r#"unknown field "foo""#])]
#[case(
    r#"{"spec": {"template": {"spec": {"containers": [{"imagee": "x"}]}}}}"#,
    &[r#"unknown field "spec.template.spec.containers[0].imagee""#]
)]
#[case(r#"{"spec": {"replicas": 1, "replicas": 2}}"#, &[r#"duplicate field "spec.replicas""#])]
#[case(r#"{"metadata": {"labels": {"a": "1", "a": "2"}}}"#, &[r#"duplicate field "metadata.labels.a""#])]
#[case(
    r#"{"spec": {"template": {"spec": {"containers": [{}, {"name": "a", "name": "b"}]}}}}"#,
    &[r#"duplicate field "spec.template.spec.containers[1].name""#]
)]
#[case(r#"{"metadata": {"creationTimestamp": null}, "status": null}"#, &[])]
fn unknown_and_repeated_fields_are_told_with_their_paths(#[case] json: &str, #[case] expected: &[&str]) {
    assert_eq!(issues(json), expected);
}

#[test]
fn of_a_repeated_field_the_last_wins() {
    let (deployment, _) = decode::<Deployment>(br#"{"spec": {"replicas": 1, "replicas": 2}}"#).unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(2));
}

#[rstest]
#[case(
    r#"{"spec": {"replicas": "3"}}"#,
    "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
)]
#[case(
    r#"{"spec": {"replicas": 3000000000}}"#,
    "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
)]
#[case(
    r#"{"spec": {"paused": 1}}"#,
    "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool"
)]
#[case(
    r#"{"spec": {"template": {"spec": {"containers": [{"image": true}]}}}}"#,
    "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.image of type string"
)]
#[case(
    r#"{"metadata": {"labels": {"a": 1}}}"#,
    "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
)]
#[case(
    r#"{"spec": []}"#,
    "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"
)]
fn a_value_of_the_wrong_type_is_told_in_upstreams_form(#[case] json: &str, #[case] message: &str) {
    let error = decode_root::<Deployment>(json.as_bytes(), Some(DEPLOYMENT)).unwrap_err();
    assert_eq!(error.message, message);
}

#[rstest]
#[case("{", "json parse error: EOF while parsing an object at line 1 column 1")]
#[case("{\n  \"spec\": }", "json parse error: expected value at line 2 column 11")]
#[case("{} x", "json parse error: trailing characters at line 1 column 4")]
fn malformed_json_is_told_with_line_and_column(#[case] json: &str, #[case] message: &str) {
    assert_eq!(decode::<Deployment>(json.as_bytes()).unwrap_err().message, message);
}

#[rstest]
#[case(r#"{"apiVersion": "apps/v2", "kind": "Deployment"}"#)]
#[case(r#"{"apiVersion": "apps/v1", "kind": "ReplicaSet"}"#)]
fn a_body_of_another_kind_is_refused(#[case] json: &str) {
    assert!(decode::<Deployment>(json.as_bytes()).is_err());
}

#[rstest]
#[case::none(r#"{"type": "A", "status": "True", "reason": "R", "message": "m"}"#)]
#[case::null(r#"{"type": "A", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": null}"#)]
fn a_condition_may_lack_its_time(#[case] condition: &str) {
    let body = format!(r#"{{"status": {{"conditions": [{condition}]}}}}"#);
    let (service, issues) = decode::<Service>(body.as_bytes()).unwrap();
    let conditions = service.status.unwrap().conditions.unwrap();
    assert_eq!(
        (conditions[0].last_transition_time.0.to_string().as_str(), issues),
        ("0001-01-01T00:00:00Z", vec![])
    );
}

#[test]
fn null_in_a_map_or_list_is_the_empty_value() {
    let (map, _) = decode::<ConfigMap>(br#"{"data": {"a": null, "b": "c"}}"#).unwrap();
    assert_eq!(map.data.unwrap()["a"], "");
    let (pod, _) =
        decode::<Pod>(br#"{"spec": {"containers": [{"name": "x", "args": [null]}, null]}}"#).unwrap();
    assert_eq!(pod.spec.unwrap().containers.len(), 2);
}

#[rstest]
#[case(r#"{"spec": {"replicas": 3, "replicass": 3, "template": {"spec": {"containers": [{"name": "a", "imagee": "b"}]}}}}"#)]
#[case(
    r#"{"spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}, "status": null}"#
)]
#[case(
    r#"{"metadata": {"creationTimestamp": "2024-01-01T10:00:00Z", "labels": {"a": null}, "generation": 7}}"#
)]
#[case(r#"{"spec": {"replicas": "3"}}"#)]
#[case("[]")]
fn a_tree_is_read_as_its_text_is(#[case] json: &str) {
    let of_text = decode_root::<Deployment>(json.as_bytes(), Some("root"));
    assert_eq!(decode_tree::<Deployment>(&serde_json::from_str(json).unwrap(), "root"), of_text);
}

#[test]
fn a_type_that_is_no_kind_is_read_too() {
    let (options, _) = decode::<DeleteOptions>(br#"{"gracePeriodSeconds": 5}"#).unwrap();
    assert_eq!(options.grace_period_seconds, Some(5));
}

#[test]
fn the_answers_read_as_upstreams() {
    let kinds = kinds::registry();
    let deployment = kinds.iter().find(|kind| kind.identity().kind == "Deployment").unwrap();
    let (_, issues) = deployment.decode(br#"{"spec": {"foo": 1}, "spec": {}}"#).unwrap();
    assert_eq!(
        strict_error(&deployment.identity(), &issues).to_string(),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
         unknown field \"spec.foo\", duplicate field \"spec\""
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        for kind in kinds::registry() {
            let _ = kind.decode(&bytes);
        }
    }

    #[test]
    fn no_json_like_text_makes_it_panic(text in r#"\{"(spec|metadata|data|x)": ?(\{"[a-z]{0,9}":|\[)?(1|"a"|null|true|-5e9)?[\]\}]{0,3}"#) {
        for kind in kinds::registry() {
            let _ = kind.decode(text.as_bytes());
        }
    }
}
