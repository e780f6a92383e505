//! Devices of a container, and which it may use.

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Rules of the devices controller: all for privileged containers, else the harmless ones that libcontainer adds.
pub(super) fn rules(
    privileged: bool,
    devices: &[LinuxDevice],
) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let every = LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build()?;
    let mut every = vec![every];
    every[0].set_typ(Some(LinuxDeviceType::A));
    for device in devices.iter().filter(|_| privileged) {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(device.typ())
            .major(device.major())
            .minor(device.minor())
            .access("rwm");
        every.push(rule.build()?);
    }
    Ok(every)
}

/// The host's devices, for privileged containers.
pub(crate) fn host_devices() -> Vec<LinuxDevice> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices);
    devices
}

fn collect(directory: &Path, devices: &mut Vec<LinuxDevice>) {
    // Mounted anew for each container, or links to its own descriptors.
    const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_none_or(|name| OWN.contains(&name)) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            collect(&entry.path(), devices);
            continue;
        }
        let kind = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => LinuxDeviceType::C,
            (_, true) => LinuxDeviceType::B,
            _ => continue,
        };
        let device = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(kind)
            .major(i64::from(rustix::fs::major(metadata.rdev())))
            .minor(i64::from(rustix::fs::minor(metadata.rdev())))
            .file_mode(metadata.mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid());
        devices.extend(device.build());
    }
}
