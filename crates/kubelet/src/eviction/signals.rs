//! What is left on the node, and who uses how much.

use super::limits::Subject;
use crate::pod::view::PodView;
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// Volumes, logs and what containers wrote beside them, on disk.
    pub(super) disk: u64,
    /// On disk, of what has a limit.
    pub(super) limited: BTreeMap<Subject, u64>,
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
    let logs = data_dir.join("logs").join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid));
    // What its containers wrote beside their volumes.
    let written = |prefix: &str| sagong_image::written(&data_dir.join("images"), prefix);
    // Memory mounted in the pod's directory is no disk.
    let device = std::fs::metadata(data_dir).ok().map(|found| found.dev());
    let sum = |directories: Vec<PathBuf>| {
        directories.iter().map(|directory| size(directory, device)).fold(0, u64::saturating_add)
    };
    let with = |place: PathBuf, mut others: Vec<PathBuf>| {
        others.push(place);
        others
    };
    let disk = sum(with(volumes.clone(), with(logs.clone(), written(&format!("{}_", pod.uid)))));
    let measure = |subject: &Subject| match subject {
        Subject::Volume(name) => size(&volumes.join(name), None),
        Subject::Pod => disk,
        Subject::Container(name) => sum(with(logs.join(name), written(&format!("{}_{name}_", pod.uid)))),
    };
    let limits = pod.budget.storage_limits.iter();
    Usage {
        memory: memory(instance, &pod.budget.cgroup).unwrap_or_default(),
        limited: limits.map(|limit| (limit.subject.clone(), measure(&limit.subject))).collect(),
        disk,
    }
}

/// Bytes of memory of a pod's cgroup, under either version, that the kernel could not simply take back: its working
/// set, as upstream ranks pods.
fn memory(instance: &str, cgroup: &str) -> Option<u64> {
    let path = format!("sagong-{instance}/{cgroup}");
    let versions = [
        (format!("/sys/fs/cgroup/memory/{path}"), "memory.usage_in_bytes", "total_inactive_file "),
        (format!("/sys/fs/cgroup/{path}"), "memory.current", "inactive_file "),
    ];
    versions.iter().find_map(|(directory, usage, inactive)| {
        let read = |name: &str| std::fs::read_to_string(format!("{directory}/{name}")).ok();
        working_set(&read(usage)?, &read("memory.stat").unwrap_or_default(), inactive)
    })
}

/// From the text of the file with what is used, and of the one with what for.
fn working_set(usage: &str, stat: &str, inactive: &str) -> Option<u64> {
    let used: u64 = usage.trim().parse().ok()?;
    let unused = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse().ok());
    Some(used.saturating_sub(unused.unwrap_or(0)))
}

/// Bytes that files below a directory take, links not followed and a file of several names counted once; only those
/// on `device`, if one is given. Containers nest directories as deep as they like: no recursion, and no path longer
/// than the kernel takes.
fn size(directory: &Path, device: Option<u64>) -> u64 {
    let (mut sum, mut counted) = (0_u64, HashSet::new());
    let mut directories = vec![Place { path: directory.to_owned(), base: None }];
    while let Some(place) = directories.pop() {
        for entry in std::fs::read_dir(&place.path).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if device.is_some_and(|device| device != found.dev())
                || found.nlink() > 1 && !found.is_dir() && !counted.insert((found.dev(), found.ino()))
            {
                continue;
            }
            // What is allocated, not what is said: sparse files take less.
            sum = sum.saturating_add(found.blocks().saturating_mul(512));
            if found.is_dir() {
                directories.extend(place.below(&entry.file_name()));
            }
        }
    }
    sum
}

/// A directory that is still to be looked at.
struct Place {
    path: PathBuf,
    /// The open directory that the path begins at, once the path from the top would be too long.
    base: Option<Arc<OwnedFd>>,
}

/// Paths stay shorter than this (the kernel takes 4096 bytes, a name has up to 255).
const LONGEST: usize = 2048;

impl Place {
    /// None when it is gone.
    fn below(&self, name: &OsStr) -> Option<Self> {
        let path = self.path.join(name);
        if path.as_os_str().len() < LONGEST {
            return Some(Self { path, base: self.base.clone() });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let base = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
        let path = format!("/proc/self/fd/{}", base.as_raw_fd()).into();
        Some(Self { path, base: Some(Arc::new(base)) })
    }
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
    fn what_the_kernel_would_take_back_is_not_needed() {
        let stat = "cache 9\ninactive_file 7\ntotal_inactive_file 30\n";
        assert_eq!(working_set("100\n", stat, "total_inactive_file "), Some(70));
        assert_eq!(working_set("100\n", stat, "inactive_file "), Some(93));
        assert_eq!(working_set("5\n", stat, "inactive_file "), Some(0));
        assert_eq!(working_set("5\n", "", "inactive_file "), Some(5));
        assert_eq!(working_set("", stat, "inactive_file "), None);
    }

    #[test]
    fn what_is_written_beside_volumes_counts() {
        let dir = tempfile::tempdir().unwrap();
        let pod = PodView { uid: "u".into(), ..Default::default() };
        let before = usage(dir.path(), "none", &pod).disk;
        for (key, name) in [("u_main_0", "upper"), ("u_main_0", "root"), ("other_main_0", "upper")] {
            let layer = dir.path().join("images/snapshots").join(key).join(name);
            std::fs::create_dir_all(&layer).unwrap();
            std::fs::write(layer.join("file"), vec![1; 1 << 20]).unwrap();
        }
        let more = usage(dir.path(), "none", &pod).disk - before;
        assert!(((1 << 20)..(1 << 20) + 65536).contains(&more), "{more}");
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
    fn depth_hides_nothing_and_a_second_name_adds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = std::fs::File::open(dir.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, "deep", flags, Mode::empty()).unwrap().into();
        }
        let empty = size(dir.path(), None);
        let file = dir.path().join("file");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        for name in ["first", "second"] {
            rustix::fs::linkat(rustix::fs::CWD, &file, &at, name, rustix::fs::AtFlags::empty()).unwrap();
        }
        std::fs::remove_file(&file).unwrap();
        let more = size(dir.path(), None) - empty;
        sagong_image::remove_tree(dir.path()).unwrap();
        assert!(((1 << 20)..(1 << 20) + 65536).contains(&more), "{more}");
    }

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let node = node(Path::new("/"));
        assert!(node.memory_available.unwrap() > 0 && node.disk.unwrap().capacity > 0);
    }
}
