//! A watch: a place in the history that moves on by itself.

use super::Shared;
use super::history::{Found, Position};
use crate::{Batch, Event, Revision, StoreError, WatchSource};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::Notify;

/// One watch of one prefix.
pub(super) struct EmbeddedWatch {
    shared: Arc<Shared>,
    prefix: Box<str>,
    at: Position,
    seen: Revision,
    changed: Arc<Notify>,
}

impl EmbeddedWatch {
    pub(super) fn start(shared: Arc<Shared>, prefix: &str, from: Revision) -> Result<Self, StoreError> {
        let (at, seen, changed) = shared.history.write().join(prefix, from)?;
        Ok(Self { shared, prefix: prefix.into(), at, seen, changed })
    }
}

impl Drop for EmbeddedWatch {
    fn drop(&mut self) {
        self.shared.history.write().leave(&self.prefix);
    }
}

#[async_trait]
impl WatchSource for EmbeddedWatch {
    async fn next(&mut self) -> Batch {
        let changed = self.changed.clone();
        loop {
            // Registered before looking, so that a change between looking and waiting is not missed.
            let mut notified = std::pin::pin!(changed.notified());
            notified.as_mut().enable();
            let found = self.shared.history.read().read(&self.prefix, self.at);
            match found {
                Found::Events(events, next) => {
                    self.at = next;
                    self.seen = events.last().map_or(self.seen, Event::revision);
                    return Batch::Events(events);
                }
                Found::Nothing => notified.await,
                Found::Lost => return Batch::Lost,
                Found::Closed => return Batch::Closed,
            }
        }
    }

    fn progress(&self) -> Revision {
        self.shared.history.read().progress(&self.prefix, self.at, self.seen)
    }
}
