//! `hostPath`: a path of the node, checked or made by its type.

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Checks, and for the `…OrCreate` types makes, what the type asks for.
pub(super) fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let text = |error: std::io::Error| error.to_string();
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => return std::fs::create_dir_all(path).map_err(text),
        "FileOrCreate" if !path.exists() => {
            return std::fs::OpenOptions::new().create(true).append(true).open(path).map(drop).map_err(text);
        }
        // Not checked, but something has to be mounted: the runtimes upstream works with make a directory.
        "" if !path.exists() => return std::fs::create_dir_all(path).map_err(text),
        "" => return Ok(()),
        _ => {}
    }
    // What is missing is nothing of what is asked for, either.
    let found = std::fs::metadata(path).map(|found| found.file_type()).ok();
    let is = |fits: fn(&FileType) -> bool| found.as_ref().is_some_and(fits);
    let (fits, wanted) = match kind {
        "Directory" | "DirectoryOrCreate" => (is(FileType::is_dir), "directory"),
        "File" | "FileOrCreate" => (is(FileType::is_file), "file"),
        "Socket" => (is(FileType::is_socket), "socket file"),
        "CharDevice" => (is(FileType::is_char_device), "character device"),
        "BlockDevice" => (is(FileType::is_block_device), "block device"),
        _ => return Err(format!("{kind} is an invalid volume type")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not a {wanted}", source.path)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, true)]
    #[case(Some(""), true)]
    #[case(Some("DirectoryOrCreate"), true)]
    #[case(Some("Directory"), false)]
    fn a_missing_directory_is_made_unless_the_type_wants_it_there(
        #[case] kind: Option<&str>,
        #[case] made: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let source =
            HostPathVolumeSource { path: path.to_str().unwrap().into(), type_: kind.map(str::to_owned) };
        assert_eq!(check(&source).is_ok(), made);
        assert_eq!(path.is_dir(), made);
    }

    #[rstest]
    #[case("File", "/dev", "hostPath type check failed: /dev is not a file")]
    #[case("FileOrCreate", "/dev", "hostPath type check failed: /dev is not a file")]
    #[case("Directory", "/dev/null", "hostPath type check failed: /dev/null is not a directory")]
    #[case("Directory", "/nowhere", "hostPath type check failed: /nowhere is not a directory")]
    #[case("Socket", "/dev/null", "hostPath type check failed: /dev/null is not a socket file")]
    #[case("CharDevice", "/dev", "hostPath type check failed: /dev is not a character device")]
    #[case("BlockDevice", "/dev/null", "hostPath type check failed: /dev/null is not a block device")]
    fn what_does_not_fit_is_told_as_upstream_tells_it(
        #[case] kind: &str,
        #[case] path: &str,
        #[case] why: &str,
    ) {
        let source = HostPathVolumeSource { path: path.into(), type_: Some(kind.into()) };
        assert_eq!(check(&source), Err(why.to_owned()));
    }

    #[test]
    fn devices_and_files_are_what_they_are() {
        for (kind, path) in [("CharDevice", "/dev/null"), ("Directory", "/dev"), ("File", "/etc/passwd")] {
            let source = HostPathVolumeSource { path: path.into(), type_: Some(kind.into()) };
            assert_eq!(check(&source), Ok(()), "{kind}");
        }
    }
}
