//! Where containers mount the volumes of their pod.

use super::projection::{has_backsteps, validate_descending};
use super::{list, one_of_if_given, text};
use crate::field::{self, Errors, Path};
use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};
use std::collections::BTreeSet;

/// Everything wrong with the volume mounts and devices of a container.
pub(super) fn validate(container: &Container, volumes: &[Volume], path: &Path) -> Errors {
    let mut errors = validate_mounts(container, volumes, &path.child("volumeMounts"));
    errors.extend(validate_devices(container, volumes, &path.child("volumeDevices")));
    errors
}

fn validate_mounts(container: &Container, volumes: &[Volume], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut places = BTreeSet::new();
    let devices = list(&container.volume_devices);
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        let at = path.index(index);
        let (name_at, place_at) = (at.child("name"), at.child("mountPath"));
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        if mount.name.is_empty() {
            errors.push(field::required(&name_at, ""));
        }
        if volume.is_none() {
            errors.push(field::not_found(&name_at, &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(field::required(&place_at, ""));
        }
        if !places.insert(&mount.mount_path) {
            errors.push(field::invalid(&place_at, &mount.mount_path, "must be unique"));
        }
        if devices.iter().any(|device| device.name == mount.name) {
            errors.push(field::invalid(&name_at, &mount.name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|device| device.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(field::invalid(&place_at, &mount.mount_path, detail));
        }
        // Upstream gives these without the index of the mount.
        errors.extend(validate_sub_paths(mount, volume, &at, path));
        errors.extend(validate_propagation(mount, container, path));
        errors.extend(validate_recursive(mount, &path.child("recursiveReadOnly")));
    }
    errors
}

fn validate_sub_paths(mount: &VolumeMount, volume: Option<&Volume>, at: &Path, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (sub_path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if volume.is_some_and(|volume| volume.image.is_some()) {
        for (value, field) in [(sub_path, "subPath"), (expression, "subPathExpr")] {
            if !value.is_empty() {
                let detail = "not allowed in image volume sources";
                errors.push(field::invalid(&at.child(field), value, detail));
            }
        }
    }
    if !sub_path.is_empty() {
        errors.extend(validate_descending(sub_path, &path.child("subPath")));
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(field::invalid(&at.child("subPathExpr"), expression, detail));
        }
        errors.extend(validate_descending(expression, &path.child("subPathExpr")));
    }
    errors
}

fn validate_propagation(mount: &VolumeMount, container: &Container, path: &Path) -> Errors {
    let at = path.child("mountPropagation");
    let supported = ["Bidirectional", "HostToContainer", "None"];
    let mut errors: Errors = one_of_if_given(&mount.mount_propagation, &supported, &at).into_iter().collect();
    let is_privileged =
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
    if mount.mount_propagation.as_deref() == Some("Bidirectional") && !is_privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(field::forbidden(&at, detail));
    }
    errors
}

fn validate_recursive(mount: &VolumeMount, path: &Path) -> Errors {
    let mut errors = Errors::new();
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(field::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(field::forbidden(path, detail));
            }
        }
        Some(other) => {
            errors.push(field::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]));
        }
    }
    errors
}

fn validate_devices(container: &Container, volumes: &[Volume], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    let mounts = list(&container.volume_mounts);
    for (index, device) in list(&container.volume_devices).iter().enumerate() {
        let (name_at, place_at) = (path.index(index).child("name"), path.index(index).child("devicePath"));
        let (name, place) = (&device.name, &device.device_path);
        if name.is_empty() {
            errors.push(field::required(&name_at, ""));
        } else if !names.insert(name) {
            errors.push(field::invalid(&name_at, name, "must be unique"));
        }
        match volumes.iter().find(|volume| volume.name == *name) {
            None => errors.push(field::not_found(&name_at, name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(field::invalid(&name_at, name, detail));
            }
            Some(_) => {}
        }
        if place.is_empty() {
            errors.push(field::required(&place_at, ""));
        } else if has_backsteps(place) {
            errors.push(field::invalid(&place_at, place, "can not contain backsteps ('..')"));
        } else if !places.insert(place) {
            errors.push(field::invalid(&place_at, place, "must be unique"));
        }
        if mounts.iter().any(|mount| mount.name == *name) {
            errors.push(field::invalid(&name_at, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.mount_path == *place) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(field::invalid(&place_at, place, detail));
        }
    }
    errors
}
