//! `Namespace` of core/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part, Subresources};
use crate::name::NameRule;
use crate::{meta, table};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec};
use serde_json::Value;

/// The finalizer that keeps a deleted namespace until its contents are gone. It is in `spec.finalizers`, and
/// only the `/finalize` subresource changes those.
pub const FINALIZER: &str = "kubernetes";
/// The label every namespace carries its own name in (KEP-2161).
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What is particular to `Namespace`.
pub struct NamespaceKind;

/// What a write to `/finalize` makes of a namespace: `old` with the finalizers of `new`.
pub fn finalize(new: &Namespace, old: &Namespace) -> Namespace {
    let finalizers = new.spec.as_ref().and_then(|spec| spec.finalizers.clone());
    let finalizers = finalizers.filter(|finalizers| !finalizers.is_empty());
    Namespace { spec: Some(NamespaceSpec { finalizers }), ..old.clone() }
}

/// Whether nothing of its own holds a deleted namespace back any more.
pub fn is_finalized(namespace: &Namespace) -> bool {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_none_or(Vec::is_empty)
}

impl Kind for NamespaceKind {
    type Object = Namespace;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Namespace",
            plural: "namespaces",
            singular: "namespace",
            short_names: &["ns"],
            categories: &[],
            namespaced: false,
        }
    }

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: false }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, namespace: &mut Namespace) {
        if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_create(&self, namespace: &mut Namespace) {
        // The name may have been generated since the defaults were filled in.
        self.default(namespace);
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        let status = namespace.status.insert(Default::default());
        status.phase = Some("Active".to_owned());
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace, part: Part) {
        new.spec = old.spec.clone();
        if part == Part::Main {
            new.status = old.status.clone();
        }
    }

    fn validate_create(&self, namespace: &Namespace) -> Errors {
        let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
        let path = Path::new("spec").child("finalizers");
        finalizers.flat_map(|finalizer| meta::validate_finalizer(finalizer, &path)).collect()
    }

    fn validate_update(&self, new: &Namespace, _old: &Namespace, part: Part) -> Errors {
        if part == Part::Main {
            return Errors::new();
        }
        let phase = new.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let path = Path::new("status").child("Phase");
        match (new.metadata.deletion_timestamp.is_some(), phase) {
            (false, "Active") | (true, "Terminating") => Errors::new(),
            (false, other) => {
                let detail = "may only be 'Active' if `deletionTimestamp` is empty";
                vec![field::invalid(&path, other, detail)]
            }
            (true, other) => {
                let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
                vec![field::invalid(&path, other, detail)]
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 3] =
            [table::NAME, table::string("Status", "Whether it is in use or being deleted."), table::AGE];
        &COLUMNS
    }

    fn cells(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        let meta = &namespace.metadata;
        vec![table::name(meta), phase(namespace).into(), table::age(meta, now)]
    }

    fn selectable_fields(&self, namespace: &Namespace) -> Vec<(&'static str, String)> {
        vec![("status.phase", phase(namespace))]
    }
}

fn phase(namespace: &Namespace) -> String {
    namespace.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace
    }

    #[test]
    fn a_new_namespace_is_active_labelled_with_its_name_and_held_by_the_finalizer() {
        let mut namespace = named("demo");
        NamespaceKind.default(&mut namespace);
        NamespaceKind.prepare_create(&mut namespace);
        assert_eq!(phase(&namespace), "Active");
        assert_eq!(namespace.metadata.labels.as_ref().unwrap()[NAME_LABEL], "demo");
        assert!(!is_finalized(&namespace));
        assert!(NamespaceKind.validate_create(&namespace).is_empty());
    }

    #[test]
    fn only_finalize_removes_the_finalizer() {
        let mut old = named("demo");
        NamespaceKind.prepare_create(&mut old);
        let mut new = named("demo");
        NamespaceKind.prepare_update(&mut new, &old, Part::Main);
        assert_eq!((&new.spec, &new.status), (&old.spec, &old.status));
        assert!(is_finalized(&finalize(&named("demo"), &old)));
        assert_eq!(phase(&finalize(&named("demo"), &old)), "Active");
    }

    #[test]
    fn the_phase_must_fit_the_deletion() {
        let mut namespace = named("demo");
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        let errors = NamespaceKind.validate_update(&namespace, &namespace, Part::Status);
        assert_eq!(
            errors[0].to_string(),
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
        );
    }
}
