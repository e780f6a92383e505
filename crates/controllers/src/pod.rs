//! What controllers ask about a pod. Questions only; nothing here writes.
//!
//! [`Sketch`] is what the caches keep of a pod; the questions can be asked of the whole object too.

mod sketch;

pub use sketch::{DELETION_COST, NamedPort, Sketch, Template};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// A `Ready` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whether its status is `True`.
    pub is_true: bool,
    /// `lastTransitionTime`.
    pub since: Option<Timestamp>,
}

/// A pod, in whatever form.
pub trait View {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// `status.phase`, empty if not set yet.
    fn phase(&self) -> &str;
    /// Its `Ready` condition, if it has one.
    fn ready(&self) -> Option<Ready>;
    /// The node it is bound to; empty if none.
    fn node_name(&self) -> &str;
}

impl View for Pod {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    fn ready(&self) -> Option<Ready> {
        let mut conditions = self.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.find(|condition| condition.type_ == "Ready")?;
        let since = ready.last_transition_time.as_ref().map(|time| time.0);
        Some(Ready { is_true: ready.status == "True", since })
    }

    fn node_name(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }
}

impl<P: View + ?Sized> View for &P {
    fn meta(&self) -> &ObjectMeta {
        (**self).meta()
    }

    fn phase(&self) -> &str {
        (**self).phase()
    }

    fn ready(&self) -> Option<Ready> {
        (**self).ready()
    }

    fn node_name(&self) -> &str {
        (**self).node_name()
    }
}

impl<P: View + ?Sized> View for Arc<P> {
    fn meta(&self) -> &ObjectMeta {
        (**self).meta()
    }

    fn phase(&self) -> &str {
        (**self).phase()
    }

    fn ready(&self) -> Option<Ready> {
        (**self).ready()
    }

    fn node_name(&self) -> &str {
        (**self).node_name()
    }
}

/// `status.phase`, empty if not set yet.
pub fn phase<P: View + ?Sized>(pod: &P) -> &str {
    pod.phase()
}

/// Whether it counts as a replica: not finished and not being deleted.
pub fn is_active<P: View + ?Sized>(pod: &P) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Whether it will never run again: `Succeeded` or `Failed`.
pub fn is_finished<P: View + ?Sized>(pod: &P) -> bool {
    matches!(pod.phase(), "Succeeded" | "Failed")
}

/// Whether its deletion was asked for.
pub fn is_terminating<P: View + ?Sized>(pod: &P) -> bool {
    pod.meta().deletion_timestamp.is_some()
}

/// Whether its `Ready` condition is true.
pub fn is_ready<P: View + ?Sized>(pod: &P) -> bool {
    pod.ready().is_some_and(|ready| ready.is_true)
}

/// When it became ready; none if it is not ready or does not tell since when.
pub fn ready_since<P: View + ?Sized>(pod: &P) -> Option<Timestamp> {
    pod.ready().filter(|ready| ready.is_true).and_then(|ready| ready.since)
}

/// When a ready pod becomes available: `min_ready_seconds` after it became ready. None if it is not ready.
/// Ready since 10:00:00 with 10 seconds: at 10:00:10. Without seconds: the moment it is ready, whenever that was.
pub fn available_at<P: View + ?Sized>(pod: &P, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    ready_since(pod)?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

/// The node it is bound to; empty if none.
pub fn node_name<P: View + ?Sized>(pod: &P) -> &str {
    pod.node_name()
}
