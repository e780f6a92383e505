//! `Lease` of coordination.k8s.io/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part};
use crate::table;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

/// What is particular to `Lease`.
pub struct LeaseKind;

impl Kind for LeaseKind {
    type Object = Lease;

    fn identity(&self) -> Identity {
        Identity {
            group: "coordination.k8s.io",
            version: "v1",
            kind: "Lease",
            plural: "leases",
            singular: "lease",
            short_names: &[],
            categories: &[],
            namespaced: true,
        }
    }

    fn validate_create(&self, lease: &Lease) -> Errors {
        let Some(spec) = &lease.spec else { return Errors::new() };
        let path = Path::new("spec");
        let mut errors = Errors::new();
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            let at = path.child("leaseDurationSeconds");
            errors.push(field::invalid(&at, seconds, "must be greater than 0"));
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            let at = path.child("leaseTransitions");
            errors.push(field::invalid(&at, count, "must be greater than or equal to 0"));
        }
        errors
    }

    fn validate_update(&self, new: &Lease, _old: &Lease, _part: Part) -> Errors {
        self.validate_create(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 3] = [table::NAME, table::string("Holder", "Who holds it."), table::AGE];
        &COLUMNS
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        vec![table::name(&lease.metadata), holder.into(), table::age(&lease.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    #[test]
    fn a_lease_lasts_longer_than_nothing_and_changes_hands_at_least_never() {
        let spec = LeaseSpec {
            lease_duration_seconds: Some(0),
            lease_transitions: Some(-1),
            ..LeaseSpec::default()
        };
        let errors = LeaseKind.validate_create(&Lease { spec: Some(spec), ..Lease::default() });
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
