//! One process of controllers: the real controllers on real caches and queues, their plans carried out write by write.
//! Mirrors `sagong_controllers::runner` and `::apply`, with every pause and every order open to the simulation.

use crate::api::Api;
use crate::feed::{self, Feed};
use crate::ground::{Ground, Refusal};
use crate::mutant::Mutant;
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use sagong_api::kind::Part;
use sagong_controllers::apply::Receipt;
use sagong_controllers::cache::{Key, revision_of};
use sagong_controllers::caches::Caches;
use sagong_controllers::plan::{Deletion, Failure, Guard, Pace, Plan, Step, Verb, Write};
use sagong_controllers::queue::{Backoff, Queue};
use sagong_controllers::runner::{Controller, UNCERTAIN, Watch};
use sagong_controllers::{deployment, endpoint_slice, endpoints, replica_set, replication_controller};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// As in the runner.
const BLIND_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// One controller with its queue, whatever its snapshots are.
trait AnyLoop {
    fn name(&self) -> &'static str;
    fn queue(&self) -> &Queue;
    /// Takes the next key, if one is ready, and plans it.
    fn begin(&mut self, caches: &Caches, now: Timestamp) -> Option<(Key, Option<Plan>)>;
    fn after_failure(&self, key: &Key, failure: &Failure, now: Timestamp) -> Plan;
    fn end(&mut self, key: &Key);
}

/// What a planted bug does to a controller.
pub(crate) struct Tampering<S> {
    /// It sees something else.
    pub(crate) snapshot: fn(&mut S, &Caches),
    /// It wants something else.
    pub(crate) plan: fn(&S, &mut Plan, Timestamp),
}

impl<S> Default for Tampering<S> {
    fn default() -> Self {
        Self { snapshot: |_, _| {}, plan: |_, _, _| {} }
    }
}

struct Loop<C: Controller> {
    controller: C,
    queue: Arc<Queue>,
    tampering: Tampering<C::Snapshot>,
    planned: BTreeMap<Key, C::Snapshot>,
}

impl<C: Controller> AnyLoop for Loop<C> {
    fn name(&self) -> &'static str {
        self.controller.name()
    }

    fn queue(&self) -> &Queue {
        &self.queue
    }

    fn begin(&mut self, caches: &Caches, now: Timestamp) -> Option<(Key, Option<Plan>)> {
        let key = self.queue.try_next()?;
        let Some(mut snapshot) = self.controller.observe(caches, &key) else { return Some((key, None)) };
        (self.tampering.snapshot)(&mut snapshot, caches);
        let mut plan = self.controller.plan(&snapshot, now);
        (self.tampering.plan)(&snapshot, &mut plan, now);
        self.planned.insert(key.clone(), snapshot);
        Some((key, Some(plan)))
    }

    fn after_failure(&self, key: &Key, failure: &Failure, now: Timestamp) -> Plan {
        let snapshot = self.planned.get(key);
        snapshot.map(|snapshot| self.controller.after_failure(snapshot, failure, now)).unwrap_or_default()
    }

    fn end(&mut self, key: &Key) {
        self.planned.remove(key);
    }
}

/// A plan being carried out.
struct Job {
    /// The step in which it was made.
    begun: usize,
    of: usize,
    key: Key,
    steps: VecDeque<Step>,
    /// The step under way: its guard until it is checked, and the writes of the batch under way.
    guard: Option<Guard>,
    rest: VecDeque<Write>,
    pace: Pace,
    batch: usize,
    in_flight: Vec<Write>,
    receipts: Vec<Receipt>,
    failure: Option<Failure>,
    /// The plan made after a failure is being carried out.
    mourning: Option<Failure>,
    look_again: Option<Timestamp>,
}

/// A key that waits until the caches show its own writes.
struct Waiting {
    of: usize,
    key: Key,
    receipts: Vec<Receipt>,
    until: Timestamp,
}

/// The controllers of one process.
pub(crate) struct Manager {
    name: &'static str,
    mutant: Option<Mutant>,
    caches: Arc<Caches>,
    feeds: Vec<Box<dyn Feed>>,
    loops: Vec<Box<dyn AnyLoop>>,
    jobs: Vec<Job>,
    waiting: Vec<Waiting>,
    timers: BTreeMap<(usize, Key), Timestamp>,
    failures: BTreeMap<(usize, Key), u32>,
}

impl Manager {
    /// Starts the controllers and lists everything.
    pub(crate) fn start(name: &'static str, api: &Api, mutant: Option<Mutant>) -> Self {
        let caches = Arc::new(Caches::default());
        let mut manager = Self {
            name,
            mutant,
            caches: caches.clone(),
            feeds: feed::all(),
            loops: vec![
                new_loop(deployment::Controller, &caches, Mutant::on_deployments(mutant)),
                new_loop(replica_set::Controller, &caches, Mutant::on_replica_sets(mutant)),
                new_loop(replication_controller::Controller, &caches, Tampering::default()),
                new_loop(endpoints::Controller, &caches, Tampering::default()),
                new_loop(endpoint_slice::Controller, &caches, Tampering::default()),
            ],
            jobs: Vec::new(),
            waiting: Vec::new(),
            timers: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        manager.feeds.iter_mut().for_each(|feed| feed.list(api, &caches));
        manager
    }

    /// Lets events arrive.
    pub(crate) fn feed(&mut self, ground: &mut Ground) -> bool {
        let open: Vec<usize> =
            (0..self.feeds.len()).filter(|feed| self.feeds[*feed].is_open(ground)).collect();
        if open.is_empty() {
            return false;
        }
        let feed = open[ground.choices.below(open.len())];
        let forgets = self.mutant == Some(Mutant::ForgetsDeletions);
        self.feeds[feed].deliver(ground, &self.caches, forgets);
        self.settle(ground.now());
        true
    }

    /// Whether any watch is behind.
    pub(crate) fn lags(&self, api: &Api) -> bool {
        self.feeds.iter().any(|feed| feed.lags(api))
    }

    /// Ends all delays of watches.
    pub(crate) fn release(&mut self) {
        self.feeds.iter_mut().for_each(|feed| feed.cursor().release());
    }

    /// Plans the next key.
    pub(crate) fn plan(&mut self, ground: &mut Ground) -> bool {
        let now = ground.now();
        self.wake(now);
        let count = self.loops.len();
        let first = ground.choices.below(count);
        for of in (0..count).map(|offset| (first + offset) % count) {
            let Some((key, plan)) = self.loops[of].begin(&self.caches, now) else { continue };
            self.timers.remove(&(of, key.clone()));
            let plan = plan.unwrap_or_default();
            let job = Job {
                begun: ground.step,
                of,
                key,
                look_again: plan.look_again,
                steps: plan.steps.into(),
                guard: None,
                rest: VecDeque::new(),
                pace: Pace::Together,
                batch: 0,
                in_flight: Vec::new(),
                receipts: Vec::new(),
                failure: None,
                mourning: None,
            };
            self.jobs.push(job);
            self.advance(self.jobs.len() - 1, ground);
            return true;
        }
        false
    }

    /// Makes one request of one plan.
    pub(crate) fn write(&mut self, ground: &mut Ground) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        let index = ground.choices.below(self.jobs.len());
        ground.acting_since = self.jobs[index].begun;
        self.request(index, ground);
        self.advance(index, ground);
        true
    }

    /// When a timer is due next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.timers.values().chain(self.waiting.iter().map(|waiting| &waiting.until)).min().copied()
    }

    fn wake(&mut self, now: Timestamp) {
        let loops = &self.loops;
        self.timers.retain(|(of, key), when| {
            if *when <= now {
                loops[*of].queue().add(key.clone());
            }
            *when > now
        });
        self.settle(now);
    }

    /// Frees the keys whose writes the caches show by now.
    fn settle(&mut self, now: Timestamp) {
        let (caches, loops) = (&self.caches, &self.loops);
        let believes = self.mutant == Some(Mutant::StaleCacheBelieved);
        self.waiting.retain_mut(|waiting| {
            waiting.receipts.retain(|receipt| !believes && !is_seen(caches, receipt));
            let is_over = waiting.receipts.is_empty() || waiting.until <= now;
            if is_over {
                loops[waiting.of].queue().done(&waiting.key);
            }
            !is_over
        });
    }

    fn request(&mut self, index: usize, ground: &mut Ground) {
        let who = self.loops[self.jobs[index].of].name();
        let name = self.name;
        let job = &mut self.jobs[index];
        if let Some(guard) = job.guard.take() {
            let is_skipped = self.mutant == Some(Mutant::AdoptsForTheDead);
            if let Err(failure) = check(&guard, ground).or_else(|e| if is_skipped { Ok(()) } else { Err(e) })
            {
                ground.say(|| format!("{name} {who}: {} is no more: {}", guard.key, failure.message));
                job.failure = Some(*failure);
                job.in_flight.clear();
            }
            return;
        }
        if job.in_flight.is_empty() {
            return;
        }
        let write = job.in_flight.swap_remove(ground.choices.below(job.in_flight.len()));
        let line = format!("{name} {who} {}: {}", job.key.name, tell(&write));
        let retries =
            self.mutant == Some(Mutant::RetriesLostCreates) && matches!(write.verb, Verb::Create(_));
        let again = retries.then(|| copy_of_create(&write)).flatten();
        let mut result = send(write, ground, &self.caches);
        if let (Err(failure), Some(again)) = (&result, again)
            && failure.code == 0
        {
            ground.say(|| format!("{line}: {}, again", failure.message));
            result = send(again, ground, &self.caches);
        }
        match result {
            Ok(receipt) => {
                ground.say(|| line);
                job.receipts.extend(receipt);
            }
            Err(failure) => {
                ground.say(|| format!("{line}: {} {}", failure.code, failure.message));
                job.failure.get_or_insert(*failure);
            }
        }
    }

    /// Begins whatever of the job comes next; ends it if nothing does.
    fn advance(&mut self, index: usize, ground: &mut Ground) {
        let now = ground.now();
        let job = &mut self.jobs[index];
        while job.guard.is_none() && job.in_flight.is_empty() {
            if let Some(failure) = job.failure.take() {
                if job.mourning.is_none() {
                    job.steps = self.loops[job.of].after_failure(&job.key, &failure, now).steps.into();
                    job.mourning = Some(failure);
                } else {
                    job.steps.clear();
                }
                job.rest.clear();
                continue;
            }
            if !job.rest.is_empty() {
                job.batch = job.batch.saturating_mul(2);
                let count = job.batch.min(job.rest.len());
                job.in_flight = job.rest.drain(..count).collect();
            } else if let Some(step) = job.steps.pop_front() {
                job.guard = step.guard;
                job.rest = step.writes.into();
                job.pace = step.pace;
                // The first batch is one write, or all of them.
                job.batch = match job.pace {
                    Pace::SlowStart => 1,
                    Pace::Together => usize::MAX,
                };
                let count = job.batch.min(job.rest.len());
                job.in_flight = job.rest.drain(..count).collect();
            } else {
                let job = self.jobs.swap_remove(index);
                return self.finish(job, now);
            }
        }
    }

    fn finish(&mut self, job: Job, now: Timestamp) {
        let Job { of, key, receipts, mourning, look_again, .. } = job;
        self.loops[of].end(&key);
        let timer = (of, key.clone());
        if let Some(failure) = mourning {
            let failures = self.failures.entry(timer.clone()).or_default();
            *failures += 1;
            let mut pause = Backoff::default().pause(*failures);
            if failure.is_uncertain() {
                pause = pause.max(UNCERTAIN);
            }
            self.schedule(timer.clone(), now + SignedDuration::try_from(pause).unwrap_or_default());
        } else {
            self.failures.remove(&timer);
        }
        if let Some(when) = look_again {
            self.schedule(timer, when.max(now) + SignedDuration::from_millis(1));
        }
        self.waiting.push(Waiting { of, key, receipts, until: now + BLIND_AFTER });
        self.settle(now);
    }

    fn schedule(&mut self, timer: (usize, Key), when: Timestamp) {
        let planned = self.timers.entry(timer).or_insert(when);
        *planned = (*planned).min(when);
    }
}

fn new_loop<C: Controller>(
    controller: C,
    caches: &Arc<Caches>,
    tampering: Tampering<C::Snapshot>,
) -> Box<dyn AnyLoop> {
    let queue = Arc::new(Queue::default());
    controller.watch(&mut Watch::new(caches.clone(), queue.clone()));
    Box::new(Loop { controller, queue, tampering, planned: BTreeMap::new() })
}

fn is_seen(caches: &Caches, receipt: &Receipt) -> bool {
    let (kind, seen) = match receipt {
        Receipt::Revision(kind, revision) => {
            (kind, caches.of(kind.group, kind.plural).map(|cache| cache.saw(*revision)))
        }
        Receipt::Going(kind, key, uid) => {
            (kind, caches.of(kind.group, kind.plural).map(|cache| cache.saw_going(key, uid)))
        }
    };
    let _ = kind;
    seen.is_none_or(|seen| seen.now_or_never().is_some())
}

fn check(guard: &Guard, ground: &mut Ground) -> Result<(), Box<Failure>> {
    let refuse = |code, reason: &str, message: String| {
        Box::new(Failure {
            verb: "get",
            kind: guard.kind,
            key: guard.key.clone(),
            code,
            reason: reason.to_owned(),
            message,
        })
    };
    let answer = ground.request("get", guard.kind.plural, |api| api.find(guard.kind.plural, &guard.key));
    let object = answer.map_err(|refusal| refuse(refusal.code, refusal.reason, refusal.message))?;
    let meta = object.metadata();
    if meta.uid.as_deref() != Some(&guard.uid) {
        return Err(refuse(409, "Conflict", "replaced by another of that name".into()));
    }
    match &meta.deletion_timestamp {
        Some(_) => Err(refuse(409, "Conflict", "has just been deleted".into())),
        None => Ok(()),
    }
}

fn copy_of_create(write: &Write) -> Option<Write> {
    let Verb::Create(object) = &write.verb else { return None };
    Some(Write {
        tolerated: write.tolerated,
        ..Write::at(write.kind, write.key.clone(), Verb::Create(object.boxed_clone()))
    })
}

fn send(write: Write, ground: &mut Ground, caches: &Caches) -> Result<Option<Receipt>, Box<Failure>> {
    let Write { kind, key, verb, tolerated, .. } = write;
    let name = verb.name();
    let going = match &verb {
        Verb::Delete(deletion) => Some(deletion.uid.clone()),
        _ => None,
    };
    let plural = kind.plural;
    let at = key.clone();
    let answer = ground.request(name, plural, |api| match verb {
        Verb::Create(object) => api.create(plural, object),
        Verb::Update(object) => api.update(plural, object, Part::Main),
        Verb::UpdateStatus(object) => api.update(plural, object, Part::Status),
        Verb::Patch(how, body) => api.patch(plural, &at, how, &body, Part::Main),
        Verb::PatchStatus(how, body) => api.patch(plural, &at, how, &body, Part::Status),
        Verb::Delete(deletion) => api.delete(plural, &at, &deletion),
    });
    match answer {
        Ok(object) => {
            let Some(cache) = caches.of(kind.group, plural) else { return Ok(None) };
            let revision = revision_of(object.metadata());
            if going.is_none() {
                cache.note_write(revision);
            }
            Ok(match going {
                None => Some(Receipt::Revision(kind, revision)),
                Some(uid) => uid.map(|uid| Receipt::Going(kind, key, uid)),
            })
        }
        Err(Refusal { code, .. }) if tolerated.contains(&code) => {
            Ok(going.flatten().map(|uid| Receipt::Going(kind, key, uid)))
        }
        Err(Refusal { code, reason, message }) => {
            Err(Box::new(Failure { verb: name, kind, key, code, reason: reason.to_owned(), message }))
        }
    }
}

/// `update replicasets kubia-1 (Scaled up replica set kubia-1 from 0 to 1)`.
fn tell(write: &Write) -> String {
    let note = write.on_success.as_ref().map(|note| format!(" ({})", note.message)).unwrap_or_default();
    let options = match &write.verb {
        Verb::Delete(Deletion { propagation: Some(how), .. }) => format!(" {how}"),
        _ => String::new(),
    };
    format!("{} {} {}{options}{note}", write.verb.name(), write.kind.plural, write.key.name)
}
