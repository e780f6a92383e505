//! The writer thread: takes every transaction waiting, makes them durable together, then shows them.

use super::Shared;
use super::disk::{Disk, Written};
use super::packer::Packer;
use super::plan::Plan;
use crate::{Outcome, StoreError, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A transaction's way back to whoever waits for it.
pub(super) type Reply = oneshot::Sender<Result<Outcome, StoreError>>;

/// What the queue carries.
pub(super) enum Message {
    /// A transaction.
    Commit {
        /// Its writes.
        writes: Vec<Write>,
        /// Where its outcome goes.
        reply: Reply,
    },
    /// The last message that is heeded.
    Close,
}

/// The most transactions, and about the most bytes, that one fsync carries: bounds how long the first waits.
const MAX_TRANSACTIONS: usize = 4096;
const MAX_BYTES: usize = 4 << 20;

/// The thread's belongings.
pub(super) struct Writer {
    disk: Disk,
    shared: Arc<Shared>,
    queue: Receiver<Message>,
    pace: Pace,
    packer: Packer,
}

/// What one fsync will carry.
#[derive(Default)]
struct Gathered {
    transactions: Vec<Vec<Write>>,
    replies: Vec<Reply>,
    bytes: usize,
    closing: bool,
}

impl Writer {
    pub(super) fn spawn(
        disk: Disk,
        shared: Arc<Shared>,
        queue: Receiver<Message>,
    ) -> std::io::Result<JoinHandle<()>> {
        let writer = Self { disk, shared, queue, pace: Pace::default(), packer: Packer::default() };
        std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run())
    }

    fn run(mut self) {
        loop {
            let gathered = self.gather();
            let closing = gathered.closing;
            let count = gathered.replies.len();
            let started = Instant::now();
            self.carry_out(gathered);
            self.pace.wrote(count, started.elapsed());
            self.pack();
            if closing {
                break;
            }
        }
        // Whoever still sends now is answered Closed.
        let Self { disk, shared, queue, .. } = self;
        drop(queue);
        disk.close();
        let wake = shared.history.write().close();
        wake.iter().for_each(|notify| notify.notify_waiters());
    }

    /// Waits for a transaction, then takes what else is waiting.
    fn gather(&mut self) -> Gathered {
        let mut gathered = Gathered::default();
        let Ok(first) = self.queue.recv() else {
            gathered.closing = true;
            return gathered;
        };
        gathered.add(first);
        let until = Instant::now() + self.pace.patience();
        while gathered.has_room() {
            let next = match self.queue.try_recv() {
                Ok(next) => next,
                Err(_) if gathered.replies.len() >= self.pace.expected() => break,
                Err(_) => match self.queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(next) => next,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                },
            };
            gathered.add(next);
        }
        gathered
    }

    fn carry_out(&mut self, gathered: Gathered) {
        let Gathered { transactions, replies, .. } = gathered;
        let mut plan = Plan::new(&self.shared.state.read(), transactions);
        if !plan.changed.is_empty() {
            let shown = |key: &str| self.shared.state.read().get(key).cloned();
            match self.disk.write(&plan, shown) {
                Written::Yes => {
                    *self.shared.failure.lock() = None;
                    self.publish(&mut plan);
                }
                Written::No(why) => {
                    *self.shared.failure.lock() = Some(why.to_string());
                    for reply in replies {
                        let _ = reply.send(Err(StoreError::Write { source: why.clone() }));
                    }
                    return;
                }
            }
        }
        for (reply, outcome) in replies.into_iter().zip(plan.outcomes) {
            // Fails when the caller is gone, which takes nothing back.
            let _ = reply.send(Ok(outcome));
        }
    }

    /// Packs what is no longer new, after everybody who waits has been answered and woken.
    fn pack(&mut self) {
        let settled = self.shared.history.write().settled();
        if settled.is_empty() {
            return;
        }
        settled.iter().for_each(|(_, entry)| self.packer.pack(entry));
        self.shared.history.write().weigh(&settled);
    }

    /// Shows a durable batch to readers and watches.
    fn publish(&self, plan: &mut Plan) {
        let events = std::mem::take(&mut plan.events);
        let wake = {
            let mut history = self.shared.history.write();
            let mut state = self.shared.state.write();
            state.apply(plan.changes(), plan.revision);
            history.append(events, plan.revision)
        };
        wake.iter().for_each(|notify| notify.notify_waiters());
    }
}

impl Gathered {
    fn add(&mut self, message: Message) {
        match message {
            Message::Commit { writes, reply } => {
                self.bytes +=
                    writes.iter().map(|write| write.value.as_ref().map_or(0, |v| v.len())).sum::<usize>();
                self.transactions.push(writes);
                self.replies.push(reply);
            }
            Message::Close => self.closing = true,
        }
    }

    fn has_room(&self) -> bool {
        !self.closing && self.replies.len() < MAX_TRANSACTIONS && self.bytes < MAX_BYTES
    }
}

/// How long it pays to wait for more before an fsync.
///
/// Callers that were answered together come back one after the other: without waiting, the first to return
/// would have an fsync to itself while the others queue up behind it. So after a batch of many the writer
/// waits for about as many again, but no longer than a fraction of what the fsync costs; after a batch of
/// one it does not wait at all.
#[derive(Default)]
struct Pace {
    last: usize,
    cost: Duration,
}

impl Pace {
    fn wrote(&mut self, transactions: usize, took: Duration) {
        self.last = transactions;
        self.cost = (self.cost * 7 + took) / 8;
    }

    fn expected(&self) -> usize {
        self.last
    }

    fn patience(&self) -> Duration {
        if self.last > 1 { (self.cost / 4).min(Duration::from_millis(1)) } else { Duration::ZERO }
    }
}
