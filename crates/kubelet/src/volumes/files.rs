//! `configMap` and `secret`: data of objects as files.
//!
//! Layout as upstream's: the files are in `..<time>/`, `..data` is a link to it, and each name is a link into
//! `..data`, so that exchanging one link changes all files at once.

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, SecretVolumeSource};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

/// Mode of files that name none.
const DEFAULT_MODE: i32 = 0o644;

/// Writes a config map.
pub(super) async fn config_map(
    cluster: &dyn Cluster,
    namespace: &str,
    source: &ConfigMapVolumeSource,
    path: &Path,
) -> Result<(), String> {
    let found = cluster.config_map(namespace, &source.name).await.map_err(|error| error.to_string())?;
    let optional = source.optional == Some(true);
    if found.is_none() && !optional {
        return Err(format!("configmap \"{}\" not found", source.name));
    }
    let found = found.unwrap_or_default();
    let texts = found.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let bytes = found.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    let payload =
        choose(texts.chain(bytes).collect(), source.items.as_deref(), source.default_mode, optional)?;
    write(path, payload).map_err(|error| error.to_string())
}

/// Writes a secret.
pub(super) async fn secret(
    cluster: &dyn Cluster,
    namespace: &str,
    source: &SecretVolumeSource,
    path: &Path,
) -> Result<(), String> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    let found = cluster.secret(namespace, name).await.map_err(|error| error.to_string())?;
    let optional = source.optional == Some(true);
    if found.is_none() && !optional {
        return Err(format!("secret \"{name}\" not found"));
    }
    let data = found.unwrap_or_default().data.into_iter().flatten().map(|(key, value)| (key, value.0));
    let payload = choose(data.collect(), source.items.as_deref(), source.default_mode, optional)?;
    write(path, payload).map_err(|error| error.to_string())
}

/// Contents and mode by path.
type Payload = BTreeMap<String, (Vec<u8>, u32)>;

/// The files of `items`, or all.
fn choose(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
) -> Result<Payload, String> {
    let mode = |own: Option<i32>| own.or(default_mode).unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777;
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, (value, mode(None)))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                let is_plain = |part| matches!(part, Component::Normal(_));
                if !Path::new(&item.path).components().all(is_plain) || item.path.starts_with("..") {
                    return Err(format!("invalid path {:?}", item.path));
                }
                payload.insert(item.path.clone(), (value.clone(), mode(item.mode)));
            }
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(payload)
}

fn write(path: &Path, payload: Payload) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    let generation = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let data = path.join(&generation);
    for (name, (bytes, mode)) in &payload {
        let file = data.join(name);
        std::fs::create_dir_all(file.parent().unwrap_or(&data))?;
        std::fs::write(&file, bytes)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode))?;
    }
    std::fs::create_dir_all(&data)?;
    let current = path.join("..data");
    let old = std::fs::read_link(&current).ok();
    let next = path.join("..data_tmp");
    let _ = std::fs::remove_file(&next);
    symlink(&generation, &next)?;
    std::fs::rename(&next, &current)?;
    let tops = payload.keys().filter_map(|name| name.split('/').next());
    for top in tops {
        let link = path.join(top);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    if let Some(old) = old {
        std::fs::remove_dir_all(path.join(old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(name, text)| ((*name).to_owned(), (text.as_bytes().to_vec(), 0o640))).collect()
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), payload(&[("a", "1"), ("sub/b", "2")])).unwrap();
        write(dir.path(), payload(&[("a", "3"), ("sub/b", "4")])).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert_eq!(std::fs::read_to_string(dir.path().join("sub/b")).unwrap(), "4");
        let mode = std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let generations = std::fs::read_dir(dir.path()).unwrap().flatten();
        let old = generations.filter(|entry| entry.file_name().to_string_lossy().starts_with("..1")).count();
        assert_eq!(old, 1);
    }

    #[test]
    fn items_choose_keys_and_stay_inside() {
        let data = BTreeMap::from([("k".to_owned(), b"v".to_vec())]);
        let item = |path: &str| [KeyToPath { key: "k".into(), path: path.into(), mode: None }];
        assert!(choose(data.clone(), Some(&item("x/y")), None, false).unwrap().contains_key("x/y"));
        assert!(choose(data.clone(), Some(&item("../x")), None, false).is_err());
        assert!(choose(data, Some(&item("/x")), None, false).is_err());
    }
}
