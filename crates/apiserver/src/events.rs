//! Events are kept for an hour after they last changed, as upstream's server keeps them.

use crate::state::Core;
use futures::StreamExt;
use sagong_store::{Expect, Revision, Write};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an event is kept (`--event-ttl`).
const TTL: Duration = Duration::from_secs(3600);
/// How often old events are looked for: they are kept for so much longer at most.
const STEP: Duration = Duration::from_secs(60);
/// Deletions under way at once, which the store makes durable together.
const PARALLEL: usize = 64;

/// Where the store was at moments of the last hour: what was not changed since one of them is at least as old. Costs
/// nothing per event, however many there are.
#[derive(Default)]
struct Marks(VecDeque<(Instant, Revision)>);

impl Marks {
    fn set(&mut self, now: Instant, revision: Revision) {
        self.0.push_back((now, revision));
    }

    /// The newest revision that is too old; marks up to it are forgotten.
    fn expired(&mut self, now: Instant) -> Option<Revision> {
        let old = self.0.partition_point(|(at, _)| now.duration_since(*at) >= TTL);
        self.0.drain(..old).next_back().map(|(_, revision)| revision)
    }
}

/// Deletes events whose time has come, until the server stops.
pub(crate) async fn sweep(core: Arc<Core>) {
    let Ok(events) = core.resources.core("events") else { return };
    let prefix = events.prefix(None);
    let mut marks = Marks::default();
    loop {
        marks.set(Instant::now(), core.store.revision());
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = tokio::time::sleep(STEP) => {}
        }
        if let Some(revision) = marks.expired(Instant::now()) {
            expire(&core, &prefix, revision).await;
        }
    }
}

/// Deletes the events that have not changed since `revision`.
async fn expire(core: &Core, prefix: &str, revision: Revision) {
    let Ok(page) = core.store.list(prefix, None, 0).await else { return };
    let old = page.entries.into_iter().filter(|entry| entry.modified <= revision);
    let writes = old.map(|entry| Write {
        key: entry.key.to_string(),
        // Refused: it has changed, and has another hour.
        expect: Expect::Modified(entry.modified),
        value: None,
    });
    let delete = |write| async move {
        if let Err(error) = core.store.commit(vec![write]).await {
            tracing::warn!(%error, "deleting an old event failed");
        }
    };
    futures::stream::iter(writes).for_each_concurrent(PARALLEL, delete).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_for_an_hour_has_expired() {
        let (mut marks, began) = (Marks::default(), Instant::now());
        let at = |minutes: u64| began + Duration::from_secs(60 * minutes);
        assert_eq!(marks.expired(at(0)), None);
        for minute in 0..3 {
            marks.set(at(minute), 10 + minute);
        }
        assert_eq!(marks.expired(at(59)), None);
        assert_eq!(marks.expired(at(60)), Some(10));
        assert_eq!(marks.expired(at(60)), None, "once");
        assert_eq!(marks.expired(at(62)), Some(12), "the newest of several");
        assert_eq!(marks.expired(at(500)), None);
    }
}
