//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a pod.

use crate::config::Config;
use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// The host name of a pod: `spec.hostname` or its name, cut to what the kernel takes.
pub(crate) fn hostname(pod: &Pod) -> String {
    let own = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = own.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// What the pod's own kernel calls it: the host name, or with `setHostnameAsFQDN` the whole domain name.
///
/// # Errors
/// The sentence to show if that is longer than the kernel takes.
pub(crate) fn kernel_name(pod: &Pod, config: &Config) -> Result<String, String> {
    const LONGEST: usize = 64;
    let spec = pod.spec.as_ref();
    // On the host's network the host's name stays.
    let wanted =
        spec.is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true) && spec.host_network != Some(true));
    let Some(full) = domain_name(pod, config).filter(|_| wanted) else { return Ok(hostname(pod)) };
    if full.len() > LONGEST {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({LONGEST} \
             characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// `hostname.subdomain.namespace.svc.domain`, if the pod has a subdomain.
fn domain_name(pod: &Pod, config: &Config) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{}.{subdomain}.{namespace}.svc.{}", hostname(pod), config.cluster_domain))
}

/// `/etc/hosts`. `host` is the node's own file, for pods on its network.
pub(crate) fn hosts(pod: &Pod, config: &Config, address: Option<IpAddr>, host: Option<&str>) -> String {
    let mut text = match host {
        Some(host) => format!("# Kubernetes-managed hosts file (host network).\n{host}\n"),
        None => String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        ),
    };
    if let (Some(address), None) = (address, host) {
        let names = match domain_name(pod, config) {
            Some(full) => format!("{full}\t{}", hostname(pod)),
            None => hostname(pod),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}\t{names}");
    }
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ =
                writeln!(text, "{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
        }
    }
    text
}

/// `/etc/resolv.conf` by `spec.dnsPolicy` and `spec.dnsConfig`. `host` is the node's own file.
pub(crate) fn resolv_conf(pod: &Pod, config: &Config, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let cluster = !config.cluster_dns.is_empty()
        && (policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network));
    let mut resolver = match policy {
        "None" => Resolver::default(),
        _ => Resolver::parse(host),
    };
    if cluster {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let domain = &config.cluster_domain;
        resolver.servers = config.cluster_dns.iter().map(ToString::to_string).collect();
        let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        resolver.searches.splice(0..0, own);
        resolver.options = vec!["ndots:5".into()];
    }
    if let Some(more) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        resolver.servers.extend(more.nameservers.clone().unwrap_or_default());
        resolver.searches.extend(more.searches.clone().unwrap_or_default());
        for option in more.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolver.options.retain(|other| other.split(':').next() != Some(&name));
            resolver.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    resolver.print()
}

/// The contents of a resolv.conf.
#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                Some("search") => resolver.searches = words.filter(|word| word != ".").collect(),
                Some("options") => resolver.options = words.collect(),
                _ => {}
            }
        }
        resolver
    }

    fn print(mut self) -> String {
        let mut seen = std::collections::BTreeSet::new();
        self.servers.retain(|server| seen.insert(server.clone()));
        self.searches.retain(|search| seen.insert(search.clone()));
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        // The resolver library looks at three servers only.
        for server in self.servers.iter().take(3) {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

/// The node's resolv.conf as a pod can use it: a resolver that listens on the node's loopback (systemd-resolved,
/// 127.0.0.53) is out of its reach unless it is on the node's network; that one's own servers are not.
fn host_resolvers(host_network: bool, read: &dyn Fn(&str) -> String) -> String {
    let text = read("/etc/resolv.conf");
    let loopback = |server: &String| server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let servers = Resolver::parse(&text).servers;
    if host_network || servers.is_empty() || !servers.iter().all(loopback) {
        return text;
    }
    let behind = read("/run/systemd/resolve/resolv.conf");
    if Resolver::parse(&behind).servers.is_empty() { text } else { behind }
}

/// Writes the three files into the pod's directory.
///
/// # Errors
/// The sentence to show.
pub(crate) fn write(dir: &Path, pod: &Pod, config: &Config, address: Option<IpAddr>) -> Result<(), String> {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let host_hosts = host_network.then(|| std::fs::read_to_string("/etc/hosts").unwrap_or_default());
    let host_resolv = host_resolvers(host_network, &|path| std::fs::read_to_string(path).unwrap_or_default());
    let files = [
        ("etc-hosts", hosts(pod, config, address, host_hosts.as_deref())),
        ("hostname", format!("{}\n", kernel_name(pod, config)?)),
        ("resolv.conf", resolv_conf(pod, config, &host_resolv)),
    ];
    let failed = |path: &Path, error: std::io::Error| format!("writing {}: {error}", path.display());
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    for (name, text) in files {
        let path = dir.join(name);
        // Containers have the file itself mounted, so it is written in place and only when it changed.
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "kubia-1", "namespace": "ns"}, "spec": spec}))
            .unwrap()
    }

    fn config() -> Config {
        let mut config = Config::new("n", "abcdef", "/nowhere");
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config
    }

    #[test]
    fn cluster_first_searches_the_cluster_before_the_node() {
        let host = "search corp.example\nnameserver 1.1.1.1\noptions rotate\n";
        let text = resolv_conf(&pod(json!({"containers": []})), &config(), host);
        assert_eq!(
            text,
            "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\n\
             options ndots:5\n"
        );
    }

    #[test]
    fn a_stub_on_the_nodes_loopback_is_looked_behind() {
        let files = |path: &str| match path {
            "/etc/resolv.conf" => "nameserver 127.0.0.53\n".to_owned(),
            _ => "nameserver 192.0.2.53\n".to_owned(),
        };
        assert_eq!(host_resolvers(false, &files), "nameserver 192.0.2.53\n");
        assert_eq!(host_resolvers(true, &files), "nameserver 127.0.0.53\n");
        assert_eq!(host_resolvers(false, &|_| "nameserver 127.0.0.1\n".into()), "nameserver 127.0.0.1\n");
        let none = |path: &str| if path.starts_with("/etc") { files(path) } else { String::new() };
        assert_eq!(host_resolvers(false, &none), "nameserver 127.0.0.53\n");
    }

    #[test]
    fn without_cluster_dns_pods_get_the_nodes() {
        let mut config = config();
        config.cluster_dns.clear();
        let text = resolv_conf(&pod(json!({"containers": []})), &config, "nameserver 1.1.1.1\n");
        assert_eq!(text, "nameserver 1.1.1.1\n");
    }

    #[test]
    fn policy_none_takes_only_the_pods_own() {
        let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"],
            "options": [{"name": "ndots", "value": "2"}]}});
        assert_eq!(
            resolv_conf(&pod(spec), &config(), "nameserver 1.1.1.1\n"),
            "nameserver 9.9.9.9\noptions ndots:2\n"
        );
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let spec = json!({"containers": [], "subdomain": "sub",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let text = hosts(&pod(spec), &config(), Some("10.244.0.5".parse().unwrap()), None);
        assert!(text.contains("10.244.0.5\tkubia-1.sub.ns.svc.cluster.local\tkubia-1\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn the_whole_name_is_the_kernels_only_if_asked_for_and_if_it_fits() {
        let named = |more: serde_json::Value| {
            let mut spec =
                json!({"containers": [], "hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": true});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            kernel_name(&pod(spec), &config())
        };
        assert_eq!(named(json!({})), Ok("h.sub.ns.svc.cluster.local".into()));
        assert_eq!(named(json!({"setHostnameAsFQDN": false})), Ok("h".into()));
        assert_eq!(named(json!({"subdomain": ""})), Ok("h".into()));
        let error = named(json!({"hostname": "h".repeat(60)})).unwrap_err();
        assert!(
            error.ends_with("is too long (64 characters is the max, 85 characters requested)"),
            "{error}"
        );
    }
}
