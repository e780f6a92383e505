//! What containers request and what they are limited to.

use super::{all_invalid, list};
use crate::field::{self, Errors, FieldError, Path};
use crate::name;
use crate::pod::workload::NOT_NEGATIVE;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{PodResourceClaim, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Resources every node knows.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Names without a prefix that mean something elsewhere (quotas), so that they are no typing errors.
const ELSEWHERE: &[&str] = &[
    "storage",
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const HUGE_PAGES: &str = "hugepages-";

/// Everything wrong with the resources of a container, given what the pod claims.
pub(super) fn validate_container(
    resources: &ResourceRequirements,
    claims: &[PodResourceClaim],
    path: &Path,
) -> Errors {
    let mut errors = validate_amounts(resources, path);
    errors.extend(validate_claims(list(&resources.claims), claims, &path.child("claims")));
    errors
}

/// Everything wrong with the resources of a whole pod.
pub(super) fn validate_pod(resources: &ResourceRequirements, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if resources.claims.is_some() {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(field::forbidden(&path.child("claims"), detail));
    }
    errors.extend(validate_amounts(resources, path));
    errors
}

fn validate_amounts(resources: &ResourceRequirements, path: &Path) -> Errors {
    let nothing = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&nothing);
    let requests = resources.requests.as_ref().unwrap_or(&nothing);
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    let mut errors = Errors::new();
    for (name, limit) in limits {
        errors.extend(validate_amount(name, limit, &limits_at.key(name)));
    }
    for (name, request) in requests {
        errors.extend(validate_amount(name, request, &requests_at.key(name)));
        errors.extend(validate_request(name, request, limits.get(name), &limits_at, &requests_at));
    }
    let has = |wanted: fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| wanted(name));
    if has(|name| name.starts_with(HUGE_PAGES)) && !has(|name| matches!(name, "cpu" | "memory")) {
        errors.push(field::forbidden(path, "HugePages require cpu or memory"));
    }
    errors
}

/// A request is at most the limit. What cannot be shared out twice (devices, huge pages) is limited to what
/// is requested.
fn validate_request(
    name: &str,
    request: &Quantity,
    limit: Option<&Quantity>,
    limits_at: &Path,
    requests_at: &Path,
) -> Option<FieldError> {
    let is_shareable = is_native(name) && !name.starts_with(HUGE_PAGES);
    let Some(limit) = limit else {
        let detail = "Limit must be set for non overcommitable resources";
        return (!is_shareable).then(|| field::required(limits_at, detail));
    };
    let (requested, limited) = (Amount::try_from(request).ok()?, Amount::try_from(limit).ok()?);
    let relation = match is_shareable {
        false if requested != limited => "equal",
        true if requested > limited => "less than or equal",
        _ => return None,
    };
    let detail = format!("must be {relation} to {name} limit of {limited}");
    Some(field::invalid(requests_at, requested.to_string(), &detail))
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn validate_amount(name: &str, quantity: &Quantity, path: &Path) -> Errors {
    let mut errors = validate_name(name, path);
    let amount = match Amount::try_from(quantity) {
        Ok(amount) => amount,
        Err(error) => {
            errors.push(field::invalid(path, &quantity.0, &error.to_string()));
            return errors;
        }
    };
    if amount.is_negative() {
        errors.push(field::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
    if !is_native(name) && !amount.is_whole() {
        errors.push(field::invalid(path, amount.to_string(), "must be an integer"));
    }
    if let Some(size) = name.strip_prefix(HUGE_PAGES)
        && !is_multiple(amount, size)
    {
        let detail = format!("{amount} is not positive integer multiple of {name}");
        errors.push(field::invalid(path, amount.to_string(), &detail));
    }
    errors
}

/// Whether so many bytes are whole pages of this size.
fn is_multiple(amount: Amount, size: &str) -> bool {
    match size.parse::<Amount>() {
        Ok(size) if size.units() > 0 => {
            amount.is_whole() && !amount.is_negative() && amount.units() % size.units() == 0
        }
        _ => false,
    }
}

fn validate_name(name: &str, path: &Path) -> Errors {
    let mut errors = all_invalid(path, name, &name::qualified_name(name));
    if !errors.is_empty() {
        return errors;
    }
    let is_huge = name.starts_with(HUGE_PAGES);
    if !name.contains('/') {
        let is_standard = STANDARD.contains(&name) || is_huge;
        if !is_standard && !ELSEWHERE.contains(&name) {
            let detail = "must be a standard resource type or fully qualified";
            errors.push(field::invalid(path, name, detail));
        }
        if !is_standard {
            errors.push(field::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && name.starts_with("requests.") {
        let detail = "doesn't follow extended resource name standard";
        errors.push(field::invalid(path, name, detail));
    }
    errors
}

/// Claims of a container must be among those of its pod.
fn validate_claims(claims: &[ResourceClaim], of_pod: &[PodResourceClaim], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let at = path.index(index);
        if claim.name.is_empty() {
            errors.push(field::required(&at, ""));
            continue;
        }
        let key = match claim.request.as_deref().unwrap_or_default() {
            "" => claim.name.clone(),
            request => format!("{}/{request}", claim.name),
        };
        if !seen.insert(key.clone()) {
            errors.push(field::duplicate(&at, key));
        }
        if !of_pod.iter().any(|of_pod| of_pod.name == claim.name) {
            errors.push(unknown_claim(&claim.name, of_pod, &at));
        }
    }
    errors
}

fn unknown_claim(name: &str, of_pod: &[PodResourceClaim], path: &Path) -> FieldError {
    let known: BTreeSet<&str> = of_pod.iter().map(|claim| claim.name.as_str()).collect();
    let known = match known.len() {
        0 => " which is empty".to_owned(),
        _ => format!(": {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    };
    let mut error = field::not_found(path, name);
    error.message.push_str(&format!(": must be one of the names in pod.spec.resourceClaims{known}"));
    error
}
