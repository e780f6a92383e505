//! From a container's spec and image to what the runtime needs. Pure.

use super::environment::expand;
use super::hash::container_hash;
use super::qos;
use super::snapshot::Instance;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};
use sagong_image::Image;
use sagong_runtime::{Container, ContainerConfig, Mount, PidNamespace, Seccomp, Security};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Annotation of a sandbox: the pod's address.
pub(crate) const POD_IP: &str = "sagong.dev/pod-ip";
/// Annotation of a container: hash of the spec it was made from.
const HASH: &str = "sagong.dev/container-hash";
/// Annotation of a container: name of its image.
const IMAGE: &str = "sagong.dev/image";
/// Annotation of a container: `imageID` of its status.
const IMAGE_ID: &str = "sagong.dev/image-id";
/// Annotation of a container: number of its stop signal.
const STOP_SIGNAL: &str = "sagong.dev/stop-signal";

/// SIGTERM.
const SIGTERM: i32 = 15;
/// The search path of containers whose image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container is made from besides its spec.
pub(crate) struct Parts<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// The container's spec.
    pub(crate) spec: &'a ContainerSpec,
    /// Its restart count.
    pub(crate) attempt: u32,
    /// Its image.
    pub(crate) image: &'a Image,
    /// Its root, mounted.
    pub(crate) root: PathBuf,
    /// Its environment without the image's.
    pub(crate) env: Vec<(String, String)>,
    /// Volumes and files.
    pub(crate) mounts: Vec<Mount>,
    /// Host name of the pod.
    pub(crate) hostname: String,
    /// Memory of the node in bytes.
    pub(crate) node_memory: u64,
    /// The container whose processes it is to see.
    pub(crate) target: Option<String>,
    /// Where `Localhost` profiles of seccomp are.
    pub(crate) profiles: &'a Path,
}

/// The runtime's configuration of a container.
///
/// # Errors
/// The reason and message of the container's waiting state.
pub(crate) fn build(parts: Parts<'_>) -> Result<ContainerConfig, (&'static str, String)> {
    let Parts { pod, spec, attempt, image, .. } = &parts;
    let values: BTreeMap<String, String> = parts.env.iter().cloned().collect();
    let args = command(spec, image, &values);
    if args.first().is_none_or(String::is_empty) {
        return Err(("CreateContainerError", "no command specified".into()));
    }
    let working_dir = spec.working_dir.clone().filter(|dir| !dir.is_empty());
    let working_dir = working_dir.unwrap_or_else(|| image.config.working_dir.clone());
    Ok(ContainerConfig {
        name: spec.name.clone(),
        attempt: *attempt,
        image_id: image.id.clone(),
        args,
        env: environment(&parts),
        working_dir: if working_dir.is_empty() { "/".into() } else { working_dir },
        image_user: image.config.user.clone(),
        resources: qos::resources(pod, spec, parts.node_memory),
        security: Security {
            seccomp: seccomp(pod, spec, parts.profiles)?,
            pid_namespace: pid_namespace(pod, parts.target.clone()),
            ..security(pod, spec, image)?
        },
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        log_path: log_path(&spec.name, *attempt),
        annotations: annotations(spec, image),
        root: parts.root,
        mounts: parts.mounts,
    })
}

/// Log file of a container's run, relative to the pod's log directory.
pub(crate) fn log_path(container: &str, attempt: u32) -> PathBuf {
    PathBuf::from(container).join(format!("{attempt}.log"))
}

/// Key of the file system of a container's run; begins with the pod's uid.
pub(crate) fn mount_key(uid: &str, container: &str, attempt: u32) -> String {
    format!("{uid}_{container}_{attempt}")
}

/// `command` takes the place of the image's entrypoint and its arguments; `args` of its arguments only.
fn command(spec: &ContainerSpec, image: &Image, values: &BTreeMap<String, String>) -> Vec<String> {
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, values)).collect::<Vec<_>>();
    let command = spec.command.as_deref().unwrap_or_default();
    let args = spec.args.as_deref().unwrap_or_default();
    let (mut all, given) = match command.is_empty() {
        true => (image.config.entrypoint.clone(), expanded(args)),
        false => (expanded(command), expanded(args)),
    };
    match given.is_empty() && command.is_empty() {
        true => all.extend(image.config.cmd.iter().cloned()),
        false => all.extend(given),
    }
    all
}

fn environment(parts: &Parts<'_>) -> Vec<String> {
    let image = &parts.image.config.env;
    let sets = |name: &str| image.iter().any(|line| line.split('=').next() == Some(name));
    let mut all = Vec::with_capacity(image.len() + parts.env.len() + 3);
    if !sets("PATH") {
        all.push(format!("PATH={DEFAULT_PATH}"));
    }
    all.push(format!("HOSTNAME={}", parts.hostname));
    if parts.spec.tty == Some(true) && !sets("TERM") {
        all.push("TERM=xterm".into());
    }
    all.extend(image.iter().cloned());
    let overridden = |line: &String| parts.env.iter().any(|(name, _)| line.split('=').next() == Some(name));
    all.retain(|line| !overridden(line));
    all.extend(parts.env.iter().map(|(name, value)| format!("{name}={value}")));
    all
}

fn security(pod: &Pod, spec: &ContainerSpec, image: &Image) -> Result<Security, (&'static str, String)> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = spec.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        check_non_root(pod, spec, image, run_as_user)?;
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let bare = |names: Option<Vec<String>>| -> Vec<String> {
        names.into_iter().flatten().map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let privileged = own.privileged.unwrap_or(false);
    Ok(Security {
        run_as_user,
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups: groups,
        only_given_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: !privileged && own.allow_privilege_escalation == Some(false),
        add_capabilities: bare(capabilities.add),
        drop_capabilities: bare(capabilities.drop),
        ..Security::default()
    })
}

/// Whose processes a container sees: its own, all of the pod (`shareProcessNamespace`), all of the node (`hostPID`), or
/// those of the container it is to look into.
fn pid_namespace(pod: &Pod, target: Option<String>) -> PidNamespace {
    let spec = pod.spec.as_ref();
    match target {
        _ if spec.and_then(|spec| spec.host_pid) == Some(true) => PidNamespace::Host,
        _ if spec.and_then(|spec| spec.share_process_namespace) == Some(true) => PidNamespace::Pod,
        Some(id) => PidNamespace::Of(id),
        None => PidNamespace::Own,
    }
}

/// The container's profile, or the pod's, or `RuntimeDefault`, as a kubelet with `seccompDefault` has it. Privileged
/// containers have none.
fn seccomp(pod: &Pod, spec: &ContainerSpec, profiles: &Path) -> Result<Seccomp, (&'static str, String)> {
    let own = spec.security_context.as_ref();
    if own.and_then(|context| context.privileged) == Some(true) {
        return Ok(Seccomp::Unconfined);
    }
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let profile = own.and_then(|context| context.seccomp_profile.as_ref());
    let Some(profile) = profile.or(of_pod.and_then(|context| context.seccomp_profile.as_ref())) else {
        return Ok(Seccomp::RuntimeDefault);
    };
    match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            let is_plain = |part| matches!(part, Component::Normal(_));
            let failed = |error: String| {
                ("CreateContainerError", format!("cannot load seccomp profile {name:?}: {error}"))
            };
            if name.is_empty() || !Path::new(name).components().all(is_plain) {
                return Err(failed("it leads out of the directory of profiles".into()));
            }
            let text = std::fs::read_to_string(profiles.join(name));
            text.map(Seccomp::Profile).map_err(|error| failed(error.to_string()))
        }
        _ => Ok(Seccomp::RuntimeDefault),
    }
}

fn check_non_root(
    pod: &Pod,
    spec: &ContainerSpec,
    image: &Image,
    run_as_user: Option<i64>,
) -> Result<(), (&'static str, String)> {
    let place = format!("(pod: \"{}\", container: {})", super::messages::pod_name(pod), spec.name);
    let user = image.config.user.split(':').next().unwrap_or_default();
    let problem = match (run_as_user, user.parse::<i64>()) {
        (Some(0), _) => "container's runAsUser breaks non-root policy".to_owned(),
        (Some(_), _) => return Ok(()),
        (None, Ok(0)) => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, Ok(_)) => return Ok(()),
        (None, Err(_)) if user.is_empty() => {
            "container has runAsNonRoot and image will run as root".to_owned()
        }
        (None, Err(_)) => format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        ),
    };
    Err(("CreateContainerConfigError", format!("{problem} {place}")))
}

fn annotations(spec: &ContainerSpec, image: &Image) -> BTreeMap<String, String> {
    let wanted = spec.image.clone().unwrap_or_default();
    // The name as the user knows it, normalised; an image found by its id has only that.
    let named = image.tags.iter().find(|tag| tag.ends_with(wanted.as_str()));
    let name = named.or(image.tags.first()).cloned().unwrap_or(wanted);
    let id = image.digests.first().cloned().unwrap_or_else(|| image.id.clone());
    BTreeMap::from([
        (HASH.into(), container_hash(spec)),
        (IMAGE.into(), name),
        (IMAGE_ID.into(), id),
        (STOP_SIGNAL.into(), stop_signal(&image.config.stop_signal).to_string()),
    ])
}

/// The number of a signal given as `SIGQUIT`, `QUIT`, `3` or `SIGRTMIN+3`; SIGTERM if it is none.
pub(crate) fn stop_signal(text: &str) -> i32 {
    const NAMES: [(&str, i32); 20] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("WINCH", 28),
        ("PWR", 30),
    ];
    let upper = text.trim().to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.strip_prefix("RTMIN").map(|offset| match offset.strip_prefix('+') {
        Some(offset) => offset.parse::<i32>().map_or(SIGTERM, |offset| 34 + offset),
        None => 34,
    });
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let number = known.or(real_time).or_else(|| name.parse().ok());
    number.filter(|number| (1..=64).contains(number)).unwrap_or(SIGTERM)
}

impl Instance {
    /// An instance as the runtime lists it.
    pub(crate) fn from_runtime(container: &Container) -> Self {
        let note = |key: &str| container.config.annotations.get(key).cloned();
        Instance {
            id: container.id.clone(),
            sandbox_id: container.sandbox_id.clone(),
            attempt: container.config.attempt,
            hash: note(HASH).unwrap_or_default(),
            image: note(IMAGE).unwrap_or_default(),
            image_id: note(IMAGE_ID).unwrap_or_else(|| container.config.image_id.clone()),
            stop_signal: note(STOP_SIGNAL).and_then(|text| text.parse().ok()).unwrap_or(SIGTERM),
            identity: container.identity.clone(),
            state: container.state.clone(),
            message: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use sagong_image::ImageConfig;
    use serde_json::json;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[rstest]
    #[case::image_alone("", "", "/entry cmd")]
    #[case::args_replace_cmd("", "a b", "/entry a b")]
    #[case::command_replaces_both("/bin/x", "", "/bin/x")]
    #[case::command_and_args("/bin/x", "$(A) b", "/bin/x 1 b")]
    fn command_and_args_override_the_image(
        #[case] command_: &str,
        #[case] args: &str,
        #[case] expected: &str,
    ) {
        let spec =
            ContainerSpec { command: Some(list(command_)), args: Some(list(args)), ..Default::default() };
        let config = ImageConfig { entrypoint: list("/entry"), cmd: list("cmd"), ..Default::default() };
        let image = Image { id: "i".into(), tags: vec![], digests: vec![], size: 0, config };
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(command(&spec, &image, &values), list(expected));
    }

    #[rstest]
    #[case("", 15)]
    #[case("SIGQUIT", 3)]
    #[case("quit", 3)]
    #[case("9", 9)]
    #[case("SIGRTMIN+3", 37)]
    #[case("nonsense", 15)]
    #[case("4711", 15)]
    fn stop_signals_have_many_spellings(#[case] text: &str, #[case] number: i32) {
        assert_eq!(stop_signal(text), number);
    }

    #[rstest]
    #[case(json!({"runAsNonRoot": true}), "", false)]
    #[case(json!({"runAsNonRoot": true}), "0", false)]
    #[case(json!({"runAsNonRoot": true}), "node", false)]
    #[case(json!({"runAsNonRoot": true}), "1000:1000", true)]
    #[case(json!({"runAsNonRoot": true, "runAsUser": 7}), "", true)]
    #[case(json!({"runAsNonRoot": true, "runAsUser": 0}), "1000", false)]
    #[case(json!({}), "", true)]
    fn run_as_non_root_is_enforced(
        #[case] context: serde_json::Value,
        #[case] user: &str,
        #[case] allowed: bool,
    ) {
        let spec: ContainerSpec =
            serde_json::from_value(json!({"name": "c", "securityContext": context})).unwrap();
        let config = ImageConfig { user: user.into(), ..Default::default() };
        let image = Image { id: "i".into(), tags: vec![], digests: vec![], size: 0, config };
        assert_eq!(security(&Pod::default(), &spec, &image).is_ok(), allowed);
    }
}
