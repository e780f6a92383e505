//! A node: the kubelet's real pod state machines, on a runtime that is a list of what ends when.

use crate::data_plane::DataPlane;
use crate::feed::Cursor;
use crate::ground::Ground;
use crate::invariants::Violation;
use crate::mutant::Mutant;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sagong_api::kind::Part;
use sagong_controllers::cache::Key;
use sagong_controllers::plan::{Deletion, PatchKind};
use sagong_kubelet::{Answer, PodMachine, Task, Wish};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The container every simulated pod has.
pub(crate) const CONTAINER: &str = "kubia";
/// An image that cannot be pulled, as long as there are faults.
pub(crate) const MISSING: &str = "kubia:missing";
/// An image whose containers never become ready, as long as there are faults.
pub(crate) const NEVER_READY: &str = "kubia:unready";
const SIGTERM: i32 = 15;

/// What happens in a pod by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Probed(bool),
    Exited(i32),
}

struct OnNode {
    key: Key,
    image: String,
    address: Option<IpAddr>,
    machine: PodMachine,
    /// Is to be planned.
    stirred: bool,
    look_again: Option<Timestamp>,
    tasks: Vec<(Timestamp, Task)>,
    inside: Vec<(Timestamp, Inside)>,
}

/// A node and its kubelet.
pub(crate) struct Kubelet {
    pub(crate) name: String,
    mutant: Option<Mutant>,
    pods_watch: Cursor,
    pods: BTreeMap<String, OnNode>,
    /// Nothing happens here before this step.
    lost_until: usize,
    next_address: u8,
    index: u8,
}

impl Kubelet {
    pub(crate) fn new(index: u8, mutant: Option<Mutant>) -> Self {
        Self {
            name: format!("node-{index}"),
            mutant,
            pods_watch: Cursor::new("pods"),
            pods: BTreeMap::new(),
            lost_until: 0,
            next_address: 0,
            index,
        }
    }

    pub(crate) fn release(&mut self) {
        self.pods_watch.release();
        self.lost_until = 0;
    }

    /// What is on its way to a node that is not lost arrives.
    pub(crate) fn release_watch(&mut self, step: usize) {
        if self.lost_until <= step {
            self.pods_watch.release();
        }
    }

    pub(crate) fn is_lost(&self, ground: &Ground) -> bool {
        self.lost_until > ground.step
    }

    pub(crate) fn lose(&mut self, until: usize) {
        self.lost_until = until;
    }

    pub(crate) fn lags(&self, ground: &Ground) -> bool {
        self.pods_watch.lags(&ground.api)
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let due = self.pods.values().flat_map(|pod| {
            let inside = pod.inside.iter().map(|(when, _)| *when);
            pod.tasks.iter().map(|(when, _)| *when).chain(inside).chain(pod.look_again)
        });
        due.min()
    }

    pub(crate) fn feed(&mut self, ground: &mut Ground) -> bool {
        if self.is_lost(ground) || !self.pods_watch.is_open(ground) {
            return false;
        }
        let range = self.pods_watch.events(ground);
        let now = ground.now();
        for event in &ground.api.table("pods").log[range] {
            let Some(pod) = event.object.as_any().downcast_ref::<Pod>() else { continue };
            if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&self.name) {
                self.observe(pod, event.deleted, now);
            }
        }
        true
    }

    fn observe(&mut self, pod: &Pod, deleted: bool, now: Timestamp) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(known) = self.pods.get_mut(&uid) {
            known.stirred = true;
            match deleted {
                true => known.machine.removed(),
                false => known.machine.observe(Arc::new(pod.clone())),
            }
        } else if !deleted {
            let host = IpAddr::V4(Ipv4Addr::new(192, 168, 0, self.index));
            let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
            let on_node = OnNode {
                key: Key::of(&pod.metadata),
                image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
                address: None,
                machine: PodMachine::new(Arc::new(pod.clone()), host, now),
                stirred: true,
                look_again: None,
                tasks: Vec::new(),
                inside: Vec::new(),
            };
            self.pods.insert(uid, on_node);
        }
    }

    /// Plans one pod, or ends one task, or lets something happen inside a pod.
    pub(crate) fn act(&mut self, ground: &mut Ground, data_plane: &mut DataPlane) -> Result<bool, Violation> {
        if self.is_lost(ground) {
            return Ok(false);
        }
        let now = ground.now();
        let able: Vec<&String> =
            self.pods.iter().filter(|(_, pod)| pod.can_act(now)).map(|(uid, _)| uid).collect();
        if able.is_empty() {
            return Ok(false);
        }
        let uid = able[ground.choices.below(able.len())].clone();
        let Some(pod) = self.pods.get_mut(&uid) else { return Ok(false) };
        if let Some(inside) = pod.next_inside(now) {
            pod.happen(inside, now);
            ground.say(|| format!("{}: {} {inside:?}", self.name, pod.key.name));
            return Ok(true);
        }
        if let Some(index) = pod.tasks.iter().position(|(when, _)| *when <= now) {
            let (_, task) = pod.tasks.remove(index);
            self.end(&uid, task, ground, data_plane)?;
            return Ok(true);
        }
        let round = pod.machine.plan(now);
        pod.stirred = false;
        pod.look_again = round.look_again;
        for task in round.tasks {
            let takes = milliseconds(&task.wish(), ground);
            pod.tasks.push((ground.later(takes), task));
        }
        if round.finished {
            self.pods.remove(&uid);
        }
        Ok(true)
    }

    /// Something goes wrong in one of the pods that run.
    pub(crate) fn disturb(&mut self, ground: &mut Ground) {
        let up: Vec<&mut OnNode> =
            self.pods.values_mut().filter(|pod| pod.machine.is_up(CONTAINER)).collect();
        if up.is_empty() {
            return;
        }
        let chosen = ground.choices.below(up.len());
        let Some(pod) = up.into_iter().nth(chosen) else { return };
        if ground.choices.once_in(ground.faults.crashes) {
            pod.inside.push((ground.now(), Inside::Exited(1)));
        }
        if ground.choices.once_in(ground.faults.flaps) {
            pod.inside.push((ground.now(), Inside::Probed(false)));
            let back = 500 + 500 * ground.choices.below(10);
            pod.inside.push((ground.later(back), Inside::Probed(true)));
        }
    }

    /// What was broken is repaired.
    pub(crate) fn repair(&mut self, now: Timestamp) {
        for pod in self.pods.values_mut().filter(|pod| pod.machine.is_up(CONTAINER)) {
            pod.inside.retain(|(_, inside)| *inside != Inside::Probed(false));
            pod.inside.push((now, Inside::Probed(true)));
        }
    }

    fn end(
        &mut self,
        uid: &str,
        task: Task,
        ground: &mut Ground,
        data_plane: &mut DataPlane,
    ) -> Result<(), Violation> {
        let now = ground.now();
        let Some(pod) = self.pods.get_mut(uid) else { return Ok(()) };
        let wish = task.wish();
        let name = pod.key.name.clone();
        ground.say(|| format!("{}: {name} {}", self.name, tell(&wish)));
        let answer = match wish {
            Wish::Sandbox => {
                self.next_address += 1;
                let address = IpAddr::V4(Ipv4Addr::new(10, 244, self.index, self.next_address));
                pod.address = Some(address);
                Answer::Address(address)
            }
            Wish::Image(_) if pod.image == MISSING && ground.is_troubled() => Answer::Missing,
            Wish::Start(_) => {
                if pod.image != NEVER_READY || !ground.is_troubled() {
                    let delay = 100 + 400 * ground.choices.below(8);
                    pod.inside.push((ground.later(delay), Inside::Probed(true)));
                }
                Answer::Done
            }
            Wish::Withdraw(address) => {
                if self.mutant != Some(Mutant::SigtermBeforeWithdrawal) {
                    data_plane.withdraw(&address.to_string());
                }
                Answer::Done
            }
            Wish::Signal(_, signal) => {
                pod.signalled(signal, ground, data_plane)?;
                Answer::Done
            }
            Wish::Patch(body) => {
                let key = pod.key.clone();
                let how = PatchKind::Strategic;
                let result = ground
                    .request("patch status", "pods", |api| api.patch("pods", &key, how, &body, Part::Status));
                match result {
                    Ok(object) => match object.as_any().downcast_ref::<Pod>() {
                        Some(pod) => Answer::Written(Box::new(pod.clone())),
                        None => Answer::Failed,
                    },
                    Err(refusal) if matches!(refusal.code, 404 | 409) => Answer::Missing,
                    Err(_) => Answer::Failed,
                }
            }
            Wish::Delete => {
                let key = pod.key.clone();
                let options =
                    Deletion { uid: Some(uid.to_owned()), grace_period: Some(0), ..Deletion::default() };
                match ground.request("delete", "pods", |api| api.delete("pods", &key, &options)) {
                    Ok(_) => Answer::Done,
                    Err(refusal) if matches!(refusal.code, 404 | 409) => Answer::Missing,
                    Err(_) => Answer::Failed,
                }
            }
            Wish::Image(_) | Wish::Drain | Wish::StopSandbox(_) | Wish::Other => Answer::Done,
        };
        pod.machine.answer(task, answer, now);
        pod.stirred = true;
        Ok(())
    }
}

impl OnNode {
    fn can_act(&self, now: Timestamp) -> bool {
        let is_due = |when: Timestamp| when <= now;
        self.stirred
            || self.look_again.is_some_and(is_due)
            || self.tasks.iter().any(|(when, _)| is_due(*when))
            || self.inside.iter().any(|(when, _)| is_due(*when))
    }

    /// What happens next inside, the earliest first.
    fn next_inside(&mut self, now: Timestamp) -> Option<Inside> {
        let due = self.inside.iter().enumerate().filter(|(_, (when, _))| *when <= now);
        let (index, _) = due.min_by_key(|(_, (when, _))| *when)?;
        Some(self.inside.remove(index).1)
    }

    fn happen(&mut self, inside: Inside, now: Timestamp) {
        match inside {
            Inside::Probed(ready) => self.machine.probed(CONTAINER, ready),
            Inside::Exited(code) => {
                self.inside.retain(|(_, other)| !matches!(other, Inside::Probed(_)));
                self.machine.exited(CONTAINER, code, now);
            }
        }
        self.stirred = true;
    }

    fn signalled(
        &mut self,
        signal: i32,
        ground: &mut Ground,
        data_plane: &DataPlane,
    ) -> Result<(), Violation> {
        let is_late = self.machine.deadline().is_some_and(|deadline| deadline <= ground.now());
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        if signal == SIGTERM && !is_late && data_plane.routes_to(&address) {
            return Err(Violation::new(
                "no pod that a service still routes to gets SIGTERM",
                format!("{} at {address} got it", self.key.name),
            ));
        }
        let (code, takes) = match signal {
            SIGTERM => (0, 50 + 300 * ground.choices.below(6)),
            _ => (137, 0),
        };
        self.inside.push((ground.later(takes), Inside::Exited(code)));
        Ok(())
    }
}

/// How long things take on a node.
fn milliseconds(wish: &Wish, ground: &mut Ground) -> usize {
    match wish {
        Wish::Sandbox => 20 + 50 * ground.choices.below(4),
        Wish::Image(_) => 5 + 400 * ground.choices.below(4),
        Wish::Start(_) => 20 + 50 * ground.choices.below(4),
        Wish::Withdraw(_) => 1 + 10 * ground.choices.below(4),
        Wish::Drain => 1 + 300 * ground.choices.below(4),
        Wish::Signal(..) | Wish::StopSandbox(_) | Wish::Patch(_) | Wish::Delete | Wish::Other => 1,
    }
}

fn tell(wish: &Wish) -> String {
    let Wish::Patch(body) = wish else { return format!("{wish:?}") };
    let status = &body["status"];
    let mut told: Vec<String> = Vec::new();
    told.extend(status["phase"].as_str().map(str::to_owned));
    for condition in status["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "Ready" {
            told.push(if condition["status"] == "True" { "ready".into() } else { "not ready".into() });
        }
    }
    told.extend(status["podIP"].as_str().map(str::to_owned));
    let waits = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
    told.extend(waits.as_str().map(str::to_owned));
    format!("tells its status: {}", told.join(", "))
}
