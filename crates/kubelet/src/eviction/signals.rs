//! What is left on the node, and who uses how much.

use crate::pod::view::PodView;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes in all.
    pub(crate) capacity: u64,
    /// Bytes that can be written.
    pub(crate) available: u64,
    /// Files in all; 0 if there is no such limit.
    pub(crate) files: u64,
    /// Files that can be made.
    pub(crate) files_free: u64,
}

/// What is left; None: not to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Bytes.
    pub(crate) memory_available: Option<u64>,
    /// Of the kubelet's directory.
    pub(crate) disk: Option<Disk>,
}

/// What a pod uses, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Memory.
    pub(super) memory: u64,
    /// Volumes and logs on disk.
    pub(super) disk: u64,
    /// Of `emptyDir` volumes with a limit, by name.
    pub(super) volumes: BTreeMap<String, u64>,
}

/// Looks at the node.
pub(super) fn node(data_dir: &Path) -> Node {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let disk = rustix::fs::statvfs(data_dir).ok().map(|found| Disk {
        capacity: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
        files: found.f_files,
        files_free: found.f_favail,
    });
    Node { memory_available: available(&meminfo), disk }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Counts what a pod uses. What cannot be read counts nothing.
pub(super) fn usage(data_dir: &Path, instance: &str, pod: &PodView) -> Usage {
    let volumes = data_dir.join("pods").join(&pod.uid).join("volumes");
    let limited = pod
        .budget
        .volume_limits
        .iter()
        .map(|limit| (limit.volume.clone(), size(&volumes.join(&limit.volume), None)));
    let logs = data_dir.join("logs").join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid));
    // Memory mounted in the pod's directory is no disk.
    let device = std::fs::metadata(data_dir).ok().map(|found| found.dev());
    Usage {
        memory: memory(instance, &pod.budget.cgroup).unwrap_or_default(),
        disk: size(&volumes, device).saturating_add(size(&logs, device)),
        volumes: limited.collect(),
    }
}

/// Bytes of memory of a pod's cgroup, under either version.
fn memory(instance: &str, cgroup: &str) -> Option<u64> {
    let path = format!("sagong-{instance}/{cgroup}");
    let files = [
        format!("/sys/fs/cgroup/memory/{path}/memory.usage_in_bytes"),
        format!("/sys/fs/cgroup/{path}/memory.current"),
    ];
    files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// Bytes that files below a directory take, links not followed; only those on `device`, if one is given.
fn size(directory: &Path, device: Option<u64>) -> u64 {
    let mut sum = 0_u64;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(found) = std::fs::symlink_metadata(entry.path()) else { continue };
        if device.is_some_and(|device| device != found.dev()) {
            continue;
        }
        // What is allocated, not what is said: sparse files take less.
        sum = sum.saturating_add(found.blocks().saturating_mul(512));
        if found.is_dir() {
            sum = sum.saturating_add(size(&entry.path(), device));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("nonsense"), None);
    }

    #[test]
    fn a_directory_is_as_large_as_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let size = size(dir.path(), None);
        assert!(((1 << 20)..(1 << 20) + 65536).contains(&size), "{size}");
    }

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let node = node(Path::new("/"));
        assert!(node.memory_available.unwrap() > 0 && node.disk.unwrap().capacity > 0);
    }
}
