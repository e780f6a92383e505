//! Reports Events, correlated the way upstream does, so that a busy object does not flood the cluster.

use crate::apply::path;
use crate::cache::Key;
use crate::plan::{KindRef, Note};
use http::{Method, Request};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Client;
use sagong_api::event::{Correlator, Emission, Subject};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Events waiting to be written; more are dropped, as they are worth less than what they would delay.
const WAITING: usize = 1000;

/// Takes notes and writes them as Events in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    notes: mpsc::Sender<(Note, String, Timestamp)>,
    clock: fn() -> Timestamp,
}

impl Recorder {
    /// Starts writing events whose source is `component`, until `shutdown`.
    pub fn start(
        client: Client,
        component: &str,
        clock: fn() -> Timestamp,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let (notes, receiver) = mpsc::channel(WAITING);
        let correlator = Correlator::new(component, None);
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(write(client, correlator, receiver)));
        Self { notes, clock }
    }

    /// Reports `note` with this full message. Never waits and never fails: an event is not worth either.
    pub fn record(&self, note: &Note, message: &str) {
        if self.notes.try_send((note.clone(), message.to_owned(), (self.clock)())).is_err() {
            tracing::debug!(reason = note.reason, message, "event dropped");
        }
    }
}

async fn write(
    client: Client,
    mut correlator: Correlator,
    mut notes: mpsc::Receiver<(Note, String, Timestamp)>,
) {
    while let Some((note, message, when)) = notes.recv().await {
        let regarding = &*note.regarding;
        let subject = Subject { regarding, warning: note.warning, reason: note.reason, action: None };
        let Some(emission) = correlator.correlate(&subject, &message, when) else { continue };
        let error = match send(&client, &emission).await {
            // What was counted up has expired: begin again.
            Err(kube::Error::Api(status)) if status.code == 404 && emission.patch.is_some() => {
                let Emission { event, .. } = emission;
                send(&client, &Emission { event, patch: None }).await.err()
            }
            result => result.err(),
        };
        if let Some(error) = error {
            tracing::debug!(reason = note.reason, message, %error, "event not written");
        }
    }
}

async fn send(client: &Client, emission: &Emission) -> kube::Result<()> {
    let kind = KindRef::of::<Event>();
    let event = &emission.event;
    let mut key = Key::of(&event.metadata);
    let (method, media_type, body) = match &emission.patch {
        Some(patch) => (Method::PATCH, "application/merge-patch+json", patch.to_string().into_bytes()),
        None => {
            key.name.clear();
            (Method::POST, "application/json", serde_json::to_vec(event).map_err(kube::Error::SerdeError)?)
        }
    };
    let request = Request::builder()
        .method(method)
        .uri(path(&kind, &key, None))
        .header(http::header::CONTENT_TYPE, media_type)
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(drop)
}
