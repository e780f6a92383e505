//! The fault model: what can go wrong, and how often it does in one run.

use crate::choices::Choices;

/// How often things go wrong: once in so many opportunities; 0 is never. A run has only some of these, as a run with
/// everything wrong at once gets nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Requests answered with 409, 429, 500, or 403 for a quota, and requests and answers lost on the way.
    pub requests: usize,
    /// Only of these a create whose answer is lost leaves the caller unsure; it has its own switch.
    pub lost_answers: bool,
    /// Watches that hold events back for a while.
    pub held_watches: usize,
    /// Watches that break, and either resume or list afresh.
    pub broken_watches: usize,
    /// The controllers restart, between any two writes.
    pub restarts: usize,
    /// A second instance of the controllers works at the same time for a while.
    pub second_leaders: usize,
    /// Containers that exit.
    pub crashes: usize,
    /// Pods that stop being ready for a while.
    pub flaps: usize,
    /// Nodes that do nothing for a while.
    pub lost_nodes: usize,
    /// Time passes although there is something to do.
    pub slowness: usize,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    LostAnswer,
    LostRequest,
    Conflict,
    Throttled,
    Internal,
    Quota,
}

impl Faults {
    /// Some faults.
    pub(crate) fn draw(choices: &mut Choices) -> Self {
        let mut some = |rates: &[usize]| {
            let rare = choices.below(3) < 2;
            if rare { 0 } else { rates[choices.below(rates.len())] }
        };
        Self {
            requests: some(&[40, 15, 6]),
            held_watches: some(&[60, 20]),
            broken_watches: some(&[150, 50]),
            restarts: some(&[200, 60]),
            second_leaders: some(&[0, 0, 150]),
            crashes: some(&[100, 40]),
            flaps: some(&[100, 40]),
            lost_nodes: some(&[0, 120]),
            slowness: some(&[60, 20]),
            lost_answers: some(&[0, 1]) > 0,
        }
    }

    /// Nothing ends pods but the controllers, and those but one.
    pub(crate) fn let_pods_behave(&mut self) {
        (self.crashes, self.flaps, self.lost_nodes, self.second_leaders) = (0, 0, 0, 0);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Whether pods run as they should: nothing but controllers ends them.
    pub fn pods_behave(&self) -> bool {
        self.crashes == 0 && self.flaps == 0 && self.lost_nodes == 0
    }

    pub(crate) fn fate(&self, choices: &mut Choices, verb: &str, plural: &str) -> Fate {
        if !choices.once_in(self.requests) {
            return Fate::Fine;
        }
        match (choices.below(6), verb) {
            (1, _) | (0, "create") if self.lost_answers => Fate::LostAnswer,
            (2, "update" | "update status") => Fate::Conflict,
            (3, _) => Fate::Throttled,
            (4, _) => Fate::Internal,
            (5, "create") if plural == "pods" => Fate::Quota,
            _ => Fate::LostRequest,
        }
    }

    /// Which there are, for people.
    pub(crate) fn describe(&self) -> String {
        let all = [
            ("request faults", self.requests),
            ("lost answers", usize::from(self.lost_answers && self.requests > 0)),
            ("held watches", self.held_watches),
            ("broken watches", self.broken_watches),
            ("restarts", self.restarts),
            ("second leaders", self.second_leaders),
            ("crashes", self.crashes),
            ("flapping pods", self.flaps),
            ("lost nodes", self.lost_nodes),
            ("slowness", self.slowness),
        ];
        let some: Vec<String> =
            all.iter().filter(|(_, rate)| *rate > 0).map(|(name, rate)| format!("{name} 1/{rate}")).collect();
        if some.is_empty() { "none".into() } else { some.join(", ") }
    }
}
