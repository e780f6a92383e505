//! Volumes of a pod: one file per source.
//!
//! * [`empty_dir`]: a fresh directory, on disk or in memory.
//! * [`host_path`]: a path of the node.
//! * [`content`]: what is in `configMap`, `secret`, `downwardAPI` and `projected`; pure. [`needs`] says what has to be
//!   fetched for it, [`payload`] writes it.
//! * [`sub_path`]: a part of a volume, which never leads out of it.
//! * [`tokens`]: tokens of service accounts, renewed in time.
//! * [`watch`]: says when something that is shown has changed.

mod content;
mod empty_dir;
mod host_path;
mod needs;
mod payload;
mod sub_path;
mod tokens;
mod watch;

pub(crate) use needs::shows_the_pod;
pub(crate) use tokens::Tokens;
pub(crate) use watch::{Shows, follow};

use crate::pod::environment::{Sources, expand};
use crate::shared::Shared;
use content::{Objects, Owner};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use needs::{Needs, Shown};
use sagong_runtime::Mount;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use sub_path::Part;

/// Makes all volumes of a pod, or brings what they show up to date. Other contents of those that exist stay. Gives the
/// time at which something in them wants to be renewed.
///
/// # Errors
/// The message of the `FailedMount` event.
pub(crate) async fn make(shared: &Shared, pod: &Pod) -> Result<Option<Timestamp>, String> {
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let (objects, renew) = match fetch(shared, pod).await {
        Ok(fetched) => fetched,
        // Whichever needed it: that of a pod without such a volume cannot fail.
        Err(error) => {
            let first = volumes().find(|volume| content::is_written(volume));
            return Err(first.map_or_else(|| error.clone(), |volume| blame(volume, error.clone())));
        }
    };
    if volumes().next().is_some() {
        let (pod_dir, pod) =
            (shared.config.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default()), pod.clone());
        blocking(move || set_up(&pod_dir, &pod, &objects)).await?;
    }
    Ok(renew)
}

fn blame(volume: &Volume, error: String) -> String {
    format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)
}

/// Does what may wait for a disk, or for a file system that does not answer, where nothing else waits for it.
///
/// # Errors
/// What the work says.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(error.to_string()),
    }
}

/// Makes all volumes, from what was fetched for them.
fn set_up(pod_dir: &Path, pod: &Pod, objects: &Objects) -> Result<(), String> {
    let owner = Owner::of(pod);
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let path = path(pod_dir, volume);
        let made = if let Some(source) = &volume.empty_dir {
            empty_dir::make(source, &path, owner.group)
        } else if content::is_written(volume) {
            content::of(volume, pod, objects, owner)
                .and_then(|files| show(volume, &path, &files, owner.group))
        } else if let Some(source) = &volume.host_path {
            host_path::check(source)
        } else if let Some(claim) = &volume.persistent_volume_claim {
            Err(format!("persistentvolumeclaim \"{}\": claims are not supported yet", claim.claim_name))
        } else {
            Err("this kind of volume is not supported yet".into())
        };
        made.map_err(|error| blame(volume, error))?;
    }
    Ok(())
}

/// Writes files into a volume; secrets and whatever may hold some never touch a disk.
fn show(volume: &Volume, path: &Path, files: &payload::Payload, group: Option<u32>) -> Result<(), String> {
    if volume.config_map.is_none() {
        empty_dir::in_memory(path, None)?;
    }
    payload::write(path, files, group).map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

/// Fetches all that volumes show, and says so to [`watch`].
async fn fetch(shared: &Shared, pod: &Pod) -> Result<(Objects, Option<Timestamp>), String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let needs = Needs::of(pod);
    let sources = Sources::of_node(shared.node_memory, shared.node_storage);
    let mut objects = Objects { sources, ..Default::default() };
    for (shown, name) in needs.objects {
        let place = (namespace.to_owned(), name.clone());
        // Before it is fetched: a change in between is told.
        shared.shows.note(shown, place.clone(), uid, None);
        let (meta, immutable) = match shown {
            Shown::ConfigMap => {
                let found = shared.cluster.config_map(namespace, &name).await;
                let found = found.map_err(|error| error.to_string())?;
                let seen = found.as_ref().map(|it| (it.metadata.clone(), it.immutable));
                objects.sources.config_maps.insert(name, found);
                seen
            }
            Shown::Secret => {
                let found = shared.cluster.secret(namespace, &name).await;
                let found = found.map_err(|error| error.to_string())?;
                let seen = found.as_ref().map(|it| (it.metadata.clone(), it.immutable));
                objects.sources.secrets.insert(name, found);
                seen
            }
        }
        .unzip();
        match immutable.flatten() {
            Some(true) => shared.shows.ignore(shown, place, uid),
            _ => shared.shows.note(shown, place, uid, meta.and_then(|meta| meta.resource_version)),
        }
    }
    let mut renew: Option<Timestamp> = None;
    for wish in needs.tokens {
        let (token, at) = shared.tokens.get(shared, pod, &wish).await?;
        objects.tokens.insert(wish, token);
        renew = Some(renew.map_or(at, |earlier| earlier.min(at)));
    }
    Ok((objects, renew))
}

/// What is held for a pod that is gone.
pub(crate) fn forget(shared: &Shared, uid: &str) {
    shared.shows.forget(uid);
    shared.tokens.forget(uid);
}

/// Removes a pod's directory with all volumes in it. Host paths are not in it and stay.
///
/// # Errors
/// The sentence to log.
pub(crate) fn remove(pod_dir: &Path) -> Result<(), String> {
    remove_volumes(pod_dir)?;
    remove_tree(pod_dir)
}

/// Removes all volumes of a pod. Host paths stay.
///
/// # Errors
/// The sentence to log.
pub(crate) fn remove_volumes(pod_dir: &Path) -> Result<(), String> {
    // What is mounted there may belong to the node: nothing is removed as long as any of it is.
    sub_path::unmount_all(pod_dir)
        .map_err(|error| format!("unmounting parts of volumes in {}: {error}", pod_dir.display()))?;
    let all = pod_dir.join("volumes");
    empty_dir::unmount_all(&all);
    remove_tree(&all)
}

fn remove_tree(path: &Path) -> Result<(), String> {
    sagong_image::remove_tree(path).map_err(|error| format!("removing {}: {error}", path.display()))
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
    for (index, mount) in spec.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume \"{}\" not found", mount.name))?;
        if mount.mount_propagation.as_deref() == Some("Bidirectional") {
            let name = &mount.name;
            return Err(format!("mountPropagation Bidirectional of volumeMount \"{name}\" is not supported"));
        }
        let root = path(pod_dir, volume);
        let host_path = match sub_path(mount, values) {
            Some(sub) => {
                let part = Part { pod_dir, volume: &volume.name, container: &spec.name, index };
                part.mount(&root, &sub).map_err(|error| {
                    format!("failed to prepare subPath for volumeMount \"{}\": {error}", mount.name)
                })?
            }
            None => root,
        };
        let recursive = mount.recursive_read_only.as_deref();
        // What comes from objects is written by the kubelet only.
        let is_fixed = content::is_written(volume);
        mounts.push(Mount {
            container_path: mount.mount_path.clone(),
            host_path,
            read_only: is_fixed || mount.read_only.unwrap_or(false),
            // Where Sagong runs at all the kernel can do it.
            recursive_read_only: mount.read_only == Some(true)
                && matches!(recursive, Some("Enabled" | "IfPossible")),
        });
    }
    Ok(mounts)
}

/// Which part of its volume a mount shows; None: all of it.
fn sub_path(mount: &VolumeMount, values: &BTreeMap<String, String>) -> Option<String> {
    let expr = mount.sub_path_expr.as_ref().map(|text| expand(text, values));
    expr.or_else(|| mount.sub_path.clone()).filter(|sub| !sub.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::writable(json!({}), Some((false, false)))]
    #[case::read_only(json!({"readOnly": true, "mountPropagation": "HostToContainer"}), Some((true, false)))]
    #[case::all_below(json!({"readOnly": true, "recursiveReadOnly": "Enabled"}), Some((true, true)))]
    #[case::if_possible(json!({"readOnly": true, "recursiveReadOnly": "IfPossible"}), Some((true, true)))]
    #[case::disabled(json!({"readOnly": true, "recursiveReadOnly": "Disabled"}), Some((true, false)))]
    #[case::to_the_host(json!({"mountPropagation": "Bidirectional"}), None)]
    fn mounts_are_as_asked_for_or_refused(
        #[case] mut mount: serde_json::Value,
        #[case] expected: Option<(bool, bool)>,
    ) {
        (mount["name"], mount["mountPath"]) = (json!("v"), json!("/v"));
        let container = json!({"name": "main", "volumeMounts": [mount]});
        let volumes = json!([{"name": "v", "emptyDir": {}}]);
        let pod = json!({"metadata": {}, "spec": {"containers": [container], "volumes": volumes}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let spec = pod.spec.as_ref().unwrap().containers[0].clone();
        let made = mounts(Path::new("/pod"), &pod, &spec, &BTreeMap::new()).ok();
        assert_eq!(made.map(|made| (made[0].read_only, made[0].recursive_read_only)), expected);
    }
}
