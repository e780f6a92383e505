//! `Event` of core/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part};
use crate::name::NameRule;
use crate::{duration, table};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

/// What is particular to `Event`.
pub struct EventKind;

impl Kind for EventKind {
    type Object = Event;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Event",
            plural: "events",
            singular: "event",
            short_names: &["ev"],
            categories: &[],
            namespaced: true,
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate_create(&self, event: &Event) -> Errors {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
        // Events about objects without a namespace are kept in the default one.
        let fits = if involved.is_empty() { namespace == "default" } else { involved == namespace };
        if fits {
            return Errors::new();
        }
        let path = Path::new("involvedObject").child("namespace");
        vec![field::invalid(&path, involved, "does not match event.namespace")]
    }

    fn validate_update(&self, new: &Event, _old: &Event, _part: Part) -> Errors {
        self.validate_create(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 10] = [
            table::string("Last Seen", "How long ago it happened last."),
            table::string("Type", "Normal or Warning."),
            table::string("Reason", "Why, in one word, for programs."),
            table::string("Object", "What it is about."),
            table::wide(table::string("Subobject", "The part of the object it is about.")),
            table::wide(table::string("Source", "Which component reports it.")),
            table::string("Message", "What happened, for people."),
            table::wide(table::string("First Seen", "How long ago it happened first.")),
            table::wide(table::string("Count", "How often it happened.")),
            table::wide(table::NAME),
        ];
        &COLUMNS
    }

    fn cells(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        let involved = &event.involved_object;
        let kind = involved.kind.as_deref().unwrap_or_default().to_lowercase();
        let object = match involved.name.as_deref().unwrap_or_default() {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let text = |text: &Option<String>| Value::from(text.clone().unwrap_or_default());
        vec![
            last_seen(event, now).into(),
            text(&event.type_),
            text(&event.reason),
            object.into(),
            text(&involved.field_path),
            source(event).into(),
            event.message.as_deref().unwrap_or_default().trim().into(),
            first_seen(event, now).into(),
            count(event).into(),
            table::name(&event.metadata),
        ]
    }

    fn selectable_fields(&self, event: &Event) -> Vec<(&'static str, String)> {
        let involved = &event.involved_object;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            ("involvedObject.kind", text(&involved.kind)),
            ("involvedObject.namespace", text(&involved.namespace)),
            ("involvedObject.name", text(&involved.name)),
            ("involvedObject.uid", text(&involved.uid)),
            ("involvedObject.apiVersion", text(&involved.api_version)),
            ("involvedObject.resourceVersion", text(&involved.resource_version)),
            ("involvedObject.fieldPath", text(&involved.field_path)),
            ("reason", text(&event.reason)),
            ("reportingComponent", text(&event.reporting_component)),
            ("source", component(event).to_owned()),
            ("type", text(&event.type_)),
        ]
    }
}

fn component(event: &Event) -> &str {
    let old_style = event.source.as_ref().and_then(|source| source.component.as_deref());
    old_style
        .filter(|component| !component.is_empty())
        .or(event.reporting_component.as_deref())
        .unwrap_or_default()
}

/// `kubelet, node1`.
fn source(event: &Event) -> String {
    let host =
        event.source.as_ref().and_then(|source| source.host.as_deref()).filter(|host| !host.is_empty());
    match host.or(event.reporting_instance.as_deref()).unwrap_or_default() {
        "" => component(event).to_owned(),
        host => format!("{}, {host}", component(event)),
    }
}

fn first_seen(event: &Event, now: Timestamp) -> String {
    match &event.first_timestamp {
        Some(time) => duration::human_duration(time.0, now),
        None => table::micro_age(event.event_time.as_ref(), now),
    }
}

fn last_seen(event: &Event, now: Timestamp) -> String {
    if let Some(series) = &event.series {
        return table::micro_age(series.last_observed_time.as_ref(), now);
    }
    match &event.last_timestamp {
        Some(time) => duration::human_duration(time.0, now),
        None => first_seen(event, now),
    }
}

/// An event without a count happened once.
fn count(event: &Event) -> i32 {
    let series = event.series.as_ref().map(|series| series.count.unwrap_or(0));
    series.unwrap_or_else(|| event.count.filter(|count| *count != 0).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{EventSeries, EventSource, ObjectReference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event() -> Event {
        let mut event = Event::default();
        event.metadata.name = Some("kubia.1".into());
        event.metadata.namespace = Some("default".into());
        event.involved_object = ObjectReference {
            kind: Some("Pod".into()),
            name: Some("kubia".into()),
            namespace: Some("default".into()),
            ..ObjectReference::default()
        };
        event.type_ = Some("Normal".into());
        event.reason = Some("Pulled".into());
        event.message = Some("Image is present\n".into());
        event
    }

    #[test]
    fn the_last_time_and_the_count_come_from_the_fields_of_old_clients() {
        let mut event = event();
        event.first_timestamp = Some(Time(at(0)));
        event.last_timestamp = Some(Time(at(60)));
        event.count = Some(4);
        event.source = Some(EventSource { component: Some("kubelet".into()), host: Some("node".into()) });
        let cells = EventKind.cells(&event, at(100));
        let expected: [Value; 10] = [
            "40s".into(),
            "Normal".into(),
            "Pulled".into(),
            "pod/kubia".into(),
            "".into(),
            "kubelet, node".into(),
            "Image is present".into(),
            "100s".into(),
            4.into(),
            "kubia.1".into(),
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn a_series_has_its_own_time_and_count() {
        let mut event = event();
        event.event_time = Some(MicroTime(at(10)));
        event.series = Some(EventSeries { count: Some(7), last_observed_time: Some(MicroTime(at(90))) });
        let cells = EventKind.cells(&event, at(100));
        assert_eq!((&cells[0], &cells[7], &cells[8]), (&"10s".into(), &"90s".into(), &7.into()));
    }

    #[test]
    fn a_single_event_counts_once() {
        assert_eq!(count(&event()), 1);
    }

    #[test]
    fn the_object_must_live_where_the_event_does() {
        let mut event = event();
        assert!(EventKind.validate_create(&event).is_empty());
        event.involved_object.namespace = Some("other".into());
        assert_eq!(
            EventKind.validate_create(&event)[0].to_string(),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"
        );
        event.involved_object.namespace = None;
        assert!(EventKind.validate_create(&event).is_empty());
    }
}
