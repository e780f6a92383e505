//! What all parts of a simulation stand on: the API server, the decisions, the faults, the history.

use crate::api::{Answer, Api};
use crate::choices::Choices;
use crate::faults::{Fate, Faults};
use jiff::{SignedDuration, Timestamp};

/// Why a request was not answered with success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP code; 0 if there was no answer.
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    User,
    Controllers,
    Collector,
    Scheduler,
    Kubelet,
}

/// Everything shared.
pub(crate) struct Ground {
    pub(crate) api: Api,
    pub(crate) choices: Choices,
    pub(crate) faults: Faults,
    /// Whether things still go wrong.
    pub(crate) troubled: bool,
    /// Who makes requests right now, and since which step it has known what it acts on.
    pub(crate) actor: Actor,
    pub(crate) acting_since: usize,
    /// Steps made so far.
    pub(crate) step: usize,
    /// Requests made by anybody but the user.
    pub(crate) requests: usize,
    pub(crate) history: History,
}

/// What happened, line by line; costs nothing unless somebody wants to read it.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) wanted: bool,
    pub(crate) lines: Vec<String>,
}

impl Ground {
    pub(crate) fn now(&self) -> Timestamp {
        self.api.now
    }

    pub(crate) fn is_troubled(&self) -> bool {
        self.troubled
    }

    pub(crate) fn later(&self, milliseconds: usize) -> Timestamp {
        self.now() + SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(0))
    }

    /// Writes down what happened.
    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if self.history.wanted {
            let since = self.now().duration_since(crate::world::beginning());
            let line = format!("{:>5} {:>8.3}s  {}", self.step, since.as_secs_f64(), what());
            self.history.lines.push(line);
        }
    }

    /// Makes a request over a network and to a server that may fail.
    pub(crate) fn request<T>(
        &mut self,
        verb: &str,
        plural: &str,
        make: impl FnOnce(&mut Api) -> Answer<T>,
    ) -> Result<T, Refusal> {
        self.requests += 1;
        let refuse = |code, reason, message: &str| Err(Refusal { code, reason, message: message.to_owned() });
        match self.faults.fate(&mut self.choices, verb, plural) {
            Fate::Fine => make(&mut self.api).map_err(Refusal::from),
            Fate::LostAnswer => {
                let _ = make(&mut self.api);
                refuse(0, "", "connection lost before the answer")
            }
            Fate::LostRequest => refuse(0, "", "connection lost before the request"),
            Fate::Conflict => refuse(409, "Conflict", "the object has been modified"),
            Fate::Throttled => refuse(429, "TooManyRequests", "too many requests"),
            Fate::Internal => refuse(500, "InternalError", "disk on fire"),
            Fate::Quota => refuse(403, "Forbidden", "exceeded quota"),
        }
    }

    /// A request as the user makes it: always served.
    pub(crate) fn user<T>(&mut self, make: impl FnOnce(&mut Api) -> Answer<T>) -> Option<T> {
        match make(&mut self.api) {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.say(|| format!("user: refused: {error}"));
                None
            }
        }
    }
}

impl From<sagong_api::error::ApiError> for Refusal {
    fn from(error: sagong_api::error::ApiError) -> Self {
        Self { code: error.code(), reason: error.reason(), message: error.to_string() }
    }
}
