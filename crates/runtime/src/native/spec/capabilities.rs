//! Linux capabilities of a container.

use crate::Security;
use libcontainer::oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use std::collections::BTreeSet;
use std::str::FromStr;

/// All of them, in the order of their numbers.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets unless told otherwise: the same as with containerd.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities this process could pass on; what is not among them no container can have.
pub(crate) fn bounding_set() -> BTreeSet<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    ALL.into_iter()
        .enumerate()
        .filter(|(number, _)| mask & (1 << number) != 0)
        .map(|(_, name)| name)
        .collect()
}

/// The capabilities of a container.
pub(super) fn plan(
    security: &Security,
    unified: bool,
    bounding: &BTreeSet<&'static str>,
) -> LinuxCapabilities {
    let set: Capabilities = names(security, unified)
        .intersection(bounding)
        .filter_map(|name| Capability::from_str(name).ok())
        .collect();
    let mut capabilities = LinuxCapabilities::default();
    // Nothing inheritable or ambient: a user other than root gets none by itself (CVE-2022-24769).
    capabilities
        .set_bounding(Some(set.clone()))
        .set_permitted(Some(set.clone()))
        .set_effective(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    capabilities
}

fn names(security: &Security, unified: bool) -> BTreeSet<&'static str> {
    if security.privileged {
        return ALL.into();
    }
    let add = known(&security.add_capabilities);
    let drop = known(&security.drop_capabilities);
    let mut names: BTreeSet<&str> = DEFAULT.into();
    if unified {
        // Under version 2 device nodes are not guarded by a cgroup, so none may be made.
        names.remove("MKNOD");
    }
    if asks_for_all(&security.add_capabilities) {
        names = ALL.into();
    }
    if asks_for_all(&security.drop_capabilities) {
        names.clear();
    }
    names.extend(add);
    names.retain(|name| !drop.contains(name));
    names
}

fn known(given: &[String]) -> BTreeSet<&'static str> {
    given.iter().filter_map(|name| ALL.into_iter().find(|known| *known == plain(name))).collect()
}

fn asks_for_all(given: &[String]) -> bool {
    given.iter().any(|name| plain(name) == "ALL")
}

fn plain(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["SYS_TIME"], &[], &["CHOWN", "SYS_TIME"], &["SYS_ADMIN"])]
    #[case(&[], &["CAP_CHOWN"], &["KILL"], &["CHOWN"])]
    #[case(&["NET_BIND_SERVICE"], &["ALL"], &["NET_BIND_SERVICE"], &["CHOWN", "KILL"])]
    #[case(&["ALL"], &["SYS_ADMIN"], &["BPF"], &["SYS_ADMIN"])]
    #[case(&["NO_SUCH"], &[], &["KILL"], &["NO_SUCH"])]
    fn capabilities_are_added_and_dropped(
        #[case] add: &[&str],
        #[case] drop: &[&str],
        #[case] present: &[&str],
        #[case] absent: &[&str],
    ) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security =
            Security { add_capabilities: owned(add), drop_capabilities: owned(drop), ..Security::default() };
        let names = names(&security, false);
        assert!(present.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(!absent.iter().any(|name| names.contains(name)), "{names:?}");
    }

    #[test]
    fn every_name_is_known_to_the_specification() {
        assert!(ALL.into_iter().all(|name| Capability::from_str(name).is_ok()));
    }

    #[test]
    fn what_this_process_may_not_pass_on_is_left_out() {
        let planned =
            plan(&Security { privileged: true, ..Security::default() }, false, &BTreeSet::from(["KILL"]));
        assert_eq!(planned.bounding().clone(), Some(Capabilities::from([Capability::Kill])));
    }
}
