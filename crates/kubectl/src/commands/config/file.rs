//! Kubeconfig files that are written: which one, and in what form.

use crate::context::Context;
use crate::failure::{Failure, Outcome, io_text};
use crate::kubeconfig::{self, Kubeconfig};
use crate::printers::yaml;
use base64::Engine;
use serde_json::{Map, Value};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file that new entries and the current context go to: the first that exists, or the last.
pub(super) fn default_file(context: &Context) -> PathBuf {
    let (files, _) = kubeconfig::files(&context.flags);
    let existing = files.iter().find(|file| file.exists()).or(files.last());
    existing.cloned().unwrap_or_else(|| kubeconfig::home().join(".kube/config"))
}

/// The file an entry came from, or where it would go.
pub(super) fn file_of(context: &Context, config: &Kubeconfig, entry: &str) -> PathBuf {
    config.origins.get(entry).cloned().unwrap_or_else(|| default_file(context))
}

/// Writes a file whole, readable by its owner only. Nobody ever reads half of it.
///
/// # Errors
/// The directory or the file cannot be written.
pub(super) fn save(file: &Path, config: &Kubeconfig) -> Outcome {
    let mut config = config.clone();
    config.clusters.values_mut().for_each(|entry| normalise(entry, &["server"]));
    config.contexts.values_mut().for_each(|entry| normalise(entry, &["cluster", "user"]));
    config.users.values_mut().for_each(|entry| normalise(entry, &[]));
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = directory {
        std::fs::create_dir_all(directory).map_err(|error| told(&error, "mkdir", directory))?;
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        std::io::Write::write_all(&mut opened, yaml::document(&config.to_value()).as_bytes())?;
        // A link stays a link to the file it names.
        std::fs::rename(&beside, std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()))
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        told(&error, "open", file)
    })
}

fn told(error: &std::io::Error, what: &str, path: &Path) -> Failure {
    Failure::Message(format!("{what} {}: {}", path.display(), io_text(error)))
}

/// Leaves out what says nothing, but for fields that are always there.
fn normalise(entry: &mut Value, always: &[&str]) {
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    if let Some(map) = entry.as_object_mut() {
        map.retain(|_, value| !(value.is_null() || *value == false || *value == ""));
        for field in always {
            map.entry(*field).or_insert_with(|| "".into());
        }
    }
}

/// A path as it is kept in `file`: relative if it is below the file's directory, absolute otherwise.
pub(super) fn kept(path: &str, file: &Path) -> String {
    if path.is_empty() {
        return String::new();
    }
    let absolute = clean(&std::path::absolute(path).unwrap_or_else(|_| path.into()));
    let file = clean(&std::path::absolute(file).unwrap_or_else(|_| file.into()));
    let below = file.parent().and_then(|directory| absolute.strip_prefix(directory).ok());
    below.unwrap_or(&absolute).to_string_lossy().into_owned()
}

/// Without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// What is in a file, in base64.
///
/// # Errors
/// It cannot be read.
pub(super) fn base64_of(path: &Path) -> Outcome<String> {
    let bytes = std::fs::read(path).map_err(|error| told(&error, "open", path))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}
