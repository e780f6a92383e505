//! Paths of the kernel that are hidden from containers, and the working directory.

use crate::ContainerConfig;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

pub(super) fn masked() -> Vec<String> {
    [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .map(str::to_owned)
    .into()
}

pub(super) fn read_only(unified: bool) -> Vec<String> {
    let mut paths = vec!["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    if !unified {
        // The small file system that holds the hierarchies.
        paths.push("/sys/fs/cgroup");
    }
    paths.into_iter().map(str::to_owned).collect()
}

/// Makes the working directory if it is missing: in the root file system, or in the writable mount that holds it.
/// Links are followed as the container would, never out of its root.
pub(crate) fn make_working_directory(container: &ContainerConfig) -> io::Result<()> {
    let wanted = Path::new(&container.working_dir);
    let holder = container
        .mounts
        .iter()
        .filter_map(|mount| Some((mount, wanted.strip_prefix(&mount.container_path).ok()?)))
        .min_by_key(|(_, rest)| rest.components().count());
    let (root, rest, writable) = match holder {
        Some((mount, rest)) => (mount.host_path.as_path(), rest, !mount.read_only),
        None => (container.root.as_path(), wanted, true),
    };
    if writable && root.is_dir() { make_inside(root, rest) } else { Ok(()) }
}

fn make_inside(root: &Path, path: &Path) -> io::Result<()> {
    let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, directory | OFlags::PATH, Mode::empty())?;
    let mut walked = std::path::PathBuf::from(".");
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let parent = openat2(&root, &walked, directory, Mode::empty(), ResolveFlags::IN_ROOT)?;
        make_one(&parent, name)?;
        walked.push(name);
    }
    Ok(())
}

fn make_one(parent: &rustix::fd::OwnedFd, name: &OsStr) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        // A read-only root: what is missing is then reported by the start.
        Err(rustix::io::Errno::ROFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_the_root_leads_into_it() {
        let root = tempfile::tempdir().expect("root");
        std::fs::create_dir(root.path().join("tmp")).expect("tmp");
        std::os::unix::fs::symlink("/tmp", root.path().join("link")).expect("link");
        let name = format!("sagong-{}", std::process::id());
        make_inside(root.path(), Path::new(&format!("/link/{name}/deeper"))).expect("made");
        assert!(root.path().join("tmp").join(&name).join("deeper").is_dir());
        assert!(!Path::new("/tmp").join(name).exists());
    }
}
