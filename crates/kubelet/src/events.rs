//! Events, recorded as upstream records them: one object per distinct message, counted when repeated.

use crate::clock::{Clock, api_time};
use crate::cluster::{Cluster, ClusterError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many distinct events are remembered for counting.
const REMEMBERED: usize = 4096;

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
        let writer = Writer { cluster, node, seen: HashMap::new() };
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
    node: String,
    seen: HashMap<Note, (String, i32)>,
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
        if let Some((name, count)) = self.seen.get_mut(note) {
            *count = count.saturating_add(1);
            let patch = json!({ "count": count, "lastTimestamp": api_time(at) });
            let name = name.clone();
            match self.cluster.patch_event(&note.namespace, &name, &patch).await {
                // It has expired; tell it anew.
                Err(ClusterError::NotFound(_)) => {}
                other => return other,
            }
        }
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        let name = format!("{}.{:x}", note.name, at.as_nanosecond());
        self.cluster.create_event(&event(note, &name, &self.node, at)).await?;
        self.seen.insert(note.clone(), (name, 1));
        Ok(())
    }
}

fn event(note: &Note, name: &str, node: &str, at: Timestamp) -> Event {
    let severity = match note.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(note.namespace.clone()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(note.kind.into()),
            name: Some(note.name.clone()),
            // The namespace of a node's events is where they are kept, not where the node is.
            namespace: Some(note.namespace.clone()).filter(|_| note.kind != "Node"),
            uid: Some(note.uid.clone()),
            field_path: note.field_path.clone(),
            ..Default::default()
        },
        reason: Some(note.reason.into()),
        message: Some(note.message.clone()),
        type_: Some(severity.into()),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.to_owned()),
        count: Some(1),
        first_timestamp: Some(api_time(at)),
        last_timestamp: Some(api_time(at)),
        ..Default::default()
    }
}
