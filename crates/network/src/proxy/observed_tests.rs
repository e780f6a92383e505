use super::*;
use serde_json::json;

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
    let ports = observed.service_ports(|endpoint| blocked.contains(&endpoint.address.to_string().as_str()));
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
    assert!(observed.service_ports(|_| false).is_empty());
}

#[test]
fn a_deleted_slice_takes_its_endpoints_along() {
    let mut observed = Observed::default();
    observed.service(&service());
    observed.slice(&slice(&[READY]));
    observed.slice_gone(&slice(&[]));
    assert!(observed.service_ports(|_| false)[0].endpoints.is_empty());
}
