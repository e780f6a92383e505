//! Following services and endpoint slices through the API.

use super::observed::Observed;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// Pause after the first failure; the API is in this process or next door, so it need not be long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Doubles the pause with each failure in a row.
struct Eager(Duration);

impl Iterator for Eager {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LAST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Eager {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

/// Something changed, or a whole list was read.
pub(crate) enum Change {
    Services(Vec<Service>),
    Service(Box<Service>),
    ServiceGone(Box<Service>),
    Slices(Vec<EndpointSlice>),
    Slice(Box<EndpointSlice>),
    SliceGone(Box<EndpointSlice>),
}

impl Change {
    pub(crate) fn apply(self, observed: &mut Observed) {
        match self {
            Self::Services(all) => observed.replace_services(&all),
            Self::Service(service) => observed.service(&service),
            Self::ServiceGone(service) => observed.service_gone(&service),
            Self::Slices(all) => observed.replace_slices(&all),
            Self::Slice(slice) => observed.slice(&slice),
            Self::SliceGone(slice) => observed.slice_gone(&slice),
        }
    }
}

/// Changes of services, beginning with all of them.
pub(crate) fn services(client: kube::Client) -> impl Stream<Item = Change> + Send {
    changes(
        Api::all(client),
        Change::Services,
        |service| Change::Service(Box::new(service)),
        |service| Change::ServiceGone(Box::new(service)),
    )
}

/// Changes of endpoint slices, beginning with all of them.
pub(crate) fn slices(client: kube::Client) -> impl Stream<Item = Change> + Send {
    changes(
        Api::all(client),
        Change::Slices,
        |slice| Change::Slice(Box::new(slice)),
        |slice| Change::SliceGone(Box::new(slice)),
    )
}

/// Watches without end; errors are logged and the watch goes on.
fn changes<K>(
    api: Api<K>,
    all: fn(Vec<K>) -> Change,
    one: fn(K) -> Change,
    gone: fn(K) -> Change,
) -> impl Stream<Item = Change> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = Vec::new();
    watcher::watcher(api, watcher::Config::default())
        .backoff(Eager(FIRST_PAUSE))
        .inspect_err(|error| tracing::debug!(%error, "watch interrupted"))
        .filter_map(|event| std::future::ready(event.ok()))
        .filter_map(move |event| {
            std::future::ready(match event {
                Event::Init => {
                    listed = Vec::new();
                    None
                }
                Event::InitApply(object) => {
                    listed.push(object);
                    None
                }
                Event::InitDone => Some(all(std::mem::take(&mut listed))),
                Event::Apply(object) => Some(one(object)),
                Event::Delete(object) => Some(gone(object)),
            })
        })
}
