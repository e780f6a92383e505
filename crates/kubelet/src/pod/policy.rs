//! `restartPolicy`, of pods and of init containers.

use k8s_openapi::api::core::v1::Container as ContainerSpec;

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    /// After every exit.
    Always,
    /// After exits with another code than 0.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// Always is the API's default.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        }
    }

    /// What holds for an init container: one that succeeded is done, whatever the pod's policy.
    pub(crate) fn for_init(self) -> Self {
        match self {
            RestartPolicy::Always => RestartPolicy::OnFailure,
            other => other,
        }
    }

    /// Whether a container that ended with `exit_code` starts again.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// Whether an init container goes on running beside the main containers (`restartPolicy: Always`).
pub(crate) fn is_sidecar(spec: &ContainerSpec) -> bool {
    spec.restart_policy.as_deref() == Some("Always")
}
