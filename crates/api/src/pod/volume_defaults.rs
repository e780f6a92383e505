//! Defaults of volumes, source by source.

use super::defaults::{fill, pull_policy};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, ProjectedVolumeSource, Volume};

/// Permissions of files from ConfigMaps, Secrets and the downward API when nothing is said: `rw-r--r--`.
const FILE_MODE: i32 = 0o644;
/// Seconds a projected service account token is valid when nothing is said.
const TOKEN_EXPIRATION: i64 = 3600;

/// The defaults of a volume; one without any source is an empty directory.
pub fn default_volume(volume: &mut Volume) {
    if !has_source(volume) {
        volume.empty_dir.get_or_insert_default();
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.items.iter_mut().flatten().for_each(default_downward_file);
    }
    if let Some(source) = &mut volume.projected {
        default_projected(source);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref().unwrap_or_default());
        fill(&mut source.pull_policy, policy);
    }
    default_remote(volume);
}

fn has_source(volume: &Volume) -> bool {
    *volume != Volume { name: volume.name.clone(), ..Volume::default() }
}

fn default_projected(source: &mut ProjectedVolumeSource) {
    source.default_mode.get_or_insert(FILE_MODE);
    for projection in source.sources.iter_mut().flatten() {
        if let Some(token) = &mut projection.service_account_token {
            token.expiration_seconds.get_or_insert(TOKEN_EXPIRATION);
        }
        if let Some(downward) = &mut projection.downward_api {
            downward.items.iter_mut().flatten().for_each(default_downward_file);
        }
    }
}

fn default_downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        fill(&mut field.api_version, "v1");
    }
}

/// Sources that no node of ours can mount; a manifest that has them is still stored as upstream stores it.
fn default_remote(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        fill(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        fill(&mut source.pool, "rbd");
        fill(&mut source.user, "admin");
        fill(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        fill(&mut source.caching_mode, "ReadWrite");
        fill(&mut source.kind, "Shared");
        fill(&mut source.fs_type, "ext4");
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut volume.scale_io {
        fill(&mut source.storage_mode, "ThinProvisioned");
        fill(&mut source.fs_type, "xfs");
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut())
    {
        fill(&mut template.spec.volume_mode, "Filesystem");
    }
}
