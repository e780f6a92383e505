//! When nobody says anything for hours.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a stream may be silent (`--streaming-connection-idle-timeout` of upstream's kubelet).
pub(super) const LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// How long a server is silent before it asks whether the client is still there. A client that is gone is noticed by
/// what cannot be sent, also while nothing more is read from it.
pub(super) const ASKING: Duration = Duration::from_secs(10);

/// When something was last said, in either direction. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Idle(Arc<Mutex<Instant>>);

impl Idle {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something was said.
    pub(super) fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits until nothing was said for so long.
    pub(super) async fn expired(&self, limit: Duration) {
        loop {
            let until = *self.0.lock() + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_word() {
        let idle = Idle::new();
        let speaker = idle.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LIMIT / 2).await;
            speaker.touch();
        });
        let began = Instant::now();
        idle.expired(LIMIT).await;
        assert_eq!(began.elapsed().as_secs(), (LIMIT / 2 + LIMIT).as_secs());
    }
}
