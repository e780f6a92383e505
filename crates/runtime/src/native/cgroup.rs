//! Control groups under version 1, hybrid and version 2: finding them, killing what is in them, removing them.
//!
//! Making them and setting limits is libcontainer's.

use super::process;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Mount point.
    pub(crate) mount: PathBuf,
    /// Controllers of a version 1 hierarchy (`name=…` for one without); empty for version 2.
    pub(crate) controllers: Vec<String>,
    /// Whether it is version 2.
    pub(crate) unified: bool,
}

/// All mounted hierarchies.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Reads what is mounted.
    pub(crate) fn detect() -> io::Result<Self> {
        Ok(Self { hierarchies: hierarchies_in(&fs::read_to_string("/proc/self/mountinfo")?) })
    }

    /// Whether only version 2 is there.
    pub(crate) fn is_unified(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.unified && hierarchy.mount == Path::new(MOUNT))
    }

    /// Whether a limit of this controller can be set.
    pub(crate) fn has_controller(&self, name: &str) -> bool {
        if self.is_unified() {
            let available =
                fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers")).unwrap_or_default();
            return available.split_ascii_whitespace().any(|controller| controller == name);
        }
        self.hierarchies
            .iter()
            .any(|hierarchy| hierarchy.controllers.iter().any(|controller| controller == name))
    }

    /// Whether swap is accounted, so that it can be limited.
    pub(crate) fn accounts_swap(&self) -> bool {
        if self.is_unified() {
            return fs::read_dir(MOUNT)
                .into_iter()
                .flatten()
                .flatten()
                .any(|entry| entry.path().join("memory.swap.max").exists());
        }
        self.directories("").iter().any(|directory| directory.join("memory.memsw.limit_in_bytes").exists())
    }

    /// The directories of a cgroup that exist.
    pub(crate) fn directories(&self, path: &str) -> Vec<PathBuf> {
        self.hierarchies
            .iter()
            .map(|hierarchy| hierarchy.mount.join(path))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Moves the calling process into a cgroup of every hierarchy that only tracks processes and limits nothing. What
    /// it starts stays there, and whoever stops the cgroup Sagong was started in (systemd, for a unit) leaves it alone.
    pub(crate) fn detach_self(&self, path: &str) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let tracks =
                hierarchy.unified || hierarchy.controllers.iter().all(|name| name.starts_with("name="));
            if tracks {
                let directory = hierarchy.mount.join(path);
                fs::create_dir_all(&directory)?;
                fs::write(directory.join("cgroup.procs"), "0")?;
            }
        }
        Ok(())
    }

    /// Moves a process into a cgroup of every hierarchy, making it.
    pub(crate) fn take_in(&self, path: &str, pid: u32) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            // Nothing can be put into one whose processors are not chosen.
            if hierarchy.controllers.iter().any(|name| name == "cpuset") {
                continue;
            }
            let directory = hierarchy.mount.join(path);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// The files that count processes killed for want of memory.
    pub(crate) fn oom_counters(&self, path: &str) -> Vec<PathBuf> {
        let files = ["memory.events", "memory.oom_control"];
        let all =
            self.directories(path).into_iter().flat_map(|directory| files.map(|file| directory.join(file)));
        all.filter(|file| file.exists()).collect()
    }

    /// Kills every process in a cgroup and below and waits for their end; false if some remain.
    pub(crate) fn kill(&self, path: &str, allowed: Duration) -> bool {
        let deadline = Instant::now() + allowed;
        loop {
            let mut found = BTreeSet::new();
            for directory in self.directories(path) {
                let members = members(&directory);
                if !members.is_empty() {
                    let _ = fs::write(directory.join("cgroup.kill"), "1");
                }
                found.extend(members);
            }
            found.remove(&std::process::id());
            if found.is_empty() {
                return true;
            }
            for pid in found {
                kill_member(pid, path, deadline);
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Removes a cgroup with those below it. The kernel may hold one for a moment after its last process ended.
    pub(crate) fn remove(&self, path: &str, allowed: Duration) -> io::Result<()> {
        let deadline = Instant::now() + allowed;
        for directory in self.directories(path) {
            loop {
                match remove_directory(&directory) {
                    Ok(()) => break,
                    Err(error) if Instant::now() >= deadline => {
                        return Err(io::Error::new(
                            error.kind(),
                            format!("{}: {error}", directory.display()),
                        ));
                    }
                    // The kernel has no event for a cgroup that became removable.
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        }
        Ok(())
    }

    /// Removes a cgroup if it is empty.
    pub(crate) fn prune(&self, path: &str) {
        for directory in self.directories(path) {
            let _ = fs::remove_dir(directory);
        }
    }
}

pub(super) fn ignore(kind: io::ErrorKind) -> impl Fn(io::Error) -> io::Result<()> {
    move |error| if error.kind() == kind { Ok(()) } else { Err(error) }
}

fn hierarchies_in(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo.lines().filter_map(hierarchy_in).collect()
}

fn hierarchy_in(line: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mount = PathBuf::from(before.split(' ').nth(4)?);
    if !mount.starts_with(MOUNT) {
        return None;
    }
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1).unwrap_or_default();
    const CONTROLLERS: [&str; 13] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    ];
    match kind {
        "cgroup2" => Some(Hierarchy { mount, controllers: Vec::new(), unified: true }),
        "cgroup" => {
            let controllers = options
                .split(',')
                .filter(|option| option.starts_with("name=") || CONTROLLERS.contains(option))
                .map(str::to_owned)
                .collect();
            Some(Hierarchy { mount, controllers, unified: false })
        }
        _ => None,
    }
}

/// Ids of the processes in a cgroup and below.
fn members(directory: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut found: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in subdirectories(directory) {
        found.extend(members(&child));
    }
    found
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The id was read from a file and may have been given to another process since: only one that is in the cgroup now
/// is killed.
fn kill_member(pid: u32, path: &str, deadline: Instant) {
    let Ok(Some(handle)) = process::open(pid) else { return };
    let inside = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| {
        text.lines().any(|line| line.ends_with(path) || line.contains(&format!("{path}/")))
    });
    if inside {
        let _ = process::signal(&handle, rustix::process::Signal::KILL.as_raw());
        process::wait_ended(&handle, deadline.saturating_duration_since(Instant::now()));
        process::reap(&handle);
    }
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    for child in subdirectories(directory) {
        remove_directory(&child)?;
    }
    fs::remove_dir(directory).or_else(ignore(io::ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let found = hierarchies_in(
            "30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             31 20 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             33 20 0:29 / /data rw - ext4 /dev/vda rw\n",
        );
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].controllers, ["name=systemd"]);
        assert!(found[2].unified);
        assert!(!Cgroups { hierarchies: found }.is_unified());
    }

    #[test]
    fn a_mount_of_version_2_at_the_root_is_unified() {
        let found =
            hierarchies_in("30 20 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(Cgroups { hierarchies: found }.is_unified());
    }
}
