//! Garbage collection: a model of `sagong_controllers::garbage`, which asks a live API server and so cannot be driven
//! here. Background, foreground and orphan, one request at a time.

use crate::ground::Ground;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sagong_api::kind::{Object, Part};
use sagong_api::meta::{FOREGROUND, ORPHAN};
use sagong_controllers::cache::Key;
use sagong_controllers::plan::{Deletion, KindRef, PatchKind};
use serde_json::json;
use std::collections::BTreeSet;

/// Kinds whose objects own or are owned.
const KINDS: [&str; 6] =
    ["deployments", "replicasets", "replicationcontrollers", "pods", "endpointslices", "services"];

/// The collector. It looks at the API server itself, as the real one does before it deletes.
#[derive(Default)]
pub(crate) struct Collector {
    looked_at: u64,
    pending: Vec<Chore>,
}

struct Chore {
    kind: KindRef,
    key: Key,
    uid: String,
    what: What,
}

enum What {
    Delete,
    Disown(String),
    Finish(&'static str),
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
            self.pending = chores(ground);
            return !self.pending.is_empty();
        }
        let chore = self.pending.swap_remove(ground.choices.below(self.pending.len()));
        let Chore { kind, key, uid, what } = chore;
        let (verb, result) = match &what {
            What::Delete => {
                let options =
                    Deletion { uid: Some(uid), propagation: Some("Background"), ..Deletion::default() };
                let made =
                    ground.request("delete", kind.plural, |api| api.delete(kind.plural, &key, &options));
                ("delete", made.map(drop))
            }
            What::Disown(owner) => {
                let body = json!({"metadata": {"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": owner}]}});
                ("disown", patch(ground, kind, &key, &body))
            }
            What::Finish(finalizer) => {
                let body =
                    json!({"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}});
                ("finish", patch(ground, kind, &key, &body))
            }
        };
        ground.say(|| format!("collector: {verb} {} {}: {result:?}", kind.plural, key.name));
        // What failed is found again.
        self.looked_at = 0;
        true
    }
}

fn patch(
    ground: &mut Ground,
    kind: KindRef,
    key: &Key,
    body: &serde_json::Value,
) -> Result<(), crate::ground::Refusal> {
    let how = PatchKind::Strategic;
    ground.request("patch", kind.plural, |api| api.patch(kind.plural, key, how, body, Part::Main)).map(drop)
}

fn chores(ground: &Ground) -> Vec<Chore> {
    let api = &ground.api;
    let all = || {
        KINDS.iter().flat_map(|plural| {
            let table = api.table(plural);
            table.objects.iter().map(move |(key, object)| (table.kind_ref(), key, object))
        })
    };
    let nodes = api.table("nodes").objects.values();
    let uid = |object: &dyn Object| object.metadata().uid.clone().unwrap_or_default();
    let alive: BTreeSet<String> =
        all().map(|(_, _, object)| uid(&**object)).chain(nodes.map(|node| uid(&**node))).collect();
    let dependents = |owner: &str| {
        all()
            .filter(|(_, _, object)| owners(&***object).iter().any(|reference| reference.uid == owner))
            .count()
    };
    let mut chores = Vec::new();
    for (kind, key, object) in all() {
        let chore = |what| Chore { kind, key: key.clone(), uid: uid(&**object), what };
        let meta = object.metadata();
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        let has =
            |name: &str| meta.deletion_timestamp.is_some() && finalizers.iter().any(|other| other == name);
        if has(ORPHAN) && dependents(&uid(&**object)) == 0 {
            chores.push(chore(What::Finish(ORPHAN)));
        }
        if has(FOREGROUND) && dependents(&uid(&**object)) == 0 {
            chores.push(chore(What::Finish(FOREGROUND)));
        }
        let owners = owners(&**object);
        if owners.is_empty() {
            continue;
        }
        let going = |name: &'static str| {
            owners.iter().filter(move |reference| {
                all().any(|(_, _, owner)| {
                    let meta = owner.metadata();
                    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
                    meta.uid.as_ref() == Some(&reference.uid)
                        && meta.deletion_timestamp.is_some()
                        && finalizers.iter().any(|other| other == name)
                })
            })
        };
        chores.extend(going(ORPHAN).map(|owner| chore(What::Disown(owner.uid.clone()))));
        let is_orphan = owners.iter().all(|reference| !alive.contains(&reference.uid));
        let is_going = owners.len() == 1 && going(FOREGROUND).next().is_some();
        if (is_orphan || is_going) && meta.deletion_timestamp.is_none() {
            chores.push(chore(What::Delete));
        }
    }
    chores
}

fn owners(object: &dyn Object) -> &[OwnerReference] {
    object.metadata().owner_references.as_deref().unwrap_or_default()
}
