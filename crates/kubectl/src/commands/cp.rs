//! `cp`: files to and from containers, as tar archives over `exec`.
//!
//! What comes out of a container is not trusted: nothing is written outside of the destination, and links are not
//! made at all.

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, io_text, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::object::{self, text};
use crate::{pod_target, remote};
use kube::api::{AttachParams, AttachedProcess};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio_util::io::SyncIoBridge;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    short("container", 'c', Takes::Text, "", "Which container"),
    flag("no-preserve", Takes::Bool, "false", "Without owner and permissions"),
    flag(
        "retries",
        Takes::Number,
        "0",
        "How often a copy from a container is begun anew; below zero for ever",
    ),
]];

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    namespace: String,
    /// Empty for a file here.
    pod: String,
    path: String,
}

/// `[[NAMESPACE/]POD:]PATH`.
fn place(typed: &str) -> Outcome<Place> {
    let wrong = || fail("filespec must match the canonical format: [[namespace/]pod:]file/path");
    let Some((pod, path)) = typed.split_once(':') else {
        return Ok(Place { namespace: String::new(), pod: String::new(), path: typed.into() });
    };
    if pod.is_empty() {
        return wrong();
    }
    match pod.split('/').collect::<Vec<_>>().as_slice() {
        [pod] => Ok(Place { namespace: String::new(), pod: (*pod).into(), path: path.into() }),
        [namespace, pod] => {
            Ok(Place { namespace: (*namespace).into(), pod: (*pod).into(), path: path.into() })
        }
        _ => wrong(),
    }
}

/// Runs it.
///
/// # Errors
/// What the command line, a file or the server is to blame for; the container has no `tar`.
pub(crate) async fn run(context: &Context) -> Outcome {
    let [from, to] = context.flags.args.as_slice() else {
        return fail("source and destination are required");
    };
    let (from, to) = (place(from)?, place(to)?);
    if !from.pod.is_empty() && !to.pod.is_empty() {
        return fail("one of src or dest must be a local file specification");
    }
    if from.path.is_empty() || to.path.is_empty() {
        return fail("filepath can not be empty");
    }
    if !from.pod.is_empty() {
        return download(context, &from, &to).await;
    }
    if !to.pod.is_empty() {
        return upload(context, &from, &to).await;
    }
    fail("one of src or dest must be a remote file specification")
}

/// The pod of a place, and the container in it.
async fn container(context: &Context, place: &Place, quiet: bool) -> Outcome<(Value, String)> {
    let namespace = match place.namespace.as_str() {
        "" => context.namespace().await?.0,
        given => given.to_owned(),
    };
    let path = context.resource("pods").await?.object(&namespace, &place.pod);
    let pod = context.client().await?.get(&path, &[]).await?;
    let phase = text(&pod, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return fail(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    let wanted = context.flags.text("container");
    let name = if wanted.is_empty() {
        text(pod_target::container(context, &pod, "", quiet)?, "/name").to_owned()
    } else {
        wanted.to_owned()
    };
    Ok((pod, name))
}

fn params(container: &str, stdin: bool) -> AttachParams {
    remote::Session { stdin, ..remote::Session::default() }.params(container)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn upload(context: &Context, from: &Place, to: &Place) -> Outcome {
    let source = PathBuf::from(&from.path);
    if std::fs::symlink_metadata(&source).is_err() {
        return fail(format!("{} doesn't exist in local filesystem", from.path));
    }
    let (pod, container) = container(context, to, false).await?;
    let mut target = clean(&to.path);
    let test = words(&["test", "-d", &target]);
    let probe = remote::exec(context, &pod, &test, &params(&container, false)).await?;
    let directory = remote::finish(probe, tokio::io::sink(), tokio::io::sink()).await.is_ok();
    if directory {
        target = join(&target, &base(&from.path));
    }
    let (parent, name) = match target.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((parent, name)) => (parent.to_owned(), name.to_owned()),
        None => (".".to_owned(), target.clone()),
    };
    let mut command = if context.flags.on("no-preserve") {
        words(&["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"])
    } else {
        words(&["tar", "-xmf", "-"])
    };
    command.extend(["-C".to_owned(), parent]);
    let mut process = remote::exec(context, &pod, &command, &params(&container, true)).await?;
    let packing = pack(&mut process, source, name);
    let unpacking = remote::finish(process, tokio::io::stdout(), tokio::io::stderr());
    let (packed, unpacked) = tokio::join!(packing, unpacking);
    // What tar says over there explains why nobody read on here.
    unpacked?;
    packed
}

/// Writes a file or directory as an archive into a program's input.
fn pack(
    process: &mut AttachedProcess,
    source: PathBuf,
    name: String,
) -> impl Future<Output = Outcome> + use<> {
    let input = process.stdin();
    async move {
        let Some(input) = input else { return fail("the server opened no stream") };
        let writer = SyncIoBridge::new(input);
        let packed = tokio::task::spawn_blocking(move || {
            let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(64 * 1024, writer));
            archive.follow_symlinks(false);
            let result = if source.is_dir() {
                archive.append_dir_all(&name, &source)
            } else {
                archive.append_path_with_name(&source, &name)
            };
            let writer = result.and_then(|()| archive.into_inner())?;
            writer.into_inner().map_err(std::io::IntoInnerError::into_error)
        });
        let writer = packed.await.map_err(|error| Failure::Message(error.to_string()))??;
        let mut input = writer.into_inner();
        input.shutdown().await?;
        Ok(())
    }
}

async fn download(context: &Context, from: &Place, to: &Place) -> Outcome {
    let (pod, container) = container(context, from, true).await?;
    // What goes wrong over there is told on standard output, as kubectl has it.
    if context.flags.text("container").is_empty()
        && let Some(told) = pod_target::defaulted(&pod, &container)
    {
        out(&told);
    }
    let retries = context.flags.number("retries");
    let prefix = member_prefix(&from.path);
    let mut tries = 0;
    loop {
        let command = words(&["tar", "cf", "-", &from.path]);
        let mut process = remote::exec(context, &pod, &command, &params(&container, false)).await?;
        let stdout = process.stdout();
        let hint = format!(
            "{} exec -n {} {} -- tar cf - {} | tar xf -",
            context.name,
            quote(&from.namespace),
            quote(object::name(&pod)),
            quote(&from.path)
        );
        let (prefix, destination) = (prefix.clone(), PathBuf::from(&to.path));
        let unpacking = async move {
            let Some(stdout) = stdout else {
                return Err(Trouble::Stream("the server opened no stream".into()));
            };
            let reader = SyncIoBridge::new(stdout);
            let unpacked = tokio::task::spawn_blocking(move || unpack(reader, &prefix, &destination, &hint));
            unpacked.await.map_err(|error| Trouble::Here(Failure::Message(error.to_string())))?
        };
        let (unpacked, ended) =
            tokio::join!(unpacking, remote::finish(process, tokio::io::sink(), tokio::io::stdout()));
        match unpacked {
            Err(Trouble::Stream(_)) if retries < 0 || tries < retries => {}
            Err(Trouble::Stream(message)) => return fail(message),
            Err(Trouble::Here(failure)) => return Err(failure),
            Ok(()) => return ended,
        }
        tries += 1;
        context.err(&format!("Resuming copy, retry {tries}/{retries}\n"));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Between a stream that broke and the next attempt.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a copy ended.
enum Trouble {
    /// The stream broke: another attempt may succeed.
    Stream(String),
    /// What came was wrong, or could not be written.
    Here(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// Unpacks what a container sent, as far as it stays below `destination`. Names are bytes, in no encoding.
fn unpack(reader: impl Read, prefix: &str, destination: &Path, hint: &str) -> Result<(), Trouble> {
    let broken = |error: std::io::Error| Trouble::Stream(error.to_string());
    let mut archive = tar::Archive::new(reader);
    let mut told = false;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path_bytes().into_owned();
        let Some(rest) = name.strip_prefix(prefix.as_bytes()) else {
            return Err(Failure::Message("tar contents corrupted".into()).into());
        };
        let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
        let rest = Path::new(OsStr::from_bytes(&rest[slashes..]));
        let Some(path) = below(destination, rest) else {
            let shown = destination.join(rest);
            eprintln!(
                "warning: file {} is outside target destination, skipping",
                quote(&shown.to_string_lossy())
            );
            continue;
        };
        if through_link(destination, &path) {
            eprintln!("warning: file {} is behind a symlink, skipping", quote(&path.to_string_lossy()));
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| told_of(&error, "mkdir", parent))?;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            std::fs::create_dir_all(&path).map_err(|error| told_of(&error, "mkdir", &path))?;
        } else if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let advice = if told { String::new() } else { format!(" (consider using {})", quote(hint)) };
            told = true;
            eprintln!(
                "warning: skipping symlink: {} -> {}{}",
                quote(&path.to_string_lossy()),
                quote(&link.unwrap_or_default()),
                advice.replace("\\\"", "\"").replace("\\\\", "\\")
            );
        } else if kind.is_file() {
            let mut file = std::fs::File::create(&path).map_err(|error| told_of(&error, "open", &path))?;
            copy(&mut entry, &mut file, &path)?;
        }
    }
    Ok(())
}

/// Reading and writing fail for different reasons.
fn copy(from: &mut impl Read, to: &mut impl std::io::Write, path: &Path) -> Result<(), Trouble> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).map_err(|error| Trouble::Stream(error.to_string()))?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).map_err(|error| told_of(&error, "write", path))?;
    }
}

fn told_of(error: &std::io::Error, what: &str, path: &Path) -> Failure {
    Failure::Message(format!("{what} {}: {}", path.display(), io_text(error)))
}

/// `rest` below `destination`; None if it climbs out of it.
fn below(destination: &Path, rest: &Path) -> Option<PathBuf> {
    let mut depth = Vec::new();
    for component in rest.components() {
        match component {
            Component::Normal(name) => depth.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                depth.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(depth.into_iter().fold(destination.to_path_buf(), |path, name| path.join(name)))
}

/// Whether a directory between `destination` and `path`, or the file itself, is a link: writing would end elsewhere.
fn through_link(destination: &Path, path: &Path) -> bool {
    path.ancestors()
        .take_while(|ancestor| *ancestor != destination)
        .any(|ancestor| std::fs::symlink_metadata(ancestor).is_ok_and(|found| found.is_symlink()))
}

/// How the names in an archive of a path begin: tar leaves out the root, and everything up to the last `../`.
fn member_prefix(path: &str) -> String {
    let clean = clean(path.trim_matches('/'));
    match clean.rfind("../") {
        Some(at) => clean[at + 3..].to_owned(),
        None if clean == "." || clean == ".." => String::new(),
        None => clean.trim_start_matches('/').to_owned(),
    }
}

/// A remote path without `.`, doubled slashes and what `..` undoes.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

fn join(directory: &str, name: &str) -> String {
    clean(&format!("{directory}/{name}"))
}

/// The last part of a local path: `.` of `.` and `dir/.`, whose contents are meant; of `..` that of the directory it
/// stands for.
fn base(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed == "." || trimmed.ends_with("/.") {
        return ".".into();
    }
    let named = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    named.unwrap_or_else(|| {
        let full = std::fs::canonicalize(path).unwrap_or_default();
        full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a", Some(("", "", "a")))]
    #[case("p:/x", Some(("", "p", "/x")))]
    #[case("ns/p:x", Some(("ns", "p", "x")))]
    #[case("p:a:b", Some(("", "p", "a:b")))]
    #[case(":x", None)]
    #[case("a/b/c:x", None)]
    fn places_are_files_here_or_in_pods(#[case] typed: &str, #[case] expected: Option<(&str, &str, &str)>) {
        let found = place(typed).ok();
        let found = found.as_ref().map(|p| (p.namespace.as_str(), p.pod.as_str(), p.path.as_str()));
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("/etc/hosts", "etc/hosts")]
    #[case("etc/", "etc")]
    #[case("../../x/y", "x/y")]
    #[case("/a/../b", "b")]
    #[case("/", "")]
    fn names_in_an_archive_begin_without_the_root(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(member_prefix(path), expected);
    }

    #[rstest]
    #[case("/a", Some("d/a"))]
    #[case("", Some("d"))]
    #[case("a/../b", Some("d/b"))]
    #[case("../b", None)]
    #[case("a/../../b", None)]
    fn nothing_climbs_out_of_the_destination(#[case] rest: &str, #[case] expected: Option<&str>) {
        let rest = Path::new(rest.trim_start_matches('/'));
        assert_eq!(below(Path::new("d"), rest), expected.map(PathBuf::from));
    }

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            // Set as bytes: the crate itself refuses to make names such as these.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            if *kind == tar::EntryType::Symlink {
                header.set_link_name(content).unwrap();
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, std::io::empty()).unwrap();
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_hostile_archive_writes_nothing_outside_and_makes_no_links() {
        let home = tempfile::tempdir().unwrap();
        let destination = home.path().join("here");
        let file = tar::EntryType::Regular;
        let bytes = archive(&[
            ("x/good", file, "good"),
            ("x/../../evil", file, "evil"),
            ("x/link", tar::EntryType::Symlink, "/etc"),
            ("x/link/evil", file, "a file below what would be a link"),
        ]);
        unpack(bytes.as_slice(), "x", &destination, "hint").ok().unwrap();
        assert_eq!(std::fs::read_to_string(destination.join("good")).unwrap(), "good");
        assert!(!home.path().join("evil").exists());
        assert!(std::fs::symlink_metadata(destination.join("link")).unwrap().is_dir());
    }

    #[test]
    fn names_that_are_no_text_stay_as_they_are() {
        let home = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for byte in [0xff, 0xfe] {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..3].copy_from_slice(&[b'x', b'/', byte]);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        unpack(builder.into_inner().unwrap().as_slice(), "x", home.path(), "hint").ok().unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_stream_that_breaks_is_told_from_a_disk_that_does_not_take_it() {
        let home = tempfile::tempdir().unwrap();
        let bytes = archive(&[("x/file", tar::EntryType::Regular, "content")]);
        let cut = unpack(&bytes[..514], "x", home.path(), "hint");
        assert!(matches!(cut, Err(Trouble::Stream(_))));
        let file = home.path().join("is-a-file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(unpack(bytes.as_slice(), "x", &file, "hint"), Err(Trouble::Here(_))));
    }

    #[rstest]
    #[case("dir", "dir")]
    #[case("dir/", "dir")]
    #[case("dir/.", ".")]
    #[case("./", ".")]
    fn the_contents_of_a_directory_are_meant_by_its_dot(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(base(path), expected);
    }

    #[test]
    fn a_link_that_is_here_already_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (destination, elsewhere) = (home.path().join("here"), home.path().join("elsewhere"));
        std::fs::create_dir(&destination).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, destination.join("link")).unwrap();
        let bytes = archive(&[("x/link/evil", tar::EntryType::Regular, "evil")]);
        unpack(bytes.as_slice(), "x", &destination, "hint").ok().unwrap();
        assert!(!elsewhere.join("evil").exists());
    }

    #[test]
    fn names_with_another_beginning_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let bytes = archive(&[("/etc/passwd", tar::EntryType::Regular, "x")]);
        assert!(unpack(bytes.as_slice(), "x", home.path(), "hint").is_err());
    }
}
