//! Volumes: their names, and that each has one source that says what it needs.

use super::projection::{
    validate_downward_file, validate_items, validate_mode, validate_no_backsteps, validate_projected,
};
use super::{all_invalid, list, one_of, one_of_if_given, text};
use crate::field::{self, Errors, Path};
use crate::name;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, NFSVolumeSource, Volume};
use serde_json::Value;
use std::collections::BTreeSet;

/// Every source of a volume, in the order in which upstream looks for them.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Everything wrong with the volumes of a pod.
pub(super) fn validate_volumes(volumes: &[Volume], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        let name_at = at.child("name");
        errors.extend(validate_source(volume, &at));
        if volume.name.is_empty() {
            errors.push(field::required(&name_at, ""));
        } else {
            errors.extend(all_invalid(&name_at, &volume.name, &name::dns1123_label(&volume.name)));
        }
        if !names.insert(&volume.name) {
            errors.push(field::duplicate(&name_at, &volume.name));
        }
    }
    errors
}

/// The first source given is looked into; the others are too many.
fn validate_source(volume: &Volume, path: &Path) -> Errors {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let is_given = |source: &&&str| fields.get(**source).is_some_and(|value| *value != Value::Null);
    let mut given = SOURCES.iter().filter(is_given);
    let Some(first) = given.next() else {
        return vec![field::required(path, "must specify a volume type")];
    };
    let mut errors = validate_one(volume, &path.child(first));
    let too_many = "may not specify more than 1 volume type";
    errors.extend(given.map(|source| field::forbidden(&path.child(source), too_many)));
    errors
}

/// What the source says. The sources that no node of ours mounts are taken as they are.
fn validate_one(volume: &Volume, path: &Path) -> Errors {
    if let Some(source) = &volume.empty_dir {
        validate_empty_dir(source, path)
    } else if let Some(source) = &volume.host_path {
        validate_host_path(source, path)
    } else if let Some(source) = &volume.secret {
        let mut errors = needs(text(&source.secret_name), "secretName", path);
        errors.extend(validate_mode(source.default_mode, &path.child("defaultMode")));
        errors.extend(validate_items(list(&source.items), &path.child("items")));
        errors
    } else if let Some(source) = &volume.nfs {
        validate_nfs(source, path)
    } else if let Some(source) = &volume.persistent_volume_claim {
        needs(&source.claim_name, "claimName", path)
    } else if let Some(source) = &volume.downward_api {
        let mut errors: Errors =
            validate_mode(source.default_mode, &path.child("defaultMode")).into_iter().collect();
        errors.extend(list(&source.items).iter().flat_map(|file| validate_downward_file(file, path)));
        errors
    } else if let Some(source) = &volume.config_map {
        let mut errors = needs(&source.name, "name", path);
        errors.extend(validate_mode(source.default_mode, &path.child("defaultMode")));
        errors.extend(validate_items(list(&source.items), &path.child("items")));
        errors
    } else if let Some(source) = &volume.projected {
        validate_projected(source, path)
    } else if let Some(source) = &volume.csi {
        needs(&source.driver, "driver", path)
    } else if let Some(source) = &volume.ephemeral {
        match source.volume_claim_template {
            Some(_) => Errors::new(),
            None => vec![field::required(&path.child("volumeClaimTemplate"), "")],
        }
    } else if let Some(source) = &volume.image {
        let policies = ["Always", "IfNotPresent", "Never"];
        one_of(&source.pull_policy, &policies, &path.child("pullPolicy")).into_iter().collect()
    } else {
        Errors::new()
    }
}

fn needs(value: &str, field: &str, path: &Path) -> Errors {
    if value.is_empty() { vec![field::required(&path.child(field), "")] } else { Errors::new() }
}

fn validate_empty_dir(source: &EmptyDirVolumeSource, path: &Path) -> Errors {
    let limit = source.size_limit.as_ref().map(Amount::try_from);
    let is_wrong = limit.is_some_and(|limit| limit.is_ok_and(Amount::is_negative) || limit.is_err());
    if !is_wrong {
        return Errors::new();
    }
    let detail = "SizeLimit field must be a valid resource quantity";
    vec![field::forbidden(&path.child("sizeLimit"), detail)]
}

fn validate_host_path(source: &HostPathVolumeSource, path: &Path) -> Errors {
    let mut errors = needs(&source.path, "path", path);
    if errors.is_empty() {
        errors.extend(validate_no_backsteps(&source.path, &path.child("path")));
        errors.extend(one_of_if_given(&source.type_, HOST_PATH_TYPES, &path.child("type")));
    }
    errors
}

fn validate_nfs(source: &NFSVolumeSource, path: &Path) -> Errors {
    let mut errors = needs(&source.server, "server", path);
    errors.extend(needs(&source.path, "path", path));
    if !source.path.starts_with('/') {
        errors.push(field::invalid(&path.child("path"), &source.path, "must be an absolute path"));
    }
    errors
}
