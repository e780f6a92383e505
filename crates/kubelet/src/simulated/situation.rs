//! What a simulated pod is at one moment: a function of what it was asked to do and of the time. Pure.

use super::behaviour::Behaviour;
use super::view::RestartPolicy;
use crate::clock::{between, later};
use crate::pod::backoff;
use jiff::Timestamp;
use std::time::Duration;

/// How long a pull is shown as failed before it is shown as backing off.
const PULL: Duration = Duration::from_secs(1);

/// All that a pod's situation depends on, besides the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// When the containers' first run began, or would have.
    pub(crate) started: Timestamp,
    /// Since when the behaviour is in force.
    pub(crate) since: Timestamp,
    /// Restarts before that.
    pub(crate) restarts: u32,
    /// `spec.restartPolicy`.
    pub(crate) policy: RestartPolicy,
    /// What the annotation asks for, or what is wrong with it.
    pub(crate) behaviour: Result<Behaviour, String>,
    /// Time from start to ready, if the annotation names none.
    pub(crate) ready_delay: Duration,
    /// When the containers are to have stopped, once the pod is deleted.
    pub(crate) stops: Option<Timestamp>,
    /// How the pod ended, once the API shows it as over.
    pub(crate) over: Option<Run>,
}

/// What all containers of a pod do; they all do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// They are not started: the annotation makes no sense. With the reason.
    Refused(String),
    /// They are not started: there is no such image.
    ImageMissing {
        /// Whether the next pull is being waited for.
        backing_off: bool,
    },
    /// They run.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// They have ended and wait for their restart.
    Waiting {
        /// How the last run ended.
        last: Run,
        /// How long they wait in all.
        wait: Duration,
    },
    /// They have ended for good.
    Ended(Run),
}

/// A run of a container that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// When it began.
    pub(crate) began: Timestamp,
    /// When it ended.
    pub(crate) ended: Timestamp,
    /// Its exit code.
    pub(crate) code: i32,
}

/// What a pod is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    /// What its containers do.
    pub(crate) state: State,
    /// Whether they are ready.
    pub(crate) ready: bool,
    /// How often they were restarted.
    pub(crate) restarts: u32,
    /// The run before, if there was one.
    pub(crate) last: Option<Run>,
}

impl Situation {
    /// `status.phase`.
    pub(crate) fn phase(&self) -> &'static str {
        match &self.state {
            State::Refused(_) | State::ImageMissing { .. } => "Pending",
            State::Running { .. } | State::Waiting { .. } => "Running",
            State::Ended(Run { code: 0, .. }) => "Succeeded",
            State::Ended(_) => "Failed",
        }
    }

    /// Whether the containers have been started at least once.
    pub(crate) fn has_started(&self) -> bool {
        !matches!(self.state, State::Refused(_) | State::ImageMissing { .. })
    }

    fn of(state: State) -> Self {
        Situation { state, ready: false, restarts: 0, last: None }
    }
}

impl Life {
    /// The situation at `now`, and when it changes by itself.
    pub(crate) fn at(&self, now: Timestamp) -> (Situation, Option<Timestamp>) {
        if let Some(run) = &self.over {
            let situation = Situation { restarts: self.restarts, ..Situation::of(State::Ended(run.clone())) };
            return (situation, None);
        }
        let (situation, next) = self.unless_stopped(now);
        match self.stops {
            Some(stops) if stops <= now => (stopped(situation, stops), None),
            Some(stops) => (situation, Some(next.map_or(stops, |next| next.min(stops)))),
            None => (situation, next),
        }
    }

    fn unless_stopped(&self, now: Timestamp) -> (Situation, Option<Timestamp>) {
        let behaviour = match &self.behaviour {
            Ok(behaviour) => behaviour,
            Err(error) => return (Situation::of(State::Refused(error.clone())), None),
        };
        if behaviour.image_missing {
            let backs_off = later(self.since, PULL);
            let backing_off = backs_off <= now;
            let next = (!backing_off).then_some(backs_off);
            return (Situation::of(State::ImageMissing { backing_off }), next);
        }
        match behaviour.exits {
            Some((after, code)) => self.exiting(behaviour, after, code, now),
            None => {
                let (ready, next) = self.readiness(behaviour, self.started, now);
                let state = State::Running { since: self.started };
                (Situation { ready, restarts: self.restarts, ..Situation::of(state) }, next)
            }
        }
    }

    /// Containers that end `after` each start.
    fn exiting(
        &self,
        behaviour: &Behaviour,
        after: Duration,
        code: i32,
        now: Timestamp,
    ) -> (Situation, Option<Timestamp>) {
        let restarts = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        };
        let mut began = self.since;
        let mut last = None;
        for attempt in 0.. {
            let count = self.restarts.saturating_add(attempt);
            let ended = later(began, after);
            if now < ended {
                let (ready, next) = self.readiness(behaviour, began, now);
                let next = next.map_or(ended, |next| next.min(ended));
                let state = State::Running { since: began };
                return (Situation { state, ready, restarts: count, last }, Some(next));
            }
            let run = Run { began, ended, code };
            if !restarts {
                let situation = Situation { restarts: count, last, ..Situation::of(State::Ended(run)) };
                return (situation, None);
            }
            let wait = wait_before(attempt + 1, after);
            let again = later(ended, wait);
            if now < again {
                let state = State::Waiting { last: run, wait };
                return (Situation { restarts: count, ..Situation::of(state) }, Some(again));
            }
            began = again;
            last = Some(run);
        }
        // No more attempts can be counted.
        (Situation::of(State::Running { since: began }), None)
    }

    /// Whether containers started at `began` are ready, and when that changes.
    fn readiness(
        &self,
        behaviour: &Behaviour,
        began: Timestamp,
        now: Timestamp,
    ) -> (bool, Option<Timestamp>) {
        if behaviour.never_ready {
            return (false, None);
        }
        let ready_at = later(began, behaviour.ready_delay.unwrap_or(self.ready_delay));
        if now < ready_at {
            return (false, Some(ready_at));
        }
        let Some(period) = behaviour.flap else { return (true, None) };
        let ready_at = ready_at.max(self.since);
        let period_ms = period.as_millis().max(1);
        let rounds = between(ready_at, now).as_millis() / period_ms;
        let next = u64::try_from((rounds + 1) * period_ms).unwrap_or(u64::MAX);
        (rounds.is_multiple_of(2), Some(later(ready_at, Duration::from_millis(next))))
    }
}

/// How long the start with this number, the first being 0, waits after the end of the run before. As the
/// kubelet has it: the first restart is free, then 10 s doubling to 5 min; long runs start anew.
fn wait_before(attempt: u32, run: Duration) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        _ if run > backoff::MAXIMUM * 2 => Duration::ZERO,
        _ => backoff::INITIAL.saturating_mul(1 << (attempt - 2).min(8)).min(backoff::MAXIMUM),
    }
}

/// The same pod after its containers were told to stop; they obey, with exit code 0.
fn stopped(situation: Situation, at: Timestamp) -> Situation {
    let run = match &situation.state {
        State::Running { since } => Run { began: *since, ended: at.max(*since), code: 0 },
        State::Waiting { last, .. } | State::Ended(last) => last.clone(),
        State::Refused(_) | State::ImageMissing { .. } => return situation,
    };
    Situation { state: State::Ended(run), ready: false, ..situation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::test_epoch;
    use rstest::rstest;

    fn life(annotation: &str) -> Life {
        Life {
            started: test_epoch(),
            since: test_epoch(),
            restarts: 0,
            policy: RestartPolicy::Always,
            behaviour: Behaviour::parse(annotation),
            ready_delay: Duration::ZERO,
            stops: None,
            over: None,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        later(test_epoch(), Duration::from_secs(seconds))
    }

    /// The situations a pod goes through until `end`, as `second: phase restarts ready`.
    fn history(life: &Life, end: u64) -> Vec<String> {
        let mut told = Vec::new();
        let mut now = at(0);
        while now < at(end) {
            let (situation, next) = life.at(now);
            let Situation { state, ready, restarts, .. } = situation;
            let state = format!("{state:?}");
            let state = state.split([' ', '(']).next().unwrap_or_default();
            let second = between(at(0), now).as_secs();
            told.push(format!("{second}: {state} {restarts}{}", if ready { " ready" } else { "" }));
            match next {
                Some(next) => {
                    assert!(next > now, "time does not go on after {told:?}");
                    now = next;
                }
                None => break,
            }
        }
        told
    }

    #[rstest]
    #[case::plain("", &["0: Running 0 ready"])]
    #[case::slow("slow=5s", &["0: Running 0", "5: Running 0 ready"])]
    #[case::never_ready("never-ready", &["0: Running 0"])]
    #[case::flap("flap=10s,slow=5s", &["0: Running 0", "5: Running 0 ready", "15: Running 0", "25: Running 0 ready"])]
    #[case::crash("crash", &["0: Waiting 1", "10: Waiting 2", "30: Waiting 3"])]
    #[case::late_crash("crash=3s", &["0: Running 0 ready", "3: Running 1 ready", "6: Waiting 1", "16: Running 2 ready", "19: Waiting 2"])]
    #[case::image("image-missing", &["0: ImageMissing 0", "1: ImageMissing 0"])]
    #[case::nonsense("nonsense", &["0: Refused 0"])]
    fn a_pod_does_over_time_what_its_annotation_asks_for(
        #[case] annotation: &str,
        #[case] expected: &[&str],
    ) {
        assert_eq!(history(&life(annotation), 33), expected);
    }

    #[rstest]
    #[case(RestartPolicy::Never, "crash=1s", "Failed")]
    #[case(RestartPolicy::Never, "complete=1s", "Succeeded")]
    #[case(RestartPolicy::OnFailure, "complete=1s", "Succeeded")]
    #[case(RestartPolicy::OnFailure, "crash=1s", "Running")]
    #[case(RestartPolicy::Always, "complete=1s", "Running")]
    fn the_phase_follows_the_restart_policy(
        #[case] policy: RestartPolicy,
        #[case] annotation: &str,
        #[case] expected: &str,
    ) {
        let life = Life { policy, ..life(annotation) };
        assert_eq!(life.at(at(5)).0.phase(), expected);
    }

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes() {
        let waits: Vec<u64> = (0..9).map(|n| wait_before(n, Duration::ZERO).as_secs()).collect();
        assert_eq!(waits, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(wait_before(u32::MAX, Duration::ZERO).as_secs(), 300);
    }

    #[test]
    fn a_deleted_pod_stops_when_it_is_due_and_not_before() {
        let life = Life { stops: Some(at(7)), ..life("") };
        let (before, next) = life.at(at(3));
        assert_eq!((before.phase(), before.ready, next), ("Running", true, Some(at(7))));
        let (after, next) = life.at(at(7));
        assert_eq!((after.phase(), after.ready, next), ("Succeeded", false, None));
    }

    #[test]
    fn a_pod_that_never_started_stops_without_having_run() {
        let life = Life { stops: Some(at(0)), ..life("image-missing") };
        assert_eq!(life.at(at(0)).0.phase(), "Pending");
    }
}
