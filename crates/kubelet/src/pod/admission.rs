//! What this node does not take, whoever asked for it: settings that it cannot or must not make. Pure.

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod, PodSpec};

/// Kernel parameters that change nothing but the pod itself, as upstream's kubelet lists them.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why a pod is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `status.reason`.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Refusal {
    /// `status.message`.
    pub(crate) fn status_message(&self) -> String {
        format!("Pod was rejected: {}", self.message)
    }
}

/// Why the node does not take this pod; None: it does. One that runs already was taken.
pub(crate) fn refusal(pod: &Pod) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let refusal = unsafe_sysctl(spec).or_else(|| app_armor(spec))?;
    let is_new = status.and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending");
    let was_refused = status.and_then(|status| status.reason.as_deref()) == Some(refusal.reason);
    (is_new || was_refused).then_some(refusal)
}

fn unsafe_sysctl(spec: &PodSpec) -> Option<Refusal> {
    let all = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    // Slashes may stand for dots.
    let mut names = all.map(|sysctl| sysctl.name.replace('/', "."));
    let name = names.find(|name| !SAFE_SYSCTLS.contains(&name.as_str()))?;
    let message = format!("forbidden sysctl: {name:?} not allowlisted");
    Some(Refusal { reason: "SysctlForbidden", message })
}

/// Better not started than without the protection it asks for.
fn app_armor(spec: &PodSpec) -> Option<Refusal> {
    let wanted = |profile: Option<&AppArmorProfile>| profile.is_some_and(|it| it.type_ != "Unconfined");
    let of_pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let any = containers.any(|container| {
        let own = container.security_context.as_ref().and_then(|own| own.app_armor_profile.as_ref());
        wanted(own.or(of_pod))
    });
    let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned();
    any.then_some(Refusal { reason: "AppArmor", message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn refused(spec: Value, status: Value) -> Option<String> {
        let mut pod =
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}, "status": status});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        refusal(&serde_json::from_value(pod).unwrap())
            .map(|it| format!("{}: {}", it.reason, it.status_message()))
    }

    const SOMAXCONN: &str =
        "SysctlForbidden: Pod was rejected: forbidden sysctl: \"net.core.somaxconn\" not allowlisted";
    const APP_ARMOR: &str =
        "AppArmor: Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";

    #[rstest]
    #[case::plain(json!({}), None)]
    #[case::safe(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1 2 3"}]}}), None)]
    #[case::with_slashes(json!({"securityContext": {"sysctls": [{"name": "kernel/shm_rmid_forced", "value": "1"}]}}), None)]
    #[case::not_safe(
        json!({"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]}}),
        Some(SOMAXCONN)
    )]
    #[case::profile(json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}), Some(APP_ARMOR))]
    #[case::no_profile(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}), None)]
    fn what_the_node_does_not_take_is_told_as_upstream_tells_it(
        #[case] spec: Value,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(refused(spec, json!({})).as_deref(), expected);
    }

    #[test]
    fn what_was_taken_stays_and_what_was_refused_stays_refused() {
        let spec = json!({"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]}});
        assert_eq!(refused(spec.clone(), json!({"phase": "Running"})), None);
        assert_eq!(refused(spec.clone(), json!({"phase": "Failed", "reason": "Evicted"})), None);
        assert!(refused(spec, json!({"phase": "Failed", "reason": "SysctlForbidden"})).is_some());
    }
}
