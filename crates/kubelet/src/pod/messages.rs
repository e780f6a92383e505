//! Sentences that users and scripts know, as upstream words them.

use super::backoff::{Backoff, go_duration};
use super::snapshot::{KillReason, RestartPolicy};
use k8s_openapi::api::core::v1::Pod;

/// Message of a container of which nothing is left.
pub(crate) const LOST: &str = "The container could not be located when the pod was terminated";

/// Reason and message of a pod whose `activeDeadlineSeconds` are over.
pub(crate) const DEADLINE: (&str, &str) =
    ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");

/// `name_namespace(uid)`, as upstream names pods in messages.
pub(crate) fn pod_name(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid))
}

/// Message of a container in `CrashLoopBackOff`.
pub(crate) fn crash_loop(pod: &Pod, container: &str, restarts: &Backoff) -> String {
    let wait = go_duration(restarts.wait());
    format!("back-off {wait} restarting failed container={container} pod={}", pod_name(pod))
}

/// Event when a container is stopped; `policy` decides whether it is started again.
pub(crate) fn killing(container: &str, reason: KillReason, policy: RestartPolicy) -> String {
    let why = match reason {
        KillReason::PodEnds => return format!("Stopping container {container}"),
        KillReason::PostStart => return "FailedPostStartHook".into(),
        KillReason::Liveness => "failed liveness probe",
        KillReason::Startup => "failed startup probe",
        // Whatever the policy is, the new one has to run.
        KillReason::Changed => return format!("Container {container} definition changed, will be restarted"),
    };
    let then = if policy == RestartPolicy::Never { "" } else { ", will be restarted" };
    format!("Container {container} {why}{then}")
}

/// Event when a restart has to wait.
pub(crate) fn restart_back_off(pod: &Pod, container: &str) -> String {
    format!("Back-off restarting failed container {container} in pod {}", pod_name(pod))
}

/// Event when a pull has to wait.
pub(crate) fn pull_back_off(image: &str) -> String {
    format!("Back-off pulling image \"{image}\"")
}

/// Message of a container in `ImagePullBackOff`.
pub(crate) fn pull_back_off_because(image: &str, reason: &str, message: &str) -> String {
    format!("{}: {reason}: {message}", pull_back_off(image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        KillReason::Liveness,
        RestartPolicy::Always,
        "Container c failed liveness probe, will be restarted"
    )]
    #[case(
        KillReason::Startup,
        RestartPolicy::OnFailure,
        "Container c failed startup probe, will be restarted"
    )]
    #[case(KillReason::Liveness, RestartPolicy::Never, "Container c failed liveness probe")]
    #[case(KillReason::PodEnds, RestartPolicy::Always, "Stopping container c")]
    fn a_restart_is_promised_only_by_policy(
        #[case] reason: KillReason,
        #[case] policy: RestartPolicy,
        #[case] expected: &str,
    ) {
        assert_eq!(killing("c", reason, policy), expected);
    }
}
