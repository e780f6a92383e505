//! Files in volumes that show ConfigMaps, Secrets, tokens and fields of the pod.

use super::downward::{FILE_FIELDS, validate_field, validate_resource};
use super::list;
use crate::field::{self, Errors, FieldError, Path};
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource,
    ServiceAccountTokenProjection,
};
use std::collections::BTreeSet;

/// The shortest life of a token that can be asked for, in seconds.
const TOKEN_MIN: i64 = 600;
/// The longest one.
const TOKEN_MAX: i64 = 1 << 32;

/// Complains about permissions that are none.
pub(super) fn validate_mode(mode: Option<i32>, path: &Path) -> Option<FieldError> {
    let mode = mode.filter(|mode| !(0..=0o777).contains(mode))?;
    Some(field::invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive"))
}

/// Whether a path goes up anywhere.
pub(super) fn has_backsteps(place: &str) -> bool {
    place.split('/').any(|step| step == "..")
}

/// Complains about a path that goes up.
pub(super) fn validate_no_backsteps(place: &str, path: &Path) -> Option<FieldError> {
    has_backsteps(place).then(|| field::invalid(path, place, "must not contain '..'"))
}

/// Complains about a path that is absolute or goes up.
pub(super) fn validate_descending(place: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if place.starts_with('/') {
        errors.push(field::invalid(path, place, "must be a relative path"));
    }
    errors.extend(validate_no_backsteps(place, path));
    errors
}

/// The same, and names that begin with two dots are the kubelet's own.
fn validate_file_path(place: &str, path: &Path) -> Errors {
    let mut errors = validate_descending(place, path);
    if place.starts_with("..") && !place.starts_with("../") {
        errors.push(field::invalid(path, place, "must not start with '..'"));
    }
    errors
}

/// Everything wrong with the keys of a ConfigMap or Secret that become files.
pub(super) fn validate_items(items: &[KeyToPath], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (index, item) in items.iter().enumerate() {
        let at = path.index(index);
        if item.key.is_empty() {
            errors.push(field::required(&at.child("key"), ""));
        }
        if item.path.is_empty() {
            errors.push(field::required(&at.child("path"), ""));
        }
        errors.extend(validate_file_path(&item.path, &at.child("path")));
        errors.extend(validate_mode(item.mode, &at.child("mode")));
    }
    errors
}

/// Everything wrong with a file that shows a field. Upstream gives no index in the path.
pub(super) fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if file.path.is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    }
    errors.extend(validate_file_path(&file.path, &path.child("path")));
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(selector), resource) => {
            errors.extend(validate_field(selector, FILE_FIELDS, &path.child("fieldRef")));
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(field::invalid(path, "resource", detail));
            }
        }
        (None, Some(selector)) => {
            errors.extend(validate_resource(selector, true, &path.child("resourceFieldRef")));
        }
        (None, None) => {
            errors.push(field::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    errors.extend(validate_mode(file.mode, &path.child("mode")));
    errors
}

/// Everything wrong with a projected volume.
pub(super) fn validate_projected(projected: &ProjectedVolumeSource, path: &Path) -> Errors {
    let mut errors: Errors =
        validate_mode(projected.default_mode, &path.child("defaultMode")).into_iter().collect();
    let mut seen = Seen { path: path.clone(), places: BTreeSet::new() };
    for (index, source) in list(&projected.sources).iter().enumerate() {
        let at = path.child("sources").index(index);
        let mut sources = 0;
        if let Some(secret) = &source.secret {
            sources += 1;
            let items = list(&secret.items);
            errors.extend(validate_keys(&secret.name, items, &at.child("secret"), &mut seen));
        }
        if let Some(config_map) = &source.config_map {
            sources += 1;
            let items = list(&config_map.items);
            errors.extend(validate_keys(&config_map.name, items, &at.child("configMap"), &mut seen));
        }
        if let Some(downward) = &source.downward_api {
            sources += 1;
            for file in list(&downward.items) {
                errors.extend(validate_downward_file(file, &at.child("downwardAPI")));
                errors.extend(seen.insert(&file.path, &file.path));
            }
        }
        if let Some(token) = &source.service_account_token {
            sources += 1;
            errors.extend(validate_token(token, &at.child("serviceAccountToken"), path));
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            sources += 1;
            errors.extend(validate_bundle(bundle, &at.child("clusterTrustBundle")));
            errors.extend(seen.insert(&bundle.path, &bundle.path));
        }
        if sources > 1 {
            errors.push(field::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
    errors
}

/// The files of a projected volume so far.
struct Seen {
    path: Path,
    places: BTreeSet<String>,
}

impl Seen {
    /// Complains about a second file in one place; `shown` is what upstream shows as the value.
    fn insert(&mut self, place: &str, shown: &str) -> Option<FieldError> {
        let is_new = place.is_empty() || self.places.insert(place.to_owned());
        (!is_new).then(|| field::invalid(&self.path, shown, "conflicting duplicate paths"))
    }
}

fn validate_keys(name: &str, items: &[KeyToPath], path: &Path, seen: &mut Seen) -> Errors {
    let mut errors = Errors::new();
    if name.is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    }
    errors.extend(validate_items(items, &path.child("items")));
    errors.extend(items.iter().filter_map(|item| seen.insert(&item.path, name)));
    errors
}

fn validate_token(token: &ServiceAccountTokenProjection, path: &Path, volume: &Path) -> Errors {
    let mut errors = Errors::new();
    let at = path.child("expirationSeconds");
    match token.expiration_seconds.unwrap_or(0) {
        short if short < TOKEN_MIN => {
            errors.push(field::invalid(&at, short, "may not specify a duration less than 10 minutes"));
        }
        long if long > TOKEN_MAX => {
            errors.push(field::invalid(&at, long, "may not specify a duration larger than 2^32 seconds"));
        }
        _ => {}
    }
    // Upstream names the volume here, not the source.
    if token.path.is_empty() {
        errors.push(field::required(&volume.child("path"), ""));
    }
    errors.extend(validate_file_path(&token.path, &volume.child("path")));
    errors
}

fn validate_bundle(bundle: &ClusterTrustBundleProjection, path: &Path) -> Errors {
    let mut errors = Errors::new();
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(field::invalid(path, bundle, "only one of name and signerName may be used"));
        }
        (Some(name), None) if name.is_empty() => {
            errors.push(field::required(&path.child("name"), "must be a valid object name"));
        }
        (None, Some(signer)) if signer.is_empty() => {
            errors.push(field::required(&path.child("signerName"), "must be a valid signer name"));
        }
        (None, None) => {
            errors.push(field::required(path, "either name or signerName must be specified"));
        }
        _ => {}
    }
    if bundle.path.is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    }
    errors.extend(validate_file_path(&bundle.path, &path.child("path")));
    errors
}
