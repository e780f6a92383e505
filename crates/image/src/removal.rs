//! Removing a directory with all in it, however deep it is.

use rustix::fs::{self as sys, AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Removes a directory with all in it; no error if it is gone already. A link in its place is removed itself.
///
/// What is in it may come from a container, which can nest directories a hundred thousand deep: recursion (as in
/// [`std::fs::remove_dir_all`]) would overflow the stack, paths would be too long, and a descriptor for each level
/// too many. So directories are moved up instead: at any time two are open.
///
/// Never leaves the file system it begins in: a mount below is an error.
///
/// # Errors
/// Something in it cannot be read or removed; the rest of it is still there.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match sys::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = sys::open(path, DIRECTORY, Mode::empty())?;
    let mut names = 0;
    while flatten(top.as_fd(), &mut names)? {}
    match sys::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes all that is in a directory but what is in directories of directories of it, which come up instead. Whether
/// there were any.
fn flatten(top: BorrowedFd<'_>, names: &mut u64) -> io::Result<bool> {
    let mut came_up = false;
    each(top, |name| {
        let Some(directory) = remove_or_open(top, name)? else { return Ok(()) };
        each(directory.as_fd(), |inner| {
            if remove_or_open(directory.as_fd(), inner)?.is_some() {
                come_up(directory.as_fd(), inner, top, names)?;
                came_up = true;
            }
            Ok(())
        })?;
        Ok(sys::unlinkat(top, name, AtFlags::REMOVEDIR)?)
    })?;
    Ok(came_up)
}

/// Calls for each name in a directory but `.` and `..`.
fn each(directory: BorrowedFd<'_>, mut with: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            with(entry.file_name())?;
        }
    }
    Ok(())
}

/// Removes it, unless it is a directory with something in it: that is opened.
fn remove_or_open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    match sys::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match sys::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    Ok(Some(sys::openat2(parent, name, DIRECTORY, Mode::empty(), within)?))
}

/// Moves a directory to the top, under a name that is free there.
fn come_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, names: &mut u64) -> io::Result<()> {
    loop {
        *names += 1;
        match sys::renameat_with(from, name, top, format!(".removed-{names}"), RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// As a container does it: from inside, level by level.
    fn nest(top: &Path, levels: usize) {
        let mut at = sys::open(top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..levels {
            sys::mkdirat(&at, "d", Mode::RWXU).unwrap();
            sys::mkdirat(&at, ".removed-1", Mode::RWXU).unwrap();
            at = sys::openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_is_removed_on_a_small_stack() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree, 3_000);
        let removal = std::thread::Builder::new().stack_size(64 << 10);
        let removed = tree.clone();
        removal.spawn(move || remove_tree(&removed)).unwrap().join().unwrap().unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn all_kinds_of_files_go_and_what_links_point_to_stays() {
        let outer = tempfile::tempdir().unwrap();
        let (tree, kept) = (outer.path().join("tree"), outer.path().join("kept"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        for directory in ["a/b/c", "a/empty", "x"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
        }
        fs::write(tree.join("a/b/file"), "").unwrap();
        symlink(&kept, tree.join("a/b/link")).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        symlink("nowhere", tree.join("x/dangling")).unwrap();
        fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o0)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
    }

    #[test]
    fn what_is_no_directory_or_not_there_is_gone_afterwards_too() {
        let outer = tempfile::tempdir().unwrap();
        let (file, link) = (outer.path().join("file"), outer.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink(outer.path(), &link).unwrap();
        for path in [&file, &link, &file] {
            remove_tree(path).unwrap();
            assert!(fs::symlink_metadata(path).is_err());
        }
        assert!(outer.path().exists());
    }

    #[test]
    fn a_mount_is_not_emptied() {
        let outer = tempfile::tempdir().unwrap();
        let (tree, kept) = (outer.path().join("tree"), outer.path().join("kept"));
        fs::create_dir_all(tree.join("a/mounted")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let mount = rustix::mount::mount_bind(&kept, tree.join("a/mounted"));
        if mount == Err(Errno::PERM) {
            eprintln!("SKIPPED: mounting needs root");
            assert!(std::env::var_os("CI").is_none());
            return;
        }
        let removed = remove_tree(&tree);
        rustix::mount::unmount(tree.join("a/mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
        removed.unwrap_err();
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        remove_tree(&tree).unwrap();
    }
}
