//! Deployments on simulated nodes: the whole control plane at work, and no containers.

use crate::cluster::Cluster;
use crate::fan_out::Watchers;
use crate::report::{Goal, Report};
use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
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
    for replicas in [100, 300, 1000, 3000, 10_000] {
        let cluster = Cluster::up(program, &["--simulated-nodes", "10"])?;
        let stage = Stage::new(&cluster).await?;
        stage.settle().await?;
        let before = cluster.cpu()?;
        let create = stage.create("growth", replicas).await?;
        let used = cluster.cpu()? - before;
        let per_pod = 1000.0 / f64::from(replicas);
        report.figure(&format!("{replicas} replicas: created"), create, "s", Goal::None);
        report.figure(&format!("{replicas} replicas: CPU to create one"), used * per_pod, "ms", Goal::None);
        if replicas == 10_000 {
            report.figure(
                "10,000 replicas: resident memory, most",
                cluster.resident_peak()?,
                "MB",
                Goal::None,
            );
            report.figure("10,000 replicas: resident memory", cluster.resident()?, "MB", Goal::Below(120.0));
            let idle = cluster.idle_cpu().await?;
            report.figure("10,000 replicas: CPU while idle", idle, "%", Goal::Below(1.0));
            let began = Instant::now();
            let list = stage.pods.list(&ListParams::default()).await?;
            anyhow::ensure!(list.items.len() == 10_000, "{} pods listed", list.items.len());
            report.figure(
                "10,000 pods listed and decoded in one request",
                began.elapsed().as_secs_f64(),
                "s",
                Goal::None,
            );
            crowd(&cluster, &stage, list.items.first().context("no pods")?, report).await?;
        }
        let before = cluster.cpu()?;
        let roll = stage.roll("growth", "kubia:v2").await?;
        let used = cluster.cpu()? - before;
        report.figure(&format!("{replicas} replicas: rolled"), roll, "s", Goal::None);
        report.figure(&format!("{replicas} replicas: CPU to roll one"), used * per_pod, "ms", Goal::None);
    }
    Ok(())
}

/// A thousand watchers of ten thousand pods.
async fn crowd(cluster: &Cluster, stage: &Stage, pod: &Pod, report: &mut Report) -> Result<()> {
    let before = cluster.resident()?;
    let pods = "/api/v1/namespaces/default/pods";
    let watchers = Watchers::open(&stage.client, pods, &pod.name_any(), 1000, 20).await?;
    // MB of a thousand are kB of one.
    let each = cluster.resident()? - before;
    report.figure("10,000 pods, 1,000 watchers: resident memory of each", each, "kB", Goal::None);
    let [middle, most] = watchers.told().await?.figures();
    report.figure("10,000 pods, 1,000 watchers: write to its event, p50", middle, "ms", Goal::None);
    report.figure("10,000 pods, 1,000 watchers: write to its event, p99", most, "ms", Goal::None);
    Ok(())
}

struct Stage {
    client: Client,
    deployments: Api<Deployment>,
    pods: Api<Pod>,
}

impl Stage {
    async fn new(cluster: &Cluster) -> Result<Self> {
        let client = cluster.client().await?;
        let deployments = Api::default_namespaced(client.clone());
        Ok(Stage { pods: Api::default_namespaced(client.clone()), deployments, client })
    }

    /// Waits until the simulated nodes are there.
    async fn settle(&self) -> Result<()> {
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

    async fn create(&self, name: &str, replicas: i32) -> Result<f64> {
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

    async fn roll(&self, name: &str, image: &str) -> Result<f64> {
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
