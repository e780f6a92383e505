//! Name resolution in pods: DNS policy and configuration, and entries of the hosts file.

use super::{all_invalid, list, one_of, text};
use crate::address::validate_ip;
use crate::field::{self, Errors, Path};
use crate::name;
use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodSpec};

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// Limits of libc's resolver.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_LENGTH_MAX: usize = 2048;

/// Everything wrong with `dnsPolicy` and `dnsConfig`.
pub(super) fn validate_dns(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors: Errors =
        one_of(&spec.dns_policy, DNS_POLICIES, &path.child("dnsPolicy")).into_iter().collect();
    let at = path.child("dnsConfig");
    let is_own = text(&spec.dns_policy) == "None";
    match &spec.dns_config {
        None if is_own => {
            errors.push(field::required(&at, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        Some(config) if is_own && list(&config.nameservers).is_empty() => {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(field::required(&at.child("nameservers"), detail));
        }
        Some(config) => errors.extend(validate_config(config, &at)),
        None => {}
    }
    errors
}

fn validate_config(config: &PodDNSConfig, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (servers, searches) = (list(&config.nameservers), list(&config.searches));
    let at = path.child("nameservers");
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(field::invalid(&at, servers, &detail));
    }
    errors
        .extend(servers.iter().enumerate().flat_map(|(index, server)| validate_ip(server, &at.index(index))));
    let at = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(field::invalid(&at, searches, &detail));
    }
    if searches.join(" ").len() > SEARCHES_LENGTH_MAX {
        let detail = format!(
            "must not have more than {SEARCHES_LENGTH_MAX} characters (including spaces) in the search list"
        );
        errors.push(field::invalid(&at, searches, &detail));
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.extend(all_invalid(&at.index(index), search, &name::dns1123_subdomain(search)));
    }
    for (index, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(field::required(&path.child("options").index(index), "must not be empty"));
        }
    }
    errors
}

/// Everything wrong with entries of the hosts file.
pub(super) fn validate_host_aliases(aliases: &[HostAlias], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (index, alias) in aliases.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_ip(&alias.ip, &at.child("ip")));
        for (index, host) in list(&alias.hostnames).iter().enumerate() {
            let at = at.child("hostnames").index(index);
            errors.extend(all_invalid(&at, host, &name::dns1123_subdomain(host)));
        }
    }
    errors
}
