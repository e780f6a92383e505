//! A whole cluster on one thread: one thing after the other, in an order and with faults that the choices decide.

use crate::api::Api;
use crate::choices::Choices;
use crate::collector::Collector;
use crate::convergence;
use crate::data_plane::DataPlane;
use crate::faults::Faults;
use crate::ground::{Actor, Ground, History};
use crate::invariants::{Judge, Violation};
use crate::manager::Manager;
use crate::mutant::Mutant;
use crate::node::Kubelet;
use crate::scenario::{Focus, Scenario, User};
use crate::scheduler::Scheduler;
use jiff::{SignedDuration, Timestamp};
use std::sync::LazyLock;

/// After faults have stopped, so many steps are enough for everything.
const ENOUGH: usize = 20_000;
/// Steps two leaders work side by side at most.
const REIGN: usize = 120;
/// Steps a node is lost at most.
const LOSS: usize = 200;
/// Milliseconds that pass at once at most although there is something to do.
const PAUSE: usize = 3000;

static BEGINNING: LazyLock<Timestamp> =
    LazyLock::new(|| Timestamp::from_second(1_735_689_600).unwrap_or(Timestamp::UNIX_EPOCH));

/// When every simulation begins.
pub(crate) fn beginning() -> Timestamp {
    *BEGINNING
}

/// The cluster.
pub(crate) struct World {
    pub(crate) ground: Ground,
    mutant: Option<Mutant>,
    managers: Vec<Manager>,
    /// When the older of two leaders gives up.
    abdication: Option<usize>,
    scheduler: Scheduler,
    kubelets: Vec<Kubelet>,
    data_plane: DataPlane,
    collector: Collector,
    user: User,
    judge: Judge,
    scenario: Scenario,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
enum Turn {
    Feed(usize),
    Plan(usize),
    Write(usize),
    SchedulerFeed,
    Scheduler,
    KubeletFeed(usize),
    Kubelet(usize),
    DataPlane,
    Collector,
}

impl World {
    pub(crate) fn new(mut choices: Choices, mutant: Option<Mutant>, wants_history: bool) -> Self {
        let scenario = Scenario::draw(&mut choices);
        let mut faults = Faults::draw(&mut choices);
        if scenario.focus == Focus::Rollouts {
            faults.let_pods_behave();
        }
        let mut ground = Ground {
            api: Api::new(beginning()),
            choices,
            faults,
            troubled: true,
            actor: Actor::User,
            acting_since: 0,
            step: 0,
            requests: 0,
            history: History { wanted: wants_history, lines: Vec::new() },
        };
        scenario.set_up(&mut ground);
        let faults = &ground.faults;
        let mut judge = Judge::default();
        judge.pods_misbehave = !faults.pods_behave();
        judge.unsure_creates = faults.lost_answers && faults.requests > 0 && faults.slowness > 0;
        let described = faults.describe();
        ground.say(|| format!("faults: {described}"));
        Self {
            mutant,
            managers: vec![Manager::start("controllers", &ground.api, mutant)],
            abdication: None,
            scheduler: Scheduler::start(mutant),
            kubelets: (1..=scenario.nodes).map(|index| Kubelet::new(index, mutant)).collect(),
            data_plane: DataPlane::new(),
            collector: Collector::default(),
            user: User::new(&scenario),
            judge,
            scenario,
            ground,
        }
    }

    /// Lives through the whole run.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        self.judge.judge(&mut self.ground)?;
        if self.scenario.begins_settled {
            self.ground.choices.hush(true);
            self.settle()?;
            self.ground.choices.hush(false);
        }
        let end = self.ground.step + self.scenario.steps;
        while self.ground.step < end {
            self.trouble();
            if self.ground.choices.once_in(self.scenario.user) {
                self.ground.actor = Actor::User;
                self.user.act(&mut self.ground);
                self.judge_step()?;
            }
            if !self.step()? {
                self.pass_time();
            }
        }
        self.calm_down()?;
        self.settle()?;
        convergence::check(&self.ground, self.judge.two_leaders)
    }

    /// Goes on until nobody has anything to do any more.
    fn settle(&mut self) -> Result<(), Violation> {
        let end = self.ground.step + ENOUGH;
        while self.step()? || self.pass_time() {
            if self.ground.step > end {
                let requests = self.ground.requests;
                let detail = format!("still busy after {ENOUGH} steps, {requests} requests");
                return Err(Violation::new("nothing is written any more in the end", detail));
            }
        }
        Ok(())
    }

    /// One thing is done by somebody. False if nobody has anything to do now.
    fn step(&mut self) -> Result<bool, Violation> {
        let turns = self.turns();
        self.ground.step += 1;
        self.ground.api.now += SignedDuration::from_millis(1);
        let first = (self.ground.step + self.ground.choices.below(turns.len())) % turns.len();
        for offset in 0..turns.len() {
            if self.take(turns[(first + offset) % turns.len()])? {
                self.judge_step()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn judge_step(&mut self) -> Result<(), Violation> {
        self.judge.pods_misbehave |= self.user.meddled;
        self.judge.judge(&mut self.ground)
    }

    fn turns(&self) -> Vec<Turn> {
        let mut turns = Vec::with_capacity(20);
        for index in 0..self.managers.len() {
            turns.extend([Turn::Feed(index), Turn::Plan(index), Turn::Write(index), Turn::Write(index)]);
        }
        turns.extend([Turn::SchedulerFeed, Turn::Scheduler]);
        for index in 0..self.kubelets.len() {
            turns.extend([Turn::KubeletFeed(index), Turn::Kubelet(index), Turn::Kubelet(index)]);
        }
        turns.extend([Turn::DataPlane, Turn::Collector]);
        turns
    }

    fn take(&mut self, turn: Turn) -> Result<bool, Violation> {
        let ground = &mut self.ground;
        ground.actor = match turn {
            Turn::SchedulerFeed | Turn::Scheduler => Actor::Scheduler,
            Turn::KubeletFeed(_) | Turn::Kubelet(_) => Actor::Kubelet,
            Turn::Collector => Actor::Collector,
            _ => Actor::Controllers,
        };
        Ok(match turn {
            Turn::Feed(index) => self.managers[index].feed(ground),
            Turn::Plan(index) => self.managers[index].plan(ground),
            Turn::Write(index) => self.managers[index].write(ground),
            Turn::SchedulerFeed => self.scheduler.feed(ground),
            Turn::Scheduler => self.scheduler.act(ground),
            Turn::KubeletFeed(index) => self.kubelets[index].feed(ground),
            Turn::Kubelet(index) => self.kubelets[index].act(ground, &mut self.data_plane)?,
            Turn::DataPlane => self.data_plane.feed(ground),
            Turn::Collector => self.collector.act(ground),
        })
    }

    /// Nobody has anything to do: what is on its way arrives, or time passes until something is due. False if nothing
    /// ever is.
    fn pass_time(&mut self) -> bool {
        let ground = &self.ground;
        let lags = self.managers.iter().any(|manager| manager.lags(&ground.api))
            || self.scheduler.lags(ground)
            || self.kubelets.iter().any(|kubelet| kubelet.lags(ground))
            || self.data_plane.lags(ground)
            || !self.collector.is_idle(ground);
        if lags {
            self.release_watches();
            return true;
        }
        let managers = self.managers.iter().filter_map(Manager::next_due);
        let kubelets = self.kubelets.iter().filter(|it| !it.is_lost(ground)).filter_map(Kubelet::next_due);
        let due = managers.chain(kubelets).chain(self.scheduler.next_due()).min();
        if let Some(due) = due {
            self.ground.api.now = self.ground.now().max(due);
        }
        due.is_some()
    }

    fn release_watches(&mut self) {
        self.managers.iter_mut().for_each(Manager::release);
        self.scheduler.release();
        self.data_plane.release();
        let step = self.ground.step;
        for kubelet in &mut self.kubelets {
            // A lost node stays lost.
            kubelet.release_watch(step);
        }
    }

    /// Something goes wrong, perhaps.
    fn trouble(&mut self) {
        let ground = &mut self.ground;
        if ground.choices.once_in(ground.faults.slowness) {
            let pause = 1 + ground.choices.below(PAUSE);
            ground.api.now = ground.later(pause);
            ground.say(|| format!("{pause} ms pass"));
        }
        if ground.choices.once_in(ground.faults.restarts) {
            ground.say(|| "the controllers restart".into());
            let last = self.managers.len() - 1;
            self.managers[last] = Manager::start("controllers", &ground.api, self.mutant);
        }
        if self.abdication.is_none() && ground.choices.once_in(ground.faults.second_leaders) {
            ground.say(|| "a second instance of the controllers starts".into());
            self.judge.two_leaders = true;
            self.managers.push(Manager::start("second controllers", &ground.api, self.mutant));
            self.abdication = Some(ground.step + ground.choices.below(REIGN));
        }
        if self.abdication.is_some_and(|step| step <= ground.step) {
            ground.say(|| "the first instance of the controllers ends".into());
            self.managers.remove(0);
            self.abdication = None;
        }
        let ground = &mut self.ground;
        if ground.choices.once_in(ground.faults.lost_nodes) {
            let chosen = ground.choices.below(self.kubelets.len());
            let until = ground.step + ground.choices.below(LOSS);
            ground.say(|| format!("node-{} is lost", chosen + 1));
            self.kubelets[chosen].lose(until);
        }
        if ground.faults.crashes + ground.faults.flaps > 0 {
            let chosen = ground.step % self.kubelets.len();
            self.kubelets[chosen].disturb(ground);
        }
    }

    /// Faults stop, what was broken is repaired, the user says the last word.
    fn calm_down(&mut self) -> Result<(), Violation> {
        self.ground.actor = Actor::User;
        self.user.finish(&mut self.ground);
        self.ground.faults.stop();
        self.ground.troubled = false;
        self.ground.say(|| "all is well again".into());
        self.ground.choices.hush(true);
        self.release_watches();
        if self.abdication.take().is_some() {
            self.managers.remove(0);
        }
        let now = self.ground.now();
        for kubelet in &mut self.kubelets {
            kubelet.release();
            kubelet.repair(now);
        }
        self.judge_step()
    }
}
