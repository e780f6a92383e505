//! Files written by the kubelet into a volume, exchanged all at once.
//!
//! Layout as upstream's: the files are in `..<time>/`, `..data` is a link to it, and each name is a link into
//! `..data`, so that exchanging one link changes all files at once. A container that has the volume mounted sees
//! the exchange; one that has a single file of it mounted (`subPath`) keeps the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, fchown, symlink};
use std::path::Path;

/// The link that is exchanged.
const CURRENT: &str = "..data";
/// Its successor, for a moment.
const NEXT: &str = "..data_tmp";
/// What `fsGroup` lets its group do with files nobody may write (upstream's mask for read-only volumes).
const GROUP_FILE: u32 = 0o440;
/// And with directories: list and enter; new files belong to the group, too.
const GROUP_DIRECTORY: u32 = 0o2550;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its contents.
    pub(super) bytes: Vec<u8>,
    /// Its permissions.
    pub(super) mode: u32,
    /// Whose it is; None: root's.
    pub(super) user: Option<u32>,
}

/// Files by relative path.
pub(super) type Payload = BTreeMap<String, Entry>;

/// Brings the volume at `path` to these files; false if it had them already. `group`: `fsGroup`.
///
/// # Errors
/// If the file system says so. The volume then has either all of the old files or all of the new.
pub(super) fn write(path: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    std::fs::create_dir_all(path)?;
    let current = path.join(CURRENT);
    let old = std::fs::read_link(&current).ok();
    if old.is_some() && is_same(&current, payload, group)? {
        // A crash may have come between the exchange and this.
        link(path, payload)?;
        return Ok(false);
    }
    check(payload)?;
    // What earlier attempts left takes room this one may need.
    remove_others(path, old.as_deref())?;
    let name = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let fresh = path.join(&name);
    let written = generation(&fresh, payload, group).and_then(|()| {
        set_directory(path, group)?;
        let next = path.join(NEXT);
        let _ = std::fs::remove_file(&next);
        symlink(&name, &next)?;
        std::fs::rename(&next, &current)
    });
    if let Err(error) = written {
        let _ = sagong_image::remove_tree(&fresh);
        return Err(error);
    }
    link(path, payload)?;
    remove_others(path, Some(Path::new(&name)))?;
    Ok(true)
}

/// Whether each file has a place of its own.
fn check(payload: &Payload) -> io::Result<()> {
    for name in payload.keys() {
        let above = Path::new(name).ancestors().skip(1).filter_map(Path::to_str);
        if let Some(file) = { above }.find(|above| payload.contains_key(*above)) {
            return Err(io::Error::other(format!("{file:?} cannot be a file: {name:?} is to be below it")));
        }
    }
    Ok(())
}

/// Writes all files into a new directory.
fn generation(fresh: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(fresh)?;
    set_directory(fresh, group)?;
    payload.iter().try_for_each(|(name, entry)| write_file(fresh, name, entry, group))
}

fn write_file(root: &Path, name: &str, entry: &Entry, group: Option<u32>) -> io::Result<()> {
    let file = root.join(name);
    for parent in file.ancestors().skip(1).take_while(|parent| *parent != root) {
        std::fs::create_dir_all(parent)?;
        set_directory(parent, group)?;
    }
    // Nobody else's until all of it is as it should be.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    file.write_all(&entry.bytes)?;
    // The owner first: a change of owner may take permissions away.
    fchown(&file, entry.user, group)?;
    file.set_permissions(std::fs::Permissions::from_mode(file_mode(entry, group)))
}

fn file_mode(entry: &Entry, group: Option<u32>) -> u32 {
    entry.mode | if group.is_some() { GROUP_FILE } else { 0 }
}

fn set_directory(directory: &Path, group: Option<u32>) -> io::Result<()> {
    chown(directory, None, group)?;
    let mode = 0o755 | if group.is_some() { GROUP_DIRECTORY } else { 0 };
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))
}

/// Whether the files below `root` are these and no others.
fn is_same(root: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    collect(root, "", &mut found)?;
    if found.len() != payload.len() || !payload.keys().all(|name| found.contains(name)) {
        return Ok(false);
    }
    for (name, entry) in payload {
        let file = root.join(name);
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        if mode != file_mode(entry, group) || std::fs::read(&file)? != entry.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.insert(name);
        }
    }
    Ok(())
}

/// Makes a link for each name, and removes those of names that went.
fn link(path: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|name| name.split('/').next()).collect();
    for top in &tops {
        let link = path.join(top);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(CURRENT).join(top), &link)?;
        }
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(CURRENT));
        if is_ours && !name.to_str().is_some_and(|name| tops.contains(name)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes every generation but this one: the one before, and those a crash left.
fn remove_others(path: &Path, keep: Option<&Path>) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir()
            && name.to_string_lossy().starts_with("..")
            && Some(Path::new(&name)) != keep
        {
            sagong_image::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let entry = |text: &str| Entry { bytes: text.as_bytes().to_vec(), mode: 0o640, user: None };
        files.iter().map(|(name, text)| ((*name).to_owned(), entry(text))).collect()
    }

    fn read(dir: &tempfile::TempDir, name: &str) -> Option<String> {
        std::fs::read_to_string(dir.path().join(name)).ok()
    }

    fn generations(dir: &tempfile::TempDir) -> Vec<String> {
        let names = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("..2")).collect()
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert!(write(dir.path(), &payload(&[("a", "3"), ("sub/b", "4")]), None).unwrap());
        assert_eq!(read(&dir, "a").as_deref(), Some("3"));
        assert_eq!(read(&dir, "sub/b").as_deref(), Some("4"));
        let mode = std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(generations(&dir).len(), 1);
    }

    #[test]
    fn a_name_that_went_is_gone_and_one_that_came_is_there() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1"), ("b", "2")]), None).unwrap();
        write(dir.path(), &payload(&[("b", "2"), ("c", "3")]), None).unwrap();
        assert_eq!((read(&dir, "a"), read(&dir, "c").as_deref()), (None, Some("3")));
        assert!(std::fs::symlink_metadata(dir.path().join("a")).is_err(), "no dangling link remains");
    }

    #[test]
    fn the_same_files_are_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None).unwrap();
        let before = generations(&dir);
        assert!(!write(dir.path(), &payload(&[("a", "1")]), None).unwrap());
        assert_eq!(generations(&dir), before);
    }

    #[test]
    fn what_fails_leaves_nothing_behind_and_the_old_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None).unwrap();
        // As after a crash.
        std::fs::create_dir(dir.path().join("..2026_01_01_00_00_00.000000000")).unwrap();
        // Longer than any file system's names.
        let long = "x".repeat(300);
        for _ in 0..3 {
            write(dir.path(), &payload(&[("a", "2"), (&long, "")]), None).unwrap_err();
        }
        assert_eq!(generations(&dir).len(), 1);
        assert_eq!(read(&dir, "a").as_deref(), Some("1"));
    }

    #[test]
    fn a_file_with_files_below_it_is_refused_and_both_are_named() {
        let dir = tempfile::tempdir().unwrap();
        // Between the two in order.
        let files = payload(&[("x", "1"), ("x-y", "2"), ("x/y/z", "3")]);
        let error = write(dir.path(), &files, None).unwrap_err().to_string();
        assert_eq!(error, "\"x\" cannot be a file: \"x/y/z\" is to be below it");
        assert!(generations(&dir).is_empty());
    }

    #[test]
    fn a_file_mounted_by_itself_keeps_what_it_had() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None).unwrap();
        // What a bind mount holds is the file, not its name.
        let held = std::fs::File::open(dir.path().join("a")).unwrap();
        write(dir.path(), &payload(&[("a", "2")]), None).unwrap();
        assert_eq!(io::read_to_string(held).unwrap(), "1");
    }
}
