//! Garbage collection: the real decisions, on what the API server has when they are made, carried out one request at a
//! time. Left out are the graph and the queue that tell the real collector where to look: here it looks everywhere.

use crate::api::Stored;
use crate::ground::{Ground, Refusal};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sagong_api::kind::Part;
use sagong_controllers::cache::Key;
use sagong_controllers::garbage::graph::{HasMeta, Item};
use sagong_controllers::garbage::plan::{self, Owner, Snapshot, Standing};
use sagong_controllers::plan::{Verb, Write};
use std::collections::VecDeque;
use std::sync::Arc;

/// Kinds whose objects are owned.
const KINDS: [&str; 6] =
    ["deployments", "replicasets", "replicationcontrollers", "pods", "endpointslices", "services"];
/// A kind whose objects only own.
const NODES: &str = "nodes";

/// The collector.
#[derive(Default)]
pub(crate) struct Collector {
    looked_at: u64,
    /// The plans being carried out: of each the writes that may be made in any order, and then the next.
    pending: Vec<VecDeque<Vec<Write>>>,
}

struct Held(Stored);

impl HasMeta for Held {
    fn meta(&self) -> &ObjectMeta {
        self.0.metadata()
    }
}

impl Collector {
    pub(crate) fn is_idle(&self, ground: &Ground) -> bool {
        self.pending.is_empty() && self.looked_at == ground.api.revision
    }

    pub(crate) fn act(&mut self, ground: &mut Ground) -> bool {
        if self.pending.is_empty() {
            if self.looked_at == ground.api.revision {
                return false;
            }
            self.looked_at = ground.api.revision;
            self.pending = plans(ground);
            return !self.pending.is_empty();
        }
        let index = ground.choices.below(self.pending.len());
        let Some(writes) = self.pending[index].front_mut() else {
            self.pending.swap_remove(index);
            return true;
        };
        let write = writes.swap_remove(ground.choices.below(writes.len()));
        let is_step_over = writes.is_empty();
        if !carry_out(write, ground) {
            self.pending.swap_remove(index);
        } else if is_step_over {
            self.pending[index].pop_front();
            if self.pending[index].is_empty() {
                self.pending.swap_remove(index);
            }
        }
        // What failed, or what follows from this, is found by looking again.
        self.looked_at = 0;
        true
    }
}

/// Whether the plan may go on.
fn carry_out(write: Write, ground: &mut Ground) -> bool {
    let Write { kind, key, verb, tolerated, .. } = write;
    let (name, plural) = (verb.name(), kind.plural);
    let result = ground.request(name, plural, |api| match &verb {
        Verb::Delete(deletion) => api.delete(plural, &key, deletion).map(drop),
        Verb::Patch(how, body) => api.patch(plural, &key, *how, body, Part::Main).map(drop),
        // The collector makes no other requests.
        _ => Ok(()),
    });
    let how = match &verb {
        Verb::Delete(deletion) => deletion.propagation.unwrap_or_default().to_owned(),
        Verb::Patch(_, body) => body["metadata"].to_string(),
        _ => String::new(),
    };
    ground.say(|| match &result {
        Ok(()) => format!("collector: {name} {plural} {} {how}", key.name),
        Err(refusal) => format!("collector: {name} {plural} {} {how}: {}", key.name, refusal.message),
    });
    match result {
        Ok(()) => true,
        Err(Refusal { code, .. }) => tolerated.contains(&code),
    }
}

fn plans(ground: &Ground) -> Vec<VecDeque<Vec<Write>>> {
    let all = all(ground);
    let mut plans = Vec::new();
    for item in &all {
        let references = item.meta().owner_references.as_deref().unwrap_or_default();
        if references.is_empty() && !item.is_terminating() {
            continue;
        }
        let owners: Vec<Owner> = references
            .iter()
            .map(|reference| Owner {
                reference: reference.clone(),
                standing: standing(ground, item, reference),
            })
            .collect();
        let needs_dependents = item.is_deleting_dependents()
            || item.is_orphaning()
            || owners.iter().any(|owner| owner.standing == Standing::Waiting);
        let is_theirs = |other: &&Item| {
            let mut references = other.meta().owner_references.iter().flatten();
            references.any(|reference| item.is(&reference.uid))
        };
        let dependents =
            if needs_dependents { all.iter().filter(is_theirs).cloned().collect() } else { Vec::new() };
        let plan = plan::plan(&Snapshot { item: item.clone(), owners, dependents });
        let steps = plan.steps.into_iter().map(|step| step.writes).filter(|writes| !writes.is_empty());
        let steps: VecDeque<Vec<Write>> = steps.collect();
        if !steps.is_empty() {
            plans.push(steps);
        }
    }
    plans
}

fn all(ground: &Ground) -> Vec<Item> {
    let tables = KINDS.iter().map(|plural| ground.api.table(plural));
    tables
        .flat_map(|table| {
            let kind = table.kind_ref();
            table.objects.values().map(move |object| Item::held(kind, Arc::new(Held(object.clone()))))
        })
        .collect()
}

/// As the real collector finds it by asking the API server; nothing is in any other namespace here.
fn standing(ground: &Ground, item: &Item, reference: &OwnerReference) -> Standing {
    let plurals = KINDS.iter().chain([&NODES]);
    let table =
        plurals.map(|plural| ground.api.table(plural)).find(|table| table.kind_ref().kind == reference.kind);
    let Some(table) = table else { return Standing::Unknown };
    let is_a_node = reference.kind == "Node";
    let namespace = item.meta().namespace.clone().filter(|_| !is_a_node).unwrap_or_default();
    match table.objects.get(&Key::new(namespace, reference.name.clone())) {
        Some(owner) if owner.metadata().uid.as_deref() == Some(&reference.uid) => {
            Standing::of(owner.metadata())
        }
        _ => Standing::Absent,
    }
}
