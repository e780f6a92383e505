//! The environment of a container: services, `envFrom`, `env` with references, and `$(NAME)`. Pure; what it
//! refers to is fetched before.

use super::snapshot::PodSnapshot;
use crate::quantity;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What an environment is made from besides the pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Config maps referred to, by name; None: it does not exist.
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets referred to, by name; None: it does not exist.
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub(crate) services: Vec<Arc<Service>>,
    /// The pod's address.
    pub(crate) pod_ip: Option<IpAddr>,
    /// The node's addresses.
    pub(crate) host_ips: Vec<IpAddr>,
    /// What `limits.cpu`, `limits.memory` and `limits.ephemeral-storage` mean for a container without limits: all of
    /// the node's, in thousandths.
    pub(crate) node: BTreeMap<String, i128>,
}

impl Sources {
    /// Nothing but what the node has.
    pub(crate) fn of_node(memory: u64, storage: u64) -> Self {
        let node = [
            ("memory".to_owned(), i128::from(memory) * 1000),
            ("ephemeral-storage".to_owned(), i128::from(storage) * 1000),
            ("cpu".to_owned(), i128::from(crate::node::cpus()) * 1000),
        ];
        Sources { node: node.into(), ..Default::default() }
    }
}

/// Names of the config maps and secrets a container's environment refers to.
pub(crate) fn references(spec: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut config_maps = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for from in spec.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|source| source.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|source| source.name.clone()));
    }
    for source in spec.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment, without what the image brings: names in order, each once.
///
/// # Errors
/// The message of `CreateContainerConfigError`.
pub(crate) fn resolve(
    pod: &Pod,
    spec: &Container,
    sources: &Sources,
) -> Result<Vec<(String, String)>, String> {
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut all = Variables::default();
    for (name, value) in service_variables(&sources.services, pod, links) {
        all.set(name, value);
    }
    from_sources(spec, sources, &mut all)?;
    for env in spec.env.iter().flatten() {
        let value = match (&env.value, &env.value_from) {
            (_, Some(source)) => match referred(pod, spec, source, sources)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => expand(value.as_deref().unwrap_or_default(), &all.values),
        };
        all.set(env.name.clone(), value);
    }
    Ok(all.in_order())
}

/// Replaces `$(NAME)` by the value of NAME. `$$` is `$`; an unknown name stays as it is.
pub(crate) fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Variables in the order they were first set.
#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    fn in_order(mut self) -> Vec<(String, String)> {
        self.order.into_iter().filter_map(|name| self.values.remove_entry(&name)).collect()
    }
}

fn from_sources(spec: &Container, sources: &Sources, all: &mut Variables) -> Result<(), String> {
    for from in spec.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut values = BTreeMap::new();
        if let Some(source) = &from.config_map_ref {
            match sources.config_maps.get(&source.name).and_then(Option::as_ref) {
                Some(map) => values.extend(map.data.clone().unwrap_or_default()),
                None if source.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", source.name)),
            }
        }
        if let Some(source) = &from.secret_ref {
            match sources.secrets.get(&source.name).and_then(Option::as_ref) {
                Some(secret) => values.extend(texts(secret)),
                None if source.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", source.name)),
            }
        }
        for (name, value) in values {
            all.set(format!("{prefix}{name}"), value);
        }
    }
    Ok(())
}

fn texts(secret: &Secret) -> impl Iterator<Item = (String, String)> + '_ {
    let data = secret.data.iter().flatten();
    data.map(|(name, value)| (name.clone(), String::from_utf8_lossy(&value.0).into_owned()))
}

/// The value of a reference; None if it is optional and not there.
fn referred(
    pod: &Pod,
    spec: &Container,
    source: &EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let missing = |optional: Option<bool>, message: String| match optional {
        Some(true) => Ok(None),
        _ => Err(message),
    };
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, sources).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return resource_value(pod, spec, field, sources).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let Some(map) = sources.config_maps.get(&key.name).and_then(Option::as_ref) else {
            return missing(key.optional, format!("configmap \"{}\" not found", key.name));
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing(
                key.optional,
                format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name),
            ),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let Some(secret) = sources.secrets.get(&key.name).and_then(Option::as_ref) else {
            return missing(key.optional, format!("secret \"{}\" not found", key.name));
        };
        let found = texts(secret).find(|(name, _)| *name == key.key);
        return match found {
            Some((_, value)) => Ok(Some(value)),
            None => missing(
                key.optional,
                format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name),
            ),
        };
    }
    Ok(None)
}

/// The value of a field of the pod.
///
/// # Errors
/// If there is no such field.
pub(crate) fn field_value(
    pod: &Pod,
    field: &ObjectFieldSelector,
    sources: &Sources,
) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    let first = |ips: &[IpAddr]| Ok(ips.first().map(ToString::to_string).unwrap_or_default());
    let all = |ips: &[IpAddr]| Ok(ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let pod_ips: Vec<IpAddr> = sources.pod_ip.into_iter().collect();
    let path = field.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return text(values.and_then(|values| values.get(key)));
    }
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => first(&sources.host_ips),
        "status.hostIPs" => all(&sources.host_ips),
        "status.podIP" => first(&pod_ips),
        "status.podIPs" => all(&pod_ips),
        _ => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// Splits `metadata.labels['app']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A limit or request in units of the divisor, rounded up.
///
/// # Errors
/// If there is no such container or resource.
pub(crate) fn resource_value(
    pod: &Pod,
    own: &Container,
    field: &ResourceFieldSelector,
    sources: &Sources,
) -> Result<String, String> {
    let named = field.container_name.as_deref().filter(|name| !name.is_empty());
    let mut all = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let spec = match named {
        Some(name) => all.find(|c| c.name == name).ok_or_else(|| format!("container {name} not found"))?,
        None => own,
    };
    let resources = spec.resources.as_ref();
    let (list, resource) = field.resource.split_once('.').unwrap_or_default();
    let values = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("unsupported container resource : {}", field.resource)),
    };
    let given = values.and_then(|values| values.get(resource)).and_then(|q| quantity::milli(&q.0));
    let limit = if list == "limits" { sources.node.get(resource).copied() } else { None };
    let milli = given.filter(|milli| *milli > 0).or(limit).unwrap_or_default();
    let divisor = field.divisor.as_ref().and_then(|q| quantity::milli(&q.0)).filter(|milli| *milli > 0);
    let divisor = divisor.unwrap_or(1000);
    Ok((milli / divisor + i128::from(milli % divisor > 0)).to_string())
}

/// `{SVC}_SERVICE_HOST` and the rest of Docker's link variables. Those of `default/kubernetes` are always
/// there; those of the namespace's own services only with service links.
fn service_variables(services: &[Arc<Service>], pod: &Pod, links: bool) -> Vec<(String, String)> {
    let namespace = pod.metadata.namespace.as_deref();
    let is_master = |service: &Service| {
        service.metadata.name.as_deref() == Some("kubernetes")
            && service.metadata.namespace.as_deref() == Some("default")
    };
    let own = |service: &&Arc<Service>| links && service.metadata.namespace.as_deref() == namespace;
    let mut chosen: Vec<&Arc<Service>> =
        services.iter().filter(|service| is_master(service) || own(service)).collect();
    chosen.sort_by_key(|service| (!is_master(service), service.metadata.name.clone()));
    // A service of the pod's own namespace wins over the master of the same name.
    let mut by_name = BTreeMap::new();
    for service in chosen {
        by_name.insert(service.metadata.name.clone().unwrap_or_default(), service);
    }
    by_name.into_iter().flat_map(|(name, service)| variables_of(&name, service)).collect()
}

fn variables_of(name: &str, service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(host) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
        return Vec::new();
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let prefix = upper(name);
    let mut out = vec![
        (format!("{prefix}_SERVICE_HOST"), host.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports.iter().filter(|port| port.name.as_deref().is_some_and(|name| !name.is_empty())) {
        let port_name = upper(port.name.as_deref().unwrap_or_default());
        out.push((format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string()));
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let number = port.port;
        let url = format!("{}://{bracketed}:{number}", protocol.to_lowercase());
        if index == 0 {
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        let long = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        out.push((long.clone(), url));
        out.push((format!("{long}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{long}_PORT"), number.to_string()));
        out.push((format!("{long}_ADDR"), host.to_owned()));
    }
    out
}

/// The address containers of a pod see as their own.
pub(crate) fn pod_ip(snapshot: &PodSnapshot) -> Option<IpAddr> {
    let own = snapshot.sandbox.as_ref().and_then(|sandbox| sandbox.address);
    own.or_else(|| snapshot.host_ips.first().copied().filter(|_| snapshot.host_network()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("plain", "plain")]
    #[case("$(A)-$(B)", "1-$(A)")]
    #[case("$$(A)", "$(A)")]
    #[case("$$$(A)", "$1")]
    #[case("$(UNKNOWN)", "$(UNKNOWN)")]
    #[case("$(A", "$(A")]
    #[case("a$", "a$")]
    #[case("$A", "$A")]
    fn names_in_parentheses_are_replaced_once(#[case] text: &str, #[case] expected: &str) {
        let values = BTreeMap::from([("A".into(), "1".into()), ("B".into(), "$(A)".into())]);
        assert_eq!(expand(text, &values), expected);
    }

    fn container(env: serde_json::Value) -> Container {
        serde_json::from_value(json!({"name": "c", "env": env, "resources": {"limits": {"memory": "64Mi"}}}))
            .unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "kubia"}},
            "spec": {"nodeName": "n", "containers": []}
        }))
        .unwrap()
    }

    fn sources() -> Sources {
        let service = json!({"metadata": {"name": "my-svc", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.7",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
        let map = json!({"metadata": {"name": "cm"}, "data": {"k": "v"}});
        Sources {
            config_maps: BTreeMap::from([("cm".into(), Some(serde_json::from_value(map).unwrap()))]),
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            pod_ip: Some("10.244.0.9".parse().unwrap()),
            host_ips: vec!["192.168.0.1".parse().unwrap()],
            node: BTreeMap::from([("cpu".into(), 2000)]),
            ..Default::default()
        }
    }

    #[rstest]
    #[case(json!({"value": "$(MY_SVC_SERVICE_HOST):$(MY_SVC_SERVICE_PORT_HTTP)"}), "10.96.0.7:80")]
    #[case(json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}), "kubia")]
    #[case(json!({"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}), "10.244.0.9")]
    #[case(json!({"valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}), "192.168.0.1")]
    #[case(json!({"valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}), "64")]
    #[case(json!({"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}), "2")]
    #[case(json!({"valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}), "v")]
    fn references_become_values(#[case] mut env: serde_json::Value, #[case] expected: &str) {
        env["name"] = json!("X");
        let all = resolve(&pod(), &container(json!([env])), &sources()).unwrap();
        assert_eq!(all.last(), Some(&("X".to_owned(), expected.to_owned())));
    }

    #[rstest]
    #[case(json!({"configMapKeyRef": {"name": "no", "key": "k"}}), "configmap \"no\" not found")]
    #[case(json!({"configMapKeyRef": {"name": "cm", "key": "no"}}), "couldn't find key no in ConfigMap ns/cm")]
    #[case(json!({"secretKeyRef": {"name": "no", "key": "k"}}), "secret \"no\" not found")]
    fn what_is_missing_is_named(#[case] source: serde_json::Value, #[case] message: &str) {
        let container = container(json!([{"name": "X", "valueFrom": source}]));
        assert_eq!(resolve(&pod(), &container, &sources()), Err(message.to_owned()));
    }

    #[test]
    fn without_service_links_only_the_master_is_there() {
        let mut pod = pod();
        pod.spec.as_mut().unwrap().enable_service_links = Some(false);
        let mut sources = sources();
        let master = json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}});
        sources.services.push(Arc::new(serde_json::from_value(master).unwrap()));
        let all = resolve(&pod, &container(json!([])), &sources).unwrap();
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert!(
            names.contains(&"KUBERNETES_SERVICE_HOST") && names.contains(&"KUBERNETES_PORT_443_TCP_ADDR")
        );
        assert!(!names.contains(&"MY_SVC_SERVICE_HOST"));
    }
}
