//! Removing every trace of an instance, whatever state it is in.

use super::cgroup::Cgroups;
use super::process;
use super::state::{Layout, Record, ShimRecord, StartRecord, children};
use super::{cgroup_root, failed};
use crate::RuntimeError;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use sagong_image::remove_tree;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long processes may take to end, and cgroups to become removable.
const ENDING: Duration = Duration::from_secs(10);

/// Ends every container and shim of an instance and removes its namespaces, cgroups and records (`root` and `run` of
/// [`super::Options`]). Nothing of it has to be sound or exist. Blocks for up to some seconds. Nobody else may use the
/// instance meanwhile. Log files and root file systems stay, they are others'.
///
/// # Errors
/// The first thing that could not be removed; all else was tried. Can be repeated.
pub fn destroy_all(instance: &str, root: &Path, run: &Path) -> Result<(), RuntimeError> {
    let layout = Layout { root: root.to_owned(), run: run.to_owned() };
    let group = cgroup_root(instance);
    let cgroups = Cgroups::detect().map_err(failed("reading", "/proc/self/mountinfo"))?;
    kill_recorded(&layout);
    let killed = if cgroups.kill(&group, ENDING) {
        Ok(())
    } else {
        Err(failed("killing the processes of cgroup", &group)("some remain"))
    };
    let unmounted = unmount_below(run).map_err(failed("unmounting", &run.display().to_string()));
    let removed = cgroups.remove(&group, ENDING).map_err(failed("removing cgroup", &group));
    let emptied = remove_tree(run).and_then(|()| remove_tree(root));
    let emptied = emptied.map_err(failed("removing", &format!("{} and {}", run.display(), root.display())));
    killed.and(unmounted).and(removed).and(emptied)
}

/// Containers first: their shims then end by themselves, having taken the containers' status. Where no hierarchy
/// tracks shims they are found only here.
fn kill_recorded(layout: &Layout) {
    let (mut shims, mut containers) = (Vec::new(), Vec::new());
    for id in children(&layout.containers()).unwrap_or_default() {
        let directory = layout.container(&id);
        let shim = ShimRecord::load(&directory).ok().flatten().map(|shim| shim.process);
        let container = StartRecord::load(&directory).ok().flatten().map(|started| started.process);
        shims.extend(shim.and_then(|process| process.open().ok().flatten()));
        containers.extend(container.and_then(|process| process.open().ok().flatten()));
    }
    for container in &containers {
        let _ = process::signal(container, Signal::KILL.as_raw());
    }
    for shim in &shims {
        if !process::wait_ended(shim, Duration::from_secs(1)) {
            let _ = process::signal(shim, Signal::KILL.as_raw());
            process::wait_ended(shim, ENDING);
        }
        process::reap(shim);
    }
}

fn unmount_below(directory: &Path) -> io::Result<()> {
    // The table has paths without links.
    let Ok(directory) = directory.canonicalize() else { return Ok(()) };
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut points = mount_points(&table);
    points.retain(|point| point.starts_with(&directory));
    // Later ones lie on earlier ones.
    for point in points.iter().rev() {
        unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|error| io::Error::other(format!("{}: {error}", point.display())))?;
    }
    Ok(())
}

fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field)))).collect()
}

/// The kernel writes blanks and backslashes as a backslash with three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_read() {
        let table = b"1 0 0:1 / /run/a\\040b\\134c rw - tmpfs t rw\n2 0 0:1 / /run/d rw - tmpfs t rw\n";
        assert_eq!(mount_points(table), [PathBuf::from("/run/a b\\c"), PathBuf::from("/run/d")]);
    }
}
