//! Reports Events, correlating repeats the way upstream does, so that a busy object does not flood the cluster.

use crate::apply::path;
use crate::cache::Key;
use crate::plan::{KindRef, Note};
use http::{Method, Request};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Events waiting to be written; more are dropped, as they are worth less than what they would delay.
const WAITING: usize = 1000;
/// Objects and sentences remembered.
const REMEMBERED: usize = 4096;
/// From this many different sentences with one reason on, the rest is combined into one event.
const DIFFERENT: usize = 10;
/// How long sentences count as similar, in seconds.
const SIMILAR_FOR: i64 = 600;
/// Events an object may cause at once, and how many seconds it takes to earn another.
const BURST: f64 = 25.0;
const SECONDS_PER_EVENT: f64 = 300.0;

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
        let correlator = Correlator::new(component);
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
        let Some(emission) = correlator.correlate(&note, &message, when) else { continue };
        let error = match send(&client, &emission).await {
            // What was counted up has expired: begin again.
            Err(kube::Error::Api(status)) if status.code == 404 && emission.is_repeat() => {
                send(&client, &emission.afresh()).await.err()
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

/// An event to write: a new one, or a patch that counts up an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// The event as it should be.
    pub event: Event,
    /// For a repeat: what changes of the event written earlier.
    pub patch: Option<Value>,
}

impl Emission {
    fn is_repeat(&self) -> bool {
        self.patch.is_some()
    }

    fn afresh(&self) -> Self {
        Self { event: self.event.clone(), patch: None }
    }
}

/// What makes two notes the same apart from their message.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Topic {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    warning: bool,
    reason: &'static str,
}

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Observed {
    name: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

struct Allowance {
    tokens: f64,
    last: Timestamp,
}

/// Decides what becomes of each note: a new event, one counted up, or none.
///
/// * The same message again counts up the first event.
/// * From the tenth different message about one object with one reason within ten minutes on, one event
///   `(combined from similar events): …` is counted up.
/// * An object causes at most 25 events at once and one more every five minutes.
pub struct Correlator {
    component: String,
    similar: HashMap<Topic, Similar>,
    observed: HashMap<(Topic, Option<String>), Observed>,
    allowances: HashMap<String, Allowance>,
    last_name: i128,
}

impl Correlator {
    /// A correlator for events whose source is `component`.
    pub fn new(component: &str) -> Self {
        Self {
            component: component.to_owned(),
            similar: HashMap::new(),
            observed: HashMap::new(),
            allowances: HashMap::new(),
            last_name: 0,
        }
    }

    /// What to write for a note made at `now`, if anything.
    pub fn correlate(&mut self, note: &Note, message: &str, now: Timestamp) -> Option<Emission> {
        self.forget(now);
        let regarding = &note.regarding;
        let topic = Topic {
            kind: regarding.kind.clone(),
            namespace: regarding.namespace.clone(),
            name: regarding.name.clone(),
            uid: regarding.uid.clone(),
            warning: note.warning,
            reason: note.reason,
        };
        let combined = self.is_one_of_many(&topic, message, now);
        let message =
            if combined { format!("(combined from similar events): {message}") } else { message.to_owned() };
        let fresh_name = self.fresh_name(regarding, now);
        let sentence = (topic, (!combined).then(|| message.clone()));
        let observed = self.observed.entry(sentence).or_insert(Observed {
            name: fresh_name,
            count: 0,
            first: now,
            last: now,
        });
        observed.count += 1;
        observed.last = now;
        let event = event(&self.component, note, message, observed);
        let patch = (observed.count > 1).then(
            || json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message}),
        );
        self.may_report(regarding, now).then_some(Emission { event, patch })
    }

    fn is_one_of_many(&mut self, topic: &Topic, message: &str, now: Timestamp) -> bool {
        let similar = self
            .similar
            .entry(topic.clone())
            .or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if now.duration_since(similar.last).as_secs() > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < DIFFERENT {
            similar.messages.insert(message.to_owned());
        }
        similar.messages.len() >= DIFFERENT
    }

    fn may_report(&mut self, regarding: &ObjectReference, now: Timestamp) -> bool {
        let object = format!(
            "{}/{}/{}/{}",
            regarding.kind.as_deref().unwrap_or_default(),
            regarding.namespace.as_deref().unwrap_or_default(),
            regarding.name.as_deref().unwrap_or_default(),
            regarding.uid.as_deref().unwrap_or_default(),
        );
        let allowance = self.allowances.entry(object).or_insert(Allowance { tokens: BURST, last: now });
        let earned = now.duration_since(allowance.last).as_secs_f64() / SECONDS_PER_EVENT;
        allowance.tokens = (allowance.tokens + earned).min(BURST);
        allowance.last = now;
        let may = allowance.tokens >= 1.0;
        if may {
            allowance.tokens -= 1.0;
        }
        may
    }

    /// `kubia.17e5a7d1f7a3c0de`: the object's name and the nanosecond, made unique.
    fn fresh_name(&mut self, regarding: &ObjectReference, now: Timestamp) -> String {
        self.last_name = now.as_nanosecond().max(self.last_name + 1);
        format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), self.last_name)
    }

    fn forget(&mut self, now: Timestamp) {
        let is_recent = |last: Timestamp| now.duration_since(last).as_secs() <= SIMILAR_FOR;
        forget(&mut self.similar, |similar| is_recent(similar.last));
        forget(&mut self.observed, |observed| is_recent(observed.last));
        forget(&mut self.allowances, |allowance| is_recent(allowance.last));
    }
}

/// Keeps memory bounded: of too many entries only the recent ones stay, and if all are recent, none.
fn forget<K: Eq + Hash, V>(map: &mut HashMap<K, V>, is_recent: impl Fn(&V) -> bool) {
    if map.len() >= REMEMBERED {
        map.retain(|_, value| is_recent(value));
    }
    if map.len() >= REMEMBERED {
        map.clear();
    }
}

fn event(component: &str, note: &Note, message: String, observed: &Observed) -> Event {
    let regarding: &Arc<ObjectReference> = &note.regarding;
    let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(observed.name.clone()),
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: (**regarding).clone(),
        reason: Some(note.reason.to_owned()),
        message: Some(message),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        count: Some(observed.count),
        first_timestamp: Some(Time(observed.first)),
        last_timestamp: Some(Time(observed.last)),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn note() -> Note {
        let regarding = ObjectReference {
            kind: Some("ReplicaSet".into()),
            namespace: Some("default".into()),
            name: Some("kubia".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        };
        Note::normal(&Arc::new(regarding), "SuccessfulCreate", "Created pod: ")
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
    }

    #[test]
    fn the_same_message_again_counts_up_the_first_event() {
        let mut correlator = Correlator::new("replicaset-controller");
        let first = correlator.correlate(&note(), "Created pod: a", at(0)).unwrap();
        assert_eq!(first.patch, None);
        let second = correlator.correlate(&note(), "Created pod: a", at(5)).unwrap();
        assert_eq!(second.event.metadata.name, first.event.metadata.name);
        assert_eq!(second.patch.unwrap()["count"], 2);
        assert_eq!(second.event.first_timestamp, Some(Time(at(0))));
        assert_eq!(second.event.last_timestamp, Some(Time(at(5))));
    }

    #[test]
    fn the_tenth_different_message_and_those_after_are_combined() {
        let mut correlator = Correlator::new("replicaset-controller");
        let emissions: Vec<Emission> = (0..12)
            .filter_map(|pod| correlator.correlate(&note(), &format!("Created pod: {pod}"), at(0)))
            .collect();
        let message = |index: usize| emissions[index].event.message.clone().unwrap();
        assert_eq!(message(8), "Created pod: 8");
        assert_eq!(message(9), "(combined from similar events): Created pod: 9");
        assert!(!emissions[9].is_repeat());
        assert_eq!(message(11), "(combined from similar events): Created pod: 11");
        assert_eq!(emissions[11].event.count, Some(3));
        assert!(emissions[11].is_repeat());
    }

    #[test]
    fn an_object_is_silenced_after_25_events_and_earns_one_in_five_minutes() {
        let mut correlator = Correlator::new("replicaset-controller");
        let written = |correlator: &mut Correlator, count: usize, seconds: i64| {
            (0..count).filter_map(|_| correlator.correlate(&note(), "Created pod: a", at(seconds))).count()
        };
        assert_eq!(written(&mut correlator, 40, 0), 25);
        assert_eq!(written(&mut correlator, 3, 299), 0);
        assert_eq!(written(&mut correlator, 3, 301), 1);
    }

    #[test]
    fn events_of_the_same_instant_have_different_names() {
        let mut correlator = Correlator::new("replicaset-controller");
        let a = correlator.correlate(&note(), "Created pod: a", at(0)).unwrap();
        let b = correlator.correlate(&note(), "Created pod: b", at(0)).unwrap();
        assert_ne!(a.event.metadata.name, b.event.metadata.name);
    }
}
