//! Which address a proxied request is for. Pure.

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Pod, Service};
use sagong_api::error::ApiError;
use std::net::{IpAddr, SocketAddr};

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) https: bool,
    pub(super) name: &'a str,
    /// A number or a name; may be empty.
    pub(super) port: &'a str,
}

impl<'a> Named<'a> {
    /// None: it is of no such form.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, name, port) = match text.split(':').collect::<Vec<_>>().as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Self { https: scheme == "https", name, port })
    }
}

/// An address of a service that is this pod's, or says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pod: String,
    pub(super) address: SocketAddr,
}

/// 503 when no pod of a service can be asked.
pub(super) fn no_endpoints(service: &str) -> ApiError {
    ApiError::Unavailable(format!("no endpoints available for service {service:?}"))
}

/// The pod's address, and the port that is named, or else its first, or else the scheme's.
pub(super) fn of_pod(pod: &Pod, named: &Named<'_>) -> Result<SocketAddr, ApiError> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
    let ip = reachable(ip).ok_or_else(|| ApiError::BadRequest("address not allowed".into()))?;
    let port = match named.port {
        "" => first_port(pod).unwrap_or(if named.https { 443 } else { 80 }),
        text => text.parse().map_err(|_| {
            let what = format!("address {ip}:{text}: unknown port");
            ApiError::Unavailable(format!("error trying to reach service: {what}"))
        })?,
    };
    Ok(SocketAddr::new(ip, port))
}

fn first_port(pod: &Pod) -> Option<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    u16::try_from(ports.next()?.container_port).ok()
}

/// Every ready address behind the service's port.
pub(super) fn of_service(
    service: &Service,
    endpoints: &Endpoints,
    named: &Named<'_>,
) -> Result<Vec<Candidate>, ApiError> {
    let port = port_name(service, named)?;
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    if subsets.is_empty() {
        return Err(no_endpoints(named.name));
    }
    let found = subsets.iter().flat_map(|subset| {
        let ports =
            subset.ports.iter().flatten().filter(|own| own.name.as_deref().unwrap_or_default() == port);
        ports.flat_map(|own| subset.addresses.iter().flatten().filter_map(|at| candidate(at, own.port)))
    });
    Ok(found.collect())
}

/// The name of the port: the given one, or that of the port of the given number.
fn port_name(service: &Service, named: &Named<'_>) -> Result<String, ApiError> {
    let Ok(number) = named.port.parse::<i64>() else { return Ok(named.port.to_owned()) };
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let found = ports.into_iter().find(|port| i64::from(port.port) == number);
    found.map(|port| port.name.clone().unwrap_or_default()).ok_or_else(|| {
        ApiError::Unavailable(format!("no service port {number} found for service {:?}", named.name))
    })
}

fn candidate(at: &EndpointAddress, port: i32) -> Option<Candidate> {
    let target = at.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    let address = SocketAddr::new(reachable(&at.ip)?, u16::try_from(port).ok()?);
    Some(Candidate { pod: target.name.clone()?, address })
}

/// Whether the pod has this address.
pub(super) fn has_address(pod: &Pod, ip: IpAddr) -> bool {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    addresses.into_iter().any(|own| own.ip.parse() == Ok(ip))
}

/// An address that is no way into the API server's own machine or link.
fn reachable(ip: &str) -> Option<IpAddr> {
    let ip = ip.parse::<IpAddr>().ok()?;
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !link_local).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::a_name("web", Some((false, "web", "")))]
    #[case::a_port("web:8080", Some((false, "web", "8080")))]
    #[case::a_scheme("https:web:443", Some((true, "web", "443")))]
    #[case::a_scheme_and_no_port("http:web:", Some((false, "web", "")))]
    #[case::a_foreign_scheme("ftp:web:21", None)]
    #[case::no_name(":80", None)]
    #[case::too_much("http:web:80:x", None)]
    fn a_name_may_have_a_port_and_a_scheme(#[case] text: &str, #[case] expected: Option<(bool, &str, &str)>) {
        assert_eq!(Named::parse(text).map(|named| (named.https, named.name, named.port)), expected);
    }

    #[rstest]
    #[case::its_first_port("web", "10.244.0.5", "Ok(10.244.0.5:9376)")]
    #[case::the_port_asked_for("web:80", "10.244.0.5", "Ok(10.244.0.5:80)")]
    #[case::no_address_yet("web", "", "address not allowed")]
    #[case::the_servers_own_machine("web", "127.0.0.1", "address not allowed")]
    #[case::its_link("web", "169.254.169.254", "address not allowed")]
    #[case::a_port_by_name("web:http", "10.244.0.5", "unknown port")]
    fn a_pod_is_asked_at_its_own_address(#[case] name: &str, #[case] ip: &str, #[case] expected: &str) {
        let containers = json!([{"name": "a"}, {"name": "b", "ports": [{"containerPort": 9376}]}]);
        let pod = json!({"metadata": {}, "spec": {"containers": containers}, "status": {"podIP": ip}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let found = format!("{:?}", of_pod(&pod, &Named::parse(name).unwrap()));
        assert!(found.contains(expected), "{found}");
    }

    #[rstest]
    #[case::of_the_only_unnamed_port("web", &[])]
    #[case::by_name("web:http", &["10.244.0.5:8080", "10.244.0.6:8080"])]
    #[case::by_the_services_number("web:80", &["10.244.0.5:8080", "10.244.0.6:8080"])]
    #[case::by_a_name_it_lacks("web:other", &[])]
    fn a_service_is_asked_at_the_addresses_of_its_pods(#[case] name: &str, #[case] expected: &[&str]) {
        let service = json!({"metadata": {}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        let pod = |name: &str, ip: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "name": name}});
        // What is no pod is never asked, and neither is what is not ready.
        let endpoints = json!({"metadata": {}, "subsets": [{
            "addresses": [pod("a", "10.244.0.5"), pod("b", "10.244.0.6"), {"ip": "10.0.0.9"}, pod("c", "127.0.0.1")],
            "notReadyAddresses": [pod("d", "10.244.0.7")],
            "ports": [{"name": "http", "port": 8080}],
        }]});
        let (service, endpoints) =
            (serde_json::from_value(service).unwrap(), serde_json::from_value(endpoints).unwrap());
        let found = of_service(&service, &endpoints, &Named::parse(name).unwrap()).unwrap();
        let found: Vec<_> = found.iter().map(|candidate| candidate.address.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_port_number_the_service_lacks_and_a_service_without_endpoints_are_told() {
        let (service, endpoints) = (Service::default(), Endpoints::default());
        let refused =
            |name: &str| of_service(&service, &endpoints, &Named::parse(name).unwrap()).unwrap_err();
        assert_eq!(refused("web:81").to_string(), r#"no service port 81 found for service "web""#);
        assert_eq!(refused("web").to_string(), r#"no endpoints available for service "web""#);
    }
}
