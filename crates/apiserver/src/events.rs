//! Events are kept for an hour after they last changed, as upstream's server keeps them.

use crate::state::Core;
use sagong_store::{Batch, Event, Expect, Revision, Write};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an event is kept (`--event-ttl`).
const TTL: Duration = Duration::from_secs(3600);

/// An event to delete unless it changes again.
struct Due {
    at: Instant,
    key: String,
    modified: Revision,
}

/// Deletes events whose time has come, until the server stops. Costs a queue entry per event and wakes up only
/// when one is due or made.
pub(crate) async fn sweep(core: Arc<Core>) {
    let Ok(events) = core.resources.core("events") else { return };
    let prefix = events.prefix(None);
    loop {
        let Ok(page) = core.store.list(&prefix, None, 0).await else { return };
        let Ok(mut watch) = core.store.watch(&prefix, page.revision) else { continue };
        let at = Instant::now() + TTL;
        let due = |e: &Arc<sagong_store::Entry>| Due { at, key: e.key.to_string(), modified: e.modified };
        let mut queue: VecDeque<Due> = page.entries.iter().map(due).collect();
        drop(page);
        loop {
            let next = queue.front().map(|due| due.at);
            let wake = async move {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = core.stopping.cancelled() => return,
                () = wake => {
                    if let Some(due) = queue.pop_front() {
                        expire(&core, due).await;
                    }
                }
                batch = watch.next() => match batch {
                    Batch::Events(events) => {
                        let at = Instant::now() + TTL;
                        for event in events {
                            if let Event::Put { entry, .. } = event {
                                queue.push_back(Due { at, key: entry.key.to_string(), modified: entry.modified });
                            }
                        }
                    }
                    Batch::Lost => break,
                    Batch::Closed => return,
                },
            }
        }
    }
}

async fn expire(core: &Core, due: Due) {
    let write = Write { key: due.key, expect: Expect::Modified(due.modified), value: None };
    // Refused: it changed, and is queued again.
    if let Err(error) = core.store.commit(vec![write]).await {
        tracing::warn!(%error, "deleting an old event failed");
    }
}
