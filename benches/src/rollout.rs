//! Deployments on simulated nodes: the whole control plane at work, and no containers.

use crate::cluster::Cluster;
use crate::report::{Goal, Report};
use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

/// No phase takes this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// Seconds each phase took.
struct Times {
    create: f64,
    roll: f64,
    undo: f64,
    gone: f64,
}

/// 1,000 replicas, as the goals have it.
pub(crate) async fn thousand(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &["--simulated-nodes", "10"])?;
    let stage = Stage::new(&cluster).await?;
    stage.settle().await?;
    let before = cluster.cpu()?;
    let times = stage.life("first", 1000).await?;
    let used = cluster.cpu()? - before;
    report.figure("1,000 replicas: created, all available", times.create, "s", Goal::Below(0.6));
    report.figure("1,000 replicas: rolled, 25 %/25 %", times.roll, "s", Goal::Below(1.0));
    report.figure("1,000 replicas: rolled back", times.undo, "s", Goal::Below(1.0));
    report.figure("1,000 replicas: scaled to 0, every pod gone", times.gone, "s", Goal::None);
    report.figure("1,000 replicas: CPU of the four", used, "s", Goal::Below(5.0));
    report.figure(
        "1,000 replicas: resident memory, most",
        cluster.resident_peak()?,
        "MB",
        Goal::Below(100.0),
    );
    let times = stage.life("second", 1000).await?;
    report.figure("1,000 replicas, second time: created", times.create, "s", Goal::Below(0.6));
    report.figure("1,000 replicas, second time: rolled", times.roll, "s", Goal::Below(1.0));
    Ok(())
}

/// The same at growing numbers, each on a cluster of its own.
pub(crate) async fn growth(program: &Path, report: &mut Report) -> Result<()> {
    let mut costs = Vec::new();
    for replicas in [100, 300, 1000, 3000, 10_000] {
        let cluster = Cluster::up(program, &["--simulated-nodes", "10"])?;
        let stage = Stage::new(&cluster).await?;
        stage.settle().await?;
        let before = cluster.cpu()?;
        let create = stage.create("growth", replicas).await?;
        let created = cluster.cpu()? - before;
        let per_pod = 1000.0 / f64::from(replicas);
        report.figure(&format!("{replicas} replicas: created"), create, "s", Goal::None);
        report.figure(
            &format!("{replicas} replicas: CPU to create one"),
            created * per_pod,
            "ms",
            Goal::None,
        );
        let before = cluster.cpu()?;
        let roll = stage.roll("growth", "kubia:v2").await?;
        let rolled = cluster.cpu()? - before;
        report.figure(&format!("{replicas} replicas: rolled"), roll, "s", Goal::None);
        report.figure(&format!("{replicas} replicas: CPU to roll one"), rolled * per_pod, "ms", Goal::None);
        costs.push((created + rolled) * per_pod);
    }
    if let [_, _, thousand, _, most] = costs[..] {
        // More than that is no noise: a step that looks at every pod would make it ten.
        report.figure("CPU per pod, 10,000 against 1,000 replicas", most / thousand, "x", Goal::Below(1.3));
    }
    Ok(())
}

/// A cluster of simulated nodes, as its client sees it.
pub(crate) struct Stage {
    pub(crate) client: Client,
    deployments: Api<Deployment>,
    pub(crate) pods: Api<Pod>,
}

impl Stage {
    pub(crate) async fn new(cluster: &Cluster) -> Result<Self> {
        let client = cluster.client().await?;
        let deployments = Api::default_namespaced(client.clone());
        Ok(Stage { pods: Api::default_namespaced(client.clone()), deployments, client })
    }

    /// Waits until the simulated nodes are there.
    pub(crate) async fn settle(&self) -> Result<()> {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        while nodes.list_metadata(&ListParams::default()).await?.items.len() < 11 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    async fn life(&self, name: &str, replicas: i32) -> Result<Times> {
        let create = self.create(name, replicas).await?;
        let roll = self.roll(name, "kubia:v2").await?;
        let undo = self.roll(name, "kubia:v1").await?;
        let began = Instant::now();
        self.patch(name, json!({ "spec": { "replicas": 0 } })).await?;
        self.done(name, 0).await?;
        while !self.pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Times { create, roll, undo, gone: began.elapsed().as_secs_f64() })
    }

    /// Creates a Deployment; gives the seconds until all replicas are available.
    pub(crate) async fn create(&self, name: &str, replicas: i32) -> Result<f64> {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": {
                        "nodeSelector": { "type": "simulated" },
                        "containers": [{ "name": "nodejs", "image": "kubia:v1" }],
                    },
                },
            },
        }))?;
        let began = Instant::now();
        self.deployments.create(&PostParams::default(), &deployment).await?;
        self.done(name, replicas).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Rolls it to this image; gives the seconds until no other is left.
    pub(crate) async fn roll(&self, name: &str, image: &str) -> Result<f64> {
        let replicas = self.deployments.get(name).await?.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let began = Instant::now();
        let containers = json!([{ "name": "nodejs", "image": image }]);
        self.patch(name, json!({ "spec": { "template": { "spec": { "containers": containers } } } })).await?;
        self.done(name, replicas).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    async fn patch(&self, name: &str, patch: serde_json::Value) -> Result<()> {
        self.deployments.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// As `kubectl rollout status` judges it, and no old pod left.
    async fn done(&self, name: &str, replicas: i32) -> Result<()> {
        let is_done = |deployment: &Deployment| {
            let Some(status) = &deployment.status else { return false };
            let all = |count: Option<i32>| count.unwrap_or(0) == replicas;
            status.observed_generation >= deployment.metadata.generation
                && all(status.updated_replicas)
                && all(status.available_replicas)
                && all(status.replicas)
        };
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut changes = pin!(watcher(self.deployments.clone(), config).applied_objects());
        let follow = async {
            while let Some(deployment) = changes.try_next().await? {
                if is_done(&deployment) {
                    return Ok(());
                }
            }
            anyhow::bail!("the watch ended")
        };
        let result = tokio::time::timeout(PATIENCE, follow).await;
        result.with_context(|| format!("{name} not rolled out within {PATIENCE:?}"))?
    }
}
