//! Kinds of which there are none here, and which the schedulers and controllers of others list before they begin.
//!
//! Without them `--without-scheduler` would be of no use to kube-scheduler: it waits until volumes, budgets and
//! StatefulSets are listed. So lists of these kinds are empty and watches of them silent. Nothing of them can be
//! created, and discovery does not name them: to users they do not exist.

use crate::answer::{self, ListMeta};
use crate::body::Body;
use crate::failure::{Failure, Outcome};
use crate::query::Query;
use crate::rest::watch;
use crate::state::Core;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{Response, StatusCode};
use sagong_api::error::ApiError;
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;

/// Group, version, plural and kind.
const KINDS: [(&str, &str, &str, &str); 11] = [
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("", "v1", "persistentvolumes", "PersistentVolume"),
    ("apps", "v1", "daemonsets", "DaemonSet"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    // What schedulers before 1.22 ask for.
    ("policy", "v1beta1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("storage.k8s.io", "v1", "csidrivers", "CSIDriver"),
    ("storage.k8s.io", "v1", "csinodes", "CSINode"),
    ("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity"),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass"),
    ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment"),
];

/// One of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    api_version: String,
    /// `statefulsets.apps`.
    qualified: String,
    kind: &'static str,
}

impl Absent {
    /// The kind behind `/apis/GROUP/VERSION/PLURAL`.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let kind = KINDS.iter().find(|kind| (kind.0, kind.1, kind.2) == (group, version, plural))?.3;
        let (api_version, qualified) = match group {
            "" => (version.to_owned(), plural.to_owned()),
            _ => (format!("{group}/{version}"), format!("{plural}.{group}")),
        };
        Some(Self { api_version, qualified, kind })
    }

    /// Answers a request for the collection, or for an object of this name. What would write is not allowed.
    pub(crate) fn answer(
        self,
        core: Arc<Core>,
        verb: &str,
        name: Option<String>,
        query: &Query,
    ) -> Outcome<Response<Body>> {
        match (verb, name) {
            ("list", _) => Ok(self.list(core.store.revision())),
            ("watch", _) => self.watch(core, query),
            ("get", Some(name)) => Err(ApiError::NotFound { resource: self.qualified, name }.into()),
            _ => Err(ApiError::MethodNotAllowed.into()),
        }
    }

    fn list(&self, revision: u64) -> Response<Body> {
        let list = json!({
            "kind": format!("{}List", self.kind),
            "apiVersion": self.api_version,
            "metadata": ListMeta { revision, ..ListMeta::default() }.to_value(),
            "items": [],
        });
        answer::json_value(StatusCode::OK, &list)
    }

    fn watch(self, core: Arc<Core>, query: &Query) -> Outcome<Response<Body>> {
        let deadline =
            Instant::now() + watch::timeout(query.number("timeoutSeconds").map_err(Failure::bad_request)?);
        let initial = query.flag("sendInitialEvents").then(|| self.bookmark(core.store.revision()));
        let silence = async move {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {}
                () = core.stopping.cancelled() => {}
            }
        };
        // A stream that ends without a piece.
        let silence = silence.map(|()| stream::empty()).flatten_stream();
        Ok(watch::respond(stream::iter(initial.map(Ok)).chain(silence)))
    }

    /// The end of the initial events, of which there are none.
    fn bookmark(&self, revision: u64) -> Bytes {
        let metadata = watch::bookmark_metadata(revision, true);
        let object = json!({"kind": self.kind, "apiVersion": self.api_version, "metadata": metadata});
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
    }
}
