//! Whether containers can be put into cgroups on this machine, and making it fit where Sagong may.

use super::cgroup::{Cgroups, Hierarchy, MOUNT, ignore};
use std::fs;
use std::io;
use std::path::Path;

/// Says in one line why containers cannot be put into cgroups here, and what to do; nothing if they can. Changes
/// nothing that lasts.
pub fn check_cgroups() -> Result<(), String> {
    let cgroups = Cgroups::detect().map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
    if cgroups.hierarchies.is_empty() {
        return Err(format!(
            "no cgroups are mounted below {MOUNT}; mount them: mount -t cgroup2 none {MOUNT}"
        ));
    }
    let required: &[&str] =
        if cgroups.is_unified() { &["cpu", "memory"] } else { &["cpu", "memory", "devices"] };
    if let Some(missing) = required.iter().find(|name| !cgroups.has_controller(name)) {
        return Err(format!(
            "the cgroup controller {missing:?} is not available; enable it (kernel command line \
             cgroup_enable={missing}), or delegate it to this container"
        ));
    }
    for hierarchy in &cgroups.hierarchies {
        if hierarchy.unified || hierarchy.controllers.iter().any(|name| !name.starts_with("name=")) {
            probe(hierarchy)?;
        }
    }
    Ok(())
}

/// Limits that containers do not have here because the kernel's controller is missing, each as a sentence.
pub fn missing_limits() -> Vec<String> {
    let Ok(cgroups) = Cgroups::detect() else { return Vec::new() };
    let limits = [("pids", "a container may start any number of processes")];
    let missing = limits.into_iter().filter(|(controller, _)| !cgroups.has_controller(controller));
    missing.map(|(name, lack)| format!("The cgroup controller {name:?} is missing: {lack}")).collect()
}

fn probe(hierarchy: &Hierarchy) -> Result<(), String> {
    let mount = hierarchy.mount.display();
    let directory = hierarchy.mount.join(format!("sagong-probe-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&directory).or_else(ignore(io::ErrorKind::AlreadyExists)) {
        return Err(format!(
            "cannot make a cgroup in {mount}: {error}; run as root, with {mount} mounted read-write"
        ));
    }
    let _ = fs::remove_dir(&directory);
    Ok(())
}

impl Cgroups {
    /// Under version 2, passes the controllers on to the cgroups below the root. In a container what looks like the
    /// root is an ordinary cgroup, which may not hold processes and pass controllers on at once: then its processes,
    /// Sagong among them, move into a child, as other runtimes in containers do.
    pub(super) fn arrange(&self) -> io::Result<()> {
        if !self.is_unified() {
            return Ok(());
        }
        arrange_below(Path::new(MOUNT))
    }
}

fn arrange_below(root: &Path) -> io::Result<()> {
    match pass_on(root) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            evacuate(root)?;
            pass_on(root)
        }
        result => result,
    }
}

/// Passes all there are on; what cannot be is missed only by limits that need it.
fn pass_on(root: &Path) -> io::Result<()> {
    let available = fs::read_to_string(root.join("cgroup.controllers"))?;
    let mut busy = None;
    for controller in available.split_ascii_whitespace() {
        match fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => busy = Some(error),
            Err(error) => tracing::info!(controller, %error, "a cgroup controller cannot be passed on"),
            Ok(()) => {}
        }
    }
    busy.map_or(Ok(()), Err)
}

fn evacuate(root: &Path) -> io::Result<()> {
    let refuge = root.join("init");
    fs::create_dir(&refuge).or_else(ignore(io::ErrorKind::AlreadyExists))?;
    // Again while processes are being made.
    for _ in 0..10 {
        let members = fs::read_to_string(root.join("cgroup.procs"))?;
        if members.is_empty() {
            break;
        }
        for member in members.lines() {
            // Those that ended meanwhile, and the kernel's own, cannot be moved.
            let _ = fs::write(refuge.join("cgroup.procs"), member);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Remains(std::path::PathBuf, Child);

    impl Drop for Remains {
        fn drop(&mut self) {
            let _ = self.1.kill();
            let _ = self.1.wait();
            let _ = fs::remove_dir(self.0.join("init"));
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn processes_make_room_for_controllers() {
        let cgroups = Cgroups::detect().expect("cgroups");
        let unified = cgroups.hierarchies.iter().find(|hierarchy| hierarchy.unified).expect("version 2");
        let root = unified.mount.join(format!("sagong-fit-{}", std::process::id()));
        fs::create_dir(&root).expect("a cgroup");
        let child = Command::new("sleep").arg("600").spawn().expect("sleep");
        let remains = Remains(root.clone(), child);
        fs::write(root.join("cgroup.procs"), remains.1.id().to_string()).expect("moved");
        evacuate(&root).expect("evacuated");
        assert_eq!(fs::read_to_string(root.join("cgroup.procs")).expect("members"), "");
        let moved = fs::read_to_string(root.join("init/cgroup.procs")).expect("members");
        assert_eq!(moved.trim(), remains.1.id().to_string());
        arrange_below(&root).expect("arranged");
    }
}
