//! What a container is, as an OCI runtime configuration: the same defaults as containerd's.

mod capabilities;
mod devices;
mod mounts;
mod paths;
mod seccomp;
mod user;

use super::cgroup::Hierarchy;
use super::sandbox::Pins;
use crate::{ContainerConfig, Identity, PidNamespace, Resources, Security};
use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxMemoryBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
    ProcessBuilder, RootBuilder, Spec, UserBuilder,
};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

pub(crate) use capabilities::bounding_set;
pub(crate) use devices::host_devices;
pub(crate) use paths::make_working_directory;
pub(crate) use seccomp::{FOR_A_MOMENT, PROFILE};
pub(crate) use user::identity_of;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a configuration is made from; all of it observed before.
pub(crate) struct Inputs<'a> {
    pub(crate) container: &'a ContainerConfig,
    pub(crate) pins: &'a Pins,
    pub(crate) identity: Identity,
    /// Of the processes it is to see; None: only its own, unless it is to see the host's.
    pub(crate) processes: Option<&'a Path>,
    /// Of the container, without a leading slash.
    pub(crate) cgroup: &'a str,
    pub(crate) machine: Machine<'a>,
}

/// What the machine offers.
pub(crate) struct Machine<'a> {
    /// Only version 2 of cgroups.
    pub(crate) unified: bool,
    pub(crate) hierarchies: &'a [Hierarchy],
    pub(crate) cpu: bool,
    pub(crate) memory: bool,
    pub(crate) pids: bool,
    pub(crate) swap: bool,
    /// Capabilities that can be given at all.
    pub(crate) bounding: BTreeSet<&'static str>,
    /// Devices given to privileged containers.
    pub(crate) devices: Vec<LinuxDevice>,
}

/// Makes the configuration.
///
/// # Errors
/// If a given seccomp profile cannot be read.
pub(crate) fn plan(inputs: &Inputs<'_>) -> std::io::Result<Spec> {
    let mut spec = unrestricted(inputs).map_err(std::io::Error::other)?;
    seccomp::apply(&mut spec, &inputs.container.security, &inputs.machine.bounding)?;
    Ok(spec)
}

/// All but the restriction of system calls.
fn unrestricted(inputs: &Inputs<'_>) -> Result<Spec, OciSpecError> {
    let container = inputs.container;
    let security = &container.security;
    let user = UserBuilder::default()
        .uid(inputs.identity.uid)
        .gid(inputs.identity.gid)
        .additional_gids(inputs.identity.groups.clone())
        .build()?;
    let mut process = ProcessBuilder::default()
        .user(user)
        .args(container.args.clone())
        .env(environment(&container.env))
        .cwd(working_directory(container))
        .terminal(container.tty)
        .no_new_privileges(security.no_new_privileges)
        .capabilities(capabilities::plan(security, inputs.machine.unified, &inputs.machine.bounding))
        .build()?;
    process.set_rlimits(None);
    let mut spec = Spec::default();
    spec.set_root(Some(
        RootBuilder::default().path(&container.root).readonly(security.read_only_root).build()?,
    ))
    .set_process(Some(process))
    .set_hostname(None)
    .set_mounts(Some(mounts::plan(inputs)?))
    .set_linux(Some(linux(inputs)?));
    Ok(spec)
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux, OciSpecError> {
    let privileged = inputs.container.security.privileged;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(inputs)?)
        .cgroups_path(Path::new("/").join(inputs.cgroup))
        .resources(resources(&inputs.container.resources, &inputs.container.security, &inputs.machine)?)
        .masked_paths(if privileged { Vec::new() } else { paths::masked() })
        .readonly_paths(if privileged { Vec::new() } else { paths::read_only(inputs.machine.unified) })
        .build()?;
    if privileged {
        linux.set_devices(Some(inputs.machine.devices.clone()));
    }
    Ok(linux)
}

fn namespaces(inputs: &Inputs<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let (pins, unified) = (inputs.pins, inputs.machine.unified);
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = vec![own(LinuxNamespaceType::Mount)?];
    match (&inputs.container.security.pid_namespace, inputs.processes) {
        (PidNamespace::Host, _) => {}
        (_, Some(path)) => {
            let joined = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid).path(path);
            namespaces.push(joined.build()?);
        }
        (_, None) => namespaces.push(own(LinuxNamespaceType::Pid)?),
    }
    for (kind, path) in [
        (LinuxNamespaceType::Network, &pins.network),
        (LinuxNamespaceType::Uts, &pins.uts),
        (LinuxNamespaceType::Ipc, &pins.ipc),
    ] {
        if let Some(path) = path {
            namespaces.push(LinuxNamespaceBuilder::default().typ(kind).path(path).build()?);
        }
    }
    if unified {
        namespaces.push(own(LinuxNamespaceType::Cgroup)?);
    }
    Ok(namespaces)
}

fn resources(
    limits: &Resources,
    security: &Security,
    machine: &Machine<'_>,
) -> Result<LinuxResources, OciSpecError> {
    let mut resources = LinuxResourcesBuilder::default()
        .devices(devices::rules(security.privileged, &machine.devices)?)
        .build()?;
    let limits_cpu = limits.cpu_shares.is_some() || limits.cpu_quota.is_some() || limits.cpu_period.is_some();
    if limits_cpu && machine.cpu {
        let mut cpu = LinuxCpuBuilder::default().build()?;
        // The kernel refuses fewer than two shares.
        cpu.set_shares(limits.cpu_shares.map(|shares| shares.max(2)))
            .set_quota(limits.cpu_quota)
            .set_period(limits.cpu_period);
        resources.set_cpu(Some(cpu));
    }
    if let (Some(limit), true) = (limits.memory_limit.filter(|limit| *limit > 0), machine.memory) {
        let mut memory = LinuxMemoryBuilder::default().limit(limit).build()?;
        // Memory and swap together: none of it may be swap.
        memory.set_swap(machine.swap.then_some(limit));
        resources.set_memory(Some(memory));
    }
    if let Some(limit) = limits.pids_limit.filter(|_| machine.pids) {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build()?));
    }
    if machine.unified && machine.memory {
        // The whole container ends when one of its processes is killed for want of memory, as upstream's kubelet
        // arranges (KubeletConfiguration.singleProcessOOMKill).
        resources.set_unified(Some(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])));
    }
    Ok(resources)
}

/// The variables, each once, the last one given winning; a search path if there is none.
fn environment(given: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut seen = BTreeSet::new();
    let mut variables: Vec<String> =
        given.iter().rev().filter(|variable| seen.insert(name(variable))).cloned().collect();
    if !seen.contains("PATH") {
        variables.push(format!("PATH={DEFAULT_PATH}"));
    }
    variables.reverse();
    variables
}

fn working_directory(container: &ContainerConfig) -> &str {
    if container.working_dir.starts_with('/') { &container.working_dir } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_wins_and_a_search_path_is_added() {
        let given = ["A=1", "B=x=y", "A=2"].map(str::to_owned);
        assert_eq!(environment(&given), [&format!("PATH={DEFAULT_PATH}"), "B=x=y", "A=2"]);
    }

    #[test]
    fn a_given_search_path_is_kept() {
        assert_eq!(environment(&["PATH=/x".to_owned()]), ["PATH=/x"]);
    }

    #[test]
    fn a_limit_whose_controller_is_missing_is_left_out() {
        let limits = Resources { memory_limit: Some(1 << 20), cpu_shares: Some(1), ..Resources::default() };
        let mut machine = Machine {
            unified: false,
            hierarchies: &[],
            cpu: true,
            memory: false,
            pids: true,
            swap: false,
            bounding: BTreeSet::new(),
            devices: Vec::new(),
        };
        let planned = resources(&limits, &Security::default(), &machine).expect("resources");
        assert!(planned.memory().is_none());
        assert_eq!(planned.cpu().as_ref().and_then(|cpu| cpu.shares()), Some(2));
        machine.memory = true;
        let planned = resources(&limits, &Security::default(), &machine).expect("resources");
        assert_eq!(planned.memory().as_ref().and_then(|memory| memory.limit()), Some(1 << 20));
    }
}
