//! `emptyDir`: empty when the pod starts, kept over restarts of its containers, gone with the pod.

use crate::quantity;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes the directory, in memory if the medium says so.
pub(super) fn make(source: &EmptyDirVolumeSource, path: &Path) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(path).map_err(text)?;
    if source.medium.as_deref() == Some("Memory") {
        let bytes = source.size_limit.as_ref().and_then(|q| quantity::milli(&q.0)).map(|milli| milli / 1000);
        let options = bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("size={bytes}"));
        let options = options.and_then(|text| CString::new(text).ok());
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_deref())
            .map_err(|error| format!("mounting tmpfs: {error}"))?;
    }
    // Any user may write, as upstream has it: containers of one pod may run as different ones.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).map_err(text)
}

/// Unmounts what is in memory, so that the directories can be removed.
pub(super) fn unmount_all(volumes: &Path) {
    let Ok(entries) = std::fs::read_dir(volumes) else { return };
    for entry in entries.flatten() {
        // Most are no mounts, and then this fails and changes nothing.
        while unmount(entry.path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    }
}
