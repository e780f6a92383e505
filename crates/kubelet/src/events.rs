//! Events, recorded as upstream records them: one object per distinct message, counted when repeated.

use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use sagong_api::event::{Correlator, Subject};
use std::sync::Arc;
use tokio::sync::mpsc;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    /// As it should be.
    Normal,
    /// Look at it.
    Warning,
}

/// Something to record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Note {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field_path: Option<String>,
    severity: Severity,
    reason: &'static str,
    message: String,
}

/// Records events in the background. Never fails and never waits: an event that cannot be written is lost.
#[derive(Clone)]
pub(crate) struct Recorder {
    notes: mpsc::UnboundedSender<(Note, Timestamp)>,
    clock: Clock,
}

impl Recorder {
    /// A recorder and the task that writes for it; the task ends when the last recorder is dropped.
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        node: String,
        clock: Clock,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (notes, inbox) = mpsc::unbounded_channel();
        let writer = Writer { cluster, correlator: Correlator::new("kubelet", Some(&node)) };
        (Recorder { notes, clock }, writer.run(inbox))
    }

    /// Something about a pod.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(pod, None, severity, reason, message.into());
    }

    /// Something about a container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let ephemeral = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let list = if { inits }.any(|init| init.name == container) {
            "initContainers"
        } else if { ephemeral }.any(|one| one.name == container) {
            "ephemeralContainers"
        } else {
            "containers"
        };
        self.record(pod, Some(format!("spec.{list}{{{container}}}")), severity, reason, message.into());
    }

    /// Something about the node.
    pub(crate) fn node(
        &self,
        node: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let note = Note {
            kind: "Node",
            namespace: "default".into(),
            name: node.to_owned(),
            uid: node.to_owned(),
            field_path: None,
            severity,
            reason,
            message: message.into(),
        };
        self.send(note);
    }

    fn record(
        &self,
        pod: &Pod,
        path: Option<String>,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        self.send(Note {
            kind: "Pod",
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            field_path: path,
            severity,
            reason,
            message,
        });
    }

    fn send(&self, note: Note) {
        // The writer is gone only while everything stops.
        let _ = self.notes.send((note, self.clock.now()));
    }
}

struct Writer {
    cluster: Arc<dyn Cluster>,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<(Note, Timestamp)>) {
        while let Some((note, at)) = inbox.recv().await {
            if let Err(error) = self.write(&note, at).await {
                tracing::debug!(%error, reason = note.reason, "event lost");
            }
        }
    }

    async fn write(&mut self, note: &Note, at: Timestamp) -> Result<(), ClusterError> {
        let regarding = note.regarding();
        let warning = note.severity == Severity::Warning;
        let subject = Subject { regarding: &regarding, warning, reason: note.reason, action: None };
        let Some(emission) = self.correlator.correlate(&subject, &note.message, at) else { return Ok(()) };
        if let Some(patch) = &emission.patch {
            match self.cluster.patch_event(emission.namespace(), emission.name(), patch).await {
                // It has expired; tell it anew.
                Err(ClusterError::NotFound(_)) => {}
                other => return other,
            }
        }
        self.cluster.create_event(&emission.event).await
    }
}

impl Note {
    fn regarding(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(self.kind.into()),
            name: Some(self.name.clone()),
            // The namespace of a node's events is where they are kept, not where the node is.
            namespace: Some(self.namespace.clone()).filter(|_| self.kind != "Node"),
            uid: Some(self.uid.clone()),
            field_path: self.field_path.clone(),
            ..Default::default()
        }
    }
}
