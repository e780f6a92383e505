//! All pods of the simulated nodes: what the API shows of them, what it should show, and when that changes.
//! Pure: events, answers and the time come in, writes go out. A pod has at most one write under way.

use super::addresses::Addresses;
use super::behaviour::Behaviour;
use super::situation::{Life, Run, Situation};
use super::status::{self, Frame};
use super::view::{Container, View};
use super::{ANNOTATION, SimulatedNodes};
use crate::clock::{between, later};
use crate::pod::termination::seconds;
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Grace period of a pod that names none, as upstream's default has it.
const DEFAULT_GRACE: i64 = 30;
/// First and longest wait after a failed write.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Something to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    /// About which pod.
    pub(crate) uid: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// What.
    pub(crate) write: Write,
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// A strategic merge patch of the status.
    Status(Value),
    /// The pod is to be deleted for good.
    Delete,
}

/// A write that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The resource version it left.
    pub(crate) revision: u64,
}

/// What the pods of one template have in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) containers: Vec<Container>,
    pub(crate) inits: Vec<Container>,
}

/// What stays of a pod's object.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) template: Arc<Template>,
    pub(crate) seen: Timestamp,
    /// What readiness gates lack.
    pub(crate) missing_gates: Option<String>,
    node: usize,
    host_network: bool,
    annotation: Option<String>,
}

/// What the API was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    situation: Situation,
    missing_gates: Option<String>,
    ready_since: Timestamp,
}

impl Told {
    fn is_ready(&self) -> bool {
        self.situation.ready && self.missing_gates.is_none()
    }
}

struct Entry {
    pod: Pod,
    life: Life,
    address: Option<Ipv4Addr>,
    told: Option<Told>,
    /// The pod's last version that was our own write.
    written: u64,
    /// Whether a write is under way, and what it tells.
    writing: Option<Option<Box<Told>>>,
    queued: bool,
    due: Option<Timestamp>,
    failures: u32,
    /// Nothing to do before this, after failures.
    rests_until: Option<Timestamp>,
    listed: bool,
}

/// The pods, by uid.
pub(crate) struct World {
    ready_delay: Duration,
    nodes: HashMap<String, usize>,
    first_node: u32,
    addresses: Addresses,
    /// Boxed: the table grows by doubling, and would copy all of them each time.
    pods: HashMap<String, Box<Entry>>,
    last_template: Arc<Template>,
    queue: VecDeque<String>,
    due: BTreeSet<(Timestamp, String)>,
    /// No address is given out before all pods that have one are known.
    synced: bool,
}

impl World {
    /// A world without pods.
    pub(crate) fn new(options: &SimulatedNodes) -> Self {
        let nodes = (0..options.count).map(|n| (SimulatedNodes::node_name(n), n as usize)).collect();
        World {
            ready_delay: options.ready_delay,
            nodes,
            first_node: u32::from(options.node_address(0)),
            addresses: Addresses::new(options.addresses, options.count),
            pods: HashMap::new(),
            last_template: Arc::default(),
            queue: VecDeque::new(),
            due: BTreeSet::new(),
            synced: false,
        }
    }

    /// Takes over what the API shows.
    pub(crate) fn observe(&mut self, event: Event<View>, now: Timestamp) {
        match event {
            Event::Init => {
                self.synced = false;
                self.pods.values_mut().for_each(|entry| entry.listed = false);
            }
            Event::InitApply(view) | Event::Apply(view) => self.apply(view, now),
            Event::InitDone => {
                self.synced = true;
                let gone = self.pods.iter().filter(|(_, entry)| !entry.listed).map(|(uid, _)| uid.clone());
                for uid in gone.collect::<Vec<_>>() {
                    self.forget(&uid);
                }
            }
            Event::Delete(view) => self.forget(view.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    /// The next write, if there is one and it is time for it.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<Order> {
        if !self.synced {
            return None;
        }
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, uid)) = self.due.pop_first() {
                if let Some(entry) = self.pods.get_mut(&uid) {
                    entry.due = None;
                }
                self.enqueue(&uid);
            }
        }
        while let Some(uid) = self.queue.pop_front() {
            let Some(entry) = self.pods.get_mut(&uid) else { continue };
            entry.queued = false;
            if entry.writing.is_none()
                && let Some(order) = self.plan(&uid, now)
            {
                return Some(order);
            }
        }
        None
    }

    /// When [`World::next`] may have something to say though nothing has happened.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at).filter(|_| self.synced)
    }

    /// What became of a write. An error tells whether the pod is gone.
    pub(crate) fn written(&mut self, uid: &str, result: Result<Written, bool>, now: Timestamp) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let told = entry.writing.take().flatten();
        match result {
            Ok(Written { revision }) => {
                entry.failures = 0;
                entry.written = entry.written.max(revision);
                if let Some(told) = told {
                    entry.told = Some(*told);
                }
                self.enqueue(uid);
            }
            // The watch tells what became of it.
            Err(true) => {}
            Err(false) => {
                let (first, longest) = RETRY;
                let pause = first.saturating_mul(1 << entry.failures.min(16)).min(longest);
                entry.failures = entry.failures.saturating_add(1);
                entry.rests_until = Some(later(now, pause));
                self.enqueue(uid);
            }
        }
    }

    fn apply(&mut self, view: View, now: Timestamp) {
        let Some(uid) = view.metadata.uid.clone() else { return };
        let Some(&node) = self.nodes.get(&view.spec.node_name) else { return };
        if !self.pods.contains_key(&uid) {
            let entry = self.first_sight(&view, node, now);
            self.pods.insert(uid.clone(), Box::new(entry));
        }
        let Some(entry) = self.pods.get_mut(&uid) else { return };
        entry.listed = true;
        let gates: Vec<String> =
            view.spec.readiness_gates.iter().map(|gate| gate.condition_type.clone()).collect();
        entry.pod.missing_gates = status::missing_gates(&gates, &view.status.conditions);
        let annotation = annotation(&view);
        if entry.pod.annotation != annotation {
            entry.pod.annotation = annotation;
            entry.behave(now);
        }
        entry.observe_end(&view);
        entry.observe_deletion(&view, now);
        entry.observe_drift(&view);
        self.enqueue(&uid);
    }

    /// A pod that is new to us; it may have a history from before.
    fn first_sight(&mut self, view: &View, node: usize, now: Timestamp) -> Entry {
        let address = view.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        if let Some(address) = address {
            self.addresses.hold(address);
        }
        let began = view.status.start_time.as_ref().map(|time| time.0);
        let seen = began.unwrap_or(now);
        let annotation = annotation(view);
        let restarts = view.status.container_statuses.iter().map(|status| status.restart_count).max();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let template = self.template_of(view);
        Entry {
            pod: Pod {
                namespace: text(&view.metadata.namespace),
                name: text(&view.metadata.name),
                template,
                seen,
                missing_gates: None,
                node,
                host_network: view.spec.host_network,
                annotation: annotation.clone(),
            },
            life: Life {
                started: seen,
                since: if began.is_some() { now } else { seen },
                restarts: restarts.unwrap_or_default(),
                policy: view.spec.restart_policy.unwrap_or_default(),
                behaviour: Behaviour::parse(annotation.as_deref().unwrap_or_default()),
                ready_delay: self.ready_delay,
                stops: None,
                over: None,
            },
            address,
            told: None,
            written: 0,
            writing: None,
            queued: false,
            due: None,
            failures: 0,
            rests_until: None,
            listed: true,
        }
    }

    /// The one seen last if it is the same, as it mostly is.
    fn template_of(&mut self, view: &View) -> Arc<Template> {
        let Template { containers, inits } = &*self.last_template;
        if *containers != view.spec.containers || *inits != view.spec.init_containers {
            let (containers, inits) = (view.spec.containers.clone(), view.spec.init_containers.clone());
            self.last_template = Arc::new(Template { containers, inits });
        }
        self.last_template.clone()
    }

    fn forget(&mut self, uid: &str) {
        let Some(entry) = self.pods.remove(uid) else { return };
        if let Some(address) = entry.address.filter(|_| !entry.pod.host_network) {
            self.addresses.release(address);
        }
        if let Some(due) = entry.due {
            self.due.remove(&(due, uid.to_owned()));
        }
    }

    fn enqueue(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.queue.push_back(uid.to_owned());
        }
    }

    /// The write a pod needs now; if none, when it is to be looked at again.
    fn plan(&mut self, uid: &str, now: Timestamp) -> Option<Order> {
        let host =
            |node: usize| Ipv4Addr::from(self.first_node.saturating_add(u32::try_from(node).unwrap_or(0)));
        let entry = self.pods.get_mut(uid)?;
        let host = host(entry.pod.node);
        if entry.address.is_none() {
            entry.address = if entry.pod.host_network { Some(host) } else { self.addresses.allocate() };
        }
        let (write, look_again) = entry.plan(uid, host, now);
        if let Some(due) = std::mem::replace(&mut entry.due, look_again) {
            self.due.remove(&(due, uid.to_owned()));
        }
        if let Some(due) = look_again {
            self.due.insert((due, uid.to_owned()));
        }
        let (namespace, name) = (entry.pod.namespace.clone(), entry.pod.name.clone());
        write.map(|write| Order { uid: uid.to_owned(), namespace, name, write })
    }
}

fn annotation(view: &View) -> Option<String> {
    view.metadata.annotations.as_ref()?.get(ANNOTATION).cloned()
}

impl Entry {
    /// Another annotation is in force from now on.
    fn behave(&mut self, now: Timestamp) {
        let (before, _) = self.life.at(now);
        let mut behaviour = Behaviour::parse(self.pod.annotation.as_deref().unwrap_or_default());
        if before.has_started() {
            self.life.restarts = before.restarts;
            // What runs has its image, and an annotation that makes no sense does not stop it.
            match &mut behaviour {
                Ok(behaviour) => behaviour.image_missing = false,
                Err(error) => {
                    tracing::warn!(pod = self.pod.name, error, "{ANNOTATION}");
                    return;
                }
            }
        } else {
            self.life.started = now;
        }
        self.life.since = now;
        self.life.behaviour = behaviour;
    }

    /// No pod leaves a final phase, whoever put it there.
    fn observe_end(&mut self, view: &View) {
        let over = match view.status.phase.as_deref() {
            Some("Succeeded") => Some(0),
            Some("Failed") => Some(1),
            _ => None,
        };
        if let Some(code) = over
            && self.life.over.is_none()
        {
            let ready = view.condition("Ready").and_then(|ready| ready.last_transition_time.as_ref());
            let ended = ready.map_or(self.pod.seen, |time| time.0);
            self.life.over = Some(Run { began: self.life.started, ended, code });
        }
    }

    fn observe_deletion(&mut self, view: &View, now: Timestamp) {
        if view.metadata.deletion_timestamp.is_none() {
            return;
        }
        let grace = view.metadata.deletion_grace_period_seconds;
        let grace = grace.or(view.spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE);
        let asked = self.life.behaviour.as_ref().map_or(Duration::ZERO, |behaviour| behaviour.stop_delay);
        let stops = later(now, asked.min(seconds(grace)));
        // Deleting again can only bring it forward.
        self.life.stops = Some(self.life.stops.map_or(stops, |before| before.min(stops)));
    }

    /// Somebody else may have written the status since: it is told again. What they wrote before our own last
    /// write does not count.
    fn observe_drift(&mut self, view: &View) {
        if view.revision() < self.written || self.writing.is_some() {
            return;
        }
        let Some(told) = &self.told else {
            self.take_over(view);
            return;
        };
        let shown = view.condition("Ready").is_some_and(|ready| ready.status == "True");
        if shown != told.is_ready() || view.status.phase.as_deref() != Some(told.situation.phase()) {
            self.told = None;
        }
    }

    /// What an earlier process told and still holds need not be told again.
    fn take_over(&mut self, view: &View) {
        let Some(ready) = view.condition("Ready") else { return };
        let ready_since = ready.last_transition_time.as_ref().map_or(self.pod.seen, |time| time.0);
        let (situation, _) = self.life.at(self.life.since);
        let told = Told { situation, missing_gates: self.pod.missing_gates.clone(), ready_since };
        let shown = ready.status == "True";
        if shown == told.is_ready() && view.status.phase.as_deref() == Some(told.situation.phase()) {
            self.told = Some(told);
        }
    }

    fn plan(&mut self, uid: &str, host: Ipv4Addr, now: Timestamp) -> (Option<Write>, Option<Timestamp>) {
        if let Some(until) = self.rests_until.filter(|until| *until > now) {
            return (None, Some(until));
        }
        self.rests_until = None;
        // Out of addresses: it stays Pending until another pod goes.
        let Some(address) = self.address else { return (None, Some(later(now, RETRY.1))) };
        let (situation, next) = self.life.at(now);
        let stopped = self.life.stops.is_some_and(|stops| stops <= now);
        let mut told = Told { situation, missing_gates: self.pod.missing_gates.clone(), ready_since: now };
        if let Some(before) = self.told.as_ref().filter(|before| before.is_ready() == told.is_ready()) {
            told.ready_since = before.ready_since;
        }
        if self.told.as_ref() != Some(&told) {
            let frame = Frame { pod: &self.pod, uid, address, host, ready_since: told.ready_since };
            let patch = status::patch(&frame, &told.situation);
            self.writing = Some(Some(Box::new(told)));
            return (Some(Write::Status(patch)), next);
        }
        if stopped {
            self.writing = Some(None);
            return (Some(Write::Delete), None);
        }
        (None, next.map(|next| if between(now, next).is_zero() { later(now, RETRY.0) } else { next }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::test_epoch;
    use serde_json::json;

    fn at(ms: u64) -> Timestamp {
        later(test_epoch(), Duration::from_millis(ms))
    }

    fn world() -> World {
        let mut world = World::new(&SimulatedNodes {
            count: 2,
            ready_delay: Duration::ZERO,
            addresses: "10.9.8.0/28".parse().unwrap(),
        });
        world.observe(Event::Init, at(0));
        world.observe(Event::InitDone, at(0));
        world
    }

    fn pod(name: &str, version: u64, annotation: &str) -> Value {
        json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": format!("uid-{name}"),
                "resourceVersion": version.to_string(), "annotations": { ANNOTATION: annotation },
            },
            "spec": {
                "nodeName": "simulated-1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                "containers": [{ "name": "nodejs", "image": "luksa/kubia:v1" }],
            },
        })
    }

    fn view(pod: &Value) -> View {
        serde_json::from_value(pod.clone()).unwrap()
    }

    fn applied(pod: &Value) -> Event<View> {
        Event::Apply(view(pod))
    }

    /// The status of the one write that is due.
    fn status(world: &mut World, now: Timestamp) -> Value {
        let order = world.next(now).expect("a write");
        assert_eq!(world.next(now), None, "one write at a time");
        match order.write {
            Write::Status(patch) => patch["status"].clone(),
            Write::Delete => panic!("deleted: {order:?}"),
        }
    }

    /// The pod as the API shows it after a write.
    fn shown(pod: &Value, status: &Value, version: u64) -> Value {
        let mut pod = pod.clone();
        pod["status"] = status.clone();
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        pod
    }

    fn deleted(pod: &Value, version: u64) -> Value {
        let mut pod = pod.clone();
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        pod["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:30Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        pod
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap()
    }

    #[test]
    fn a_pod_is_ready_with_one_write_and_goes_with_two() {
        let mut world = world();
        let pod = pod("a", 5, "");
        world.observe(applied(&pod), at(0));
        let running = status(&mut world, at(0));
        assert_eq!(running["phase"], "Running");
        assert_eq!((&running["podIP"], &running["hostIP"]), (&json!("10.9.8.3"), &json!("10.9.8.2")));
        assert_eq!(condition(&running, "Ready")["status"], "True");
        let container = &running["containerStatuses"][0];
        assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
        let pod = shown(&pod, &running, 6);
        world.observe(applied(&pod), at(1));
        world.written("uid-a", Ok(Written { revision: 6 }), at(1));
        assert_eq!((world.next(at(1)), world.wake_at()), (None, None), "nothing more to say");

        world.observe(applied(&deleted(&pod, 7)), at(2));
        let stopped = status(&mut world, at(2));
        assert_eq!(stopped["phase"], "Succeeded");
        assert_eq!(condition(&stopped, "Ready")["reason"], "PodCompleted");
        world.written("uid-a", Ok(Written { revision: 8 }), at(3));
        assert_eq!(world.next(at(3)).map(|order| order.write), Some(Write::Delete));
        world.written("uid-a", Ok(Written { revision: 9 }), at(4));
        world.observe(Event::Delete(view(&pod)), at(5));
        assert!(world.pods.is_empty());
    }

    #[test]
    fn a_deletion_answered_with_not_found_is_not_tried_again() {
        let mut world = world();
        let pod = pod("a", 5, "");
        world.observe(applied(&deleted(&pod, 7)), at(0));
        status(&mut world, at(0));
        world.written("uid-a", Ok(Written { revision: 8 }), at(0));
        assert_eq!(world.next(at(0)).map(|order| order.write), Some(Write::Delete));
        world.written("uid-a", Err(true), at(0));
        assert_eq!(world.next(at(0)), None);
    }

    #[test]
    fn addresses_are_unique_and_come_back() {
        let mut world = world();
        let mut addresses = std::collections::HashSet::new();
        for name in ["a", "b", "c"] {
            world.observe(applied(&pod(name, 5, "")), at(0));
            assert!(addresses.insert(status(&mut world, at(0))["podIP"].to_string()));
        }
        world.observe(Event::Delete(view(&pod("a", 6, ""))), at(0));
        assert_eq!(world.pods.len(), 2);
    }

    #[test]
    fn no_address_is_given_out_before_all_that_are_in_use_are_known() {
        let mut world = World::new(&SimulatedNodes {
            count: 2,
            ready_delay: Duration::ZERO,
            addresses: "10.9.8.0/28".parse().unwrap(),
        });
        world.observe(Event::Init, at(0));
        world.observe(Event::InitApply(view(&pod("new", 5, ""))), at(0));
        assert_eq!(world.next(at(0)), None);
        let old = shown(&pod("old", 4, ""), &json!({ "podIP": "10.9.8.3", "phase": "Running" }), 6);
        world.observe(Event::InitApply(view(&old)), at(0));
        world.observe(Event::InitDone, at(0));
        let told: HashMap<String, Value> = std::iter::from_fn(|| world.next(at(0)))
            .map(|order| match order.write {
                Write::Status(patch) => (order.name, patch["status"]["podIP"].clone()),
                Write::Delete => panic!("deleted"),
            })
            .collect();
        assert_eq!((&told["old"], &told["new"]), (&json!("10.9.8.3"), &json!("10.9.8.4")));
    }

    #[test]
    fn after_a_restart_what_the_api_shows_already_is_not_written_again() {
        let mut first = world();
        let pod = pod("a", 5, "");
        first.observe(applied(&pod), at(0));
        let running = status(&mut first, at(0));
        let mut second = world();
        second.observe(applied(&shown(&pod, &running, 6)), at(60_000));
        assert_eq!(second.next(at(60_000)), None);
        let failed = shown(
            &pod,
            &json!({ "phase": "Failed", "podIP": "10.9.8.4",
            "conditions": [{ "type": "Ready", "status": "False" }] }),
            6,
        );
        let mut third = world();
        third.observe(applied(&failed), at(60_000));
        assert_eq!(third.next(at(60_000)), None, "a pod that is over stays so");
    }

    #[test]
    fn a_pod_others_called_not_ready_is_told_again_to_be() {
        let mut world = world();
        let pod = pod("a", 5, "");
        world.observe(applied(&pod), at(0));
        let running = status(&mut world, at(0));
        world.written("uid-a", Ok(Written { revision: 6 }), at(0));
        let mut lost = shown(&pod, &running, 9);
        lost["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
        world.observe(applied(&lost), at(10));
        assert_eq!(condition(&status(&mut world, at(10)), "Ready")["status"], "True");
    }

    #[test]
    fn an_event_older_than_the_last_write_is_no_reason_to_write() {
        let mut world = world();
        let pod = pod("a", 5, "");
        world.observe(applied(&pod), at(0));
        status(&mut world, at(0));
        world.written("uid-a", Ok(Written { revision: 7 }), at(0));
        world.observe(applied(&shown(&pod, &json!({ "phase": "Pending" }), 6)), at(1));
        assert_eq!(world.next(at(1)), None);
    }

    #[test]
    fn a_running_pod_crashes_once_it_is_annotated_and_recovers_once_it_is_not() {
        let mut world = world();
        let calm = pod("a", 5, "");
        world.observe(applied(&calm), at(0));
        let running = status(&mut world, at(0));
        world.written("uid-a", Ok(Written { revision: 6 }), at(0));
        let crashing = shown(&pod("a", 7, "crash"), &running, 7);
        world.observe(applied(&crashing), at(1000));
        let crashed = status(&mut world, at(1000));
        let container = &crashed["containerStatuses"][0];
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
        assert_eq!(world.wake_at(), Some(at(11_000)));
        world.written("uid-a", Ok(Written { revision: 8 }), at(1000));
        world.observe(applied(&shown(&calm, &crashed, 9)), at(2000));
        let recovered = status(&mut world, at(2000));
        assert_eq!(condition(&recovered, "Ready")["status"], "True");
        assert_eq!(recovered["containerStatuses"][0]["restartCount"], 1);
    }

    #[test]
    fn a_slow_pod_becomes_ready_when_it_is_time_and_not_by_itself_before() {
        let mut world = world();
        world.observe(applied(&pod("a", 5, "slow=3s")), at(0));
        assert_eq!(condition(&status(&mut world, at(0)), "Ready")["status"], "False");
        world.written("uid-a", Ok(Written { revision: 6 }), at(0));
        assert_eq!(world.next(at(2999)), None);
        assert_eq!(world.wake_at(), Some(at(3000)));
        assert_eq!(condition(&status(&mut world, at(3000)), "Ready")["status"], "True");
    }

    #[test]
    fn a_failed_write_is_tried_again_after_a_pause_that_grows() {
        let mut world = world();
        world.observe(applied(&pod("a", 5, "")), at(0));
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            status(&mut world, now);
            world.written("uid-a", Err(false), now);
            assert_eq!(world.next(now), None);
            let next = world.wake_at().unwrap();
            pauses.push(between(now, next).as_millis());
            now = next;
        }
        assert_eq!(pauses, [100, 200, 400]);
    }

    #[test]
    fn an_annotation_that_makes_no_sense_shows_in_the_status() {
        let mut world = world();
        world.observe(applied(&pod("a", 5, "explode")), at(0));
        let status = status(&mut world, at(0));
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        assert_eq!((&status["phase"], &waiting["reason"]), (&json!("Pending"), &json!("InvalidSimulation")));
        assert!(waiting["message"].as_str().unwrap().contains("explode"));
    }

    #[test]
    fn pods_of_other_nodes_are_left_alone() {
        let mut world = world();
        let mut other = pod("a", 5, "");
        other["spec"]["nodeName"] = json!("real");
        world.observe(applied(&other), at(0));
        assert_eq!(world.next(at(0)), None);
    }
}
