//! A container's writable file system: an overlayfs mount on top of an image's layers.

use crate::ImageError;
use crate::store::ImageStore;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the kernel takes as mount options: one page.
const OPTIONS_LIMIT: usize = 4096;

impl ImageStore {
    fn snapshot(&self, key: &str) -> Result<PathBuf, ImageError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if key.is_empty() || key.starts_with('.') || key.len() > 200 || !key.bytes().all(plain) {
            return Err(ImageError::Io {
                step: "naming snapshot",
                object: key.to_owned(),
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        Ok(self.root().join("snapshots").join(key))
    }

    pub(crate) fn mount_snapshot(&self, image_id: &str, key: &str) -> Result<PathBuf, ImageError> {
        let snapshot = self.snapshot(key)?;
        let merged = snapshot.join("root");
        if is_mount_point(&merged) {
            return Ok(merged);
        }
        let image = self.record(image_id)?.ok_or_else(|| ImageError::NotFound(image_id.to_owned()))?;
        let fail = |source| ImageError::Io { step: "mounting snapshot", object: key.to_owned(), source };
        let (upper, work) = (snapshot.join("upper"), snapshot.join("work"));
        for directory in [&merged, &upper, &work] {
            std::fs::create_dir_all(directory).map_err(fail)?;
        }
        // Before the mount: from now on the layers are in use.
        std::fs::write(snapshot.join("layers"), image.layers.join("\n")).map_err(fail)?;
        // overlayfs lists the topmost layer first; the image lists it last.
        let mut lower: Vec<PathBuf> = image.layers.iter().rev().map(|layer| self.layer(layer)).collect();
        if lower.is_empty() {
            let empty = snapshot.join("empty");
            std::fs::create_dir_all(&empty).map_err(fail)?;
            lower.push(empty);
        }
        let options = options(&lower, &upper, &work).map_err(fail)?;
        // A device node that an image carries must not open the host's device.
        // A device node that an image carries must not open the host's device.
        rustix::mount::mount("overlay", &merged, "overlay", MountFlags::NODEV, options.as_c_str())
            .map_err(|e| fail(e.into()))?;
        Ok(merged)
    }

    pub(crate) fn unmount_snapshot(&self, key: &str) -> Result<(), ImageError> {
        let snapshot = self.snapshot(key)?;
        let fail = |source| ImageError::Io { step: "unmounting snapshot", object: key.to_owned(), source };
        match rustix::mount::unmount(snapshot.join("root"), UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(other) => return Err(fail(other.into())),
        }
        crate::remove_tree(&snapshot).map_err(fail)
    }

    /// The directories of the layers a snapshot stands on.
    pub(crate) fn snapshot_layers(&self, key: &str) -> Result<Vec<PathBuf>, ImageError> {
        match std::fs::read_to_string(self.snapshot(key)?.join("layers")) {
            Ok(text) => Ok(text.lines().map(|layer| self.layer(layer)).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => {
                Err(ImageError::Io { step: "reading layers of snapshot", object: key.to_owned(), source })
            }
        }
    }

    pub(crate) fn snapshot_keys(&self) -> Result<Vec<String>, ImageError> {
        let directory = self.root().join("snapshots");
        let fail = |source| ImageError::Io {
            step: "listing snapshots in",
            object: directory.display().to_string(),
            source,
        };
        let entries = std::fs::read_dir(&directory).map_err(fail)?;
        entries
            .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(fail))
            .collect()
    }
}

/// Directories with what containers wrote over their images, of the snapshots of the store at `root` whose key begins
/// with `prefix`. Empty if there is no store.
pub fn written(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("snapshots")).into_iter().flatten().flatten();
    let wanted = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    wanted.map(|entry| entry.path().join("upper")).collect()
}

/// Colons separate layers and commas options, so neither may stand in a path.
fn options(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<CString> {
    let mut text = b"lowerdir=".to_vec();
    for (i, layer) in lower.iter().enumerate() {
        if i > 0 {
            text.push(b':');
        }
        text.extend(layer.as_os_str().as_bytes());
    }
    for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
        text.extend(name.as_bytes());
        text.extend(path.as_os_str().as_bytes());
    }
    if lower
        .iter()
        .map(PathBuf::as_path)
        .chain([upper, work])
        .any(|p| p.as_os_str().as_bytes().iter().any(|b| matches!(b, b':' | b',' | b'\\')))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the data directory's path has a ':', ',' or '\\', which overlayfs cannot mount; use another --data-dir",
        ));
    }
    if text.len() >= OPTIONS_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} layers make {} bytes of mount options, over the kernel's {OPTIONS_LIMIT}; use a shorter --data-dir or an image with fewer layers",
                lower.len(),
                text.len()
            ),
        ));
    }
    CString::new(text).map_err(io::Error::other)
}

/// Whether something is mounted exactly here.
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some(parent) = path.parent() else { return true };
    match (std::fs::metadata(path), std::fs::metadata(parent)) {
        (Ok(here), Ok(above)) => here.dev() != above.dev(),
        _ => false,
    }
}
