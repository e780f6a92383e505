//! The program of the shims, where no container can write to it.
//!
//! On its way into a container, and while it executes a command in one, a shim is seen there, and with it the file it
//! runs (`/proc/PID/exe`). A container's root could wait until nobody runs that file any more and write to it (CVE-2019-5736).
//! So shims run it from a mount of its own that is read-only.

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where it is mounted, in the directory of what is pinned.
const PLACE: &str = "sagong-shim";

/// Mounts it and tells where; an earlier one goes, as this may be of another version.
///
/// # Errors
/// If it cannot be mounted.
pub(super) fn guard(program: &Path, run: &Path) -> io::Result<PathBuf> {
    let place = run.join(PLACE);
    File::options().create(true).append(true).open(&place).or_else(|error| {
        // One that is mounted cannot be opened for writing.
        if place.exists() { File::open(&place) } else { Err(error) }
    })?;
    while unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    mount_bind(program, &place)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if let Err(error) = mount_remount(&place, flags, c"") {
        let _ = unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        return Err(error.into());
    }
    Ok(place)
}
