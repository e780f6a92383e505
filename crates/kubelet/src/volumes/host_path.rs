//! `hostPath`: a path of the node, checked or made by its type.

use k8s_openapi::api::core::v1::HostPathVolumeSource;
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
    let found = std::fs::metadata(path)
        .map_err(|_| format!("hostPath type check failed: {} is missing", source.path))?;
    let file_type = found.file_type();
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => file_type.is_dir(),
        "File" | "FileOrCreate" => file_type.is_file(),
        "Socket" => file_type.is_socket(),
        "CharDevice" => file_type.is_char_device(),
        "BlockDevice" => file_type.is_block_device(),
        _ => return Err(format!("unknown hostPath type {kind:?}")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not a {kind}", source.path)) }
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
}
