//! Security contexts of pods and containers.

use super::projection::validate_descending;
use super::{list, one_of_if_given, text};
use crate::field::{self, Errors, FieldError, Path};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};
use std::collections::BTreeSet;

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
/// The longest path Linux takes (PATH_MAX, with the final zero).
const PROFILE_PATH_MAX: usize = 4095;
/// The longest name of a kernel parameter.
const SYSCTL_MAX: usize = 253;

/// Everything wrong with the security context of a pod and with sharing the host's namespaces.
pub(super) fn validate_pod(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("securityContext");
    if let Some(context) = &spec.security_context {
        errors.extend(validate_ids(context, &at));
        if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
            let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
            errors.push(field::invalid(&at.child("shareProcessNamespace"), true, detail));
        }
        errors.extend(validate_sysctls(list(&context.sysctls), spec, &at.child("sysctls")));
        errors.extend(validate_policies(context, &at));
        errors.extend(validate_profiles(&context.seccomp_profile, &context.app_armor_profile, &at));
    }
    if spec.host_users == Some(false) {
        let shared =
            [(spec.host_network, "hostNetwork"), (spec.host_pid, "HostPID"), (spec.host_ipc, "HostIPC")];
        for (_, field) in shared.into_iter().filter(|(is_shared, _)| *is_shared == Some(true)) {
            let detail = "when `pod.Spec.HostUsers` is false";
            errors.push(field::forbidden(&path.child(field), detail));
        }
    }
    errors
}

fn validate_ids(context: &PodSecurityContext, path: &Path) -> Errors {
    let mut errors = Errors::new();
    errors.extend(validate_id(context.fs_group, &path.child("fsGroup")));
    errors.extend(validate_id(context.run_as_user, &path.child("runAsUser")));
    errors.extend(validate_id(context.run_as_group, &path.child("runAsGroup")));
    let at = path.child("supplementalGroups");
    for (index, group) in list(&context.supplemental_groups).iter().enumerate() {
        errors.extend(validate_id(Some(*group), &at.index(index)));
    }
    errors
}

/// Complains about a number that is no user and no group.
fn validate_id(id: Option<i64>, path: &Path) -> Option<FieldError> {
    let id = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id))?;
    Some(field::invalid(path, id, "must be between 0 and 2147483647, inclusive"))
}

fn validate_policies(context: &PodSecurityContext, path: &Path) -> Errors {
    let policies = [
        (&context.fs_group_change_policy, "fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        (&context.supplemental_groups_policy, "supplementalGroupsPolicy", ["Merge", "Strict"]),
        (&context.se_linux_change_policy, "seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ];
    policies
        .iter()
        .filter_map(|(policy, field, supported)| one_of_if_given(policy, supported, &path.child(field)))
        .collect()
}

fn validate_sysctls(sysctls: &[Sysctl], spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(index).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(field::required(&at, ""));
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(is_sysctl_segment) {
            let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let detail = format!(
                "must have at most {SYSCTL_MAX} characters and match regex ^({segment}[\\./])*{segment}$"
            );
            errors.push(field::invalid(&at, name, &detail));
        } else if names.contains(name) {
            errors.push(field::duplicate(&at, name));
        }
        names.insert(name);
        errors.extend(validate_shared_sysctl(name, spec, &at));
    }
    errors
}

fn is_sysctl_segment(segment: &str) -> bool {
    let is_edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    is_edge(segment.bytes().next()) && is_edge(segment.bytes().last()) && segment.bytes().all(fits)
}

/// A parameter of a namespace that the pod shares with the host would be set for the host.
fn validate_shared_sysctl(name: &str, spec: &PodSpec, path: &Path) -> Option<FieldError> {
    let name_dotted = name.replace('/', ".");
    let is_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name_dotted.starts_with(p))
        || name_dotted == "kernel.sem";
    if spec.host_network == Some(true) && name_dotted.starts_with("net.") {
        Some(field::invalid(path, name, "may not be specified when 'hostNetwork' is true"))
    } else if spec.host_ipc == Some(true) && is_ipc {
        Some(field::invalid(path, name, "may not be specified when 'hostIPC' is true"))
    } else {
        None
    }
}

fn validate_profiles(
    seccomp: &Option<SeccompProfile>,
    app_armor: &Option<AppArmorProfile>,
    path: &Path,
) -> Errors {
    let mut errors = Errors::new();
    if let Some(profile) = seccomp {
        errors.extend(validate_seccomp(profile, &path.child("seccompProfile")));
    }
    if let Some(profile) = app_armor {
        errors.extend(validate_app_armor(profile, &path.child("appArmorProfile")));
    }
    errors
}

fn validate_seccomp(profile: &SeccompProfile, path: &Path) -> Errors {
    let mut errors = Errors::new();
    match profile.type_.as_str() {
        "" => {
            let detail = "type is required when seccompProfile is set";
            errors.push(field::required(&path.child("type"), detail));
        }
        known if PROFILE_TYPES.contains(&known) => {}
        other => errors.push(field::not_supported(&path.child("type"), other, PROFILE_TYPES)),
    }
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => {
            errors.push(field::required(&at, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(file)) => errors.extend(validate_descending(file, &at)),
        (_, Some(_)) => {
            errors.push(field::invalid(&at, profile, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
    errors
}

fn validate_app_armor(profile: &AppArmorProfile, path: &Path) -> Errors {
    let at = path.child("localhostProfile");
    let must_be_set = "must be set when AppArmor type is Localhost";
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => vec![field::required(&at, must_be_set)],
        ("Localhost", Some(name)) => {
            let mut errors = Errors::new();
            if name.trim() != name {
                errors.push(field::invalid(&at, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(field::required(&at, must_be_set));
            }
            if name.len() > PROFILE_PATH_MAX {
                errors.push(field::too_long(&at, PROFILE_PATH_MAX));
            }
            errors
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            vec![field::invalid(&at, name, "can only be set when AppArmor type is Localhost")]
        }
        ("RuntimeDefault" | "Unconfined", None) => Errors::new(),
        ("", _) => vec![field::required(&path.child("type"), "type is required when appArmorProfile is set")],
        (other, _) => vec![field::not_supported(&path.child("type"), other, PROFILE_TYPES)],
    }
}

/// Everything wrong with the security context of a container; `host_users` is false when the pod has a user
/// namespace.
pub(super) fn validate_container(context: &SecurityContext, host_users: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    errors.extend(validate_id(context.run_as_user, &path.child("runAsUser")));
    errors.extend(validate_id(context.run_as_group, &path.child("runAsGroup")));
    let at = path.child("procMount");
    errors.extend(one_of_if_given(&context.proc_mount, &["Default", "Unmasked"], &at));
    if host_users && text(&context.proc_mount) == "Unmasked" {
        errors.push(field::invalid(&at, "Unmasked", "`hostUsers` must be false to use `Unmasked`"));
    }
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(field::invalid(path, context, detail));
        }
        let added = context.capabilities.as_ref().map(|capabilities| list(&capabilities.add));
        if added.unwrap_or_default().iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(field::invalid(path, context, detail));
        }
    }
    errors.extend(validate_profiles(&context.seccomp_profile, &context.app_armor_profile, path));
    errors
}
