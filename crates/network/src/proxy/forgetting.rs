//! Ends the UDP flows that lead to where they no longer should: after the rules, so that they begin anew by those,
//! and beside them, because looking through all the kernel tracks takes time that no withdrawal has.

use super::stale::{Flows, Look};
use super::tracked;
use parking_lot::Mutex;
use std::io;
use std::time::Duration;
use tokio::sync::Notify;

/// First pause after the kernel refused, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is to be forgotten, and what was.
#[derive(Default)]
pub(crate) struct Forgetting {
    /// What the rules lead to; None before the first ones.
    wanted: Mutex<Option<Flows>>,
    done: tokio::sync::Mutex<Done>,
    woken: Notify,
}

/// How far it got.
#[derive(Default)]
struct Done {
    /// All that was led to since the last time that everything stale was forgotten.
    since: Flows,
    /// Whether all was. At first there is what an earlier run left.
    complete: bool,
}

impl Forgetting {
    /// Takes note of what the rules lead to from now on.
    pub(crate) fn want(&self, flows: Flows) {
        *self.wanted.lock() = Some(flows);
        self.woken.notify_one();
    }

    /// Forgets without end, and tries again what failed.
    pub(crate) async fn follow(&self) {
        let mut pause = PAUSES.0;
        loop {
            self.woken.notified().await;
            match self.forget().await {
                Ok(count) => {
                    tracing::debug!(count, "UDP flows forgotten");
                    pause = PAUSES.0;
                }
                Err(error) => {
                    tracing::debug!(%error, "UDP flows not forgotten, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                    self.woken.notify_one();
                }
            }
        }
    }

    /// Forgets what is stale now, and tells how many flows that were. What an error left is forgotten the next time.
    pub(crate) async fn forget(&self) -> io::Result<usize> {
        self.forget_by(|look| {
            let local = crate::local::addresses()?;
            let is_local = |ip: std::net::Ipv4Addr| ip.is_loopback() || local.contains(&ip);
            tracked::forget_udp(|sent, answered| look.is_stale(sent, answered, is_local))
        })
        .await
    }

    async fn forget_by(
        &self,
        forget: impl FnOnce(Look) -> io::Result<usize> + Send + 'static,
    ) -> io::Result<usize> {
        let mut done = self.done.lock().await;
        let Some(now) = self.wanted.lock().clone() else { return Ok(0) };
        if done.complete && !now.leaves_stale(&done.since) {
            done.since = now;
            return Ok(0);
        }
        let look = Look { before: done.since.clone(), now: now.clone() };
        // Also for a caller who does not wait for the end.
        done.complete = false;
        done.since.extend(&now);
        let count = tokio::task::spawn_blocking(move || forget(look)).await.map_err(io::Error::other)??;
        *done = Done { since: now, complete: true };
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::stale::tests::flows;
    use std::net::{Ipv4Addr, SocketAddrV4};

    /// Whether a flow to the service by way of `endpoint` would have been forgotten, had this not failed.
    async fn attempt(forgetting: &Forgetting, endpoint: &str, fails: bool) -> Option<bool> {
        let answered: SocketAddrV4 = endpoint.parse().unwrap();
        let (told, asked) = std::sync::mpsc::channel();
        let result = forgetting
            .forget_by(move |look| {
                let sent = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 20), 53);
                told.send(look.is_stale(sent, answered, |_| false)).unwrap();
                if fails { Err(io::Error::other("busy")) } else { Ok(1) }
            })
            .await;
        let asked = asked.recv().ok();
        assert_eq!(result.is_err(), fails);
        asked
    }

    #[tokio::test]
    async fn what_could_not_be_forgotten_is_tried_again() {
        let (five, six) = ("10.244.0.5:5353", "10.244.0.6:5353");
        let forgetting = Forgetting::default();
        forgetting.want(flows(&[five, six]));
        assert_eq!(attempt(&forgetting, five, false).await, Some(false), "what an earlier run left");
        assert_eq!(attempt(&forgetting, five, false).await, None, "nothing changed");
        forgetting.want(flows(&[six]));
        assert_eq!(attempt(&forgetting, five, true).await, Some(true));
        // The service is gone by now, and still known.
        forgetting.want(Flows::default());
        assert_eq!(attempt(&forgetting, five, true).await, Some(true));
        assert_eq!(attempt(&forgetting, six, false).await, Some(true));
        assert_eq!(attempt(&forgetting, six, false).await, None);
    }
}
