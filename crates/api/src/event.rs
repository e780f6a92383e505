//! Events as upstream's recorders write them (`k8s.io/client-go/tools/record`): repeats are counted, many alike are
//! combined, and an object that causes too many is silenced. Decisions only; whoever reports writes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Objects and sentences remembered.
const REMEMBERED: usize = 4096;
/// From this many different sentences with one reason on, the rest is combined into one event.
const DIFFERENT: usize = 10;
/// How long sentences count as similar, in seconds.
const SIMILAR_FOR: i64 = 600;
/// Events an object may cause at once, and how many seconds it takes to earn another.
const BURST: f64 = 25.0;
const SECONDS_PER_EVENT: f64 = 300.0;

/// What somebody reports about an object, apart from the sentence.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The object.
    pub regarding: &'a ObjectReference,
    /// Whether it is a `Warning` and not `Normal`.
    pub warning: bool,
    /// Machine-readable reason, e.g. `SuccessfulCreate`.
    pub reason: &'a str,
    /// What was being done, e.g. `Binding`, for those who tell.
    pub action: Option<&'a str>,
}

/// An event to write: a new one, or a patch that counts up an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// The event as it should be. To be created if there is no patch, or if what the patch is for has expired.
    pub event: Event,
    /// For a repeat: the merge patch of the event written earlier, which has the name of `event`.
    pub patch: Option<Value>,
}

impl Emission {
    /// `metadata.namespace` of the event.
    pub fn namespace(&self) -> &str {
        self.event.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.name` of the event.
    pub fn name(&self) -> &str {
        self.event.metadata.name.as_deref().unwrap_or_default()
    }
}

struct Similar {
    messages: Vec<u64>,
    last: Timestamp,
}

struct Observed {
    /// In the name of the event.
    stamp: i128,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

struct Allowance {
    tokens: f64,
    last: Timestamp,
}

/// Decides what becomes of each report: a new event, one counted up, or none.
///
/// * The same message again counts up the first event.
/// * From the tenth different message about one object with one reason within ten minutes on, one event
///   `(combined from similar events): …` is counted up.
/// * An object causes at most 25 events at once and one more every five minutes.
pub struct Correlator {
    source: EventSource,
    /// What is remembered is remembered by its hash: there are thousands of pods.
    hashes: RandomState,
    similar: HashMap<u64, Similar>,
    observed: HashMap<u64, Observed>,
    allowances: HashMap<u64, Allowance>,
    last_stamp: i128,
}

impl Correlator {
    /// A correlator for events whose source is `component`, on `host` if that matters.
    pub fn new(component: &str, host: Option<&str>) -> Self {
        Self {
            source: EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) },
            hashes: RandomState::new(),
            similar: HashMap::new(),
            observed: HashMap::new(),
            allowances: HashMap::new(),
            last_stamp: 0,
        }
    }

    /// What to write for a report made at `now`, if anything.
    pub fn correlate(&mut self, subject: &Subject<'_>, message: &str, now: Timestamp) -> Option<Emission> {
        self.forget(now);
        let ObjectReference { kind, namespace, name, uid, field_path, .. } = subject.regarding;
        let object = self.hashes.hash_one((kind, namespace, name, uid));
        let topic = self.hashes.hash_one((object, field_path, subject.warning, subject.reason));
        let combined = self.is_one_of_many(topic, message, now);
        let message =
            if combined { format!("(combined from similar events): {message}") } else { message.to_owned() };
        let sentence = self.hashes.hash_one((topic, (!combined).then_some(&message)));
        // Events of the same instant have different names.
        self.last_stamp = now.as_nanosecond().max(self.last_stamp + 1);
        let first = Observed { stamp: self.last_stamp, count: 0, first: now, last: now };
        let observed = self.observed.entry(sentence).or_insert(first);
        observed.count = observed.count.saturating_add(1);
        observed.last = now;
        let event = event(&self.source, subject, message, observed);
        let patch = (observed.count > 1).then(
            || json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message}),
        );
        self.may_report(object, now).then_some(Emission { event, patch })
    }

    fn is_one_of_many(&mut self, topic: u64, message: &str, now: Timestamp) -> bool {
        let message = self.hashes.hash_one(message);
        let similar = self
            .similar
            .entry(topic)
            .or_insert_with(|| Similar { messages: Vec::with_capacity(1), last: now });
        if now.duration_since(similar.last).as_secs() > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < DIFFERENT && !similar.messages.contains(&message) {
            similar.messages.push(message);
        }
        similar.messages.len() >= DIFFERENT
    }

    fn may_report(&mut self, object: u64, now: Timestamp) -> bool {
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

    fn forget(&mut self, now: Timestamp) {
        let is_recent = |last: Timestamp| now.duration_since(last).as_secs() <= SIMILAR_FOR;
        forget(&mut self.similar, |similar| is_recent(similar.last));
        forget(&mut self.observed, |observed| is_recent(observed.last));
        forget(&mut self.allowances, |allowance| is_recent(allowance.last));
    }
}

/// Keeps memory bounded: of too many entries only the recent ones stay, and if all are recent, none.
fn forget<V>(map: &mut HashMap<u64, V>, is_recent: impl Fn(&V) -> bool) {
    if map.len() >= REMEMBERED {
        map.retain(|_, value| is_recent(value));
    }
    if map.len() >= REMEMBERED {
        map.clear();
    }
}

fn event(source: &EventSource, subject: &Subject<'_>, message: String, observed: &Observed) -> Event {
    let regarding = subject.regarding;
    let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
    Event {
        metadata: ObjectMeta {
            // `kubia.17e5a7d1f7a3c0de`: the object's name and the nanosecond.
            name: Some(format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), observed.stamp)),
            // Events about objects without a namespace are kept in this one.
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: regarding.clone(),
        reason: Some(subject.reason.to_owned()),
        message: Some(message),
        type_: Some(if subject.warning { "Warning" } else { "Normal" }.to_owned()),
        action: subject.action.map(str::to_owned),
        count: Some(observed.count),
        first_timestamp: Some(Time(observed.first)),
        last_timestamp: Some(Time(observed.last)),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use rstest::rstest;

    fn replica_set(name: &str) -> ObjectReference {
        ObjectReference {
            kind: Some("ReplicaSet".into()),
            namespace: Some("default".into()),
            name: Some(name.into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
    }

    fn correlate(correlator: &mut Correlator, message: &str, seconds: i64) -> Option<Emission> {
        let regarding = replica_set("kubia");
        let subject =
            Subject { regarding: &regarding, warning: false, reason: "SuccessfulCreate", action: None };
        correlator.correlate(&subject, message, at(seconds))
    }

    #[test]
    fn the_same_message_again_counts_up_the_first_event() {
        let mut correlator = Correlator::new("replicaset-controller", None);
        let first = correlate(&mut correlator, "Created pod: a", 0).unwrap();
        assert_eq!(first.patch, None);
        let second = correlate(&mut correlator, "Created pod: a", 5).unwrap();
        assert_eq!(second.event.metadata.name, first.event.metadata.name);
        assert_eq!(second.patch.unwrap()["count"], 2);
        assert_eq!(second.event.first_timestamp, Some(Time(at(0))));
        assert_eq!(second.event.last_timestamp, Some(Time(at(5))));
    }

    #[test]
    fn the_tenth_different_message_and_those_after_are_combined() {
        let mut correlator = Correlator::new("replicaset-controller", None);
        let emissions: Vec<Emission> =
            (0..12).filter_map(|pod| correlate(&mut correlator, &format!("Created pod: {pod}"), 0)).collect();
        let message = |index: usize| emissions[index].event.message.clone().unwrap();
        assert_eq!(message(8), "Created pod: 8");
        assert_eq!(message(9), "(combined from similar events): Created pod: 9");
        assert!(emissions[9].patch.is_none());
        assert_eq!(message(11), "(combined from similar events): Created pod: 11");
        assert_eq!(emissions[11].event.count, Some(3));
        assert!(emissions[11].patch.is_some());
    }

    #[test]
    fn an_object_is_silenced_after_25_events_and_earns_one_in_five_minutes() {
        let mut correlator = Correlator::new("replicaset-controller", None);
        let written = |correlator: &mut Correlator, count: usize, seconds: i64| {
            (0..count).filter_map(|_| correlate(correlator, "Created pod: a", seconds)).count()
        };
        assert_eq!(written(&mut correlator, 40, 0), 25);
        assert_eq!(written(&mut correlator, 3, 299), 0);
        assert_eq!(written(&mut correlator, 3, 301), 1);
    }

    #[test]
    fn events_of_the_same_instant_have_different_names() {
        let mut correlator = Correlator::new("replicaset-controller", None);
        let a = correlate(&mut correlator, "Created pod: a", 0).unwrap();
        let b = correlate(&mut correlator, "Created pod: b", 0).unwrap();
        assert_ne!(a.name(), b.name());
    }

    #[rstest]
    #[case::another_container(Some("spec.containers{b}"), "Warning", "Pulling")]
    #[case::a_warning(None, "Warning", "Pulled")]
    #[case::another_reason(None, "Normal", "Pulling")]
    fn reports_about_something_else_are_another_event(
        #[case] field_path: Option<&str>,
        #[case] type_: &str,
        #[case] reason: &str,
    ) {
        let mut correlator = Correlator::new("kubelet", Some("node"));
        let first = replica_set("kubia");
        let second = ObjectReference { field_path: field_path.map(str::to_owned), ..first.clone() };
        let subject = Subject { regarding: &first, warning: false, reason: "Pulled", action: None };
        correlator.correlate(&subject, "same words", at(0)).unwrap();
        let warning = type_ == "Warning";
        let subject = Subject { regarding: &second, warning, reason, action: None };
        let emission = correlator.correlate(&subject, "same words", at(1)).unwrap();
        assert_eq!(emission.patch, None);
        assert_eq!(emission.event.type_.as_deref(), Some(type_));
        assert_eq!(emission.event.reporting_instance.as_deref(), Some("node"));
    }

    #[test]
    fn events_about_what_has_no_namespace_are_kept_in_default() {
        let mut correlator = Correlator::new("node-controller", None);
        let node = ObjectReference { namespace: None, ..replica_set("node") };
        let subject = Subject { regarding: &node, warning: false, reason: "NodeNotReady", action: None };
        assert_eq!(correlator.correlate(&subject, "gone", at(0)).unwrap().namespace(), "default");
    }
}
