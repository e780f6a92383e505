//! Environment variables.

use super::downward::{ENV_FIELDS, validate_field, validate_resource};
use super::{all_invalid, list, text};
use crate::field::{self, Errors, Path};
use crate::name;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource};

/// Everything wrong with the variables of a container.
pub(super) fn validate_env(variables: &[EnvVar], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (index, variable) in variables.iter().enumerate() {
        let at = path.index(index);
        if variable.name.is_empty() {
            errors.push(field::required(&at.child("name"), ""));
        } else {
            errors.extend(validate_name(&variable.name, &at.child("name")));
        }
        if let Some(source) = &variable.value_from {
            let has_value = !text(&variable.value).is_empty();
            errors.extend(validate_source(source, has_value, &at.child("valueFrom")));
        }
    }
    errors
}

fn validate_name(name: &str, path: &Path) -> Errors {
    if name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Errors::new();
    }
    let detail =
        "a valid environment variable name must consist only of printable ASCII characters other than '='";
    vec![field::invalid(path, name, detail)]
}

fn validate_source(source: &EnvVarSource, has_value: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        errors.extend(validate_field(field, ENV_FIELDS, &path.child("fieldRef")));
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        errors.extend(validate_resource(resource, false, &path.child("resourceFieldRef")));
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        errors.extend(validate_key(&key.name, &key.key, &path.child("configMapKeyRef")));
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        errors.extend(validate_key(&key.name, &key.key, &path.child("secretKeyRef")));
    }
    let detail = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return errors,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(field::invalid(path, "", detail));
    errors
}

fn validate_key(object: &str, key: &str, path: &Path) -> Errors {
    let mut errors = all_invalid(&path.child("name"), object, &name::dns1123_subdomain(object));
    if key.is_empty() {
        errors.push(field::required(&path.child("key"), ""));
    } else {
        errors.extend(all_invalid(&path.child("key"), key, &name::config_map_key(key)));
    }
    errors
}

/// Everything wrong with the ConfigMaps and Secrets whose keys become variables.
pub(super) fn validate_env_from(sources: &[EnvFromSource], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (index, source) in sources.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_name(text(&source.prefix), &at.child("prefix")));
        let config_map = source.config_map_ref.as_ref().map(|from| ("configMapRef", &from.name));
        let secret = source.secret_ref.as_ref().map(|from| ("secretRef", &from.name));
        for (field, name) in config_map.into_iter().chain(secret) {
            errors.extend(validate_object(name, &at.child(field).child("name")));
        }
        let detail = match (config_map, secret) {
            (None, None) => "must specify one of: `configMapRef` or `secretRef`",
            (Some(_), Some(_)) => "may not have more than one field specified at a time",
            _ => continue,
        };
        errors.push(field::invalid(path, "", detail));
    }
    errors
}

fn validate_object(name: &str, path: &Path) -> Errors {
    if name.is_empty() {
        return vec![field::required(path, "")];
    }
    all_invalid(path, name, &name::dns1123_subdomain(name))
}

/// The items of an optional list of variables.
pub(super) fn validate(env: &Option<Vec<EnvVar>>, from: &Option<Vec<EnvFromSource>>, path: &Path) -> Errors {
    let mut errors = validate_env(list(env), &path.child("env"));
    errors.extend(validate_env_from(list(from), &path.child("envFrom")));
    errors
}
