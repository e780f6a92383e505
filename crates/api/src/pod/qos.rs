//! The quality-of-service class of a pod (`status.qosClass`), which says who is evicted first.

use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// `Guaranteed` when every container limits CPU and memory and requests just that, `BestEffort` when none
/// requests or limits either, `Burstable` otherwise. Zero counts as not given.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let none = ResourceRequirements::default();
    let mut asked: Vec<&ResourceRequirements> = Vec::new();
    match &spec.resources {
        // Resources of the whole pod, where given, decide alone.
        Some(pod) if given(&pod.requests).next().is_some() || given(&pod.limits).next().is_some() => {
            asked.push(pod)
        }
        _ => asked.extend(containers().map(|container| container.resources.as_ref().unwrap_or(&none))),
    }
    let is_given = |list: &Option<BTreeMap<String, Quantity>>| given(list).next().is_some();
    if !asked.iter().any(|resources| is_given(&resources.requests) || is_given(&resources.limits)) {
        "BestEffort"
    } else if asked.iter().all(|resources| is_guaranteed(resources)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    let limits: BTreeMap<&str, &Quantity> = given(&resources.limits).collect();
    limits.len() == 2
        && given(&resources.requests).count() == 2
        && given(&resources.requests)
            .all(|(name, request)| limits.get(name).is_some_and(|limit| is_equal(request, limit)))
}

/// CPU and memory that are given and not zero.
fn given(list: &Option<BTreeMap<String, Quantity>>) -> impl Iterator<Item = (&str, &Quantity)> {
    list.iter()
        .flatten()
        .filter(|(name, quantity)| matches!(name.as_str(), "cpu" | "memory") && !is_zero(quantity))
        .map(|(name, quantity)| (name.as_str(), quantity))
}

fn is_zero(quantity: &Quantity) -> bool {
    Amount::try_from(quantity).is_ok_and(Amount::is_zero)
}

fn is_equal(a: &Quantity, b: &Quantity) -> bool {
    matches!((Amount::try_from(a), Amount::try_from(b)), (Ok(a), Ok(b)) if a == b)
}
