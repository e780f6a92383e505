//! `emptyDir`: empty when the pod starts, kept over restarts of its containers, gone with the pod.

use crate::quantity;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Magic number of a tmpfs.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Makes the directory, in memory if the medium says so. `group`: `fsGroup`.
pub(super) fn make(source: &EmptyDirVolumeSource, path: &Path, group: Option<u32>) -> Result<(), String> {
    let medium = source.medium.as_deref().unwrap_or_default();
    if !matches!(medium, "" | "Memory") {
        return Err(format!("medium {medium:?} is not supported: this node has no huge pages"));
    }
    let is_memory = medium == "Memory";
    if path.exists() && (!is_memory || is_tmpfs(path)) {
        return Ok(());
    }
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(path).map_err(text)?;
    if is_memory {
        let bytes = source.size_limit.as_ref().and_then(|q| quantity::milli(&q.0)).map(|milli| milli / 1000);
        in_memory(path, bytes.filter(|bytes| *bytes > 0))?;
    }
    // Any user may write, as upstream has it: containers of one pod may run as different ones. What they make belongs
    // to the pod's group, if it has one.
    std::os::unix::fs::chown(path, None, group).map_err(text)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(text)
}

/// Makes the directory and mounts memory there, unless it is: of at most so many bytes.
pub(super) fn in_memory(path: &Path, bytes: Option<i128>) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    if is_tmpfs(path) {
        return Ok(());
    }
    let options = bytes.map(|bytes| format!("size={bytes}")).and_then(|text| CString::new(text).ok());
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_deref())
        .map_err(|error| format!("mounting tmpfs: {error}"))
}

/// Whether memory is mounted at this very place: the data directory itself may be on one.
fn is_tmpfs(path: &Path) -> bool {
    let is_memory = rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS);
    let device =
        |path: &Path| std::fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::dev(&found)).ok();
    is_memory && path.parent().is_some_and(|parent| device(parent) != device(path))
}

/// Unmounts what is in memory, so that the directories can be removed.
pub(super) fn unmount_all(volumes: &Path) {
    let Ok(entries) = std::fs::read_dir(volumes) else { return };
    for entry in entries.flatten() {
        // Most are no mounts, and then this fails and changes nothing.
        while unmount(entry.path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    }
}
