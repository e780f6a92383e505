//! Sentences that users and scripts know, as upstream words them.

use super::backoff::{Backoff, go_duration};
use k8s_openapi::api::core::v1::Pod;

/// Message of a container of which nothing is left.
pub(crate) const LOST: &str = "The container could not be located when the pod was terminated";

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
