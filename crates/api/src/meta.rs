//! Checks of `metadata`, the same for every kind (`k8s.io/apimachinery/pkg/api/validation`).

use crate::field::{self, Errors, Path};
use crate::name::{self, NameRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes that the annotations of an object may have in total, keys and values.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Letters of a generated suffix: no vowels, so no words, and no look-alikes (0, 1, 3).
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them.
pub const SUFFIX_LENGTH: usize = 5;
/// The longest part of `generateName` that is used.
const GENERATE_BASE_MAX: usize = name::LABEL_MAX - SUFFIX_LENGTH;
/// The message for a field that may only be set at creation.
pub const IMMUTABLE: &str = "field is immutable";

/// `base` (cut to 58 bytes) with five letters drawn by `random(n)`, which must give a number below `n`.
pub fn generate_name(base: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut end = base.len().min(GENERATE_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let letter = |_| char::from(SUFFIX_ALPHABET[random(SUFFIX_ALPHABET.len()) % SUFFIX_ALPHABET.len()]);
    base[..end].chars().chain((0..SUFFIX_LENGTH).map(letter)).collect()
}

/// Everything wrong with the metadata of a new object at `path` (usually `metadata`).
pub fn validate_meta(meta: &ObjectMeta, namespaced: bool, rule: NameRule, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(base) = meta.generate_name.as_deref().filter(|base| !base.is_empty()) {
        let at = path.child("generateName");
        errors.extend(rule.check_prefix(base).iter().map(|wrong| field::invalid(&at, base, wrong)));
    }
    let at = path.child("name");
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(field::required(&at, "name or generateName is required")),
        name => errors.extend(rule.check(name).iter().map(|wrong| field::invalid(&at, name, wrong))),
    }
    errors.extend(validate_namespace(meta.namespace.as_deref().unwrap_or_default(), namespaced, path));
    errors.extend(validate_counts(meta, path));
    errors.extend(validate_labels(meta.labels.as_ref(), &path.child("labels")));
    errors.extend(validate_annotations(meta.annotations.as_ref(), &path.child("annotations")));
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    errors.extend(validate_owners(owners, &path.child("ownerReferences")));
    errors.extend(validate_finalizers(meta, &path.child("finalizers")));
    errors
}

fn validate_namespace(namespace: &str, namespaced: bool, path: &Path) -> Errors {
    let at = path.child("namespace");
    match (namespaced, namespace) {
        (true, "") => vec![field::required(&at, "")],
        (true, some) => name::dns1123_label(some).iter().map(|w| field::invalid(&at, some, w)).collect(),
        (false, "") => Errors::new(),
        (false, _) => vec![field::forbidden(&at, "not allowed on this type")],
    }
}

fn validate_counts(meta: &ObjectMeta, path: &Path) -> Errors {
    match meta.generation {
        Some(negative) if negative < 0 => {
            vec![field::invalid(&path.child("generation"), negative, "must be greater than or equal to 0")]
        }
        _ => Errors::new(),
    }
}

/// Everything wrong with labels.
pub fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in labels.into_iter().flatten() {
        errors.extend(name::qualified_name(key).iter().map(|wrong| field::invalid(path, key, wrong)));
        errors.extend(name::label_value(value).iter().map(|wrong| field::invalid(path, value, wrong)));
    }
    errors
}

/// Everything wrong with annotations. Their keys may have capital letters, unlike those of labels.
pub fn validate_annotations(annotations: Option<&BTreeMap<String, String>>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut total = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let wrong = name::qualified_name(&key.to_lowercase());
        errors.extend(wrong.iter().map(|wrong| field::invalid(path, key, wrong)));
        total += key.len() + value.len();
    }
    if total > ANNOTATIONS_MAX {
        errors.push(field::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

fn validate_owners(owners: &[OwnerReference], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        errors.extend(validate_owner(owner, path));
        if owner.controller == Some(true) {
            match controller {
                None => controller = Some(owner),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} \
                         and {}/{}",
                        first.kind, first.name, owner.kind, owner.name
                    );
                    errors.push(field::invalid(path, go_syntax(owners), &detail));
                }
            }
        }
    }
    errors
}

fn validate_owner(owner: &OwnerReference, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let version_at = path.child("apiVersion");
    let version = owner.api_version.rsplit('/').next().unwrap_or_default();
    if version.is_empty() {
        errors.push(field::invalid(&version_at, &owner.api_version, "version must not be empty"));
    }
    if owner.kind.is_empty() {
        errors.push(field::invalid(&path.child("kind"), &owner.kind, "kind must not be empty"));
    }
    if owner.name.is_empty() {
        errors.push(field::invalid(&path.child("name"), &owner.name, "name must not be empty"));
    }
    if owner.uid.is_empty() {
        errors.push(field::invalid(&path.child("uid"), &owner.uid, "uid must not be empty"));
    }
    if owner.api_version == "v1" && owner.kind == "Event" {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(field::invalid(path, go_syntax(std::slice::from_ref(owner)), detail));
    }
    errors
}

/// Owners as an error shows them.
fn go_syntax(owners: &[OwnerReference]) -> impl Serialize {
    serde_json::to_value(owners).unwrap_or_default()
}

fn validate_finalizers(meta: &ObjectMeta, path: &Path) -> Errors {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    let mut errors: Errors =
        finalizers.iter().flat_map(|finalizer| validate_finalizer(finalizer, path)).collect();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(field::invalid(path, finalizers, &detail));
    }
    errors
}

/// The finalizer that keeps dependents when the owner is deleted.
pub const ORPHAN: &str = "orphan";
/// The finalizer that deletes dependents before the owner.
pub const FOREGROUND: &str = "foregroundDeletion";

/// Everything wrong with one finalizer.
pub fn validate_finalizer(finalizer: &str, path: &Path) -> Errors {
    let mut errors: Errors =
        name::qualified_name(finalizer).iter().map(|wrong| field::invalid(path, finalizer, wrong)).collect();
    let standard = ["kubernetes", ORPHAN, FOREGROUND];
    if !finalizer.contains('/') && !standard.contains(&finalizer) {
        errors.push(field::invalid(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
    errors
}

/// Everything wrong with a change of metadata: what may not change, then what [`validate_meta`] checks of
/// the parts that may.
pub fn validate_meta_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if old.deletion_timestamp.is_some() {
        errors.extend(validate_no_new_finalizers(new, old, &path.child("finalizers")));
    }
    errors.extend(validate_finalizers(new, &path.child("finalizers")));
    if new.resource_version.as_deref().unwrap_or_default().is_empty() {
        let detail = "must be specified for an update";
        errors.push(field::invalid(&path.child("resourceVersion"), "", detail));
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        let detail = "must not be decremented";
        errors.push(field::invalid(&path.child("generation"), new.generation, detail));
    }
    errors.extend(immutable(&new.name, &old.name, &path.child("name")));
    errors.extend(immutable(&new.namespace, &old.namespace, &path.child("namespace")));
    errors.extend(immutable(&new.uid, &old.uid, &path.child("uid")));
    errors.extend(immutable(
        &new.creation_timestamp,
        &old.creation_timestamp,
        &path.child("creationTimestamp"),
    ));
    errors.extend(immutable(
        &new.deletion_timestamp,
        &old.deletion_timestamp,
        &path.child("deletionTimestamp"),
    ));
    errors.extend(immutable(
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
        &path.child("deletionGracePeriodSeconds"),
    ));
    errors.extend(validate_labels(new.labels.as_ref(), &path.child("labels")));
    errors.extend(validate_annotations(new.annotations.as_ref(), &path.child("annotations")));
    let owners = new.owner_references.as_deref().unwrap_or_default();
    errors.extend(validate_owners(owners, &path.child("ownerReferences")));
    errors
}

fn validate_no_new_finalizers(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> Errors {
    let before = old.finalizers.as_deref().unwrap_or_default();
    let added: Vec<&String> =
        new.finalizers.iter().flatten().filter(|finalizer| !before.contains(finalizer)).collect();
    if added.is_empty() {
        return Errors::new();
    }
    let detail = "no new finalizers can be added if the object is being deleted, found new finalizers";
    vec![field::forbidden(path, &format!("{detail} {}", go_strings(&added)))]
}

/// `[]string{"a", "b"}`.
fn go_strings(values: &[&String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    format!("[]string{{{}}}", quoted.join(", "))
}

/// `Invalid value: NEW: field is immutable` when the two differ; unset counts as the type's empty value.
pub fn immutable<T: PartialEq + Serialize>(new: &T, old: &T, path: &Path) -> Option<field::FieldError> {
    (new != old).then(|| field::invalid(path, new, IMMUTABLE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn meta(body: Value) -> ObjectMeta {
        serde_json::from_value(body).unwrap()
    }

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn owner(name: &str, controller: bool) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": name, "controller": controller})
    }

    #[rstest]
    #[case(json!({"name": "a", "namespace": "b"}), &[])]
    #[case(json!({"namespace": "b"}), &["metadata.name: Required value: name or generateName is required"])]
    #[case(json!({"name": "a"}), &["metadata.namespace: Required value"])]
    #[case(
        json!({"name": "a", "namespace": "b", "finalizers": ["mine"]}),
        &["metadata.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"]
    )]
    #[case(
        json!({"name": "a", "namespace": "b", "finalizers": ["orphan", "foregroundDeletion"]}),
        &["metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"]
    )]
    #[case(json!({"name": "a", "namespace": "b", "ownerReferences": [owner("x", true), owner("y", false)]}), &[])]
    #[case(json!({"name": "a", "namespace": "b", "annotations": {"Example.com/X": "y"}}), &[])]
    fn new_metadata_is_checked(#[case] body: Value, #[case] wrong: &[&str]) {
        let errors = validate_meta(&meta(body), true, NameRule::Subdomain, &Path::new("metadata"));
        assert_eq!(texts(errors), wrong);
    }

    #[test]
    fn a_kind_without_namespaces_has_none() {
        let errors = validate_meta(
            &meta(json!({"name": "a", "namespace": "b"})),
            false,
            NameRule::Subdomain,
            &Path::new("metadata"),
        );
        assert_eq!(texts(errors), ["metadata.namespace: Forbidden: not allowed on this type"]);
    }

    #[test]
    fn an_object_has_one_controller() {
        let owners = json!({"ownerReferences": [owner("x", true), owner("y", true)]});
        let errors = validate_meta_update(&meta(owners), &ObjectMeta::default(), &Path::new("metadata"));
        let two = "Only one reference can have Controller set to true. Found \"true\" in references for \
                   ReplicaSet/x and ReplicaSet/y";
        assert!(texts(errors).iter().any(|text| text.ends_with(two)));
    }

    #[test]
    fn annotations_have_a_total_size() {
        let annotations = BTreeMap::from([("a".to_owned(), "x".repeat(ANNOTATIONS_MAX))]);
        let errors = validate_annotations(Some(&annotations), &Path::new("metadata.annotations"));
        assert_eq!(texts(errors), ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[rstest]
    #[case("name", json!("b"), "metadata.name: Invalid value: \"b\": field is immutable")]
    #[case("uid", json!("b"), "metadata.uid: Invalid value: \"b\": field is immutable")]
    #[case(
        "creationTimestamp",
        json!("2024-01-01T00:00:00Z"),
        "metadata.creationTimestamp: Invalid value: \"2024-01-01T00:00:00Z\": field is immutable"
    )]
    #[case("resourceVersion", json!(""), "metadata.resourceVersion: Invalid value: \"\": must be specified for an update")]
    #[case("generation", json!(1), "metadata.generation: Invalid value: 1: must not be decremented")]
    fn identity_does_not_change(#[case] field: &str, #[case] value: Value, #[case] wrong: &str) {
        let old = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 2});
        let mut new = old.clone();
        new[field] = value;
        let errors = validate_meta_update(&meta(new), &meta(old), &Path::new("metadata"));
        assert_eq!(texts(errors), [wrong]);
    }

    #[test]
    fn what_is_being_deleted_gets_no_new_finalizers() {
        let old = json!({"name": "a", "resourceVersion": "1", "deletionTimestamp": "2024-01-01T00:00:00Z"});
        let mut new = old.clone();
        new["finalizers"] = json!(["a/b"]);
        let errors = validate_meta_update(&meta(new), &meta(old), &Path::new("metadata"));
        assert_eq!(
            texts(errors),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
              new finalizers []string{\"a/b\"}"
            ]
        );
    }

    #[rstest]
    #[case("kubia-", "kubia-bbbbb")]
    #[case(&"x".repeat(70), &format!("{}bbbbb", "x".repeat(58)))]
    #[case(&"é".repeat(30), &format!("{}bbbbb", "é".repeat(29)))]
    fn a_generated_name_fits_a_label(#[case] base: &str, #[case] name: &str) {
        assert_eq!(generate_name(base, |_| 0), name);
    }
}
