//! Volumes of a pod: one file per source. `projected`, `downwardAPI` and the rest have their place here.
//!
//! * [`empty_dir`]: a fresh directory, on disk or in memory.
//! * [`files`]: `configMap` and `secret`: data of objects as files, swapped atomically.
//! * [`host_path`]: a path of the node.

mod empty_dir;
mod files;
mod host_path;

use crate::pod::environment::expand;
use crate::shared::Shared;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use sagong_runtime::Mount;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Makes all volumes of a pod. Those that exist keep what is in them.
///
/// # Errors
/// The message of the `FailedMount` event.
pub(crate) async fn make(shared: &Shared, pod: &Pod) -> Result<(), String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let path = path(&shared.config.pod_dir(uid), volume);
        let made = if let Some(source) = &volume.empty_dir {
            empty_dir::make(source, &path)
        } else if let Some(source) = &volume.config_map {
            files::config_map(shared.cluster.as_ref(), namespace, source, &path).await
        } else if let Some(source) = &volume.secret {
            files::secret(shared.cluster.as_ref(), namespace, source, &path).await
        } else if let Some(source) = &volume.host_path {
            host_path::check(source)
        } else {
            Err("this kind of volume is not supported yet".into())
        };
        made.map_err(|error| format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name))?;
    }
    Ok(())
}

/// Removes a pod's directory with all volumes in it. Host paths are not in it and stay.
///
/// # Errors
/// The sentence to log.
pub(crate) fn remove(pod_dir: &Path) -> Result<(), String> {
    empty_dir::unmount_all(&pod_dir.join("volumes"));
    match std::fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("removing {}: {error}", pod_dir.display()))
        }
        _ => Ok(()),
    }
}

/// Where a volume is on the node.
fn path(pod_dir: &Path, volume: &Volume) -> PathBuf {
    match &volume.host_path {
        Some(source) => PathBuf::from(&source.path),
        None => pod_dir.join("volumes").join(&volume.name),
    }
}

/// The mounts of a container's volumes.
///
/// # Errors
/// The message of `CreateContainerConfigError`.
pub(crate) fn mounts(
    pod_dir: &Path,
    pod: &Pod,
    spec: &Container,
    values: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mut mounts = Vec::new();
    for mount in spec.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume \"{}\" not found", mount.name))?;
        let root = path(pod_dir, volume);
        // What comes from objects is written by the kubelet only.
        let is_fixed = volume.config_map.is_some() || volume.secret.is_some();
        mounts.push(Mount {
            container_path: mount.mount_path.clone(),
            host_path: below(&root, mount, values)?,
            read_only: is_fixed || mount.read_only.unwrap_or(false),
        });
    }
    Ok(mounts)
}

/// The path of a mount's `subPath`, made as a directory if it is missing, and never outside the volume.
fn below(root: &Path, mount: &VolumeMount, values: &BTreeMap<String, String>) -> Result<PathBuf, String> {
    let expr = mount.sub_path_expr.as_ref().map(|text| expand(text, values));
    let Some(sub) = expr.or_else(|| mount.sub_path.clone()).filter(|sub| !sub.is_empty()) else {
        return Ok(root.to_owned());
    };
    let failed =
        |error: String| format!("failed to prepare subPath for volumeMount \"{}\": {error}", mount.name);
    if !Path::new(&sub).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(failed(format!("{sub:?} leaves the volume")));
    }
    let whole = root.join(&sub);
    if !whole.exists() {
        std::fs::create_dir_all(&whole).map_err(|error| failed(error.to_string()))?;
    }
    // A link in the volume may lead anywhere; what counts is where it ends.
    let real = whole.canonicalize().map_err(|error| failed(error.to_string()))?;
    let real_root = root.canonicalize().map_err(|error| failed(error.to_string()))?;
    match real.starts_with(&real_root) {
        true => Ok(real),
        false => Err(failed(format!("{sub:?} leaves the volume"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a/b", true)]
    #[case("../x", false)]
    #[case("/etc", false)]
    #[case("link", false)]
    fn sub_paths_stay_in_the_volume(#[case] sub: &str, #[case] allowed: bool) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("link")).unwrap();
        let mount = VolumeMount { sub_path: Some(sub.into()), ..Default::default() };
        assert_eq!(below(&root, &mount, &BTreeMap::new()).is_ok(), allowed);
    }
}
