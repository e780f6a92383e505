//! Events about pods, written in the background.

use crate::NAME;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use sagong_api::event::{Correlator, Emission, Subject};
use tokio::sync::mpsc;

/// Reports waiting to be written; more are dropped, as nobody is to wait for them.
const WAITING: usize = 5000;
/// Events being written at once.
const PARALLEL: usize = 32;

/// Something about a pod.
pub(crate) struct Report {
    pub(crate) regarding: ObjectReference,
    pub(crate) warning: bool,
    /// `Scheduled`, `FailedScheduling`.
    pub(crate) reason: &'static str,
    /// `Binding`, `Scheduling`.
    pub(crate) action: &'static str,
    pub(crate) message: String,
}

/// Takes reports. Cheap to clone; the task that writes ends with the last of them.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Report>);

impl Recorder {
    pub(crate) fn start(client: Client) -> Self {
        let (sender, mut reports) = mpsc::channel(WAITING);
        let mut correlator = Correlator::new(NAME, None);
        let reports = stream::poll_fn(move |context| reports.poll_recv(context));
        let emissions = reports.filter_map(move |report: Report| {
            let Report { regarding, warning, reason, action, message } = &report;
            let subject = Subject { regarding, warning: *warning, reason, action: Some(*action) };
            std::future::ready(correlator.correlate(&subject, message, Timestamp::now()))
        });
        tokio::spawn(
            emissions.for_each_concurrent(PARALLEL, move |emission| write(client.clone(), emission)),
        );
        Self(sender)
    }

    /// Never waits and never fails.
    pub(crate) fn record(&self, report: Report) {
        if let Err(error) = self.0.try_send(report) {
            tracing::debug!(%error, "event dropped");
        }
    }
}

/// The reference to a pod that events about it carry.
pub(crate) fn reference_to(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.uid(),
        resource_version: pod.resource_version(),
        ..ObjectReference::default()
    }
}

async fn write(client: Client, emission: Emission) {
    let events: Api<Event> = Api::namespaced(client, emission.namespace());
    let patched = match &emission.patch {
        Some(patch) => {
            let patch = Patch::Merge(patch);
            events.patch(emission.name(), &PatchParams::default(), &patch).await.map(drop)
        }
        None => events.create(&PostParams::default(), &emission.event).await.map(drop),
    };
    let error = match patched {
        // What was counted up has expired: begin again.
        Err(kube::Error::Api(status)) if status.code == 404 && emission.patch.is_some() => {
            events.create(&PostParams::default(), &emission.event).await.err()
        }
        result => result.err(),
    };
    if let Some(error) = error {
        tracing::debug!(event = emission.name(), %error, "event not written");
    }
}
