//! What can be wrong with the addresses of a service inside the cluster, and with changing them.

use super::allocation::is_headless;
use crate::address::validate_ip;
use crate::field::{self, Errors, Path};
use crate::pod::validate::{list, one_of_if_given, text};
use k8s_openapi::api::core::v1::ServiceSpec;
use std::collections::BTreeSet;

const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
/// One address of each family.
const FAMILIES_MAX: usize = 2;

/// Everything wrong with `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`. Whether an address
/// is in the cluster's range and free is for the API server to say.
pub(super) fn validate(spec: &ServiceSpec, path: &Path) -> Errors {
    if text(&spec.type_) == "ExternalName" {
        return Errors::new();
    }
    let mut errors = Errors::new();
    let policy_at = path.child("ipFamilyPolicy");
    errors.extend(one_of_if_given(&spec.ip_family_policy, FAMILY_POLICIES, &policy_at));
    errors.extend(validate_families(spec, &path.child("ipFamilies")));
    let addresses = list(&spec.cluster_ips);
    let at = path.child("clusterIPs");
    let first = addresses.first().map(String::as_str).unwrap_or_default();
    if first != text(&spec.cluster_ip) {
        if addresses.is_empty() {
            errors.push(field::required(&at, ""));
        } else {
            errors.push(field::invalid(&at, addresses, "first value must match `clusterIP`"));
        }
    }
    if addresses.len() > FAMILIES_MAX {
        errors.push(field::invalid(&at, addresses, "may only hold up to 2 values"));
    }
    for (index, address) in addresses.iter().enumerate() {
        match address.as_str() {
            "None" if addresses.len() == 1 => {}
            "None" => {
                let detail = "'None' must be the first and only value";
                errors.push(field::invalid(&at, addresses, detail));
            }
            address => errors.extend(validate_ip(address, &at.index(index))),
        }
    }
    errors
}

fn validate_families(spec: &ServiceSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, family) in list(&spec.ip_families).iter().enumerate() {
        let at = path.index(index);
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            errors.push(field::not_supported(&at, family, &["IPv4", "IPv6"]));
        }
        if !seen.insert(family) {
            errors.push(field::duplicate(&at, family));
        }
    }
    errors
}

/// Addresses and families stay as they are, unless the service is or was a mere name.
pub(super) fn validate_change(new: &ServiceSpec, old: &ServiceSpec, path: &Path) -> Errors {
    let is_name = |spec: &ServiceSpec| text(&spec.type_) == "ExternalName";
    if is_name(new) || is_name(old) {
        return Errors::new();
    }
    let mut errors = changed(
        list(&new.cluster_ips),
        list(&old.cluster_ips),
        "primary clusterIP",
        &path.child("clusterIPs"),
    );
    if is_headless(new) == is_headless(old) && !is_headless(new) {
        let (new, old) = (list(&new.ip_families), list(&old.ip_families));
        errors.extend(changed(new, old, "primary ipFamily", &path.child("ipFamilies")));
    }
    errors
}

/// Values may be added behind the others, and the last one may be given back.
fn changed(new: &[String], old: &[String], first: &str, path: &Path) -> Errors {
    if new.is_empty() && !old.is_empty() {
        return vec![field::invalid(&path.index(0), new, &format!("{first} can not be unset"))];
    }
    let pairs = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
    pairs.map(|(index, _)| field::invalid(&path.index(index), new, "may not change once set")).collect()
}
