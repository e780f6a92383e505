//! `ServiceAccount` of core/v1.

use crate::kind::{Column, Identity, Kind};
use crate::table;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

/// What is particular to `ServiceAccount`.
pub struct ServiceAccountKind;

impl Kind for ServiceAccountKind {
    type Object = ServiceAccount;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "ServiceAccount",
            plural: "serviceaccounts",
            singular: "serviceaccount",
            short_names: &["sa"],
            categories: &[],
            namespaced: true,
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 3] =
            [table::NAME, table::integer("Secrets", "How many secrets it lists."), table::AGE];
        &COLUMNS
    }

    fn cells(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        let secrets = account.secrets.as_ref().map_or(0, Vec::len);
        vec![table::name(&account.metadata), secrets.into(), table::age(&account.metadata, now)]
    }
}
