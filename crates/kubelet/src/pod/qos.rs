//! Quality of service: the class of a pod, its cgroup, and its containers' limits.

use crate::quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sagong_runtime::Resources;
use std::collections::BTreeMap;

/// Period of the CPU limit, in microseconds, as upstream sets it.
const CPU_PERIOD: u64 = 100_000;
/// Least CPU weight.
const MIN_SHARES: u64 = 2;
/// Most.
const MAX_SHARES: u64 = 262_144;
/// Least CPU time per period, in microseconds.
const MIN_QUOTA: i64 = 1_000;

/// Most processes and threads of a container, so that one that only ever forks ends nothing but itself. Upstream's
/// `podPidsLimit` has no limit of its own; distributions set this one.
const PIDS: i64 = 4096;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// None at all.
    BestEffort,
}

impl Class {
    /// As the API writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Class::Guaranteed => "Guaranteed",
            Class::Burstable => "Burstable",
            Class::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod: the API's word, or computed by the same rule.
pub(crate) fn class(pod: &Pod) -> Class {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => Class::Guaranteed,
        Some("Burstable") => Class::Burstable,
        Some("BestEffort") => Class::BestEffort,
        _ => computed(pod),
    }
}

fn computed(pod: &Pod) -> Class {
    let Some(spec) = &pod.spec else { return Class::BestEffort };
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let value = |map: &Option<BTreeMap<String, Quantity>>, name: &str| {
        map.as_ref()?.get(name).and_then(|q| quantity::milli(&q.0)).filter(|milli| *milli > 0)
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in containers {
        for name in ["cpu", "memory"] {
            let limit = container.resources.as_ref().and_then(|r| value(&r.limits, name));
            let request = container.resources.as_ref().and_then(|r| value(&r.requests, name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Class::BestEffort,
        (true, true) => Class::Guaranteed,
        (true, false) => Class::Burstable,
    }
}

/// Cgroup of a pod below Sagong's own.
pub(crate) fn cgroup_parent(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match class(pod) {
        Class::Guaranteed => format!("pod{uid}"),
        Class::Burstable => format!("burstable/pod{uid}"),
        Class::BestEffort => format!("besteffort/pod{uid}"),
    }
}

/// Limits of a container as the runtime takes them. `node_memory` in bytes.
///
/// Example: request 250m, limit 500m and 64Mi: shares 256, quota 50000 per 100000, memory 67108864.
pub(crate) fn resources(pod: &Pod, spec: &Container, node_memory: u64) -> Resources {
    let given = |map: Option<&BTreeMap<String, Quantity>>, name: &str| quantity::milli(&map?.get(name)?.0);
    let resources = spec.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let cpu_limit = given(limits, "cpu").filter(|milli| *milli > 0);
    // A limit without a request is the request too.
    let cpu_request = given(requests, "cpu").or(cpu_limit).unwrap_or_default();
    let memory_limit = given(limits, "memory").map(|milli| milli / 1000).filter(|bytes| *bytes > 0);
    let memory_request =
        given(requests, "memory").map(|milli| milli / 1000).or(memory_limit).unwrap_or_default();
    let shares = u64::try_from(cpu_request.saturating_mul(1024) / 1000).unwrap_or_default();
    let quota = cpu_limit.map(|milli| {
        let micros = milli.saturating_mul(i128::from(CPU_PERIOD)) / 1000;
        i64::try_from(micros).unwrap_or(i64::MAX).max(MIN_QUOTA)
    });
    Resources {
        cpu_shares: Some(shares.clamp(MIN_SHARES, MAX_SHARES)),
        cpu_quota: quota,
        cpu_period: quota.map(|_| CPU_PERIOD),
        memory_limit: memory_limit.and_then(|bytes| i64::try_from(bytes).ok()),
        oom_score_adj: Some(oom_score_adj(class(pod), memory_request, node_memory)),
        pids_limit: Some(PIDS),
    }
}

/// Upstream's rule: guaranteed pods are killed last, best-effort ones first, the others in between by the
/// share of the node's memory they did not ask for.
fn oom_score_adj(class: Class, memory_request: i128, node_memory: u64) -> i32 {
    match class {
        Class::Guaranteed => -997,
        Class::BestEffort => 1000,
        Class::Burstable => {
            let asked = memory_request.saturating_mul(1000) / i128::from(node_memory.max(1));
            i32::try_from(1000 - asked).unwrap_or(3).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        let container = json!({"name": "c", "image": "i", "resources": resources});
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [container]}}))
            .unwrap()
    }

    #[rstest]
    #[case(json!({}), Class::BestEffort, "besteffort/podu")]
    #[case(json!({"requests": {"cpu": "1"}}), Class::Burstable, "burstable/podu")]
    #[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), Class::Guaranteed, "podu")]
    #[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), Class::Burstable, "burstable/podu")]
    fn the_class_follows_requests_and_limits(
        #[case] resources: serde_json::Value,
        #[case] expected: Class,
        #[case] cgroup: &str,
    ) {
        let pod = pod(resources);
        assert_eq!(class(&pod), expected);
        assert_eq!(cgroup_parent(&pod), cgroup);
    }

    #[test]
    fn requests_become_shares_and_limits_quota() {
        let pod = pod(json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}));
        let spec = &pod.spec.as_ref().unwrap().containers[0];
        let resources = resources(&pod, spec, 1 << 30);
        assert_eq!(resources.cpu_shares, Some(256));
        assert_eq!((resources.cpu_quota, resources.cpu_period), (Some(50_000), Some(100_000)));
        assert_eq!(resources.memory_limit, Some(64 << 20));
        assert_eq!(resources.oom_score_adj, Some(1000 - 62));
    }
}
