//! The real node: start, idling, pods with containers, the demo.

use crate::cluster::Cluster;
use crate::report::{Goal, Report, percentile};
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Fresh clusters started.
const STARTS: usize = 5;
/// Pods created one after the other.
const PODS: usize = 50;

/// `up` to Ready, and what it takes when nothing happens.
pub(crate) async fn start(program: &Path, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    for n in 1..=STARTS {
        let cluster = Cluster::up(program, &[])?;
        times.push(cluster.up.as_secs_f64());
        if n == STARTS {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let idle = cluster.idle_cpu().await?;
            report.figure("idle: resident memory", cluster.resident()?, "MB", Goal::Below(40.0));
            report.figure("idle: CPU, of one processor", idle, "%", Goal::Below(1.0));
        }
    }
    report.figure(
        "`up -d` of a new cluster to node Ready, median of 5",
        percentile(&mut times, 50.0),
        "s",
        Goal::Below(0.3),
    );
    Ok(())
}

/// From the create request to the watch event that says Ready, image present, one pod at a time.
pub(crate) async fn pods(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &[])?;
    cluster.import_kubia()?;
    let api: Api<Pod> = Api::default_namespaced(cluster.client().await?);
    let mut times = Vec::new();
    for n in 0..PODS {
        let name = format!("bench-{n}");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "containers": [{ "name": "kubia", "image": "luksa/kubia:v1" }], "terminationGracePeriodSeconds": 0 },
        }))?;
        let began = Instant::now();
        let created = api.create(&PostParams::default(), &pod).await?;
        let version = created.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut changes = api.watch(&params, &version).await?.boxed();
        let ready = async {
            while let Some(change) = changes.try_next().await? {
                if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = change
                    && is_ready(&pod)
                {
                    return Ok::<_, kube::Error>(());
                }
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(30), ready)
            .await
            .context("a pod did not become ready")??;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
    }
    report.figure(
        "pod, image present: create to Ready, p50 of 50",
        percentile(&mut times, 50.0),
        "ms",
        Goal::Below(100.0),
    );
    report.figure("pod, image present: create to Ready, p99", percentile(&mut times, 99.0), "ms", Goal::None);
    Ok(())
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The demo: three replicas rolled to v2 and back under 600 requests a second.
pub(crate) fn demo(program: &Path, runs: u32, report: &mut Report) -> Result<()> {
    let (mut requests, mut failed) = (0.0, 0.0);
    let (mut update, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let output = Command::new(program).args(["demo", "-o", "json"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().with_context(|| {
            format!("the demo said nothing: {}", String::from_utf8_lossy(&output.stderr).trim())
        })?;
        let result: Value = serde_json::from_str(line)?;
        requests += result["requests"].as_f64().unwrap_or_default();
        failed += result["failed"].as_f64().unwrap_or(f64::NAN);
        update.push(result["seconds"]["update"].as_f64().unwrap_or(f64::NAN));
        p99.push(result["latencyMs"]["p99"].as_f64().unwrap_or(f64::NAN));
    }
    report.figure(&format!("demo, 600 requests/s, {runs} run(s): requests"), requests, "", Goal::None);
    report.figure("demo: failed requests (the goal is none)", failed, "", Goal::Below(1.0));
    report.figure(
        "demo: roll of 3 replicas with probe, median",
        percentile(&mut update, 50.0),
        "s",
        Goal::None,
    );
    report.figure(
        "demo: latency of requests, p99, median of runs",
        percentile(&mut p99, 50.0),
        "ms",
        Goal::None,
    );
    Ok(())
}
