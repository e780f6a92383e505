use super::*;
use serde_json::json;

fn node() -> Ipv4Net {
    "10.244.0.0/24".parse().unwrap()
}

fn service() -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "kubia", "uid": "s1"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalIPs": ["192.0.2.7", "2001:db8::1"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}]
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}
    }))
    .unwrap()
}

/// A slice with endpoints given as (address, ready, serving, terminating).
fn slice(endpoints: &[(&str, bool, bool, bool)]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready, serving, terminating)| {
            json!({
                "addresses": [address], "targetRef": {"kind": "Pod", "uid": format!("pod-{address}")},
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating}
            })
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "kubia-x", "labels": {SERVICE_NAME: "kubia"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]
    }))
    .unwrap()
}

fn chosen(endpoints: &[(&str, bool, bool, bool)], blocked: &[&str]) -> Vec<String> {
    let mut observed = Observed::default();
    observed.service(&service());
    observed.slice(&slice(endpoints));
    let ports =
        observed.service_ports(node(), |endpoint| blocked.contains(&endpoint.address.to_string().as_str()));
    assert_eq!(ports.len(), 1);
    ports[0].endpoints.iter().map(ToString::to_string).collect()
}

const READY: (&str, bool, bool, bool) = ("10.244.0.5", true, true, false);
const STARTING: (&str, bool, bool, bool) = ("10.244.0.6", false, false, false);
const STOPPING: (&str, bool, bool, bool) = ("10.244.0.7", false, true, true);

#[test]
fn ready_endpoints_are_preferred_to_terminating_ones() {
    assert_eq!(chosen(&[READY, STARTING, STOPPING], &[]), ["10.244.0.5:8080"]);
}

#[test]
fn terminating_endpoints_that_serve_are_used_when_none_is_ready() {
    assert_eq!(chosen(&[STARTING, STOPPING], &[]), ["10.244.0.7:8080"]);
}

#[test]
fn a_withdrawn_endpoint_is_not_used_even_when_it_is_the_last_one() {
    assert!(chosen(&[STARTING, STOPPING], &["10.244.0.7"]).is_empty());
    assert_eq!(chosen(&[READY, STOPPING], &["10.244.0.5"]), ["10.244.0.7:8080"]);
}

#[test]
fn a_service_is_read_with_its_balancer_fields() {
    let info = ServiceInfo::from(&service());
    assert!(info.load_balancer);
    assert_eq!(info.ingress, ["127.0.0.1"]);
    assert_eq!(info.external_ips, ["192.0.2.7".parse::<Ipv4Addr>().unwrap()]);
    assert_eq!(info.ports[0].node_port, Some(30080));
}

#[test]
fn headless_services_have_no_rules() {
    let mut headless = service();
    headless.spec.as_mut().unwrap().cluster_ip = Some("None".into());
    let mut observed = Observed::default();
    observed.service(&headless);
    assert!(observed.service_ports(node(), |_| false).is_empty());
}

#[test]
fn services_that_are_another_proxys_have_no_rules_until_the_label_goes() {
    for label in LEFT_ALONE {
        let mut foreign = service();
        foreign.metadata.labels = Some([(label.to_owned(), "x".to_owned())].into());
        let mut observed = Observed::default();
        observed.service(&foreign);
        assert!(observed.service_ports(node(), |_| false).is_empty(), "{label}");
        observed.service(&service());
        assert_eq!(observed.service_ports(node(), |_| false).len(), 1, "{label}");
    }
}

#[test]
fn a_deleted_slice_takes_its_endpoints_along() {
    let mut observed = Observed::default();
    observed.service(&service());
    observed.slice(&slice(&[READY]));
    observed.slice_gone(&slice(&[]));
    assert!(observed.service_ports(node(), |_| false)[0].endpoints.is_empty());
}

fn endpoints(spec: serde_json::Value) -> (Vec<String>, Vec<String>) {
    let mut service = serde_json::to_value(service()).unwrap();
    spec.as_object().unwrap().iter().for_each(|(field, value)| service["spec"][field] = value.clone());
    let mut observed = Observed::default();
    observed.service(&serde_json::from_value(service).unwrap());
    observed.slice(&slice(&[READY, ("10.244.9.9", true, true, false)]));
    let ports = observed.service_ports(node(), |_| false);
    let texts = |all: &[SocketAddrV4]| all.iter().map(ToString::to_string).collect();
    (texts(&ports[0].endpoints), texts(&ports[0].external_endpoints))
}

#[test]
fn a_service_that_stays_on_its_node_has_only_the_nodes_pods() {
    let (here, all) =
        (vec!["10.244.0.5:8080".to_owned()], vec!["10.244.0.5:8080".into(), "10.244.9.9:8080".into()]);
    assert_eq!(endpoints(json!({})), (all.clone(), all.clone()));
    assert_eq!(endpoints(json!({"externalTrafficPolicy": "Local"})), (all.clone(), here.clone()));
    assert_eq!(endpoints(json!({"internalTrafficPolicy": "Local"})), (here, all));
}

#[test]
fn only_load_balancer_services_that_stay_on_their_node_are_asked_for_their_health() {
    let port = |kind: &str, policy: &str| {
        let mut service = serde_json::to_value(service()).unwrap();
        let more = [
            ("type", json!(kind)),
            ("externalTrafficPolicy", json!(policy)),
            ("healthCheckNodePort", json!(30100)),
        ];
        more.into_iter().for_each(|(field, value)| service["spec"][field] = value);
        ServiceInfo::from(&serde_json::from_value::<Service>(service).unwrap()).health_check_port
    };
    assert_eq!(port("LoadBalancer", "Local"), Some(30100));
    assert_eq!(port("LoadBalancer", "Cluster"), None);
    assert_eq!(port("NodePort", "Local"), None);
}

#[test]
fn affinity_lasts_as_long_as_the_service_says() {
    let affinity = |spec: serde_json::Value| {
        let mut service = serde_json::to_value(service()).unwrap();
        spec.as_object().unwrap().iter().for_each(|(field, value)| service["spec"][field] = value.clone());
        ServiceInfo::from(&serde_json::from_value::<Service>(service).unwrap()).affinity
    };
    assert_eq!(affinity(json!({"sessionAffinity": "None"})), None);
    assert_eq!(affinity(json!({"sessionAffinity": "ClientIP"})), Some(10800));
    let config = json!({"clientIP": {"timeoutSeconds": 7}});
    assert_eq!(affinity(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config})), Some(7));
}

#[test]
fn the_balancers_address_is_translated_for_udp_only() {
    let mut service = service();
    let ports = service.spec.as_mut().unwrap().ports.as_mut().unwrap();
    let udp = k8s_openapi::api::core::v1::ServicePort { protocol: Some("UDP".into()), ..ports[0].clone() };
    ports.push(udp);
    let mut observed = Observed::default();
    observed.service(&service);
    let ports = observed.service_ports(node(), |_| false);
    let addresses =
        |index: usize| ports[index].external_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(addresses(0), ["192.0.2.7"]);
    assert_eq!(addresses(1), ["192.0.2.7", "127.0.0.1"]);
}

#[test]
fn addresses_lead_to_their_services_through_every_change() {
    let mut observed = Observed::default();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let at = |observed: &Observed, text| {
        observed.services_at(address(text)).into_iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let of = |observed: &Observed, text| observed.service_of(address(text)).map(ToString::to_string);
    let key = || "default/kubia".to_owned();
    observed.service(&service());
    observed.slice(&slice(&[READY]));
    assert_eq!((of(&observed, "10.96.0.10"), of(&observed, "10.96.0.9")), (Some(key()), None));
    assert!(observed.has_namespace("default") && !observed.has_namespace("defaul"));
    assert_eq!(at(&observed, READY.0), [key()]);
    let mut another = slice(&[READY]);
    another.metadata.name = Some("kubia-y".into());
    observed.slice(&another);
    observed.slice(&slice(&[STARTING]));
    assert_eq!((at(&observed, READY.0), at(&observed, STARTING.0)), (vec![key()], vec![key()]));
    observed.slice_gone(&another);
    assert!(at(&observed, READY.0).is_empty());
    observed.replace_slices(&[slice(&[READY])]);
    assert_eq!((at(&observed, READY.0), at(&observed, STARTING.0)), (vec![key()], vec![]));

    let mut moved = service();
    moved.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.11".into());
    observed.service(&moved);
    assert_eq!((of(&observed, "10.96.0.11"), of(&observed, "10.96.0.10")), (Some(key()), None));
    observed.replace_services(&[service()]);
    assert_eq!((of(&observed, "10.96.0.10"), of(&observed, "10.96.0.11")), (Some(key()), None));
    observed.service_gone(&service());
    assert!(of(&observed, "10.96.0.10").is_none() && !observed.has_namespace("default"));
}
