//! The `default` ServiceAccount of every namespace.

use crate::cache::{Change, Key};
use crate::caches::Caches;
use crate::plan::{Plan, Write};
use crate::runner::{self, Watch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// The account pods run as when they name none.
const NAME: &str = "default";

/// The service account controller.
pub struct Controller;

/// What a plan depends on.
pub struct Snapshot {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Whether it has the account.
    pub exists: bool,
}

impl runner::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let caches = watch.caches();
        watch.on(&caches.namespaces, wake_new);
        watch.on(&caches.service_accounts, |change, wake| {
            if let (Some(gone), None) = (&change.old, &change.new)
                && gone.metadata.name.as_deref() == Some(NAME)
            {
                wake(Key::new("", gone.metadata.namespace.clone().unwrap_or_default()));
            }
        });
    }

    fn observe(&self, caches: &Caches, key: &Key) -> Option<Snapshot> {
        let namespace = caches.namespaces.get(key)?;
        let exists = caches.service_accounts.get(&Key::new(key.name.clone(), NAME)).is_some();
        Some(Snapshot { namespace, exists })
    }

    fn plan(&self, snapshot: &Snapshot, _now: Timestamp) -> Plan {
        plan(snapshot)
    }
}

/// Wakes a namespace when it appears.
pub(crate) fn wake_new(change: &Change<Namespace>, wake: &mut dyn FnMut(Key)) {
    if let (None, Some(new)) = (&change.old, &change.new) {
        wake(Key::of(&new.metadata));
    }
}

/// Whether things may still be created in it.
pub(crate) fn is_open(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// Makes the account if it is missing.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    if !snapshot.exists && is_open(&snapshot.namespace) {
        let account = ServiceAccount {
            metadata: ObjectMeta {
                namespace: snapshot.namespace.metadata.name.clone(),
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        plan.then(Write::create(account).tolerating(&[404, 409]));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;

    #[rstest]
    #[case::missing(false, false, true)]
    #[case::there(true, false, false)]
    #[case::missing_but_the_namespace_is_going(false, true, false)]
    fn a_namespace_in_use_gets_its_default_account(
        #[case] exists: bool,
        #[case] terminating: bool,
        #[case] creates: bool,
    ) {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("demo".into());
        namespace.metadata.deletion_timestamp = terminating.then_some(Time(Timestamp::UNIX_EPOCH));
        let plan = plan(&Snapshot { namespace: Arc::new(namespace), exists });
        let created: Vec<String> = plan.writes().map(|write| write.key.to_string()).collect();
        assert_eq!(created, if creates { vec!["demo/default"] } else { vec![] });
    }
}
