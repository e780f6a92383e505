//! Defaults, validation, updates and cells of services.

use super::*;
use rstest::rstest;

fn service(spec: Value) -> Service {
    let mut tree = json!({
        "metadata": {"name": "kubia"},
        "spec": {"selector": {"app": "kubia"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    json_patch::merge(&mut tree, &json!({"spec": spec}));
    let mut service = serde_json::from_value(tree).unwrap();
    ServiceKind.default(&mut service);
    service
}

fn created(spec: Value) -> Service {
    let mut service = service(spec);
    ServiceKind.prepare_create(&mut service);
    service
}

/// The service after the API server chose addresses and ports for it.
fn allocated(spec: Value) -> Service {
    let mut service = created(spec);
    let spec = service.spec.as_mut().unwrap();
    if allocation::needs_cluster_ip(spec) && spec.cluster_ip.is_none() {
        spec.cluster_ip = Some("10.96.0.7".to_owned());
        spec.cluster_ips = Some(vec!["10.96.0.7".to_owned()]);
    }
    if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
            port.node_port.get_or_insert(31_000 + i32::try_from(index).unwrap());
        }
    }
    service
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_load_balancer_gets_upstreams_defaults() {
    let tree = serde_json::to_value(created(json!({"type": "LoadBalancer"}))).unwrap();
    assert_eq!(
        tree["spec"],
        json!({
            "type": "LoadBalancer", "selector": {"app": "kubia"}, "sessionAffinity": "None",
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        })
    );
    assert_eq!(tree["status"], json!({"loadBalancer": {}}));
}

#[test]
fn a_plain_service_is_of_type_cluster_ip() {
    let tree = serde_json::to_value(created(json!({"ports": [{"port": 80}]}))).unwrap();
    assert_eq!(
        tree["spec"],
        json!({
            "type": "ClusterIP", "selector": {"app": "kubia"}, "sessionAffinity": "None",
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
            "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        })
    );
}

#[rstest]
#[case::valid(json!({}), &[])]
#[case::no_ports(json!({"ports": null}), &["spec.ports: Required value"])]
#[case::headless_without_ports(json!({"ports": null, "clusterIP": "None"}), &[])]
#[case::names_when_several(
    json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
    &["spec.ports[0].name: Required value"])]
#[case::names_twice(
    json!({"ports": [{"port": 80, "name": "b"}, {"port": 81, "name": "b"}]}),
    &["spec.ports[1].name: Duplicate value: \"b\""])]
#[case::port_range(
    json!({"ports": [{"port": 70000, "targetPort": 80}]}),
    &["spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"])]
#[case::ports_twice(
    json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
    &["spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"])]
#[case::target_name(
    json!({"ports": [{"port": 80, "targetPort": "-web"}]}),
    &["spec.ports[0].targetPort: Invalid value: \"-web\": must not begin or end with a hyphen"])]
#[case::node_port_of_cluster_ip(
    json!({"ports": [{"port": 80, "nodePort": 30001}]}),
    &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"])]
#[case::node_ports_twice(
    json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001, "name": "a"}, {"port": 81, "nodePort": 30001, "name": "b"}]}),
    &["spec.ports[1].nodePort: Duplicate value: 30001"])]
#[case::type_(
    json!({"type": "Public"}),
    &["spec.type: Unsupported value: \"Public\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""])]
#[case::affinity(
    json!({"sessionAffinity": "Cookie"}),
    &["spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\""])]
#[case::affinity_time(
    json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
    &["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400"])]
#[case::headless_balancer(
    json!({"type": "LoadBalancer", "clusterIP": "None"}),
    &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services"])]
#[case::cluster_ip(
    json!({"clusterIP": "kubia"}),
    &["spec.clusterIPs[0]: Invalid value: \"kubia\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"])]
#[case::external_name(json!({"type": "ExternalName", "ports": null}), &["spec.externalName: Required value"])]
#[case::external_name_with_address(
    json!({"type": "ExternalName", "externalName": "example.com.", "clusterIPs": ["10.96.0.9"]}),
    &["spec.clusterIPs: Forbidden: may not be set for ExternalName services"])]
#[case::external_ip(
    json!({"externalIPs": ["127.0.0.1"]}),
    &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"])]
#[case::traffic_policy(
    json!({"externalTrafficPolicy": "Local"}),
    &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"])]
#[case::source_ranges(
    json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/33"]}),
    &["spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"])]
#[case::class(
    json!({"loadBalancerClass": "x/y"}),
    &["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"])]
fn a_service_names_every_field_that_is_wrong(#[case] spec: Value, #[case] expected: &[&str]) {
    assert_eq!(texts(&ServiceKind.validate_create(&created(spec))), expected);
}

#[test]
fn an_update_keeps_what_was_allocated() {
    let old = allocated(json!({"type": "NodePort"}));
    let mut new = service(json!({"type": "LoadBalancer"}));
    ServiceKind.prepare_update(&mut new, &old, Part::Main);
    let spec = new.spec.as_ref().unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.7"));
    assert_eq!(spec.ports.as_ref().unwrap()[0].node_port, Some(31_000));
    assert_eq!(texts(&ServiceKind.validate_update(&new, &old, Part::Main)), [""; 0]);
}

#[test]
fn a_smaller_type_drops_what_it_does_not_need() {
    let old = allocated(json!({"type": "LoadBalancer"}));
    let mut new = old.clone();
    new.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    ServiceKind.default(&mut new);
    ServiceKind.prepare_update(&mut new, &old, Part::Main);
    let spec = new.spec.as_ref().unwrap();
    assert_eq!(spec.ports.as_ref().unwrap()[0].node_port, None);
    assert_eq!((&spec.external_traffic_policy, spec.allocate_load_balancer_node_ports), (&None, None));
    assert_eq!(texts(&ServiceKind.validate_update(&new, &old, Part::Main)), [""; 0]);
}

#[test]
fn a_service_becomes_a_name_and_a_service_again() {
    let old = allocated(json!({}));
    let mut name = old.clone();
    name.spec.as_mut().unwrap().type_ = Some("ExternalName".to_owned());
    name.spec.as_mut().unwrap().external_name = Some("example.com".to_owned());
    ServiceKind.default(&mut name);
    ServiceKind.prepare_update(&mut name, &old, Part::Main);
    assert_eq!(name.spec.as_ref().unwrap().cluster_ips, None);
    assert_eq!(texts(&ServiceKind.validate_update(&name, &old, Part::Main)), [""; 0]);
    let mut again = service(json!({}));
    ServiceKind.prepare_update(&mut again, &name, Part::Main);
    assert_eq!(texts(&ServiceKind.validate_update(&again, &name, Part::Main)), [""; 0]);
}

#[test]
fn the_cluster_ip_does_not_change() {
    let old = allocated(json!({}));
    let mut new = service(json!({"clusterIP": "10.96.0.8"}));
    ServiceKind.prepare_update(&mut new, &old, Part::Main);
    let errors = ServiceKind.validate_update(&new, &old, Part::Main);
    let expected = "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set";
    assert_eq!(texts(&errors), [expected]);
}

#[rstest]
#[case(json!({}), json!({}), ["ClusterIP", "10.96.0.7", "<none>", "80/TCP"])]
#[case(json!({"type": "NodePort"}), json!({}), ["NodePort", "10.96.0.7", "<none>", "80:31000/TCP"])]
#[case(json!({"type": "LoadBalancer"}), json!({}), ["LoadBalancer", "10.96.0.7", "<pending>", "80:31000/TCP"])]
#[case(
    json!({"type": "LoadBalancer"}),
    json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}),
    ["LoadBalancer", "10.96.0.7", "127.0.0.1", "80:31000/TCP"])]
#[case(
    json!({"type": "LoadBalancer", "externalIPs": ["1.2.3.4"]}),
    json!({"loadBalancer": {"ingress": [{"hostname": "b"}, {"hostname": "a"}]}}),
    ["LoadBalancer", "10.96.0.7", "a,b,1.2.3.4", "80:31000/TCP"])]
#[case(json!({"clusterIP": "None", "ports": null}), json!({}), ["ClusterIP", "None", "<none>", "<none>"])]
#[case(
    json!({"type": "ExternalName", "externalName": "example.com", "ports": null}),
    json!({}),
    ["ExternalName", "<none>", "example.com", "<none>"])]
#[case(
    json!({"ports": [{"port": 80, "name": "a"}, {"port": 53, "protocol": "UDP", "name": "b"}]}),
    json!({}),
    ["ClusterIP", "10.96.0.7", "<none>", "80/TCP,53/UDP"])]
fn the_cells_show_how_a_service_is_reached(
    #[case] spec: Value,
    #[case] status: Value,
    #[case] cells: [&str; 4],
) {
    let mut service = allocated(spec);
    service.status = serde_json::from_value(status).unwrap();
    let shown = ServiceKind.cells(&service, Timestamp::UNIX_EPOCH);
    assert_eq!(shown[1..5], cells.map(Value::from));
    assert_eq!(shown[5..], [json!("<unknown>"), json!("app=kubia")]);
    assert_eq!(shown.len(), ServiceKind.columns().len());
}

#[rstest]
#[case(json!({"clusterIP": "None", "sessionAffinity": "ClientIP"}), &["spec.SessionAffinity is ignored for headless services"])]
#[case(json!({"externalName": "a"}), &["spec.externalName is ignored when spec.type is not \"ExternalName\""])]
#[case(json!({}), &[])]
fn what_has_no_effect_gets_a_warning(#[case] spec: Value, #[case] expected: &[&str]) {
    assert_eq!(ServiceKind.warnings(&created(spec)), expected);
}

#[test]
fn only_a_balancer_has_outside_addresses() {
    let mut service = allocated(json!({"type": "NodePort"}));
    let status = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1", "ipMode": "VIP"}]}});
    service.status = serde_json::from_value(status).unwrap();
    let expected =
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is LoadBalancer";
    assert_eq!(texts(&ServiceKind.validate_update(&service, &service, Part::Status)), [expected]);
}
