//! Watches: events reach a cache late, in batches, or after a broken connection by a fresh list, but in order.

use crate::api::Api;
use crate::ground::Ground;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::Pod;
use sagong_api::kind::TypedObject;
use sagong_controllers::cache::{Cache, Cached};
use sagong_controllers::caches::Caches;
use sagong_controllers::pod::Sketch;
use std::sync::Arc;

/// Steps an event is held back at most.
const LONGEST_HOLD: usize = 80;

/// A position in the log of one kind, and what is wrong with the watch.
pub(crate) struct Cursor {
    plural: &'static str,
    position: usize,
    /// Nothing arrives before this step.
    held_until: usize,
    /// The connection is gone, and what it has missed comes as a list.
    lists_afresh: bool,
}

impl Cursor {
    pub(crate) fn new(plural: &'static str) -> Self {
        Self { plural, position: 0, held_until: 0, lists_afresh: false }
    }

    /// Whether something is on its way.
    pub(crate) fn lags(&self, api: &Api) -> bool {
        self.position < api.table(self.plural).log.len()
    }

    /// Whether something can arrive in this step.
    pub(crate) fn is_open(&self, ground: &Ground) -> bool {
        self.lags(&ground.api) && self.held_until <= ground.step
    }

    /// Ends all delays.
    pub(crate) fn release(&mut self) {
        self.held_until = 0;
    }

    /// The events that arrive now: indexes into the log.
    fn next(&mut self, ground: &mut Ground) -> Arrival {
        let length = ground.api.table(self.plural).log.len();
        if ground.choices.once_in(ground.faults.held_watches) {
            self.held_until = ground.step + 1 + ground.choices.below(LONGEST_HOLD);
            return Arrival::Nothing;
        }
        if ground.choices.once_in(ground.faults.broken_watches) {
            self.held_until = ground.step + 1 + ground.choices.below(LONGEST_HOLD);
            self.lists_afresh = ground.choices.below(2) == 1;
            return Arrival::Nothing;
        }
        let from = self.position;
        if std::mem::take(&mut self.lists_afresh) {
            self.position = length;
            return Arrival::List;
        }
        let count = match ground.choices.below(4) {
            0 => length - from,
            some => some.min(length - from),
        };
        self.position += count;
        Arrival::Events(from..self.position)
    }

    /// The events that arrive now, for those who read the log themselves.
    pub(crate) fn events(&mut self, ground: &mut Ground) -> std::ops::Range<usize> {
        let from = self.position;
        match self.next(ground) {
            Arrival::Nothing => from..from,
            Arrival::Events(range) => range,
            // For one who follows single objects a list tells the same as the events since.
            Arrival::List => from..self.position,
        }
    }
}

enum Arrival {
    Nothing,
    Events(std::ops::Range<usize>),
    List,
}

/// A watch that fills one cache.
pub(crate) trait Feed {
    fn cursor(&mut self) -> &mut Cursor;
    fn is_open(&self, ground: &Ground) -> bool;
    fn lags(&self, api: &Api) -> bool;
    /// Lists, as at the start.
    fn list(&mut self, api: &Api, caches: &Caches);
    /// Lets something arrive.
    fn deliver(&mut self, ground: &mut Ground, caches: &Caches, forgets_deletions: bool);
}

/// Objects of kind `K`, of which the cache keeps a `C`.
struct Of<K, C> {
    cursor: Cursor,
    cache: fn(&Caches) -> &Arc<Cache<C>>,
    keep: fn(&K) -> C,
}

impl<K: TypedObject + Resource, C: Cached> Feed for Of<K, C> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    fn is_open(&self, ground: &Ground) -> bool {
        self.cursor.is_open(ground)
    }

    fn lags(&self, api: &Api) -> bool {
        self.cursor.lags(api)
    }

    fn list(&mut self, api: &Api, caches: &Caches) {
        let cache = (self.cache)(caches);
        let floor = cache.written();
        cache.replace(api.list::<K>().map(self.keep).collect(), floor);
        self.cursor.position = api.table(K::URL_PATH_SEGMENT).log.len();
    }

    fn deliver(&mut self, ground: &mut Ground, caches: &Caches, forgets_deletions: bool) {
        let range = match self.cursor.next(ground) {
            Arrival::Nothing => return,
            Arrival::List => return self.list(&ground.api, caches),
            Arrival::Events(range) => range,
        };
        let cache = (self.cache)(caches);
        for event in &ground.api.table(K::URL_PATH_SEGMENT).log[range] {
            let Some(object) = event.object.as_any().downcast_ref::<K>() else { continue };
            match event.deleted {
                false => cache.upsert((self.keep)(object)),
                true if forgets_deletions => {}
                true => cache.remove(&(self.keep)(object)),
            }
        }
    }
}

fn of<K: TypedObject + Resource>(cache: fn(&Caches) -> &Arc<Cache<K>>) -> Box<dyn Feed> {
    Box::new(Of { cursor: Cursor::new(K::URL_PATH_SEGMENT), cache, keep: K::clone })
}

fn pods() -> Box<dyn Feed> {
    let keep = |pod: &Pod| Sketch::from(pod);
    Box::new(Of { cursor: Cursor::new(Pod::URL_PATH_SEGMENT), cache: |caches| &caches.pods, keep })
}

/// A watch for every cache the controllers use.
pub(crate) fn all() -> Vec<Box<dyn Feed>> {
    vec![
        of(|caches| &caches.deployments),
        of(|caches| &caches.replica_sets),
        of(|caches| &caches.replication_controllers),
        pods(),
        of(|caches| &caches.services),
        of(|caches| &caches.endpoints),
        of(|caches| &caches.endpoint_slices),
        of(|caches| &caches.nodes),
    ]
}
