//! What is mounted in a container.

use super::Inputs;
use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{Mount, MountBuilder};
use std::path::{Path, PathBuf};

/// All mounts in the order in which they are made.
pub(super) fn plan(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = system(inputs)?;
    mounts.extend(cgroups(inputs)?);
    let mut own = Vec::new();
    for mount in &inputs.container.mounts {
        let mode = match (mount.recursive_read_only, mount.read_only) {
            (true, _) => "rro",
            (false, true) => "ro",
            (false, false) => "rw",
        };
        // What the host mounts below later is seen (`HostToContainer`): libcontainer makes every mount a slave of the
        // host's and passes over what is said about that.
        own.push(bind(&mount.host_path, Path::new(&mount.container_path), &["rbind", "rslave", mode])?);
    }
    // What is mounted inside of another mount has to come after it.
    own.sort_by_key(|mount| mount.destination().components().count());
    mounts.retain(|mount| !own.iter().any(|other| other.destination() == mount.destination()));
    mounts.extend(own);
    Ok(mounts)
}

fn system(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let sys = if inputs.container.security.privileged { "rw" } else { "ro" };
    Ok(vec![
        file_system("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        file_system("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        file_system(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        file_system("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        file_system("sysfs", "/sys", &["nosuid", "noexec", "nodev", sys])?,
        bind(&inputs.pins.shared_memory, Path::new("/dev/shm"), &["rbind", "nosuid", "noexec", "nodev"])?,
    ])
}

/// Under version 1 each hierarchy is bound by itself: libcontainer would mount them writable, and with them the
/// host's root of hierarchies the container is in no cgroup of.
fn cgroups(inputs: &Inputs<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mode = if inputs.container.security.privileged { "rw" } else { "ro" };
    let options = ["nosuid", "noexec", "nodev", "relatime", mode];
    let root = PathBuf::from("/sys/fs/cgroup");
    if inputs.machine.unified {
        return Ok(vec![file_system("cgroup", "/sys/fs/cgroup", &options)?]);
    }
    let mut mounts =
        vec![file_system("tmpfs", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"])?];
    for hierarchy in inputs.machine.hierarchies {
        // Those that libcontainer puts no container into are left out.
        const UNUSED: [&str; 1] = ["rdma"];
        let used = |name: &&String| !name.starts_with("name=") && !UNUSED.contains(&name.as_str());
        let Some(name) =
            hierarchy.mount.file_name().filter(|_| hierarchy.controllers.iter().any(|name| used(&name)))
        else {
            continue;
        };
        let source = hierarchy.mount.join(inputs.cgroup);
        let options = ["bind", "nosuid", "noexec", "nodev", "relatime", mode];
        mounts.push(bind(&source, &root.join(name), &options)?);
        // Controllers mounted together are found under each one's name as well.
        for controller in hierarchy.controllers.iter().filter(|controller| controller.as_str() != name) {
            mounts.push(bind(&source, &root.join(controller), &options)?);
        }
    }
    Ok(mounts)
}

fn file_system(kind: &str, destination: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let source = if destination == "/dev/shm" { "shm" } else { kind };
    MountBuilder::default().typ(kind).source(source).destination(destination).options(owned(options)).build()
}

fn bind(source: &Path, destination: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(owned(options))
        .build()
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|option| (*option).to_owned()).collect()
}
