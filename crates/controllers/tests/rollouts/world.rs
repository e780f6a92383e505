//! A tiny cluster in memory, without threads, network or real time: objects, late watch events, a kubelet. It drives
//! the real controllers' plans through the real caches and queues, in an order a seed decides.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use sagong_api::kind::TypedObject;
use sagong_controllers::cache::{Cache, Cached, Key, controller_of};
use sagong_controllers::caches::Caches;
use sagong_controllers::plan::{Failure, KindRef, Plan, Verb, Write};
use sagong_controllers::pod::Sketch;
use sagong_controllers::queue::Queue;
use sagong_controllers::runner::{Controller, Watch};
use sagong_controllers::{deployment, pod, replica_set};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The objects of one kind, and the watch events still on their way to the cache.
pub(crate) struct Table<K> {
    pub(crate) objects: BTreeMap<Key, K>,
    events: VecDeque<Event<K>>,
}

enum Event<K> {
    Applied(K),
    Deleted(K),
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), events: VecDeque::new() }
    }
}

impl<K: Cached> Table<K> {
    fn put(&mut self, revision: u64, mut object: K) -> u64 {
        object.metadata_mut().resource_version = Some(revision.to_string());
        self.objects.insert(Key::of(object.metadata()), object.clone());
        self.events.push_back(Event::Applied(object));
        revision
    }

    fn remove(&mut self, revision: u64, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            object.metadata_mut().resource_version = Some(revision.to_string());
            self.events.push_back(Event::Deleted(object));
        }
    }

    fn relist<C: Cached>(&mut self, cache: &Cache<C>, keep: fn(&K) -> C) {
        self.events.clear();
        cache.replace(self.objects.values().map(keep).collect(), 0);
    }

    fn deliver<C: Cached>(&mut self, cache: &Cache<C>, keep: fn(&K) -> C) -> bool {
        match self.events.pop_front() {
            Some(Event::Applied(object)) => cache.upsert(keep(&object)),
            Some(Event::Deleted(object)) => cache.remove(&keep(&object)),
            None => return false,
        }
        true
    }
}

/// What a key wrote and its caches may not show yet.
enum Unseen {
    Deployment(u64),
    ReplicaSet(u64),
    Pod(u64),
    Going(Key, String),
}

/// One controller with its queue and the keys that wait to see their own writes.
struct Loop<C> {
    controller: C,
    queue: Arc<Queue>,
    waiting: Vec<(Key, Vec<Unseen>)>,
    later: BTreeMap<Key, Timestamp>,
}

impl<C: Controller> Loop<C> {
    fn new(controller: C, caches: &Arc<Caches>) -> Self {
        let queue = Arc::new(Queue::default());
        controller.watch(&mut Watch::new(caches.clone(), queue.clone()));
        Self { controller, queue, waiting: Vec::new(), later: BTreeMap::new() }
    }

    fn release(&mut self, mut is_seen: impl FnMut(&Unseen) -> bool) {
        self.waiting.retain_mut(|(key, unseen)| {
            unseen.retain(|receipt| !is_seen(receipt));
            if unseen.is_empty() {
                self.queue.done(key);
            }
            !unseen.is_empty()
        });
    }

    fn wake_due(&mut self, now: Timestamp) {
        self.later.retain(|key, when| {
            if *when <= now {
                self.queue.add(key.clone());
            }
            *when > now
        });
    }
}

/// The cluster.
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) deployments: Table<Deployment>,
    pub(crate) replica_sets: Table<ReplicaSet>,
    pub(crate) pods: Table<Pod>,
    pub(crate) events: Vec<String>,
    pub(crate) plans: usize,
    /// Pods of this image never become ready.
    pub(crate) broken_image: Option<String>,
    /// One in so many writes fails; 0 for none.
    pub(crate) fault_rate: usize,
    caches: Arc<Caches>,
    revision: u64,
    seen: [u64; 3],
    deployment_loop: Loop<deployment::Controller>,
    replica_set_loop: Loop<replica_set::Controller>,
    random: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let caches = Arc::new(Caches::default());
        Self {
            now: "2024-01-01T10:00:00Z".parse().unwrap(),
            deployments: Table::default(),
            replica_sets: Table::default(),
            pods: Table::default(),
            events: Vec::new(),
            plans: 0,
            broken_image: None,
            fault_rate: 0,
            deployment_loop: Loop::new(deployment::Controller, &caches),
            replica_set_loop: Loop::new(replica_set::Controller, &caches),
            caches,
            revision: 0,
            seen: [0; 3],
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// A number below `bound`.
    fn roll(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % bound.max(1)
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn stamp(&mut self, meta: &mut ObjectMeta) {
        let revision = self.revision + 1;
        if meta.name.is_none() {
            meta.name = Some(format!("{}{revision:05}", meta.generate_name.clone().unwrap_or_default()));
        }
        meta.uid = Some(format!("uid-{revision}"));
        meta.creation_timestamp = Some(Time(self.now));
        meta.generation = Some(1);
    }

    /// Creates or changes the Deployment, as a user does.
    pub(crate) fn apply(&mut self, change: impl FnOnce(&mut Deployment)) {
        let key = Key::new("default", "kubia");
        let mut deployment = self.deployments.objects.get(&key).cloned().unwrap_or_default();
        if deployment.metadata.uid.is_none() {
            deployment.metadata.name = Some("kubia".into());
            deployment.metadata.namespace = Some("default".into());
            self.stamp(&mut deployment.metadata);
        } else {
            deployment.metadata.generation = deployment.metadata.generation.map(|generation| generation + 1);
        }
        change(&mut deployment);
        let revision = self.next_revision();
        self.deployments.put(revision, deployment);
    }

    pub(crate) fn deployment(&self) -> &Deployment {
        &self.deployments.objects[&Key::new("default", "kubia")]
    }

    /// Ends the controllers at once and starts them anew, with what a fresh list tells them.
    pub(crate) fn restart(&mut self) {
        self.caches = Arc::new(Caches::default());
        self.deployment_loop = Loop::new(deployment::Controller, &self.caches);
        self.replica_set_loop = Loop::new(replica_set::Controller, &self.caches);
        self.deployments.relist(&self.caches.deployments, Clone::clone);
        self.replica_sets.relist(&self.caches.replica_sets, Clone::clone);
        self.pods.relist(&self.caches.pods, |pod| Sketch::from(pod));
        self.seen = [self.revision; 3];
    }

    /// Does one thing, chosen at random. Returns false when there is nothing left to do but wait.
    pub(crate) fn step(&mut self) -> bool {
        let first = self.roll(6);
        (0..6).any(|offset| match (first + offset) % 6 {
            0 => self.see(0),
            1 => self.see(1),
            2 => self.see(2),
            3 => self.run_deployment_loop(),
            4 => self.run_replica_set_loop(),
            _ => self.run_kubelet(),
        })
    }

    /// Steps, and lets time pass to the next thing planned for later, until nothing is left.
    pub(crate) fn settle(&mut self, most: usize, mut check: impl FnMut(&World)) {
        for _ in 0..most {
            if !self.step() && !self.wait_for_later() {
                return;
            }
            check(self);
        }
        panic!("not settled after {most} steps: {:#?}", self.events);
    }

    /// Steps without letting time pass.
    pub(crate) fn settle_now(&mut self, most: usize) {
        for _ in 0..most {
            if !self.step() {
                return;
            }
        }
        panic!("not settled after {most} steps");
    }

    fn wait_for_later(&mut self) -> bool {
        let later = self.deployment_loop.later.values().chain(self.replica_set_loop.later.values());
        let Some(when) = later.min().copied() else { return false };
        self.now = self.now.max(when) + SignedDuration::from_millis(1);
        self.deployment_loop.wake_due(self.now);
        self.replica_set_loop.wake_due(self.now);
        true
    }

    fn see(&mut self, kind: usize) -> bool {
        let caches = self.caches.clone();
        let latest = |cache: u64, meta: Option<&ObjectMeta>| {
            meta.and_then(|meta| meta.resource_version.as_deref()?.parse().ok()).unwrap_or(cache).max(cache)
        };
        fn head<K: Cached>(table: &Table<K>) -> Option<ObjectMeta> {
            table.events.front().map(|event| match event {
                Event::Applied(object) | Event::Deleted(object) => object.metadata().clone(),
            })
        }
        let (meta, delivered) = match kind {
            0 => (head(&self.deployments), self.deployments.deliver(&caches.deployments, Clone::clone)),
            1 => (head(&self.replica_sets), self.replica_sets.deliver(&caches.replica_sets, Clone::clone)),
            _ => (head(&self.pods), self.pods.deliver(&caches.pods, |pod| Sketch::from(pod))),
        };
        if !delivered {
            return false;
        }
        self.seen[kind] = latest(self.seen[kind], meta.as_ref());
        let seen = self.seen;
        let is_seen = |unseen: &Unseen| match unseen {
            Unseen::Deployment(revision) => seen[0] >= *revision,
            Unseen::ReplicaSet(revision) => seen[1] >= *revision,
            Unseen::Pod(revision) => seen[2] >= *revision,
            Unseen::Going(key, uid) => caches.pods.get(key).is_none_or(|pod| {
                pod.metadata.deletion_timestamp.is_some() || pod.metadata.uid.as_ref() != Some(uid)
            }),
        };
        self.deployment_loop.release(is_seen);
        self.replica_set_loop.release(is_seen);
        true
    }

    fn run_deployment_loop(&mut self) -> bool {
        let Some(key) = self.deployment_loop.queue.try_next() else { return false };
        let mut unseen = Vec::new();
        self.deployment_loop.later.remove(&key);
        if let Some(snapshot) = self.deployment_loop.controller.observe(&self.caches, &key) {
            let plan = self.deployment_loop.controller.plan(&snapshot, self.now);
            if let Some(when) = plan.look_again {
                self.deployment_loop.later.insert(key.clone(), when);
            }
            unseen = match self.carry_out(plan) {
                Ok(unseen) => unseen,
                Err((failure, mut unseen)) => {
                    let plan = self.deployment_loop.controller.after_failure(&snapshot, &failure, self.now);
                    unseen.extend(self.carry_out(plan).unwrap_or_default());
                    self.deployment_loop.queue.add(key.clone());
                    unseen
                }
            };
        }
        self.deployment_loop.waiting.push((key, unseen));
        self.deployment_loop.release(|_| false);
        true
    }

    fn run_replica_set_loop(&mut self) -> bool {
        let Some(key) = self.replica_set_loop.queue.try_next() else { return false };
        let mut unseen = Vec::new();
        self.replica_set_loop.later.remove(&key);
        if let Some(snapshot) = self.replica_set_loop.controller.observe(&self.caches, &key) {
            let plan = self.replica_set_loop.controller.plan(&snapshot, self.now);
            if let Some(when) = plan.look_again {
                self.replica_set_loop.later.insert(key.clone(), when);
            }
            unseen = match self.carry_out(plan) {
                Ok(unseen) => unseen,
                Err((_, unseen)) => {
                    self.replica_set_loop.queue.add(key.clone());
                    unseen
                }
            };
        }
        self.replica_set_loop.waiting.push((key, unseen));
        self.replica_set_loop.release(|_| false);
        true
    }

    fn carry_out(&mut self, plan: Plan) -> Result<Vec<Unseen>, (Failure, Vec<Unseen>)> {
        self.plans += 1;
        let mut unseen = Vec::new();
        for write in plan.steps.into_iter().flat_map(|step| step.writes) {
            let is_told = |reason| matches!(reason, "ScalingReplicaSet" | "DeploymentRollback");
            let note = write.on_success.clone().filter(|note| is_told(note.reason));
            match self.write(write) {
                Ok(receipt) => {
                    unseen.extend(receipt);
                    self.events.extend(note.map(|note| note.message));
                }
                Err(failure) => return Err((failure, unseen)),
            }
        }
        Ok(unseen)
    }

    fn write(&mut self, write: Write) -> Result<Option<Unseen>, Failure> {
        let conflict = Failure {
            verb: write.verb.name(),
            kind: write.kind,
            key: write.key.clone(),
            code: 409,
            reason: "Conflict".into(),
            message: "the object has been modified".into(),
        };
        if self.fault_rate > 0 && self.roll(self.fault_rate) == 0 {
            return Err(Failure { code: 500, reason: "InternalError".into(), ..conflict });
        }
        if write.kind == KindRef::of::<Pod>() {
            return Ok(Some(self.write_pod(write)));
        }
        let revision = self.next_revision();
        if write.kind == KindRef::of::<Deployment>() {
            let new = write.object::<Deployment>().expect("Deployments are put whole");
            let mut current = self.deployments.objects[&write.key].clone();
            if !same_version(&current, new) {
                return Err(conflict);
            }
            match write.verb {
                Verb::Update(_) if new.spec != current.spec => {
                    current.spec.clone_from(&new.spec);
                    current.metadata.generation =
                        current.metadata.generation.map(|generation| generation + 1);
                }
                Verb::Update(_) => {}
                _ => current.status.clone_from(&new.status),
            }
            current.metadata.annotations.clone_from(&new.metadata.annotations);
            return Ok(Some(Unseen::Deployment(self.deployments.put(revision, current))));
        }
        if let Verb::Delete(_) = write.verb {
            self.replica_sets.remove(revision, &write.key);
            return Ok(Some(Unseen::ReplicaSet(revision)));
        }
        let mut new = write.object::<ReplicaSet>().expect("ReplicaSets are put whole").clone();
        match write.verb {
            Verb::Create(_) => self.stamp(&mut new.metadata),
            Verb::Update(_) => {
                let current = self.replica_sets.objects.get(&write.key).ok_or_else(|| conflict.clone())?;
                if !same_version(current, &new) {
                    return Err(conflict);
                }
                new.status.clone_from(&current.status);
                if new.spec != current.spec {
                    new.metadata.generation = current.metadata.generation.map(|generation| generation + 1);
                }
            }
            _ => {
                let mut current =
                    self.replica_sets.objects.get(&write.key).ok_or_else(|| conflict.clone())?.clone();
                if !same_version(&current, &new) {
                    return Err(conflict);
                }
                current.status = new.status;
                new = current;
            }
        }
        Ok(Some(Unseen::ReplicaSet(self.replica_sets.put(revision, new))))
    }

    fn write_pod(&mut self, write: Write) -> Unseen {
        let revision = self.next_revision();
        if let Some(new) = write.object::<Pod>() {
            let mut new = new.clone();
            self.stamp(&mut new.metadata);
            new.spec.get_or_insert_default().node_name = Some("node".into());
            return Unseen::Pod(self.pods.put(revision, new));
        }
        let Some(mut pod) = self.pods.objects.get(&write.key).cloned() else { return Unseen::Pod(0) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        pod.metadata.deletion_timestamp = Some(Time(self.now));
        self.pods.put(revision, pod);
        Unseen::Going(write.key, uid)
    }

    /// Takes one pod a step further: starts it, makes it ready, or lets it end.
    fn run_kubelet(&mut self) -> bool {
        let broken = self.broken_image.clone();
        let can_move = |pod: &&Pod| {
            pod::is_terminating(pod) || (!pod::is_ready(pod) && (broken.is_none() || image_of(pod) != broken))
        };
        let movable: Vec<Key> =
            self.pods.objects.values().filter(can_move).map(|pod| Key::of(&pod.metadata)).collect();
        if movable.is_empty() {
            return false;
        }
        let key = movable[self.roll(movable.len())].clone();
        let mut pod = self.pods.objects[&key].clone();
        let revision = self.next_revision();
        if pod::is_terminating(&pod) {
            self.pods.remove(revision, &key);
            return true;
        }
        pod.status = Some(PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: "True".into(),
                last_transition_time: Some(Time(self.now)),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        });
        self.pods.put(revision, pod);
        true
    }

    /// Pods that are available in truth, whatever anybody has seen of it.
    pub(crate) fn available(&self, min_ready_seconds: i32) -> i32 {
        let is_available = |pod: &&Pod| {
            pod::is_active(pod)
                && pod::available_at(pod, min_ready_seconds).is_some_and(|when| when <= self.now)
        };
        self.pods.objects.values().filter(is_available).count() as i32
    }

    /// The sizes of all ReplicaSets together.
    pub(crate) fn total_size(&self) -> i32 {
        self.replica_sets.objects.values().filter_map(|set| set.spec.as_ref()?.replicas).sum()
    }

    /// Active pods by image.
    pub(crate) fn images(&self) -> BTreeMap<String, usize> {
        let mut images = BTreeMap::new();
        for pod in self.pods.objects.values().filter(pod::is_active) {
            *images.entry(image_of(pod).unwrap_or_default()).or_default() += 1;
        }
        images
    }

    /// Active pods per ReplicaSet.
    pub(crate) fn pods_by_owner(&self) -> BTreeMap<String, i32> {
        let mut counts = BTreeMap::new();
        for pod in self.pods.objects.values().filter(pod::is_active) {
            *counts.entry(controller_of(&pod.metadata).unwrap().name.clone()).or_default() += 1;
        }
        counts
    }
}

fn same_version<K: TypedObject>(a: &K, b: &K) -> bool {
    a.metadata().resource_version == b.metadata().resource_version
}

pub(crate) fn image_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.containers.first()?.image.clone()
}
