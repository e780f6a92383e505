//! Which system calls a container may make, in the words of the OCI runtime specification.

use crate::{Seccomp, Security};
use libcontainer::oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp, Spec};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io;

/// What every program may do: what containerd and Docker allow without conditions.
const ALWAYS: &str = include_str!("seccomp/always.txt");

/// What may be done with a capability only.
const WITH_CAPABILITY: [(Capability, &[&str]); 13] = [
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "init_module", "finit_module"]),
    (Capability::SysPacct, &["acct"]),
    (Capability::SysPtrace, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (Capability::SysRawio, &["iopl", "ioperm"]),
    (Capability::SysTime, &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
];

/// The `CLONE_NEW…` flags: without SYS_ADMIN no program makes namespaces.
const NAMESPACES: u64 = 0x7e02_0000;
/// Families of sockets nobody gets: `AF_ALG`, the kernel's cryptography, and `AF_VSOCK`, by which a virtual machine
/// talks to its host.
const NO_SOCKETS: [u64; 2] = [38, 40];
/// There are fewer families than this; a power of two.
const FAMILIES: u64 = 64;
/// The kernel looks at no more of an argument that is an `int`; what is above must not hide anything.
const INT: u64 = 0xffff_ffff;
/// Arguments of `personality` that change nothing that protects.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `ENOSYS`: glibc falls back to `clone`, whose flags can be looked at.
const NOT_THERE: u32 = 38;
/// `EPERM`.
const NOT_ALLOWED: u32 = 1;

/// The annotation of a container that holds its profile, an OCI `linux.seccomp` object. In its own place libcontainer
/// passes it on to the container's program, but not to those executed in it later.
pub(crate) const PROFILE: &str = "dev.sagong.seccomp";
/// The annotation of a container that names the capabilities it has only until its system calls are restricted.
pub(crate) const FOR_A_MOMENT: &str = "dev.sagong.capabilities-for-a-moment";

/// Puts the profile into the configuration, and what it takes to apply it.
///
/// # Errors
/// If a given profile cannot be read.
pub(super) fn apply(spec: &mut Spec, security: &Security, bounding: &BTreeSet<&str>) -> io::Result<()> {
    if security.privileged {
        return Ok(());
    }
    let process = spec.process().as_ref();
    let own =
        process.and_then(|process| process.capabilities().as_ref()?.bounding().clone()).unwrap_or_default();
    let profile: LinuxSeccomp = match &security.seccomp {
        Seccomp::Unconfined => return Ok(()),
        Seccomp::RuntimeDefault => serde_json::from_value(default_profile(&own)).map_err(io::Error::other)?,
        Seccomp::Profile(text) => serde_json::from_str(text)
            .map_err(|error| io::Error::other(format!("the seccomp profile cannot be read: {error}")))?,
    };
    annotate(spec, PROFILE, serde_json::to_string(&profile).map_err(io::Error::other)?);
    if !security.no_new_privileges {
        lend(spec, &own, bounding);
    }
    Ok(())
}

/// Without `no_new_privs` only a privileged process may restrict its system calls; it gives the privilege up at once
/// (`shim::confine`), before the container's program is executed.
fn lend(spec: &mut Spec, own: &Capabilities, bounding: &BTreeSet<&str>) {
    let needed = [("SYS_ADMIN", Capability::SysAdmin), ("SETPCAP", Capability::Setpcap)];
    let lent: Vec<_> =
        needed.into_iter().filter(|(name, it)| !own.contains(it) && bounding.contains(name)).collect();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(lent.iter().map(|(_, capability)| *capability));
        Some(set)
    };
    if let Some(process) = spec.process_mut()
        && let Some(mut capabilities) = process.capabilities().clone()
    {
        let (bounding, permitted, effective) =
            (with(capabilities.bounding()), with(capabilities.permitted()), with(capabilities.effective()));
        capabilities.set_bounding(bounding).set_permitted(permitted).set_effective(effective);
        process.set_capabilities(Some(capabilities));
    }
    let names: Vec<&str> = lent.iter().map(|(name, _)| *name).collect();
    annotate(spec, FOR_A_MOMENT, names.join(","));
}

fn annotate(spec: &mut Spec, name: &str, value: String) {
    let mut annotations: HashMap<String, String> = spec.annotations().clone().unwrap_or_default();
    annotations.insert(name.to_owned(), value);
    spec.set_annotations(Some(annotations));
}

/// `RuntimeDefault` for a program with these capabilities.
fn default_profile(own: &Capabilities) -> Value {
    let mut allowed: Vec<&str> = ALWAYS.lines().filter(|name| !name.is_empty()).collect();
    for (capability, names) in WITH_CAPABILITY {
        if own.contains(&capability) {
            allowed.extend(names);
        }
    }
    if own.contains(&Capability::Perfmon) {
        allowed.push("perf_event_open");
    }
    let rule = |names: Value, args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let argument = |value: u64, op: &str| json!({"index": 0, "value": value, "op": op});
    let mut rules = vec![rule(json!(allowed), json!([]))];
    for (first, count) in families(0, FAMILIES) {
        let mask = INT & !(count - 1);
        let family = json!({"index": 0, "value": mask, "valueTwo": first, "op": "SCMP_CMP_MASKED_EQ"});
        rules.push(rule(json!(["socket"]), json!([family])));
    }
    for allowed in PERSONALITIES {
        rules.push(rule(json!(["personality"]), json!([argument(allowed, "SCMP_CMP_EQ")])));
    }
    if !own.contains(&Capability::SysAdmin) {
        let none = json!({"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"});
        rules.push(rule(json!(["clone"]), json!([none])));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_THERE}));
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": NOT_ALLOWED, "syscalls": rules})
}

/// The allowed families of sockets of a range, as few ranges that a mask describes: where each begins, and its length.
fn families(first: u64, count: u64) -> Vec<(u64, u64)> {
    let last = first + count - 1;
    match NO_SOCKETS.iter().any(|family| (first..=last).contains(family)) {
        false => vec![(first, count)],
        true if count == 1 => Vec::new(),
        true => {
            let half = count / 2;
            [families(first, half), families(first + half, half)].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(own: &[Capability], name: &str) -> bool {
        let profile = default_profile(&own.iter().copied().collect());
        let profile: LinuxSeccomp = serde_json::from_value(profile).expect("profile");
        profile.syscalls().iter().flatten().any(|rule| {
            rule.names().iter().any(|other| other == name)
                && rule.args().as_ref().is_none_or(Vec::is_empty)
                && rule.errno_ret().is_none()
        })
    }

    #[test]
    fn a_capability_brings_its_system_calls() {
        assert!(allows(&[], "read") && allows(&[], "execve"));
        for name in
            ["mount", "unshare", "setns", "keyctl", "add_key", "bpf", "reboot", "init_module", "clone"]
        {
            assert!(!allows(&[], name), "{name}");
        }
        assert!(allows(&[Capability::SysAdmin], "mount") && allows(&[Capability::SysChroot], "chroot"));
        assert!(!allows(&[Capability::SysAdmin], "reboot"));
    }

    #[test]
    fn all_families_of_sockets_but_two_are_allowed() {
        let all: Vec<u64> =
            families(0, FAMILIES).into_iter().flat_map(|(first, count)| first..first + count).collect();
        let expected: Vec<u64> = (0..FAMILIES).filter(|family| ![38, 40].contains(family)).collect();
        assert_eq!(all, expected);
        assert!(families(0, FAMILIES).iter().all(|(first, count)| first % count == 0));
    }

    #[test]
    fn no_name_is_there_twice() {
        let names: Vec<&str> = ALWAYS.lines().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
