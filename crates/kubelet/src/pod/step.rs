//! What is waited for, when the wall clock is set: as much of each wait is left as before.

use super::backoff::Backoff;
use super::snapshot::{ContainerFacts, ImageFacts, PodSnapshot};
use jiff::{SignedDuration, Timestamp};
use sagong_runtime::ContainerState;

impl PodSnapshot {
    /// The clock was set by so much, and shows `now`. Times of the API and of the runtime stay what they are.
    pub(crate) fn step(&mut self, by: SignedDuration, now: Timestamp) {
        let shift = |at: &mut Timestamp| *at = moved(*at, by);
        self.volumes_renew.iter_mut().for_each(shift);
        self.retries.values_mut().for_each(|retry| shift(&mut retry.at));
        self.last_patch.iter_mut().for_each(|(_, at)| shift(at));
        if let Some(termination) = &mut self.termination {
            [&mut termination.begun, &mut termination.deadline, &mut termination.drain_until]
                .into_iter()
                .for_each(shift);
        }
        self.containers.values_mut().for_each(|facts| facts.step(by, now));
    }
}

impl ContainerFacts {
    fn step(&mut self, by: SignedDuration, now: Timestamp) {
        let shift = |at: &mut Timestamp| *at = moved(*at, by);
        [&mut self.pulls, &mut self.restarts].into_iter().for_each(|backoff| backoff.step(by));
        if let ImageFacts::Failed(failure) = &mut self.image {
            shift(&mut failure.at);
        }
        self.failure.iter_mut().for_each(|failure| shift(&mut failure.at));
        if let Some(kill) = &mut self.kill {
            let known = [&mut kill.deadline, &mut kill.drain_until].into_iter();
            known.chain(&mut kill.signalled).chain(&mut kill.killed).for_each(shift);
        }
        // Nothing has ended in the future: who waits for something after that would wait for that as well.
        if let Some(ContainerState::Exited { finished, .. }) =
            self.current.as_mut().map(|instance| &mut instance.state)
        {
            *finished = (*finished).min(now);
        }
    }
}

impl Backoff {
    fn step(&mut self, by: SignedDuration) {
        self.updated_mut().into_iter().for_each(|at| *at = moved(*at, by));
    }
}

fn moved(at: Timestamp, by: SignedDuration) -> Timestamp {
    let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(by).unwrap_or(end)
}
