//! Garbage collection: an object goes when the last of its owners is gone.
//!
//! * [`graph`]: who owns what, read from the shared caches; which changes matter.
//! * [`gone`]: the owners known to be gone for good.
//! * [`plan`]: background, foreground and orphaning deletion as decisions.
//!
//! An owner is identified by its uid. One that the caches do not show is asked for at the API server before anything
//! is deleted on its behalf.

pub mod gone;
pub mod graph;
pub mod plan;

use crate::apply::path;
use crate::cache::Key;
use crate::caches::Caches;
use crate::live::{self, ReadError};
use crate::plan::Plan;
use crate::runner::Watch;
use async_trait::async_trait;
use gone::{Gone, Identity};
use graph::{Graph, Item, Kin};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use plan::{Owner, Snapshot, Standing};
use serde::Deserialize;
use std::sync::{Arc, OnceLock};

/// The garbage collector.
#[derive(Default)]
pub struct Controller {
    gone: Arc<Gone>,
    graph: OnceLock<Arc<Graph>>,
}

/// The part of an owner that matters, as the API server tells it.
#[derive(Deserialize)]
struct Shell {
    #[serde(default)]
    metadata: ObjectMeta,
}

#[async_trait]
impl live::Controller for Controller {
    type Snapshot = Snapshot;

    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn watch(&self, watch: &mut Watch) {
        let graph = self.graph.get_or_init(|| Arc::new(Graph::new(&watch.caches(), self.gone.clone())));
        Graph::watch(graph, watch);
    }

    async fn observe(&self, client: &Client, _: &Caches, key: &Key) -> Result<Option<Snapshot>, ReadError> {
        let Some(graph) = self.graph.get() else { return Ok(None) };
        let Some(item) = graph.find(key) else { return Ok(None) };
        let mut owners = Vec::new();
        for reference in item.meta().owner_references.iter().flatten() {
            let standing = self.standing(client, graph, &item, reference).await?;
            owners.push(Owner { reference: reference.clone(), standing });
        }
        let needs_dependents = item.is_deleting_dependents()
            || item.is_orphaning()
            || owners.iter().any(|owner| owner.standing == Standing::Waiting);
        let dependents = if needs_dependents { graph.dependents_of(&item) } else { Vec::new() };
        Ok(Some(Snapshot { item, owners, dependents }))
    }

    fn plan(&self, snapshot: &Snapshot, _now: Timestamp) -> Plan {
        plan::plan(snapshot)
    }
}

impl Controller {
    async fn standing(
        &self,
        client: &Client,
        graph: &Graph,
        item: &Item,
        reference: &OwnerReference,
    ) -> Result<Standing, ReadError> {
        let Some((kin, key)) = graph.owner(item, reference) else { return Ok(Standing::Unknown) };
        if let Some(owner) = kin.get(&key).filter(|owner| owner.is(&reference.uid)) {
            return Ok(Standing::of(owner.meta()));
        }
        let identity = Identity::new(kin.names(), &key, &reference.uid);
        if self.gone.contains(&identity) {
            return Ok(Standing::Absent);
        }
        match ask(client, kin, &key).await? {
            Some(meta) if meta.uid.as_deref() == Some(&reference.uid) => return Ok(Standing::of(&meta)),
            _ => {}
        }
        let elsewhere = graph.is_in_another_namespace(kin, &key, &reference.uid);
        self.gone.insert(identity);
        Ok(if elsewhere { Standing::Misplaced } else { Standing::Absent })
    }
}

/// The metadata of the object as the API server has it now.
async fn ask(client: &Client, kin: &dyn Kin, key: &Key) -> Result<Option<ObjectMeta>, ReadError> {
    let what = || format!("{} {key}", kin.names().kind);
    let request = Request::get(path(&kin.names(), key, None))
        .header(http::header::ACCEPT, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(Vec::new())
        .map_err(|error| ReadError::of(what())(kube::Error::HttpError(error)))?;
    match client.request::<Shell>(request).await {
        Ok(shell) => Ok(Some(shell.metadata)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(ReadError::of(what())(error)),
    }
}
