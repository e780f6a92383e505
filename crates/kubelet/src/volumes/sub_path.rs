//! `subPath`: a part of a volume instead of the whole.
//!
//! What is in a volume is written by containers, and they may write at any moment: a path that was checked may lead
//! elsewhere when it is used (CVE-2017-1002101, CVE-2021-25741). So a path is walked once, by the kernel, which is told
//! never to leave the volume; missing directories are made below descriptors; and what was found is mounted, by its
//! descriptor, at a place no container can write to. Only that place's path is given away.

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Where the parts of a pod's volumes are mounted, in the pod's directory.
const PLACES: &str = "volume-subpaths";
/// How often a walk that was disturbed by renames is tried again.
const WALKS: usize = 16;

/// The part of a volume that one mount of one container shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// The pod's directory.
    pub(super) pod_dir: &'a Path,
    /// Name of the volume.
    pub(super) volume: &'a str,
    /// Name of the container.
    pub(super) container: &'a str,
    /// Which of the container's mounts it is.
    pub(super) index: usize,
}

impl Part<'_> {
    /// Mounts what is at `sub` in the volume at `root`, making directories that are missing, and gives the place: safe
    /// to be named, whatever containers do to the volume meanwhile. What an earlier run had there is let go.
    ///
    /// # Errors
    /// The sentence to show. Nothing outside of the volume was touched then.
    pub(super) fn mount(self, root: &Path, sub: &str) -> Result<PathBuf, String> {
        let found = open(root, sub)?;
        let place = self.pod_dir.join(PLACES).join(self.volume).join(self.container);
        let place = place.join(self.index.to_string());
        let text = |error: io::Error| error.to_string();
        clear(&place).map_err(text)?;
        let is_directory = File::from(found.try_clone().map_err(text)?).metadata().map_err(text)?.is_dir();
        std::fs::create_dir_all(if is_directory { Some(&*place) } else { place.parent() }.unwrap_or(&place))
            .map_err(text)?;
        if !is_directory {
            File::create_new(&place).map_err(text)?;
        }
        mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), &place)
            .map_err(|error| format!("mounting {sub:?}: {error}"))?;
        Ok(place)
    }
}

/// Lets go of all parts of a pod's volumes.
///
/// # Errors
/// If one stays mounted: nothing above it may be removed then, or the volume's contents would be.
pub(super) fn unmount_all(pod_dir: &Path) -> io::Result<()> {
    let top = pod_dir.join(PLACES);
    for volume in entries(&top)? {
        for container in entries(&volume)? {
            entries(&container)?.iter().try_for_each(|place| clear(place))?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Unmounts what is at a place and removes it. Never what is in it: if that is not empty it is no place of ours.
fn clear(place: &Path) -> io::Result<()> {
    while unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    let removed = match std::fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => std::fs::remove_dir(place),
        Ok(_) => std::fs::remove_file(place),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What is at `sub` in the volume at `root`; a directory is made there if nothing is.
fn open(root: &Path, sub: &str) -> Result<OwnedFd, String> {
    let leaves = || format!("{sub:?} leaves the volume");
    let mut parts = Vec::new();
    for part in Path::new(sub).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return Err(leaves()),
        }
    }
    let text = |error: Errno| match error {
        Errno::XDEV => leaves(),
        error => format!("{sub:?}: {error}"),
    };
    // The root is named by the pod's spec or made by the kubelet: no container can exchange it.
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(root, directory, Mode::empty()).map_err(text)?;
    // As much of it as there is, and then the rest, step by step.
    for there in (1..=parts.len()).rev() {
        let path: PathBuf = parts[..there].iter().collect();
        match walk(&root, &path) {
            Ok(found) => return make_all(&root, found, &parts[there..]).map_err(text),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(text(error)),
        }
    }
    let start = walk(&root, Path::new(".")).map_err(text)?;
    make_all(&root, start, &parts).map_err(text)
}

/// Follows links as long as they stay in the volume.
fn walk(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let attempt = || fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    // The kernel gives up a walk through `..` beside which something is renamed.
    let disturbed = |found: &Result<OwnedFd, Errno>| matches!(found, Err(Errno::AGAIN));
    (1..WALKS).map(|_| attempt()).find(|found| !disturbed(found)).unwrap_or_else(attempt)
}

/// Makes directories one in the other, each as the volume's own: whoever may write there may write here, too.
fn make_all(root: &OwnedFd, mut at: OwnedFd, parts: &[&std::ffi::OsStr]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for part in parts {
        let made = match fs::mkdirat(&at, *part, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        // What is there may have been put there since: a link is not followed.
        at = fs::openat(&at, *part, flags, Mode::empty())?;
        if made {
            let volume = fs::fstat(root)?;
            let group = rustix::process::Gid::from_raw(volume.st_gid);
            fs::fchown(&at, None, Some(group))?;
            fs::fchmod(&at, Mode::from_raw_mode(volume.st_mode & 0o7777))?;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, symlink};

    /// A pod's directory with a volume, and a directory beside it that no container may reach.
    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["volume", "outside", "pod"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            Bench { dir }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn mount(&self, sub: &str) -> Result<PathBuf, String> {
            let pod_dir = self.at("pod");
            let part = Part { pod_dir: &pod_dir, volume: "v", container: "c", index: 0 };
            part.mount(&self.at("volume"), sub)
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = unmount_all(&self.at("pod"));
        }
    }

    #[rstest]
    #[case("..")]
    #[case("../outside/made")]
    #[case("/etc")]
    #[case("absolute")]
    #[case("absolute/made")]
    #[case("relative/made")]
    #[case("dangling")]
    #[case("dangling/made")]
    fn nothing_outside_of_the_volume_is_shown_or_made(#[case] sub: &str) {
        let bench = Bench::new();
        symlink(bench.at("outside"), bench.at("volume/absolute")).unwrap();
        symlink("../outside", bench.at("volume/relative")).unwrap();
        symlink("../outside/made", bench.at("volume/dangling")).unwrap();
        assert!(bench.mount(sub).is_err());
        assert_eq!(std::fs::read_dir(bench.at("outside")).unwrap().count(), 0);
        assert!(!bench.at("pod/volume-subpaths").exists());
    }

    #[test]
    fn links_within_the_volume_lead_on() {
        let bench = Bench::new();
        std::fs::create_dir_all(bench.at("volume/a/b")).unwrap();
        std::fs::write(bench.at("volume/a/file"), "here").unwrap();
        symlink("a/b", bench.at("volume/link")).unwrap();
        symlink("../file", bench.at("volume/a/b/up")).unwrap();
        assert_eq!(std::fs::read_to_string(bench.mount("link/up").unwrap()).unwrap(), "here");
        bench.mount("link/new/deep").unwrap();
        assert!(bench.at("volume/a/b/new/deep").is_dir());
    }

    #[test]
    fn what_is_exchanged_later_is_not_seen() {
        let bench = Bench::new();
        std::fs::create_dir(bench.at("volume/sub")).unwrap();
        std::fs::write(bench.at("volume/sub/file"), "right").unwrap();
        std::fs::write(bench.at("outside/file"), "wrong").unwrap();
        let place = bench.mount("sub").unwrap();
        std::fs::rename(bench.at("volume/sub"), bench.at("volume/gone")).unwrap();
        symlink(bench.at("outside"), bench.at("volume/sub")).unwrap();
        assert_eq!(std::fs::read_to_string(place.join("file")).unwrap(), "right");
    }

    #[rstest]
    #[case(0o777)]
    #[case(0o2775)]
    fn new_directories_are_as_the_volume(#[case] mode: u32) {
        let bench = Bench::new();
        let volume = File::open(bench.at("volume")).unwrap();
        fchown(&volume, None, Some(4711)).unwrap();
        volume.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        bench.mount("a/b").unwrap();
        for path in ["volume/a", "volume/a/b"] {
            let found = std::fs::metadata(bench.at(path)).unwrap();
            assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (mode, 4711), "{path}");
        }
        // What is there stays as it is.
        std::fs::create_dir(bench.at("volume/own")).unwrap();
        std::fs::set_permissions(bench.at("volume/own"), std::fs::Permissions::from_mode(0o700)).unwrap();
        bench.mount("own").unwrap();
        assert_eq!(std::fs::metadata(bench.at("volume/own")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn mounting_again_shows_what_is_there_now_and_letting_go_leaves_the_volume() {
        let bench = Bench::new();
        std::fs::write(bench.at("volume/file"), "1").unwrap();
        bench.mount("file").unwrap();
        std::fs::remove_file(bench.at("volume/file")).unwrap();
        std::fs::create_dir(bench.at("volume/file")).unwrap();
        std::fs::write(bench.at("volume/file/in"), "2").unwrap();
        let place = bench.mount("file").unwrap();
        assert_eq!(std::fs::read_to_string(place.join("in")).unwrap(), "2");
        unmount_all(&bench.at("pod")).unwrap();
        assert!(!place.exists());
        assert_eq!(std::fs::read_to_string(bench.at("volume/file/in")).unwrap(), "2");
    }

    #[test]
    fn what_stays_mounted_is_not_removed() {
        let bench = Bench::new();
        let place = bench.at("pod/volume-subpaths/v/c/0");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("precious"), "").unwrap();
        assert!(unmount_all(&bench.at("pod")).is_err());
        assert!(place.join("precious").exists());
    }
}
