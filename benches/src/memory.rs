//! Ten thousand pods: what they take, and what is given back after each of them was replaced.

use crate::cluster::Cluster;
use crate::fan_out::Watchers;
use crate::report::{Goal, Report};
use crate::rollout::Stage;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use std::path::Path;
use std::time::{Duration, Instant};

const PODS: i32 = 10_000;
/// After this long, what is not needed any more is to have been given back.
const REST: Duration = Duration::from_secs(30);

pub(crate) async fn run(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &["--simulated-nodes", "10"])?;
    let stage = Stage::new(&cluster).await?;
    stage.settle().await?;
    let mut memory = |name: &str, value, goal| {
        report.figure(&format!("10,000 pods: resident memory, {name}"), value, "MB", goal);
    };
    memory("none yet", cluster.resident()?, Goal::None);
    stage.create("memory", PODS).await?;
    memory("at once", cluster.resident()?, Goal::Below(120.0));
    memory("most until then", cluster.resident_peak()?, Goal::None);
    let idle = cluster.idle_cpu().await?;
    memory("idle", cluster.resident()?, Goal::Below(120.0));
    report.figure("10,000 pods: CPU while idle", idle, "%", Goal::Below(1.0));
    let began = Instant::now();
    let list = stage.pods.list(&ListParams::default()).await?;
    let took = began.elapsed().as_secs_f64();
    anyhow::ensure!(list.items.len() == PODS as usize, "{} pods listed", list.items.len());
    report.figure("10,000 pods listed and decoded in one request", took, "s", Goal::None);
    crowd(&cluster, &stage, list.items.first().context("no pods")?, report).await?;
    drop(list);
    stage.roll("memory", "kubia:v2").await?;
    let mut memory = |name: &str, value, goal| {
        report.figure(&format!("10,000 pods: resident memory, {name}"), value, "MB", goal);
    };
    memory("each replaced, at once", cluster.resident()?, Goal::None);
    memory("most until then", cluster.resident_peak()?, Goal::None);
    tokio::time::sleep(REST).await;
    memory("each replaced, 30 s later", cluster.resident()?, Goal::Below(120.0));
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
