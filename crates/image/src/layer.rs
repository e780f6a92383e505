//! A layer's tar stream, unpacked to a directory, trusting nothing in it.
//!
//! Every parent directory is opened with `openat2(RESOLVE_BENEATH)`, so that neither `..` nor a link planted
//! by an earlier entry leads out of the layer. Whiteouts (OCI image spec, layer.md) become what overlayfs
//! understands: a character device 0/0, or the attribute `trusted.overlay.opaque`.

use rustix::fs::{
    self as sys, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The archive asks for something outside the layer.
    #[error("{path}: {why}")]
    Hostile { path: String, why: &'static str },
    /// Reading the archive or writing the directory failed.
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

/// Unpacks a layer, compressed with gzip or zstd or not at all, into the empty directory `root`.
/// Returns the `sha256:…` of the uncompressed stream: the layer's diff id.
pub(crate) fn unpack(layer: impl Read, root: &Path) -> Result<String, LayerError> {
    let at = |source| LayerError::Io { path: "layer".into(), source };
    let directory = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let root = sys::openat(CWD, root, directory, Mode::empty()).map_err(|e| at(e.into()))?;
    let mut stream = Hashing { inner: decompress(layer).map_err(at)?, hash: Sha256::new() };
    let mut archive = tar::Archive::new(&mut stream);
    for entry in archive.entries().map_err(at)? {
        let mut entry = entry.map_err(at)?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        write_entry(&root, &path, &mut entry)?;
    }
    // The diff id is of the whole stream, padding after the end marker included.
    io::copy(&mut stream, &mut io::sink()).map_err(at)?;
    Ok(format!("sha256:{}", hex::encode(stream.hash.finalize())))
}

/// Undoes the compression that the first bytes tell of.
fn decompress<'a>(mut layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0u8; 4];
    let mut filled = 0;
    while filled < magic.len() {
        match layer.read(&mut magic[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    let whole = io::Cursor::new(magic[..filled].to_vec()).chain(layer);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

fn write_entry<R: Read>(root: &OwnedFd, path: &Path, entry: &mut Entry<'_, R>) -> Result<(), LayerError> {
    let io_error = |source: io::Error| LayerError::Io { path: path.display().to_string(), source };
    let hostile = |why| LayerError::Hostile { path: path.display().to_string(), why };
    if matches!(entry.header().entry_type(), EntryType::XGlobalHeader) {
        return Ok(());
    }
    let parts = components(path).ok_or_else(|| hostile("the path leads out of the layer"))?;
    let Some((name, parents)) = parts.split_last() else {
        return Ok(()); // the root itself
    };
    let parent = open_parents(root, parents).map_err(|e| match e {
        Errno::XDEV | Errno::LOOP => hostile("the path leads out of the layer through a link"),
        other => io_error(other.into()),
    })?;

    if name.as_bytes() == OPAQUE {
        return set_opaque(&parent).map_err(io_error);
    }
    if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
        let hidden = OsStr::from_bytes(hidden);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(hostile("the whiteout names nothing"));
        }
        replace(&parent, hidden).map_err(io_error)?;
        return sys::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| io_error(e.into()));
    }
    let is_directory = entry.header().entry_type().is_dir();
    if !(is_directory && is_real_directory(&parent, name)) {
        replace(&parent, name).map_err(io_error)?;
    }
    make(root, &parent, name, entry).map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::XDEV | Errno::LOOP) => hostile("the link leads out of the layer"),
        _ => io_error(e),
    })
}

/// Normal components only; None if the path has `..`.
fn components(path: &Path) -> Option<Vec<&OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

/// Opens the directory, making what is missing of it.
fn open_parents(root: &OwnedFd, parents: &[&OsStr]) -> Result<OwnedFd, Errno> {
    let path: PathBuf = parents.iter().collect();
    match open_beneath(root, &path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut directory = open_beneath(root, Path::new(""))?;
    let mut so_far = PathBuf::new();
    for part in parents {
        match sys::mkdirat(&directory, *part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(other) => return Err(other),
        }
        so_far.push(part);
        directory = open_beneath(root, &so_far)?;
    }
    Ok(directory)
}

fn open_beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    sys::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn is_real_directory(parent: &OwnedFd, name: &OsStr) -> bool {
    sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes what an earlier entry of the same layer put there.
fn replace(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match sys::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => crate::remove_tree(&within(parent, name)),
        Err(other) => Err(other.into()),
    }
}

/// A path through the open directory, for calls that have no `…at` form. It cannot be redirected: the
/// kernel starts at the directory that is open.
fn within(parent: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name)
}

fn set_opaque(directory: &OwnedFd) -> io::Result<()> {
    sys::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(Into::into)
}

/// Makes the entry; its place is empty, unless both are directories.
fn make<R: Read>(root: &OwnedFd, parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
    match kind {
        EntryType::Directory => match sys::mkdirat(parent, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(other) => return Err(other.into()),
        },
        EntryType::Symlink => return make_symlink(parent, name, entry),
        EntryType::Link => return make_hard_link(root, parent, name, entry),
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let file_type = match kind {
                EntryType::Char => FileType::CharacterDevice,
                EntryType::Block => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            // Left empty by some tools where there is no device.
            let number = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
            let header = entry.header();
            let device = sys::makedev(number(header.device_major()), number(header.device_minor()));
            sys::mknodat(parent, name, file_type, mode, device)?;
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(sys::openat(parent, name, flags, mode)?);
            io::copy(entry, &mut file)?;
        }
        _ => return Ok(()), // headers of extensions, which the reader has applied
    }
    set_owner(parent, name, entry)?;
    // After chown, which clears setuid. The place was made by us and is no link.
    sys::chmodat(parent, name, mode, AtFlags::empty())?;
    set_attributes(parent, name, entry)?;
    let time = Timespec {
        tv_sec: entry.header().mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0),
        tv_nsec: 0,
    };
    let times = Timestamps { last_access: time, last_modification: time };
    sys::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn make_symlink<R: Read>(parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, R>) -> io::Result<()> {
    // Where it points is harmless here: nothing is ever written through it, and in the container it
    // resolves within the container's root.
    let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("a link without a target"))?;
    sys::symlinkat(OsStr::from_bytes(&target), parent, name)?;
    set_owner(parent, name, entry)
}

fn make_hard_link<R: Read>(
    root: &OwnedFd,
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut Entry<'_, R>,
) -> io::Result<()> {
    let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("a link without a target"))?;
    let target = PathBuf::from(OsStr::from_bytes(&target));
    let parts = components(&target).ok_or(Errno::XDEV)?;
    let (file, directories) = parts.split_last().ok_or(Errno::XDEV)?;
    let directory = open_beneath(root, &directories.iter().collect::<PathBuf>())?;
    sys::linkat(&directory, *file, parent, name, AtFlags::empty()).map_err(Into::into)
}

fn set_owner<R: Read>(parent: &OwnedFd, name: &OsStr, entry: &Entry<'_, R>) -> io::Result<()> {
    let id = |raw: u64| u32::try_from(raw).map_err(|_| io::Error::other("an owner id over 32 bits"));
    // Some tools leave the fields empty, for root and the epoch. u32::MAX is chown's "leave it".
    let uid = Some(id(entry.header().uid().unwrap_or(0))?).filter(|&id| id != u32::MAX).map(Uid::from_raw);
    let gid = Some(id(entry.header().gid().unwrap_or(0))?).filter(|&id| id != u32::MAX).map(Gid::from_raw);
    sys::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into)
}

/// File capabilities and user attributes; `trusted.*` (overlayfs's own) is never taken from an archive.
fn set_attributes<R: Read>(parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(attribute) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else {
            continue;
        };
        if attribute == "security.capability" || attribute.starts_with("user.") {
            let set =
                sys::lsetxattr(within(parent, name), attribute, extension.value_bytes(), XattrFlags::empty());
            match set {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
    Ok(())
}

/// Flushes the file system that holds `directory`, so that an index written next never names a layer that
/// a power cut took away.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    let file = File::open(directory)?;
    sys::syncfs(file.as_fd()).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    /// An entry with its path taken as given; the tar crate's own setters refuse hostile ones.
    fn entry(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<String, LayerError>) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let result = unpack(bytes, &root);
        (outer, result)
    }

    #[test]
    fn files_directories_and_links_arrive_with_their_modes() {
        let bytes = archive(|b| {
            entry(b, EntryType::Directory, "bin/", "", b"");
            entry(b, EntryType::Regular, "bin/app", "", b"hello");
            entry(b, EntryType::Symlink, "bin/link", "/bin/app", b"");
            entry(b, EntryType::Link, "bin/hard", "bin/app", b"");
        });
        let (outer, result) = unpacked(&bytes);
        result.unwrap();
        let root = outer.path().join("root");
        assert_eq!(std::fs::read(root.join("bin/app")).unwrap(), b"hello");
        assert_eq!(std::fs::read(root.join("bin/hard")).unwrap(), b"hello");
        assert_eq!(std::fs::read_link(root.join("bin/link")).unwrap(), Path::new("/bin/app"));
    }

    #[test]
    fn the_diff_id_is_of_the_uncompressed_stream() {
        let bytes = archive(|b| entry(b, EntryType::Regular, "a", "", b"x"));
        let plain = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &bytes).unwrap();
        let zstd = zstd::encode_all(&bytes[..], 1).unwrap();
        for stream in [bytes.clone(), gzip.finish().unwrap(), zstd] {
            assert_eq!(unpacked(&stream).1.unwrap(), plain);
        }
    }

    #[rstest]
    #[case::dot_dot(|b: &mut tar::Builder<Vec<u8>>| entry(b, EntryType::Regular, "../evil", "", b"x"))]
    #[case::deep_dot_dot(|b: &mut tar::Builder<Vec<u8>>| entry(b, EntryType::Regular, "a/../../evil", "", b"x"))]
    #[case::through_absolute_link(|b: &mut tar::Builder<Vec<u8>>| {
        entry(b, EntryType::Symlink, "out", "/tmp", b"");
        entry(b, EntryType::Regular, "out/evil", "", b"x");
    })]
    #[case::through_relative_link(|b: &mut tar::Builder<Vec<u8>>| {
        entry(b, EntryType::Symlink, "out", "..", b"");
        entry(b, EntryType::Regular, "out/evil", "", b"x");
    })]
    #[case::hard_link_out(|b: &mut tar::Builder<Vec<u8>>| entry(b, EntryType::Link, "evil", "../../etc/passwd", b""))]
    #[case::hard_link_through_link(|b: &mut tar::Builder<Vec<u8>>| {
        entry(b, EntryType::Symlink, "out", "/etc", b"");
        entry(b, EntryType::Link, "evil", "out/passwd", b"");
    })]
    #[case::whiteout_of_the_parent(|b: &mut tar::Builder<Vec<u8>>| entry(b, EntryType::Regular, "a/.wh...", "", b""))]
    fn what_leads_out_of_the_layer_is_refused(#[case] build: fn(&mut tar::Builder<Vec<u8>>)) {
        let (outer, result) = unpacked(&archive(build));
        assert!(matches!(result, Err(LayerError::Hostile { .. })), "{result:?}");
        let outside: Vec<_> =
            std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["root"], "nothing was written beside the layer");
    }

    #[test]
    fn attributes_arrive_with_their_files() {
        // ping may open raw sockets by such an attribute, and by no other means.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let bytes = archive(|b| {
            let attributes = [("SCHILY.xattr.security.capability", &capability[..])];
            b.append_pax_extensions(attributes).unwrap();
            entry(b, EntryType::Regular, "ping", "", b"x");
        });
        let (outer, result) = unpacked(&bytes);
        result.unwrap();
        let mut value = [0u8; 64];
        let n = sys::getxattr(outer.path().join("root/ping"), "security.capability", &mut value).unwrap();
        assert_eq!(&value[..n], capability);
    }

    #[test]
    fn whiteouts_become_overlay_devices() {
        let bytes = archive(|b| {
            entry(b, EntryType::Regular, "etc/.wh.gone", "", b"");
            entry(b, EntryType::Regular, "var/.wh..wh..opq", "", b"");
        });
        let (outer, result) = unpacked(&bytes);
        result.unwrap();
        let gone = std::fs::symlink_metadata(outer.path().join("root/etc/gone")).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type()));
        let mut value = [0u8; 8];
        let n = sys::getxattr(outer.path().join("root/var"), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..n], b"y");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
            let _ = unpacked(&bytes);
        }
    }
}
